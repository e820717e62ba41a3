// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {StakeVault} from "../src/StakeVault.sol";
import {FeeToken} from "./support/OddTokens.sol";
import {Test} from "./support/Test.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Laws of the vault for every amount and every time that fits; the test contract is owner and guardian.
/// @dev What holds after every sequence of calls is in `StakeVault.invariant.t.sol`.
contract StakeVaultFuzzTest is Test {
    address private constant ALICE = address(0xA11CE);
    address private constant BOB = address(0xB0B);

    IERC20 private _token;
    StakeVault private _vault;

    function setUp() public {
        vm.warp(START);
        // Without a fee, and with more tokens than fit.
        _token = new FeeToken(0);
        _vault = new StakeVault(_token, 1 days, address(this), address(this));
        _token.approve(address(_vault), type(uint256).max);
    }

    function testFuzz_stake_seconds_are_the_stake_times_the_seconds_it_was_there(
        uint96 amount,
        uint32 from,
        uint32 to
    )
        external
    {
        (uint256 start, uint256 end) = from < to ? (from, to) : (to, from);
        amount = uint96(_within(amount, 1, type(uint96).max));
        vm.warp(start);
        _vault.stakeFor(ALICE, amount);
        vm.warp(end);

        vm.assertEq(_vault.stakeSecondsOf(ALICE, end), amount * (end - start));
        vm.assertEq(_vault.totalStakeSeconds(end), amount * (end - start));
        vm.prank(ALICE);
        _vault.requestUnstake(amount);
        vm.assertEq(_vault.stakeSecondsOf(ALICE, end), amount * (end - start));
        vm.assertEq(_vault.totalStakeSeconds(end), amount * (end - start));
    }

    /// @dev Splitting a span at any point changes nothing: touching an account is free of effect on its history.
    function testFuzz_touching_an_account_does_not_change_its_stake_seconds(
        uint32 first,
        uint32 second
    )
        external
    {
        uint256 middle = START + _within(first, 0, 365 days);
        uint256 end = middle + _within(second, 0, 365 days);
        _vault.stakeFor(ALICE, 7 ether);
        vm.warp(middle);
        _vault.stakeFor(ALICE, 1 ether);
        vm.prank(ALICE);
        _vault.requestUnstake(1 ether);

        vm.assertEq(_vault.stakeSecondsOf(ALICE, end), 7 ether * (end - START));
    }

    function testFuzz_to_ask_for_stake_back_and_to_keep_it_after_all_changes_nothing(
        uint96 staked,
        uint96 asked,
        uint32 later
    )
        external
    {
        staked = uint96(_within(staked, 1, type(uint96).max));
        asked = uint96(_within(asked, 1, staked));
        _vault.stakeFor(ALICE, staked);
        uint256 end = START + _within(later, 1, 365 days);
        vm.warp(START + 1);
        vm.prank(ALICE);
        _vault.requestUnstake(asked);
        vm.prank(ALICE);
        _vault.cancelUnstake(asked);

        (uint96 pending, uint64 availableAt) = _vault.pendingOf(ALICE);
        vm.assertEq(pending, 0);
        vm.assertEq(availableAt, START + 1 + _vault.cooldown());
        vm.assertEq(_vault.stakedOf(ALICE), staked);
        vm.assertEq(_vault.totalStaked(), staked);
        vm.assertEq(_vault.stakeSecondsOf(ALICE, end), staked * (end - START));
        vm.assertEq(_vault.totalStakeSeconds(end), staked * (end - START));
    }

    function testFuzz_the_total_is_the_sum_over_the_accounts_however_far_ahead_it_is_read(
        uint96[4] calldata amounts,
        uint16[4] calldata pauses,
        uint128 ahead
    )
        external
    {
        uint256 time = START;
        for (uint256 i = 0; i < amounts.length; ++i) {
            address account = i % 2 == 0 ? ALICE : BOB;
            uint96 amount = uint96(_within(amounts[i], 2, type(uint96).max / 4));
            _vault.stakeFor(account, amount);
            time += pauses[i];
            vm.warp(time);
            vm.prank(account);
            _vault.requestUnstake(amount / 2);
        }

        uint256 end = time + ahead;
        vm.assertEq(
            _vault.totalStakeSeconds(end), _vault.stakeSecondsOf(ALICE, end) + _vault.stakeSecondsOf(BOB, end)
        );
    }

    function testFuzz_no_request_no_setting_and_no_cancelling_shortens_a_cooldown(uint32[8] calldata seeds)
        external
    {
        uint256 time = START;
        uint256 earliest = 0;
        uint256 waiting = 0;
        _vault.stakeFor(ALICE, 100);
        for (uint256 i = 0; i < seeds.length; ++i) {
            uint32 cooldown = uint32(_within(seeds[i], 1, 5 days));
            _vault.setCooldown(cooldown);
            vm.prank(ALICE);
            _vault.requestUnstake(2);
            earliest = earliest > time + cooldown ? earliest : time + cooldown;
            vm.prank(ALICE);
            _vault.cancelUnstake(seeds[i] % 3 == 0 ? uint96(waiting + 2) : 1);
            waiting = seeds[i] % 3 == 0 ? 0 : waiting + 1;
            time += seeds[i] % 7 hours;
            vm.warp(time);
        }

        (uint96 amount, uint64 availableAt) = _vault.pendingOf(ALICE);
        vm.assertEq(amount, waiting);
        vm.assertEq(availableAt, earliest);
    }

    function testFuzz_everybody_can_leave_at_any_time_whatever_owner_and_guardian_do(
        uint96 staked,
        uint96 left,
        uint32 cooldown,
        uint32 time
    )
        external
    {
        staked = uint96(_within(staked, 2, type(uint96).max - 1));
        left = uint96(_within(left, 1, staked - 1));
        cooldown = uint32(_within(cooldown, 1, 60 days));
        vm.warp(time);
        _vault.stakeFor(ALICE, staked);
        _vault.stakeFor(BOB, 1);
        _vault.setCooldown(cooldown);
        vm.prank(ALICE);
        _vault.requestUnstake(staked - left);
        _vault.setPaused(true);
        _vault.setCooldown(60 days);
        _vault.renounceOwnership();
        vm.warp(uint256(time) + cooldown);
        vm.prank(ALICE);
        _vault.withdraw();
        vm.assertEq(_token.balanceOf(ALICE), staked - left);

        vm.prank(ALICE);
        _vault.requestUnstake(left);
        vm.warp(uint256(time) + cooldown + 60 days);
        vm.prank(ALICE);
        _vault.withdraw();

        vm.assertEq(_token.balanceOf(ALICE), staked);
        vm.assertEq(_token.balanceOf(address(_vault)), 1);
        vm.assertEq(_vault.stakedOf(BOB), 1);
    }
}
