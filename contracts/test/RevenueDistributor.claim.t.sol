// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title Claims: who is paid, how much, and when.
contract RevenueDistributorClaimTest is DistributorTest {
    uint256 private constant MOST = 33;

    function test_a_claim_pays_the_account_and_its_event_says_the_total() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Claimed(ALICE, ALICE, 200e6, 200e6);
        _claim(tree, 1);

        vm.assertEq(token.balanceOf(ALICE), 200e6);
        vm.assertEq(token.balanceOf(BOB), 0);
        vm.assertEq(distributor.claimed(ALICE), 200e6);
        vm.assertEq(distributor.claimedTotal(), 200e6);
    }

    function testFuzz_a_stranger_who_claims_gets_nothing(address caller) external {
        if (caller == ALICE || caller == address(distributor)) return;
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        uint256 before = token.balanceOf(caller);

        vm.prank(caller);
        _claim(tree, 1);

        vm.assertEq(token.balanceOf(caller), before);
        vm.assertEq(token.balanceOf(ALICE), 200e6);
    }

    function test_a_single_account_needs_no_proof() external {
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](1);
        leaves[0] = SumTree.Leaf(ALICE, 5e6);
        _pay(ReferenceTree.grow(leaves));

        distributor.claim(ALICE, 5e6, 0, "");

        vm.assertEq(token.balanceOf(ALICE), 5e6);
    }

    function test_a_repeated_claim_is_refused() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        _claim(tree, 1);

        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.NothingToClaim.selector, ALICE, 200e6, 200e6)
        );
        _claim(tree, 1);
    }

    function test_a_later_claim_pays_only_the_difference() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        _claim(tree, 1);
        tree = _twoPeople(300e6, 250e6);
        _pay(tree);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Claimed(ALICE, ALICE, 50e6, 250e6);
        _claim(tree, 1);

        vm.assertEq(token.balanceOf(ALICE), 250e6);
    }

    function test_who_slept_through_an_epoch_is_paid_for_both() external {
        _pay(_twoPeople(300e6, 200e6));
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 250e6);
        _pay(tree);

        _claim(tree, 1);

        vm.assertEq(token.balanceOf(ALICE), 250e6);
    }

    function test_a_lower_cumulative_takes_nothing_back() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        _claim(tree, 1);
        tree = _twoPeople(400e6, 100e6);
        _pay(tree);

        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.NothingToClaim.selector, ALICE, 100e6, 200e6)
        );
        _claim(tree, 1);
        vm.assertEq(token.balanceOf(ALICE), 200e6);
    }

    function test_an_account_that_earned_nothing_has_nothing_to_claim() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 0);
        _pay(tree);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NothingToClaim.selector, ALICE, 0, 0));
        _claim(tree, 1);
    }

    function test_before_the_first_root_nothing_is_paid() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);

        vm.expectRevert(_invalid(tree, 1, 0));
        _claim(tree, 1);
    }

    function test_a_pending_root_pays_nothing() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _post(tree);

        vm.expectRevert(_invalid(tree, 1, 0));
        _claim(tree, 1);
    }

    function test_a_vetoed_root_never_pays() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _post(tree);
        _veto();
        vm.warp(START + WINDOW);

        vm.expectRevert(_invalid(tree, 1, 0));
        _claim(tree, 1);
    }

    function test_a_replaced_root_pays_no_more() external {
        ReferenceTree.Tree memory old = _twoPeople(300e6, 200e6);
        _pay(old);
        _pay(_twoPeople(300e6, 250e6));
        bytes32 active = distributor.commitment();

        vm.expectRevert(_invalid(old, 1, active));
        _claim(old, 1);
    }

    function test_the_active_root_pays_while_another_is_pending() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        vm.warp(START + LENGTH);
        _post(_twoPeople(300e6, 250e6));

        _claim(tree, 1);

        vm.assertEq(token.balanceOf(ALICE), 200e6);
    }

    /// @dev Sits the window out unchallenged; see `challengeMalformed` for what it should have met.
    function test_a_root_whose_total_is_a_lie_pays_nobody() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _post(tree, 499e6, 1);
        _activate();
        bytes32 active = distributor.commitment();

        vm.expectRevert(_invalid(tree, 0, active));
        _claim(tree, 0);
        vm.expectRevert(_invalid(tree, 1, active));
        _claim(tree, 1);
    }

    function testFuzz_everybody_gets_what_the_tree_says_in_any_order(uint256 seed, uint256 order) external {
        ReferenceTree.Tree memory tree = ReferenceTree.grow(_people(seed, _within(seed, 1, MOST)));
        _fund(1e12);
        _pay(tree);
        uint256[] memory who = _shuffled(tree.leaves.length, order);

        uint256 paid = 0;
        for (uint256 i = 0; i < who.length; ++i) {
            SumTree.Leaf memory leaf = tree.leaves[who[i]];
            _claim(tree, who[i]);
            vm.assertEq(token.balanceOf(leaf.account), leaf.cumulative);
            paid += leaf.cumulative;
        }

        (, uint96 sum,) = distributor.active();
        vm.assertEq(paid, sum, "everything promised is paid");
        vm.assertEq(distributor.claimedTotal(), paid, "claimedTotal");
        vm.assertEq(token.balanceOf(address(distributor)), distributor.funded() - paid, "balance");
    }

    function testFuzz_two_epochs_pay_the_same_as_one(uint256 seed) external {
        SumTree.Leaf[] memory leaves = _people(seed, _within(seed, 1, MOST));
        ReferenceTree.Tree memory first = ReferenceTree.grow(leaves);
        ReferenceTree.Tree memory second = ReferenceTree.grow(_grown(leaves, seed, MOST));
        _fund(1e12);
        _pay(first);
        for (uint256 i = 0; i < leaves.length; ++i) {
            if (_random(seed, i) % 2 == 0) _claim(first, i);
        }
        _pay(second);

        for (uint256 i = 0; i < second.leaves.length; ++i) {
            SumTree.Leaf memory leaf = second.leaves[i];
            if (distributor.claimed(leaf.account) < leaf.cumulative) _claim(second, i);
            vm.assertEq(token.balanceOf(leaf.account), leaf.cumulative);
        }
    }

    function test_tokens_sent_past_fund_lower_the_claimed_total_but_never_below_zero() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        _claim(tree, 1);
        token.mint(address(distributor), 50e6);
        vm.assertEq(distributor.claimedTotal(), 150e6);

        token.mint(address(distributor), 500e6);
        vm.assertEq(distributor.claimedTotal(), 0);
    }
}
