// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {VaultTest} from "./support/VaultTest.sol";

/// @title Stake-seconds, of one account and of all, and the ends of the clock.
contract StakeVaultTimeTest is VaultTest {
    /// @dev How the EVM's own overflow reads.
    bytes private constant OVERFLOW = abi.encodeWithSignature("Panic(uint256)", 0x11);

    function test_stake_seconds_run_from_the_stake_to_the_request() external {
        _stake(alice, 40 ether);
        vm.warp(START + 100);
        _request(alice, 40 ether);

        vm.assertEq(vault.stakeSecondsOf(alice, START + 100), 4000 ether);
        vm.assertEq(vault.stakeSecondsOf(alice, START + 999_999), 4000 ether);
    }

    function test_stake_seconds_go_on_from_the_second_of_the_cancelling() external {
        _stake(alice, 40 ether);
        vm.warp(START + 100);
        _request(alice, 40 ether);
        vm.warp(START + 150);
        _cancel(alice, 10 ether);

        vm.assertEq(vault.stakeSecondsOf(alice, START + 150), 4000 ether);
        vm.assertEq(vault.stakeSecondsOf(alice, START + 250), 5000 ether);
        vm.assertEq(vault.totalStakeSeconds(START + 250), 5000 ether);
    }

    function test_stake_seconds_of_a_stake_by_another_run_from_then_on() external {
        _stake(BOB, 1 ether);
        vm.warp(START + 100);
        _stakeFor(alice, BOB, 2 ether);

        vm.assertEq(vault.stakeSecondsOf(BOB, START + 100), 100 ether);
        vm.assertEq(vault.stakeSecondsOf(BOB, START + 200), 400 ether);
    }

    function test_a_withdrawal_and_a_setting_leave_stake_seconds_as_they_are() external {
        _stake(alice, 40 ether);
        _request(alice, 10 ether);
        vm.warp(START + COOLDOWN);
        _withdraw(alice);
        _setCooldown(2 days);
        _setPaused(true);

        vm.assertEq(vault.stakeSecondsOf(alice, START + COOLDOWN), uint256(COOLDOWN) * 30 ether);
        vm.assertEq(vault.totalStakeSeconds(START + COOLDOWN), uint256(COOLDOWN) * 30 ether);
    }

    function test_an_account_that_never_staked_has_no_stake_seconds() external view {
        vm.assertEq(vault.stakeSecondsOf(BOB, 0), 0);
        vm.assertEq(vault.stakeSecondsOf(BOB, START), 0);
    }

    function test_history_before_the_last_change_is_refused_not_guessed() external {
        _stake(alice, 40 ether);

        vm.expectRevert(
            abi.encodeWithSelector(IStakeVault.BeforeLastUpdate.selector, alice, START - 1, START)
        );
        vault.stakeSecondsOf(alice, START - 1);
    }

    function test_the_total_is_the_sum_over_the_accounts() external {
        _stake(alice, 40 ether);
        vm.warp(START + 100);
        _stake(BOB, 7 ether);
        _request(alice, 40 ether);
        vm.warp(START + 300);

        vm.assertEq(vault.totalStakeSeconds(START + 300), 4000 ether + 1400 ether);
        vm.assertEq(vault.totalStakeSeconds(START + 400), 4000 ether + 2100 ether);
    }

    function test_the_total_of_a_moment_before_now_is_refused_not_guessed() external {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.BeforeNow.selector, START - 1, START));
        vault.totalStakeSeconds(START - 1);
    }

    /// @dev Up to now the total fits 128 bits; a reading of far ahead need not, and is not cut off.
    function test_the_total_is_the_sum_however_far_ahead_it_is_read() external {
        _stake(alice, 40 ether);
        vm.warp(START + 100);
        _stake(BOB, 7 ether);
        uint256 end = uint256(1) << 150;

        vm.assertEq(
            vault.totalStakeSeconds(end), vault.stakeSecondsOf(alice, end) + vault.stakeSecondsOf(BOB, end)
        );
        vm.assertEq(vault.totalStakeSeconds(end), 47 ether * (end - START - 100) + 4000 ether);
    }

    function test_a_reading_too_far_ahead_to_be_counted_fails_and_does_not_wrap() external {
        _stake(alice, 40 ether);

        vm.expectRevert(OVERFLOW);
        vault.stakeSecondsOf(alice, type(uint256).max);

        vm.expectRevert(OVERFLOW);
        vault.totalStakeSeconds(type(uint256).max);
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
}
