// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title Claims: who is paid, how much, and when.
contract RevenueDistributorClaimTest is DistributorTest {
    uint256 private constant MOST_LEAVES = 33;

    function test_a_claim_pays_the_account_and_its_event_says_the_total() external {
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 200e6);
        _pay(leaves);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Claimed(ALICE, ALICE, 200e6, 200e6);
        _claim(leaves, 1);

        vm.assertEq(token.balanceOf(ALICE), 200e6);
        vm.assertEq(token.balanceOf(BOB), 0);
        vm.assertEq(distributor.claimed(ALICE), 200e6);
        vm.assertEq(distributor.claimedTotal(), 200e6);
    }

    function testFuzz_a_stranger_who_claims_gets_nothing(address caller) external {
        if (caller == ALICE || caller == address(distributor)) return;
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 200e6);
        _pay(leaves);
        uint256 before = token.balanceOf(caller);

        vm.prank(caller);
        _claim(leaves, 1);

        vm.assertEq(token.balanceOf(caller), before);
        vm.assertEq(token.balanceOf(ALICE), 200e6);
    }

    function test_a_single_account_needs_no_proof() external {
        ReferenceTree.Leaf[] memory leaves = new ReferenceTree.Leaf[](1);
        leaves[0] = ReferenceTree.Leaf(ALICE, 5e6);
        _pay(leaves);

        _claim(leaves, 0);

        vm.assertEq(token.balanceOf(ALICE), 5e6);
    }

    function test_a_repeated_claim_is_refused() external {
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 200e6);
        _pay(leaves);
        _claim(leaves, 1);

        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.NothingToClaim.selector, ALICE, 200e6, 200e6)
        );
        _claim(leaves, 1);
    }

    function test_a_later_claim_pays_only_the_difference() external {
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 200e6);
        _pay(leaves);
        _claim(leaves, 1);
        leaves = _twoPeople(300e6, 250e6);
        _pay(leaves);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Claimed(ALICE, ALICE, 50e6, 250e6);
        _claim(leaves, 1);

        vm.assertEq(token.balanceOf(ALICE), 250e6);
    }

    function test_who_slept_through_an_epoch_is_paid_for_both() external {
        _pay(_twoPeople(300e6, 200e6));
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 250e6);
        _pay(leaves);

        _claim(leaves, 1);

        vm.assertEq(token.balanceOf(ALICE), 250e6);
    }

    function test_a_lower_cumulative_takes_nothing_back() external {
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 200e6);
        _pay(leaves);
        _claim(leaves, 1);
        leaves = _twoPeople(400e6, 100e6);
        _pay(leaves);

        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.NothingToClaim.selector, ALICE, 100e6, 200e6)
        );
        _claim(leaves, 1);
        vm.assertEq(token.balanceOf(ALICE), 200e6);
    }

    function test_an_account_that_earned_nothing_has_nothing_to_claim() external {
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 0);
        _pay(leaves);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NothingToClaim.selector, ALICE, 0, 0));
        _claim(leaves, 1);
    }

    function test_before_the_first_root_nothing_is_paid() external {
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 200e6);

        vm.expectRevert(_invalid(leaves, 1, 0));
        _claim(leaves, 1);
    }

    function test_a_pending_root_pays_nothing() external {
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 200e6);
        _post(0, leaves);

        vm.expectRevert(_invalid(leaves, 1, 0));
        _claim(leaves, 1);
    }

    function test_a_vetoed_root_never_pays() external {
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 200e6);
        _post(0, leaves);
        _veto();
        vm.warp(START + WINDOW);

        vm.expectRevert(_invalid(leaves, 1, 0));
        _claim(leaves, 1);
    }

    function test_a_replaced_root_pays_no_more() external {
        ReferenceTree.Leaf[] memory old = _twoPeople(300e6, 200e6);
        _pay(old);
        _pay(_twoPeople(300e6, 250e6));
        bytes32 active = distributor.commitment();

        vm.expectRevert(_invalid(old, 1, active));
        _claim(old, 1);
    }

    function test_the_active_root_pays_while_another_is_pending() external {
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 200e6);
        _pay(leaves);
        vm.warp(START + LENGTH);
        _post(1, _twoPeople(300e6, 250e6));

        _claim(leaves, 1);

        vm.assertEq(token.balanceOf(ALICE), 200e6);
    }

    function test_a_root_whose_total_is_a_lie_pays_nobody() external {
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 200e6);
        _post(_report(0, ReferenceTree.rootOf(leaves).hash, 499e6));
        vm.warp(START + WINDOW);
        distributor.activate();
        bytes32 active = distributor.commitment();

        vm.expectRevert(_invalid(leaves, 0, active));
        _claim(leaves, 0);
        vm.expectRevert(_invalid(leaves, 1, active));
        _claim(leaves, 1);
    }

    function testFuzz_everybody_gets_what_the_tree_says_in_any_order(uint256 seed) external {
        ReferenceTree.Leaf[] memory leaves = _people(seed);
        _fund(1e12);
        _pay(leaves);
        uint256[] memory order = _shuffled(leaves.length, seed);

        uint256 paid = 0;
        for (uint256 i = 0; i < leaves.length; ++i) {
            _claim(leaves, order[i]);
            vm.assertEq(token.balanceOf(leaves[order[i]].account), leaves[order[i]].cumulative);
            paid += leaves[order[i]].cumulative;
        }

        (,, uint96 sum,) = distributor.active();
        vm.assertEq(paid, sum, "everything promised is paid");
        vm.assertEq(distributor.claimedTotal(), paid, "claimedTotal");
        vm.assertEq(token.balanceOf(address(distributor)), distributor.funded() - paid, "balance");
    }

    function testFuzz_two_epochs_pay_the_same_as_one(uint256 seed) external {
        ReferenceTree.Leaf[] memory leaves = _people(seed);
        _fund(1e12);
        _pay(leaves);
        uint256 index = seed % leaves.length;
        _claim(leaves, index);
        for (uint256 i = 0; i < leaves.length; ++i) {
            leaves[i].cumulative += uint96(_within(uint256(keccak256(abi.encode(seed, "more", i))), 1, 1e9));
        }
        _pay(leaves);

        for (uint256 i = 0; i < leaves.length; ++i) {
            _claim(leaves, i);
            vm.assertEq(token.balanceOf(leaves[i].account), leaves[i].cumulative);
        }
    }

    function test_tokens_sent_past_fund_lower_the_claimed_total_but_never_below_zero() external {
        ReferenceTree.Leaf[] memory leaves = _twoPeople(300e6, 200e6);
        _pay(leaves);
        _claim(leaves, 1);
        token.mint(address(distributor), 50e6);
        vm.assertEq(distributor.claimedTotal(), 150e6);

        token.mint(address(distributor), 500e6);
        vm.assertEq(distributor.claimedTotal(), 0);
    }

    function _twoPeople(uint96 bob, uint96 alice) private pure returns (ReferenceTree.Leaf[] memory leaves) {
        leaves = new ReferenceTree.Leaf[](2);
        leaves[0] = ReferenceTree.Leaf(BOB, bob);
        leaves[1] = ReferenceTree.Leaf(ALICE, alice);
    }

    /// @dev Accounts in ascending order, each with an amount; trees of all small sizes.
    function _people(uint256 seed) private pure returns (ReferenceTree.Leaf[] memory leaves) {
        leaves = new ReferenceTree.Leaf[](_within(seed, 1, MOST_LEAVES));
        for (uint256 i = 0; i < leaves.length; ++i) {
            uint256 random = uint256(keccak256(abi.encode(seed, i)));
            leaves[i].account = address(uint160(((i + 1) << 96) + uint96(random)));
            leaves[i].cumulative = uint96(_within(random >> 96, 1, 1e9));
        }
    }

    function _shuffled(uint256 count, uint256 seed) private pure returns (uint256[] memory order) {
        order = new uint256[](count);
        for (uint256 i = 0; i < count; ++i) {
            uint256 j = uint256(keccak256(abi.encode(seed, "order", i))) % (i + 1);
            order[i] = order[j];
            order[j] = i;
        }
    }

    function _invalid(
        ReferenceTree.Leaf[] memory leaves,
        uint256 index,
        bytes32 active
    )
        private
        pure
        returns (bytes memory)
    {
        bytes32 root = ReferenceTree.rootOf(leaves).hash;
        bytes32 proven = keccak256(bytes.concat(root, bytes12(ReferenceTree.rootOf(leaves).sum)));
        return abi.encodeWithSelector(
            IRevenueDistributor.InvalidProof.selector,
            leaves[index].account,
            leaves[index].cumulative,
            proven,
            active
        );
    }
}
