// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {StakeVault} from "../src/StakeVault.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {VaultTest} from "./support/VaultTest.sol";
import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Staking, leaving and the cooldown, one behaviour a test.
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

    function test_a_request_leaves_the_score_at_once_and_waits_for_the_cooldown() external {
        _stake(alice, 40 ether);

        vm.expectEmit(address(vault));
        emit IStakeVault.UnstakeRequested(alice, 10 ether, 30 ether, 10 ether, START + COOLDOWN);
        _request(alice, 10 ether);

        (uint96 amount, uint64 availableAt) = vault.pendingOf(alice);
        vm.assertEq(vault.stakedOf(alice), 30 ether);
        vm.assertEq(amount, 10 ether);
        vm.assertEq(availableAt, START + COOLDOWN);
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

        (uint96 amount, uint64 availableAt) = vault.pendingOf(alice);
        vm.assertEq(amount, 15 ether);
        vm.assertEq(availableAt, START + 1 hours + COOLDOWN);
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

    function test_a_withdrawal_pays_what_was_requested() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN);

        vm.expectEmit(address(vault));
        emit IStakeVault.Withdrawn(alice, alice, 10 ether, 0);
        _withdraw(alice);

        (uint96 amount, uint64 availableAt) = vault.pendingOf(alice);
        vm.assertEq(token.balanceOf(alice), 970 ether);
        vm.assertEq(amount, 0);
        vm.assertEq(availableAt, 0);
        vm.assertEq(vault.totalPending(), 0);
        vm.assertEq(vault.totalStaked(), 30 ether);
    }

    function test_a_withdrawal_a_second_early_is_refused() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN - 1);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.CooldownRunning.selector, alice, START + COOLDOWN));
        _withdraw(alice);
    }

    function test_a_withdrawal_without_a_request_is_refused() external {
        _stake(alice, 40 ether);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingPending.selector, alice));
        _withdraw(alice);
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

    function test_history_before_the_last_change_is_refused_not_guessed() external {
        _stake(alice, 40 ether);

        vm.expectRevert(
            abi.encodeWithSelector(IStakeVault.BeforeLastUpdate.selector, alice, START - 1, START)
        );
        vault.stakeSecondsOf(alice, START - 1);
    }

    function test_stake_seconds_run_from_the_stake_to_the_request() external {
        _stake(alice, 40 ether);
        vm.warp(START + 100);
        _request(alice, 40 ether);

        vm.assertEq(vault.stakeSecondsOf(alice, START + 100), 4000 ether);
        vm.assertEq(vault.stakeSecondsOf(alice, START + 999_999), 4000 ether);
    }

    function test_an_account_that_never_staked_has_no_stake_seconds() external view {
        vm.assertEq(vault.stakeSecondsOf(BOB, 0), 0);
        vm.assertEq(vault.stakeSecondsOf(BOB, START), 0);
    }

    function test_stakers_can_leave_when_the_32_bit_clock_has_wrapped() external {
        vm.warp(uint256(type(uint32).max) - 9);
        _stake(alice, 40 ether);
        vm.warp(uint256(type(uint32).max) + 11);
        _request(alice, 40 ether);
        vm.warp(uint256(type(uint32).max) + 11 + COOLDOWN);
        _withdraw(alice);

        vm.assertEq(token.balanceOf(alice), 1000 ether);
        vm.assertEq(vault.stakeSecondsOf(alice, 10), 20 * 40 ether);
    }

    function test_the_owner_sets_the_cooldown_of_later_requests() external {
        vm.expectEmit(address(vault));
        emit IStakeVault.CooldownSet(2 days);
        vm.prank(OWNER);
        vault.setCooldown(2 days);
        _stake(alice, 40 ether);
        _request(alice, 40 ether);

        (, uint64 availableAt) = vault.pendingOf(alice);
        vm.assertEq(vault.cooldown(), 2 days);
        vm.assertEq(availableAt, START + 2 days);
    }

    function test_a_longer_cooldown_does_not_touch_a_running_one() external {
        _stake(alice, 40 ether);
        _request(alice, 40 ether);
        vm.prank(OWNER);
        vault.setCooldown(30 days);
        vm.warp(START + COOLDOWN);
        _withdraw(alice);

        vm.assertEq(token.balanceOf(alice), 1000 ether);
    }

    function test_a_shorter_cooldown_does_not_touch_a_running_one() external {
        _stake(alice, 40 ether);
        _request(alice, 40 ether - 1);
        vm.prank(OWNER);
        vault.setCooldown(0);
        _request(alice, 1);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.CooldownRunning.selector, alice, START + COOLDOWN));
        _withdraw(alice);
    }

    function test_a_cooldown_beyond_the_bound_is_refused() external {
        uint32 max = vault.MAX_COOLDOWN();

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.CooldownTooLong.selector, max + 1, max));
        vm.prank(OWNER);
        vault.setCooldown(max + 1);
    }

    function testFuzz_only_the_owner_sets_the_cooldown(address caller) external {
        if (caller == OWNER) return;

        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, caller));
        vm.prank(caller);
        vault.setCooldown(0);
    }

    function test_a_new_owner_has_to_accept() external {
        vm.prank(OWNER);
        vault.transferOwnership(alice);
        vm.assertEq(vault.owner(), OWNER);

        vm.prank(alice);
        vault.acceptOwnership();
        vm.assertEq(vault.owner(), alice);
    }

    function test_a_vault_without_a_token_is_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        new StakeVault(IERC20(address(0)), COOLDOWN, OWNER);
    }

    function test_a_vault_without_an_owner_is_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0)));
        new StakeVault(token, COOLDOWN, address(0));
    }

    function test_a_vault_whose_cooldown_is_beyond_the_bound_is_not_deployed() external {
        uint32 max = vault.MAX_COOLDOWN();

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.CooldownTooLong.selector, max + 1, max));
        new StakeVault(token, max + 1, OWNER);
    }
}
