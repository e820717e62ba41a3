// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {StakeVault} from "../src/StakeVault.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {CallingToken, FeeToken, SilentToken} from "./support/OddTokens.sol";
import {Test} from "./support/Test.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title Tokens that behave oddly do not break the vault's books; the test contract itself is the staker.
contract StakeVaultTokensTest is Test {
    function test_a_token_with_a_fee_stakes_what_arrives() external {
        FeeToken token = new FeeToken(100);
        StakeVault vault = _vault(token);

        vault.stake(10_000);

        vm.assertEq(vault.stakedOf(address(this)), 9900);
        vm.assertEq(token.balanceOf(address(vault)), 9900);
    }

    function test_a_token_that_keeps_everything_stakes_nothing() external {
        StakeVault vault = _vault(new FeeToken(10_000));

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        vault.stake(10_000);
    }

    function test_more_than_96_bits_do_not_fit_and_pending_counts() external {
        StakeVault vault = _vault(new FeeToken(0));
        uint96 most = type(uint96).max;
        vault.stake(most - 2);
        vault.requestUnstake(most - 5);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.VaultFull.selector, 3, 2));
        vault.stake(3);

        vault.stake(2);
        vm.assertEq(vault.totalStaked(), 5);
    }

    function test_stake_seconds_of_the_largest_stake_fit_until_the_clock_ends() external {
        vm.warp(0);
        StakeVault vault = _vault(new FeeToken(0));
        vault.stake(type(uint96).max);
        vm.warp(type(uint32).max);
        vault.requestUnstake(type(uint96).max);

        uint256 expected = uint256(type(uint96).max) * type(uint32).max;
        vm.assertEq(vault.stakeSecondsOf(address(this), type(uint32).max), expected);
    }

    function test_a_token_that_returns_nothing_can_be_staked_and_withdrawn() external {
        SilentToken token = new SilentToken();
        StakeVault vault = new StakeVault(IERC20(address(token)), 0, address(this));

        vault.stake(100);
        vault.requestUnstake(100);
        vault.withdraw();

        vm.assertEq(token.balanceOf(address(this)), 1e30);
    }

    function test_a_token_that_calls_back_cannot_stake_twice_for_one_deposit() external {
        CallingToken token = new CallingToken();
        StakeVault vault = _vault(token);
        token.callNext(address(vault), abi.encodeCall(IStakeVault.stake, (1)));

        vm.expectRevert(
            abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
        );
        vault.stake(10);
    }

    function test_a_token_that_calls_back_cannot_withdraw_twice() external {
        CallingToken token = new CallingToken();
        StakeVault vault = _vault(token);
        vault.stake(10);
        vault.requestUnstake(10);
        token.callNext(address(this), abi.encodeCall(this.withdrawFrom, (vault)));

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingPending.selector, address(this)));
        vault.withdraw();
    }

    function withdrawFrom(StakeVault vault) external {
        vault.withdraw();
    }

    function _vault(IERC20 token) private returns (StakeVault vault) {
        vault = new StakeVault(token, 0, address(this));
        token.approve(address(vault), type(uint256).max);
    }
}
