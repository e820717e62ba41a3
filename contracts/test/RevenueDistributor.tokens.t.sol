// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RevenueDistributor} from "../src/RevenueDistributor.sol";
import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {CallingToken, FalseDollar, FeeToken, SilentToken} from "./support/OddTokens.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";
import {Test} from "./support/Test.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title Tokens that behave oddly do not break the distributor's books; the test contract has every role.
/// @notice Bob has earned 300 and Alice 200, and in the next epoch 310 and 220; a thousand came in.
contract RevenueDistributorTokensTest is Test {
    using ReferenceTree for ReferenceTree.Tree;

    address private constant ALICE = address(0xA11CE);
    address private constant BOB = address(0xB0B);

    RevenueDistributor private _distributor;
    IERC20 private _token;

    function setUp() external {
        vm.warp(START);
        vm.roll(20_000);
    }

    function test_a_token_with_a_fee_funds_what_arrives() external {
        _deploy(address(new FeeToken(100)));

        _distributor.fund(1, 10_000);

        vm.assertEq(_distributor.funded(), 9900);
        vm.assertEq(_token.balanceOf(address(_distributor)), 9900);
    }

    function test_a_token_that_keeps_everything_funds_nothing() external {
        _deploy(address(new FeeToken(10_000)));

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ZeroAmount.selector));
        _distributor.fund(1, 10_000);
    }

    /// @dev Whoever chose the token bears its fee; nobody else does.
    function test_a_fee_on_a_claim_is_the_claimants() external {
        _deploy(address(new FeeToken(100)));
        _distributor.fund(1, 1000);
        ReferenceTree.Tree memory tree = _payEpoch(0);

        _claim(tree, 1);
        _claimAll(tree);

        vm.assertEq(_distributor.claimed(ALICE), 200);
        vm.assertEq(_token.balanceOf(ALICE), 198);
        vm.assertEq(_token.balanceOf(BOB), 297);
        vm.assertEq(_token.balanceOf(address(_distributor)), 990 - 500);
        vm.assertEq(_distributor.claimedTotal(), 500);
    }

    function test_a_token_that_returns_nothing_can_be_funded_and_claimed() external {
        _deploy(address(new SilentToken()));
        _distributor.fund(1, 1000);
        ReferenceTree.Tree memory tree = _payEpoch(0);

        _claim(tree, 1);
        _claimAll(tree);
        vm.assertEq(_distributor.claimSubtree(_payEpoch(1).leaves, 1, 0, ""), 30);

        _checkPaid(310, 220);
    }

    function test_a_token_that_returns_false_funds_nothing() external {
        FalseDollar token = _deployFalse();
        token.setFailing(true);

        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, token));
        _distributor.fund(1, 1000);

        vm.assertEq(_distributor.funded(), 0);
    }

    function test_a_token_that_returns_false_loses_nobody_anything() external {
        FalseDollar token = _deployFalse();
        _distributor.fund(1, 1000);
        ReferenceTree.Tree memory tree = _payEpoch(0);
        token.setFailing(true);

        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, token));
        this.claim(tree, 1);
        vm.assertEq(_claimAll(tree), 0);
        vm.assertEq(_distributor.claimSubtree(tree.leaves, 1, 0, ""), 0);
        _checkPaid(0, 0);

        token.setFailing(false);
        vm.assertEq(_claimAll(tree), 500);
        _checkPaid(300, 200);
    }

    /// @dev While a batch pays Alice 200, the token activates the next root, pays her all of its 220, and only then
    /// says that the first transfer failed: of the 220 she has, 20 came from the second.
    function test_a_token_that_calls_back_and_then_returns_false_leaves_the_books_right() external {
        FalseDollar token = _deployFalse();
        _distributor.fund(1, 1000);
        ReferenceTree.Tree memory tree = _payEpoch(0);
        ReferenceTree.Tree memory next = _postEpoch(1);
        token.callNextAndFail(address(this), abi.encodeCall(this.activateAndClaim, (next, 1)));

        SumTree.Proof[] memory proofs = new SumTree.Proof[](1);
        proofs[0] = tree.proof(1);
        vm.assertEq(_distributor.claimMany(proofs), 0);

        _checkPaid(0, 20);
        _claim(next, 1);
        _checkPaid(0, 220);
    }

    function test_a_token_that_calls_back_cannot_fund_twice_with_one_deposit() external {
        CallingToken token = _deployCalling();
        token.callNext(address(_distributor), abi.encodeCall(IRevenueDistributor.fund, (1, 1)));

        vm.expectRevert(
            abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
        );
        _distributor.fund(1, 10);
    }

    /// @dev What leaves during a deposit makes the deposit count for less, never for more.
    function test_a_token_that_lets_claim_during_a_deposit_cannot_promise_what_is_not_there() external {
        CallingToken token = _deployCalling();
        _distributor.fund(1, 1000);
        ReferenceTree.Tree memory tree = _payEpoch(0);
        token.callNext(address(this), abi.encodeCall(this.claim, (tree, 1)));

        _distributor.fund(1, 700);

        vm.assertEq(_token.balanceOf(ALICE), 200);
        vm.assertEq(_distributor.funded(), 1500);
        vm.assertEq(_token.balanceOf(address(_distributor)), 1500);
    }

    function test_a_token_that_calls_back_cannot_claim_twice() external {
        CallingToken token = _deployCalling();
        _distributor.fund(1, 1000);
        ReferenceTree.Tree memory tree = _payEpoch(0);
        token.callNext(address(this), abi.encodeCall(this.claim, (tree, 1)));

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NothingToClaim.selector, ALICE, 200, 200));
        this.claim(tree, 1);
    }

    function test_a_batch_within_a_claim_pays_nobody_twice() external {
        CallingToken token = _deployCalling();
        _distributor.fund(1, 1000);
        ReferenceTree.Tree memory tree = _payEpoch(0);
        token.callNext(address(this), abi.encodeCall(this.claimAll, (tree)));

        _claim(tree, 1);

        _checkPaid(300, 200);
    }

    function test_a_batch_within_a_batch_pays_nobody_twice() external {
        CallingToken token = _deployCalling();
        _distributor.fund(1, 1000);
        ReferenceTree.Tree memory tree = _payEpoch(0);
        token.callNext(
            address(_distributor), abi.encodeCall(_distributor.claimSubtree, (tree.leaves, 1, 0, ""))
        );

        // Alice is paid within the block that Bob's transfer calls, so that the outer batch finds her paid.
        vm.assertEq(_claimAll(tree), 300);

        _checkPaid(300, 200);
    }

    /// @dev Who comes after the change is left out, being proven by a root that pays no more; nothing is lost.
    function test_a_root_activated_within_a_batch_of_many_is_the_one_that_pays_the_rest() external {
        CallingToken token = _deployCalling();
        _distributor.fund(1, 1000);
        ReferenceTree.Tree memory tree = _payEpoch(0);
        ReferenceTree.Tree memory next = _postEpoch(1);
        token.callNext(address(_distributor), abi.encodeCall(_distributor.activate, ()));

        vm.assertEq(_claimAll(tree), 300);
        _checkPaid(300, 0);

        vm.assertEq(_claimAll(next), 230);
        _checkPaid(310, 220);
    }

    function test_a_root_activated_within_a_block_takes_nothing_from_it() external {
        CallingToken token = _deployCalling();
        _distributor.fund(1, 1000);
        ReferenceTree.Tree memory tree = _payEpoch(0);
        ReferenceTree.Tree memory next = _postEpoch(1);
        token.callNext(address(_distributor), abi.encodeCall(_distributor.activate, ()));

        vm.assertEq(_distributor.claimSubtree(tree.leaves, 1, 0, ""), 500);
        _checkPaid(300, 200);

        vm.assertEq(_claimAll(next), 30);
        _checkPaid(310, 220);
    }

    function activateAndClaim(ReferenceTree.Tree memory tree, uint256 index) external {
        _distributor.activate();
        _claim(tree, index);
    }

    function claim(ReferenceTree.Tree memory tree, uint256 index) external {
        _claim(tree, index);
    }

    function claimAll(ReferenceTree.Tree memory tree) external {
        _claimAll(tree);
    }

    function _deployCalling() private returns (CallingToken token) {
        token = new CallingToken();
        _deploy(address(token));
    }

    function _deployFalse() private returns (FalseDollar token) {
        token = new FalseDollar();
        token.mint(address(this), 1e30);
        _deploy(address(token));
    }

    function _deploy(address token) private {
        _token = IERC20(token);
        _distributor = new RevenueDistributor(_token, 0, 1, 1, 0, address(this), address(this), address(this));
        // The silent token asks for no allowance, and has no function for one.
        try _token.approve(address(_distributor), type(uint256).max) returns (bool) {} catch {}
    }

    function _payEpoch(uint64 epoch) private returns (ReferenceTree.Tree memory tree) {
        tree = _postEpoch(epoch);
        _distributor.activate();
    }

    function _postEpoch(uint64 epoch) private returns (ReferenceTree.Tree memory tree) {
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](2);
        leaves[0] = SumTree.Leaf(BOB, epoch == 0 ? 300 : 310);
        leaves[1] = SumTree.Leaf(ALICE, epoch == 0 ? 200 : 220);
        tree = ReferenceTree.grow(leaves);
        _distributor.post(
            IRevenueDistributor.Report(epoch, tree.root().hash, tree.root().sum, 1, "", "", "", 0, "")
        );
        vm.warp(START + epoch + 1);
    }

    function _claim(ReferenceTree.Tree memory tree, uint256 index) private {
        SumTree.Proof memory p = tree.proof(index);
        _distributor.claim(p.account, p.cumulative, p.index, p.path);
    }

    function _claimAll(ReferenceTree.Tree memory tree) private returns (uint256) {
        SumTree.Proof[] memory proofs = new SumTree.Proof[](2);
        (proofs[0], proofs[1]) = (tree.proof(0), tree.proof(1));
        return _distributor.claimMany(proofs);
    }

    function _checkPaid(uint256 bob, uint256 alice) private view {
        vm.assertEq(_token.balanceOf(BOB), bob, "Bob has");
        vm.assertEq(_token.balanceOf(ALICE), alice, "Alice has");
        vm.assertEq(_distributor.claimed(BOB), bob, "Bob claimed");
        vm.assertEq(_distributor.claimed(ALICE), alice, "Alice claimed");
        vm.assertEq(_token.balanceOf(address(_distributor)), 1000 - bob - alice, "what is left");
    }
}
