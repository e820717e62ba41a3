// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {VaultTest} from "./support/VaultTest.sol";

/// @title Staking, leaving, coming back and the cooldown, one behaviour a test.
contract StakeVaultTest is VaultTest {
    function test_a_stake_moves_the_tokens_and_counts_them() external {
        _stake(alice, 40 ether);

        vm.assertEq(vault.stakedOf(alice), 40 ether);
        vm.assertEq(vault.totalStaked(), 40 ether);
        vm.assertEq(token.balanceOf(address(vault)), 40 ether);
        vm.assertEq(token.balanceOf(alice), 960 ether);
    }

    function test_a_second_stake_adds_and_its_event_says_the_result() external {
        _stake(alice, 40 ether);

        vm.expectEmit(address(vault));
        emit IStakeVault.Staked(alice, 2 ether, 42 ether);
        _stake(alice, 2 ether);

        vm.assertEq(vault.stakedOf(alice), 42 ether);
    }

    function test_a_stake_of_nothing_is_refused() external {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        _stake(alice, 0);
    }

    function test_a_stake_for_another_is_paid_by_the_caller_and_belongs_to_the_other() external {
        _stake(BOB, 1 ether);

        vm.expectEmit(address(vault));
        emit IStakeVault.Staked(BOB, 40 ether, 41 ether);
        _stakeFor(alice, BOB, 40 ether);

        vm.assertEq(token.balanceOf(alice), 960 ether);
        vm.assertEq(token.balanceOf(BOB), 999 ether);
        vm.assertEq(vault.stakedOf(alice), 0);
        vm.assertEq(vault.stakedOf(BOB), 41 ether);
    }

    function test_who_staked_for_another_cannot_take_it_back() external {
        _stakeFor(alice, BOB, 40 ether);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientStake.selector, alice, 1, 0));
        _request(alice, 1);
    }

    function test_a_stake_for_another_leaves_the_clock_of_what_the_other_requested() external {
        _stake(BOB, 10 ether);
        _request(BOB, 10 ether);
        vm.warp(START + 1 hours);
        _stakeFor(alice, BOB, 40 ether);

        _assertPending(BOB, 10 ether, START + COOLDOWN);
    }

    function test_a_stake_for_nobody_is_refused() external {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        _stakeFor(alice, address(0), 40 ether);
    }

    function test_a_stake_of_nothing_for_another_is_refused() external {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        _stakeFor(alice, BOB, 0);
    }

    function test_a_request_leaves_the_score_at_once_and_waits_for_the_cooldown() external {
        _stake(alice, 40 ether);

        vm.expectEmit(address(vault));
        emit IStakeVault.UnstakeRequested(alice, 10 ether, 30 ether, 10 ether, START + COOLDOWN);
        _request(alice, 10 ether);

        vm.assertEq(vault.stakedOf(alice), 30 ether);
        _assertPending(alice, 10 ether, START + COOLDOWN);
        vm.assertEq(vault.totalStaked(), 30 ether);
        vm.assertEq(vault.totalPending(), 10 ether);
    }

    function test_a_second_request_adds_and_restarts_the_clock() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + 1 hours);

        vm.expectEmit(address(vault));
        emit IStakeVault.UnstakeRequested(alice, 5 ether, 25 ether, 15 ether, START + 1 hours + COOLDOWN);
        _request(alice, 5 ether);

        _assertPending(alice, 15 ether, START + 1 hours + COOLDOWN);
    }

    function test_a_request_for_nothing_is_refused() external {
        _stake(alice, 40 ether);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        _request(alice, 0);
    }

    function test_a_request_for_more_than_is_staked_is_refused() external {
        _stake(alice, 40 ether);

        vm.expectRevert(
            abi.encodeWithSelector(IStakeVault.InsufficientStake.selector, alice, 40 ether + 1, 40 ether)
        );
        _request(alice, 40 ether + 1);
    }

    function test_the_stake_of_one_is_not_the_other_ones_to_request() external {
        _stake(alice, 40 ether);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientStake.selector, BOB, 1, 0));
        _request(BOB, 1);
    }

    function test_a_part_that_is_cancelled_counts_again_and_the_rest_keeps_its_clock() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + 1 hours);

        vm.expectEmit(address(vault));
        emit IStakeVault.UnstakeCancelled(alice, 4 ether, 34 ether, 6 ether);
        _cancel(alice, 4 ether);

        vm.assertEq(vault.stakedOf(alice), 34 ether);
        vm.assertEq(vault.totalStaked(), 34 ether);
        vm.assertEq(vault.totalPending(), 6 ether);
        _assertPending(alice, 6 ether, START + COOLDOWN);
    }

    function test_the_rest_of_a_cancelled_request_is_paid_when_it_was_due() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN - 1);
        _cancel(alice, 4 ether);
        vm.warp(START + COOLDOWN);
        _withdraw(alice);

        vm.assertEq(token.balanceOf(alice), 966 ether);
        vm.assertEq(token.balanceOf(address(vault)), 34 ether);
    }

    function test_a_request_that_is_cancelled_wholly_leaves_nothing_pending() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);

        vm.expectEmit(address(vault));
        emit IStakeVault.UnstakeCancelled(alice, 10 ether, 40 ether, 0);
        _cancel(alice, 10 ether);

        vm.assertEq(vault.stakedOf(alice), 40 ether);
        vm.assertEq(vault.totalPending(), 0);
        _assertPending(alice, 0, START + COOLDOWN);
    }

    function test_what_was_cancelled_is_not_withdrawn() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        _cancel(alice, 10 ether);
        vm.warp(START + COOLDOWN);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingPending.selector, alice));
        _withdraw(alice);
    }

    function test_a_request_after_a_cancelled_one_waits_anew() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        _cancel(alice, 10 ether);
        vm.warp(START + 1 hours);
        _request(alice, 10 ether);

        _assertPending(alice, 10 ether, START + 1 hours + COOLDOWN);
    }

    function test_who_cancels_all_and_asks_anew_after_the_cooldown_became_shorter_comes_out_no_earlier()
        external
    {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.prank(OWNER);
        vault.setCooldown(1);
        _cancel(alice, 10 ether);
        _assertPending(alice, 0, START + COOLDOWN);
        _request(alice, 10 ether);

        _assertPending(alice, 10 ether, START + COOLDOWN);
    }

    function test_a_request_can_be_cancelled_when_its_cooldown_is_over() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN + 1);
        _cancel(alice, 10 ether);

        vm.assertEq(vault.stakedOf(alice), 40 ether);
    }

    function test_no_more_than_is_pending_is_cancelled() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);

        vm.expectRevert(
            abi.encodeWithSelector(IStakeVault.InsufficientPending.selector, alice, 10 ether + 1, 10 ether)
        );
        _cancel(alice, 10 ether + 1);
    }

    function test_the_request_of_one_is_not_the_other_ones_to_cancel() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientPending.selector, BOB, 1, 0));
        _cancel(BOB, 1);
    }

    function test_to_cancel_nothing_is_refused() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        _cancel(alice, 0);
    }

    function test_a_withdrawal_pays_what_was_requested() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN);

        vm.expectEmit(address(vault));
        emit IStakeVault.Withdrawn(alice, alice, 10 ether, 0);
        _withdraw(alice);

        vm.assertEq(token.balanceOf(alice), 970 ether);
        _assertPending(alice, 0, 0);
        vm.assertEq(vault.totalPending(), 0);
        vm.assertEq(vault.totalStaked(), 30 ether);
    }

    function test_a_withdrawal_goes_where_its_owner_says() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN);

        vm.expectEmit(address(vault));
        emit IStakeVault.Withdrawn(alice, address(0xC01D), 10 ether, 0);
        _withdrawTo(alice, address(0xC01D));

        vm.assertEq(token.balanceOf(address(0xC01D)), 10 ether);
        vm.assertEq(token.balanceOf(alice), 960 ether);
        _assertPending(alice, 0, 0);
        vm.assertEq(vault.totalPending(), 0);
    }

    function test_a_withdrawal_a_second_early_is_refused() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN - 1);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.CooldownRunning.selector, alice, START + COOLDOWN));
        _withdraw(alice);
    }

    function test_a_withdrawal_to_another_address_waits_as_long() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN - 1);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.CooldownRunning.selector, alice, START + COOLDOWN));
        _withdrawTo(alice, BOB);
    }

    function test_a_withdrawal_without_a_request_is_refused() external {
        _stake(alice, 40 ether);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingPending.selector, alice));
        _withdraw(alice);
    }

    function test_what_another_requested_is_not_withdrawn() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingPending.selector, BOB));
        _withdrawTo(BOB, BOB);
    }

    function test_a_withdrawal_to_nobody_is_refused() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        _withdrawTo(alice, address(0));
    }

    function test_a_withdrawal_to_the_vault_itself_is_refused() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.BadReceiver.selector, address(vault)));
        _withdrawTo(alice, address(vault));

        _withdrawTo(alice, alice);
        vm.assertEq(vault.totalPending(), 0);
    }

    function test_nothing_is_withdrawn_twice() external {
        _stake(alice, 40 ether);
        _stake(BOB, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN);
        _withdraw(alice);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingPending.selector, alice));
        _withdraw(alice);
    }
}
