// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DevnetDollar} from "../src/DevnetDollar.sol";
import {StakeVault} from "../src/StakeVault.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {VaultTest} from "./support/VaultTest.sol";
import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title What the owner and the guardian can do, and what they cannot.
contract StakeVaultRolesTest is VaultTest {
    address private constant SAFE = address(0x5AFE);

    function test_the_guardian_pauses_new_stake_and_takes_it_again() external {
        vm.expectEmit(address(vault));
        emit IStakeVault.PausedSet(true);
        _setPaused(true);
        vm.assertTrue(vault.paused(), "paused");

        vm.expectEmit(address(vault));
        emit IStakeVault.PausedSet(false);
        _setPaused(false);
        vm.assertFalse(vault.paused(), "paused");

        _stake(alice, 40 ether);
        vm.assertEq(vault.stakedOf(alice), 40 ether);
    }

    function test_a_pause_refuses_every_kind_of_new_stake() external {
        _stake(alice, 40 ether);
        _setPaused(true);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.StakingPaused.selector));
        _stake(alice, 1);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.StakingPaused.selector));
        _stakeFor(alice, BOB, 1);

        // The permit is none, and the allowance is there.
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.StakingPaused.selector));
        vm.prank(alice);
        vault.stakeWithPermit(1, START, 27, bytes32(0), bytes32(0));
    }

    function test_a_pause_stops_nobody_from_leaving_or_staying() external {
        _stake(alice, 40 ether);
        _stake(BOB, 40 ether);
        _setPaused(true);
        _request(alice, 30 ether);
        _cancel(alice, 10 ether);
        _request(BOB, 40 ether);
        vm.warp(START + COOLDOWN);
        _withdraw(alice);
        _withdrawTo(BOB, SAFE);

        vm.assertEq(token.balanceOf(alice), 980 ether);
        vm.assertEq(token.balanceOf(SAFE), 40 ether);
        vm.assertEq(vault.stakedOf(alice), 20 ether);
        vm.assertEq(vault.totalStaked(), 20 ether);
        vm.assertEq(vault.totalStakeSeconds(START + COOLDOWN), uint256(COOLDOWN) * 20 ether);
    }

    function testFuzz_only_the_guardian_pauses(address caller) external {
        if (caller == GUARDIAN) return;

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NotGuardian.selector, caller, GUARDIAN));
        vm.prank(caller);
        vault.setPaused(true);
    }

    function test_the_owner_names_another_guardian_and_the_old_one_is_none() external {
        vm.expectEmit(address(vault));
        emit IStakeVault.GuardianSet(BOB);
        vm.prank(OWNER);
        vault.setGuardian(BOB);
        vm.assertEq(vault.guardian(), BOB);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NotGuardian.selector, GUARDIAN, BOB));
        _setPaused(true);

        vm.prank(BOB);
        vault.setPaused(true);
        vm.assertTrue(vault.paused(), "paused");
    }

    function testFuzz_only_the_owner_names_the_guardian(address caller) external {
        if (caller == OWNER) return;

        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, caller));
        vm.prank(caller);
        vault.setGuardian(caller);
    }

    function test_nobody_is_not_a_guardian() external {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        vm.prank(OWNER);
        vault.setGuardian(address(0));
    }

    function test_the_owner_sets_the_cooldown_of_later_requests() external {
        vm.expectEmit(address(vault));
        emit IStakeVault.CooldownSet(2 days);
        _setCooldown(2 days);
        _stake(alice, 40 ether);
        _request(alice, 40 ether);

        vm.assertEq(vault.cooldown(), 2 days);
        _assertPending(alice, 40 ether, START + 2 days);
    }

    function test_a_longer_cooldown_does_not_touch_a_running_one() external {
        _stake(alice, 40 ether);
        _request(alice, 40 ether);
        _setCooldown(30 days);
        vm.warp(START + COOLDOWN);
        _withdraw(alice);

        vm.assertEq(token.balanceOf(alice), 1000 ether);
    }

    function test_a_shorter_cooldown_does_not_touch_a_running_one() external {
        _stake(alice, 40 ether);
        _request(alice, 40 ether - 1);
        _setCooldown(1);
        _request(alice, 1);
        vm.warp(START + COOLDOWN - 1);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.CooldownRunning.selector, alice, START + COOLDOWN));
        _withdraw(alice);
    }

    function test_a_setting_leaves_what_is_deposited_and_requested_as_it_is() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        _setCooldown(60 days);
        _setPaused(true);

        vm.assertEq(vault.totalStaked(), 30 ether);
        vm.assertEq(vault.totalPending(), 10 ether);
        vm.assertEq(vault.cooldown(), 60 days);
    }

    function test_the_longest_and_the_shortest_cooldown_can_be_set() external {
        _setCooldown(60 days);
        vm.assertEq(vault.cooldown(), 60 days);
        _setCooldown(1);
        vm.assertEq(vault.cooldown(), 1);
        vm.assertEq(vault.MAX_COOLDOWN(), 60 days);
    }

    function test_a_cooldown_beyond_the_bound_is_refused() external {
        uint32 max = vault.MAX_COOLDOWN();

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.BadCooldown.selector, max + 1, max));
        _setCooldown(max + 1);
    }

    function test_no_cooldown_at_all_is_refused() external {
        uint32 max = vault.MAX_COOLDOWN();

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.BadCooldown.selector, 0, max));
        _setCooldown(0);
    }

    function testFuzz_only_the_owner_sets_the_cooldown(address caller) external {
        if (caller == OWNER) return;

        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, caller));
        vm.prank(caller);
        vault.setCooldown(1);
    }

    function test_what_was_sent_past_stake_is_swept_and_nothing_else() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        _donate(3 ether);

        vm.expectEmit(address(vault));
        emit IStakeVault.Swept(address(token), SAFE, 3 ether);
        _sweep(token);

        vm.assertEq(token.balanceOf(SAFE), 3 ether);
        vm.assertEq(token.balanceOf(address(vault)), 40 ether);
        vm.assertEq(vault.totalStaked(), 30 ether);
        vm.assertEq(vault.totalPending(), 10 ether);
    }

    function test_stake_is_not_swept() external {
        _stake(alice, 40 ether);

        _expectNothingToSweep(40 ether, 40 ether);
        _sweep(token);
    }

    function test_pending_stake_is_not_swept_even_when_it_can_be_withdrawn() external {
        _stake(alice, 40 ether);
        _request(alice, 40 ether);
        vm.warp(START + COOLDOWN);

        _expectNothingToSweep(40 ether, 40 ether);
        _sweep(token);
    }

    function test_cancelled_and_requested_again_is_not_swept() external {
        _stake(alice, 40 ether);
        _request(alice, 30 ether);
        _cancel(alice, 20 ether);
        _request(alice, 5 ether);

        _expectNothingToSweep(40 ether, 40 ether);
        _sweep(token);
    }

    function test_what_others_have_is_not_swept_after_a_withdrawal() external {
        _stake(alice, 40 ether);
        _stake(BOB, 7 ether);
        _request(alice, 40 ether);
        vm.warp(START + COOLDOWN);
        _withdraw(alice);

        _expectNothingToSweep(7 ether, 7 ether);
        _sweep(token);
    }

    function test_an_empty_vault_has_nothing_to_sweep() external {
        _expectNothingToSweep(0, 0);
        _sweep(token);
    }

    function test_nothing_is_swept_twice() external {
        _stake(alice, 40 ether);
        _donate(3 ether);
        _sweep(token);

        _expectNothingToSweep(40 ether, 40 ether);
        _sweep(token);
    }

    function test_a_token_that_nobody_staked_is_swept_wholly() external {
        DevnetDollar dollar = new DevnetDollar();
        dollar.mint(address(vault), 1e6);
        _stake(alice, 40 ether);

        vm.expectEmit(address(vault));
        emit IStakeVault.Swept(address(dollar), SAFE, 1e6);
        _sweep(dollar);

        vm.assertEq(dollar.balanceOf(SAFE), 1e6);
        vm.assertEq(token.balanceOf(address(vault)), 40 ether);
    }

    function test_a_token_that_is_not_there_is_not_swept() external {
        DevnetDollar dollar = new DevnetDollar();
        _stake(alice, 40 ether);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingToSweep.selector, address(dollar), 0, 0));
        _sweep(dollar);
    }

    function test_nothing_is_swept_to_nobody() external {
        _donate(3 ether);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        vm.prank(OWNER);
        vault.sweep(token, address(0));
    }

    function testFuzz_only_the_owner_sweeps(address caller) external {
        if (caller == OWNER) return;
        _donate(3 ether);

        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, caller));
        vm.prank(caller);
        vault.sweep(token, caller);
    }

    function test_a_new_owner_has_to_accept() external {
        vm.prank(OWNER);
        vault.transferOwnership(alice);
        vm.assertEq(vault.owner(), OWNER);

        vm.prank(alice);
        vault.acceptOwnership();
        vm.assertEq(vault.owner(), alice);
    }

    function test_a_vault_starts_empty_with_what_it_was_given() external {
        vm.expectEmit();
        emit IStakeVault.CooldownSet(COOLDOWN);
        vm.expectEmit();
        emit IStakeVault.GuardianSet(GUARDIAN);
        StakeVault fresh = new StakeVault(token, COOLDOWN, OWNER, GUARDIAN);

        vm.assertEq(address(fresh.token()), address(token));
        vm.assertEq(fresh.cooldown(), COOLDOWN);
        vm.assertEq(fresh.owner(), OWNER);
        vm.assertEq(fresh.guardian(), GUARDIAN);
        vm.assertFalse(fresh.paused(), "paused");
        vm.assertEq(fresh.totalStaked() + fresh.totalPending() + fresh.totalStakeSeconds(START), 0);
    }

    function test_a_vault_without_a_token_is_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        new StakeVault(IERC20(address(0)), COOLDOWN, OWNER, GUARDIAN);
    }

    function test_a_vault_without_an_owner_is_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0)));
        new StakeVault(token, COOLDOWN, address(0), GUARDIAN);
    }

    function test_a_vault_without_a_guardian_is_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        new StakeVault(token, COOLDOWN, OWNER, address(0));
    }

    function test_a_vault_whose_cooldown_is_beyond_the_bound_is_not_deployed() external {
        uint32 max = vault.MAX_COOLDOWN();

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.BadCooldown.selector, max + 1, max));
        new StakeVault(token, max + 1, OWNER, GUARDIAN);
    }

    function test_a_vault_without_a_cooldown_is_not_deployed() external {
        uint32 max = vault.MAX_COOLDOWN();

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.BadCooldown.selector, 0, max));
        new StakeVault(token, 0, OWNER, GUARDIAN);
    }

    function _donate(uint256 amount) private {
        require(token.transfer(address(vault), amount));
    }

    function _sweep(IERC20 other) private {
        vm.prank(OWNER);
        vault.sweep(other, SAFE);
    }

    function _expectNothingToSweep(uint256 balance, uint256 owed) private {
        vm.expectRevert(
            abi.encodeWithSelector(IStakeVault.NothingToSweep.selector, address(token), balance, owed)
        );
    }
}
