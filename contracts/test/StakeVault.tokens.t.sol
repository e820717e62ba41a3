// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {StakeVault} from "../src/StakeVault.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {CallingToken, FeeToken, SilentToken} from "./support/OddTokens.sol";
import {RefusingToken} from "./support/RefusingToken.sol";
import {Test} from "./support/Test.sol";
import {TwinToken} from "./support/TwinToken.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title Tokens that behave oddly do not break the vault's books; the test contract is staker, owner and guardian.
contract StakeVaultTokensTest is Test {
    address private constant OTHER = address(0x07);

    /// @dev What the test contract does when the token calls it.
    enum Call {
        Stake,
        StakeFor,
        StakeWithPermit,
        Withdraw,
        WithdrawTo,
        Sweep,
        Request,
        Cancel
    }

    function setUp() public {
        vm.warp(START);
    }

    function test_a_token_with_a_fee_stakes_what_arrives() external {
        FeeToken token = new FeeToken(100);
        StakeVault vault = _vault(token);

        vault.stake(10_000);
        vault.stakeFor(OTHER, 20_000);

        vm.assertEq(vault.stakedOf(address(this)), 9900);
        vm.assertEq(vault.stakedOf(OTHER), 19_800);
        vm.assertEq(vault.totalStaked(), 29_700);
        vm.assertEq(token.balanceOf(address(vault)), 29_700);
    }

    function test_a_token_with_a_fee_pays_out_what_arrived_less_its_fee() external {
        FeeToken token = new FeeToken(100);
        StakeVault vault = _vault(token);
        vault.stake(10_000);
        vault.stakeFor(OTHER, 20_000);
        vault.requestUnstake(9900);
        vm.warp(START + 1);
        vault.withdrawTo(address(0xC01D));

        vm.assertEq(token.balanceOf(address(0xC01D)), 9801);
        vm.assertEq(token.balanceOf(address(vault)), vault.totalStaked());
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

        vm.expectRevert(
            abi.encodeWithSelector(IStakeVault.VaultFull.selector, uint256(most) + 1, uint256(most))
        );
        vault.stake(3);

        vault.stakeFor(OTHER, 2);
        vm.assertEq(vault.totalStaked(), 5);
    }

    function test_all_that_fits_can_be_cancelled_into_one_account() external {
        StakeVault vault = _vault(new FeeToken(0));
        vault.stake(type(uint96).max);
        vault.requestUnstake(type(uint96).max);
        vault.cancelUnstake(type(uint96).max);

        vm.assertEq(vault.stakedOf(address(this)), type(uint96).max);
        vm.assertEq(vault.totalStaked(), type(uint96).max);
    }

    function test_stake_seconds_of_the_largest_stake_fit_until_the_clock_ends() external {
        vm.warp(0);
        StakeVault vault = _vault(new FeeToken(0));
        vault.stake(type(uint96).max);
        vm.warp(type(uint32).max);
        vault.requestUnstake(type(uint96).max);

        uint256 expected = uint256(type(uint96).max) * type(uint32).max;
        vm.assertEq(vault.stakeSecondsOf(address(this), type(uint32).max), expected);
        vm.assertEq(vault.totalStakeSeconds(type(uint32).max), expected);
    }

    function test_all_that_was_ever_staked_fits_104_bits_and_then_everybody_can_still_leave() external {
        (StakeVault vault, uint256 time) = _nearlyFull();
        uint256 most = type(uint104).max;

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.VaultFull.selector, most + 1, most));
        vault.stake(256);

        vault.stakeFor(OTHER, 100);
        vault.stake(155);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.VaultFull.selector, most + 1, most));
        vault.stake(1);

        vault.setPaused(true);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.StakingPaused.selector));
        vault.stake(1);
        vault.setPaused(false);
        vm.assertEq(vault.totalStaked(), 255);

        vault.requestUnstake(155);
        vault.cancelUnstake(155);
        vault.requestUnstake(100);
        vm.prank(OTHER);
        vault.requestUnstake(100);
        vm.warp(time + 1);
        vault.withdraw();
        vm.prank(OTHER);
        vault.withdrawTo(address(this));

        vm.assertEq(vault.token().balanceOf(address(this)), 1e30 - 55);
        vm.assertEq(vault.token().balanceOf(address(vault)), 55);
        vm.assertEq(vault.totalStaked(), 55);
        vm.assertEq(vault.totalPending(), 0);
        vm.assertEq(vault.cooldown(), 1);
    }

    /// @dev The moments of both totals have wrapped many times by then.
    function test_the_total_of_stake_seconds_is_right_when_the_vault_has_seen_all_it_can() external {
        (StakeVault vault, uint256 time) = _nearlyFull();
        uint256 expected = 256 * uint256(type(uint96).max);
        vm.assertEq(vault.totalStakeSeconds(time), expected);
        vm.assertEq(vault.stakeSecondsOf(address(this), time), expected);

        vault.stake(255);

        vm.assertEq(vault.totalStakeSeconds(time + 10), expected + 2550);
    }

    function test_a_token_that_returns_nothing_can_be_staked_withdrawn_and_swept() external {
        SilentToken token = new SilentToken();
        // It knows no allowances either.
        StakeVault vault = new StakeVault(IERC20(address(token)), 1, address(this), address(this));

        vault.stake(100);
        token.transfer(address(vault), 7);
        vault.requestUnstake(100);
        vm.warp(START + 1);
        vault.sweep(IERC20(address(token)), OTHER);
        vault.withdraw();

        vm.assertEq(token.balanceOf(address(this)), 1e30 - 7);
        vm.assertEq(token.balanceOf(OTHER), 7);
    }

    function test_a_token_that_answers_false_stakes_pays_and_sweeps_nothing() external {
        RefusingToken token = new RefusingToken();
        StakeVault vault = _vault(token);
        vault.stake(100);
        require(token.transfer(address(vault), 7));
        vault.requestUnstake(40);
        vm.warp(START + 1);
        token.setSilent(true);
        bytes memory failed =
            abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(token));

        vm.expectRevert(failed);
        vault.stake(1);
        vm.expectRevert(failed);
        vault.withdraw();
        vm.expectRevert(failed);
        vault.sweep(token, OTHER);

        vm.assertEq(vault.totalStaked(), 60);
        vm.assertEq(vault.totalPending(), 40);
    }

    function test_what_a_token_refuses_to_pay_stays_pending_and_is_paid_later() external {
        RefusingToken token = new RefusingToken();
        StakeVault vault = _vault(token);
        vault.stake(100);
        vault.requestUnstake(40);
        vm.warp(START + 1);
        token.setBlocked(address(vault), true);

        vm.expectRevert(abi.encodeWithSelector(RefusingToken.Refused.selector, address(vault)));
        vault.withdraw();
        vm.expectRevert(abi.encodeWithSelector(RefusingToken.Refused.selector, address(vault)));
        vault.stake(1);

        vm.assertEq(vault.totalPending(), 40);
        token.setBlocked(address(vault), false);
        vault.withdraw();
        vm.assertEq(token.balanceOf(address(this)), 1e30 - 60);
    }

    function test_whom_the_token_blocks_is_paid_at_another_address_and_stops_nobody_else() external {
        RefusingToken token = new RefusingToken();
        StakeVault vault = _vault(token);
        vault.stake(60);
        vault.stakeFor(OTHER, 40);
        vault.requestUnstake(60);
        vm.prank(OTHER);
        vault.requestUnstake(40);
        vm.warp(START + 1);
        token.setBlocked(OTHER, true);

        vm.expectRevert(abi.encodeWithSelector(RefusingToken.Refused.selector, OTHER));
        vm.prank(OTHER);
        vault.withdraw();

        vault.withdraw();
        vm.prank(OTHER);
        vault.withdrawTo(address(0xC01D));
        vm.assertEq(token.balanceOf(address(0xC01D)), 40);
        vm.assertEq(vault.totalPending(), 0);
    }

    function test_a_token_without_permits_is_staked_by_its_allowance() external {
        StakeVault vault = _vault(new FeeToken(0));

        vault.stakeWithPermit(100, START, 27, bytes32(0), bytes32(0));

        vm.assertEq(vault.stakedOf(address(this)), 100);
    }

    /// @dev Each of the six that move tokens, from within each of the six.
    function test_a_token_that_calls_back_enters_nothing_that_moves_tokens() external {
        (CallingToken token, StakeVault vault) = _calling();

        for (uint256 outer = 0; outer <= uint256(Call.Sweep); ++outer) {
            for (uint256 inner = 0; inner <= uint256(Call.Sweep); ++inner) {
                token.callNext(address(this), abi.encodeCall(this.call, (vault, Call(inner))));

                vm.expectRevert(
                    abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
                );
                this.call(vault, Call(outer));
            }
        }
    }

    function test_a_token_that_calls_back_can_ask_for_stake_back_or_keep_it_and_the_books_are_right()
        external
    {
        for (uint256 outer = 0; outer <= uint256(Call.Sweep); ++outer) {
            for (uint256 inner = uint256(Call.Request); inner <= uint256(Call.Cancel); ++inner) {
                (CallingToken token, StakeVault vault) = _calling();
                bool withdraws = Call(outer) == Call.Withdraw || Call(outer) == Call.WithdrawTo;
                // What is paid out is not pending any more, so that it cannot be cancelled as well.
                if (withdraws && Call(inner) == Call.Cancel) continue;
                token.callNext(address(this), abi.encodeCall(this.call, (vault, Call(inner))));
                this.call(vault, Call(outer));

                uint256 surplus = Call(outer) == Call.Sweep ? 0 : 5;
                vm.assertEq(
                    token.balanceOf(address(vault)), vault.totalStaked() + vault.totalPending() + surplus
                );
                vm.assertEq(
                    vault.totalStaked(), uint256(vault.stakedOf(address(this))) + vault.stakedOf(OTHER)
                );
            }
        }
    }

    function test_what_is_being_paid_out_cannot_be_cancelled_by_a_token_that_calls_back() external {
        (CallingToken token, StakeVault vault) = _calling();
        token.callNext(address(this), abi.encodeCall(this.call, (vault, Call.Cancel)));

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientPending.selector, address(this), 1, 0));
        vault.withdraw();
    }

    /// @dev While `withdraw` pays, the token is still here and no longer owed: a sweep then would pay it twice.
    function test_what_is_being_paid_out_cannot_be_swept_by_a_token_that_calls_the_owner() external {
        (CallingToken token, StakeVault vault) = _calling();
        vault.sweep(token, OTHER);
        token.callNext(address(this), abi.encodeCall(this.call, (vault, Call.Sweep)));

        vm.expectRevert(
            abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
        );
        vault.withdraw();

        vm.assertEq(token.balanceOf(address(vault)), vault.totalStaked() + vault.totalPending());
    }

    function test_stake_is_not_swept_by_the_second_address_of_its_token() external {
        TwinToken token = new TwinToken();
        StakeVault vault = _vault(token);
        vault.stake(100);
        require(token.transfer(address(vault), 7));
        IERC20 face = IERC20(address(token.face()));

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingToSweep.selector, address(token), 0, 100));
        vault.sweep(face, OTHER);

        vault.sweep(token, OTHER);
        vm.assertEq(token.balanceOf(OTHER), 7);
    }

    function test_stake_does_not_pay_the_fee_of_a_sweep() external {
        TwinToken token = new TwinToken();
        StakeVault vault = _vault(token);
        vault.stake(100);
        require(token.transfer(address(vault), 70));
        token.setCharging(true);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingToSweep.selector, address(token), 93, 100));
        vault.sweep(token, OTHER);
    }

    /// @dev Called by the token, or by the test so that a revert of any call can be expected.
    function call(StakeVault vault, Call what) external {
        if (what == Call.Stake) vault.stake(1);
        else if (what == Call.StakeFor) vault.stakeFor(OTHER, 1);
        else if (what == Call.StakeWithPermit) vault.stakeWithPermit(1, START, 27, bytes32(0), bytes32(0));
        else if (what == Call.Withdraw) vault.withdraw();
        else if (what == Call.WithdrawTo) vault.withdrawTo(OTHER);
        else if (what == Call.Sweep) vault.sweep(vault.token(), OTHER);
        else if (what == Call.Request) vault.requestUnstake(1);
        else vault.cancelUnstake(1);
    }

    /// @dev Of two people's stake, ten are ready to be withdrawn, and five came past `stake`.
    function _calling() private returns (CallingToken token, StakeVault vault) {
        vm.warp(START);
        token = new CallingToken();
        vault = _vault(token);
        vault.stake(20);
        vault.stakeFor(OTHER, 20);
        vault.requestUnstake(10);
        require(token.transfer(address(vault), 5));
        vm.warp(START + 1);
    }

    /// @dev A vault through which 2**104 - 256 have gone, in and out again: 256 times all that it can hold.
    function _nearlyFull() private returns (StakeVault vault, uint256 time) {
        vault = _vault(new FeeToken(0));
        time = START;
        for (uint256 i = 0; i < 256; ++i) {
            vault.stake(type(uint96).max);
            vm.warp(++time);
            vault.requestUnstake(type(uint96).max);
            vm.warp(++time);
            vault.withdraw();
        }
    }

    function _vault(IERC20 token) private returns (StakeVault vault) {
        vault = new StakeVault(token, 1, address(this), address(this));
        token.approve(address(vault), type(uint256).max);
    }
}
