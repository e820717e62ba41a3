// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DevnetDollar} from "../src/DevnetDollar.sol";
import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {BlockingDollar} from "./support/OddTokens.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title Batches pay everybody whom single claims would pay, and nobody stops them; the dollar can block accounts.
contract RevenueDistributorBatchTest is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    uint256 private constant MOST = 33;

    function _newToken() internal override returns (DevnetDollar) {
        return new BlockingDollar();
    }

    function test_many_are_paid_at_once_and_each_has_an_event() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Claimed(BOB, BOB, 300e6, 300e6);
        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Claimed(ALICE, ALICE, 200e6, 200e6);
        vm.assertEq(_claimMany(tree), 500e6);

        _checkPaid(300e6, 200e6);
    }

    function test_a_block_is_paid_at_once_and_each_has_an_event() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Claimed(BOB, BOB, 300e6, 300e6);
        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Claimed(ALICE, ALICE, 200e6, 200e6);
        vm.assertEq(_claimBlock(tree, 1, 0), 500e6);

        _checkPaid(300e6, 200e6);
    }

    function test_a_batch_of_nobody_pays_nothing() external {
        _pay(_twoPeople(300e6, 200e6));

        vm.assertEq(distributor.claimMany(new SumTree.Proof[](0)), 0);
    }

    function test_who_has_been_paid_is_left_out() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        _claim(tree, 0);

        vm.assertEq(_claimMany(tree), 200e6);
        vm.assertEq(_claimMany(tree), 0);
        vm.assertEq(_claimBlock(tree, 1, 0), 0);

        _checkPaid(300e6, 200e6);
    }

    function test_who_was_paid_more_before_is_left_out() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        _claim(tree, 1);
        tree = _twoPeople(400e6, 100e6);
        _pay(tree);

        vm.assertEq(_claimMany(tree), 400e6);
        vm.assertEq(_claimBlock(tree, 1, 0), 0);

        _checkPaid(400e6, 200e6);
    }

    function test_one_named_twice_is_paid_once() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        SumTree.Proof[] memory proofs = new SumTree.Proof[](2);
        (proofs[0], proofs[1]) = (tree.proof(1), tree.proof(1));

        vm.assertEq(distributor.claimMany(proofs), 200e6);

        _checkPaid(0, 200e6);
    }

    function test_a_wrong_proof_is_left_out_and_its_neighbours_are_paid() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        SumTree.Proof[] memory proofs = new SumTree.Proof[](3);
        (proofs[0], proofs[1], proofs[2]) = (tree.proof(0), tree.proof(1), tree.proof(1));
        proofs[1].cumulative += 1;

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.ClaimSkipped(ALICE, 200e6 + 1);
        vm.assertEq(distributor.claimMany(proofs), 500e6);

        _checkPaid(300e6, 200e6);
    }

    function test_before_the_first_root_a_batch_pays_nothing() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);

        vm.assertEq(_claimMany(tree), 0);

        vm.expectRevert(_invalid(tree, 0, 0));
        this.claimBlock(tree, 1, 0);
    }

    function test_who_is_blocked_holds_nobody_up_and_loses_nothing() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        BlockingDollar(address(token)).setBlocked(BOB, true);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.ClaimSkipped(BOB, 300e6);
        vm.assertEq(_claimMany(tree), 200e6);
        _checkPaid(0, 200e6);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.ClaimSkipped(BOB, 300e6);
        vm.assertEq(_claimBlock(tree, 1, 0), 0);
        _checkPaid(0, 200e6);

        vm.expectRevert(abi.encodeWithSelector(BlockingDollar.Blocked.selector, BOB));
        this.claim(tree, 0);
        _checkPaid(0, 200e6);

        BlockingDollar(address(token)).setBlocked(BOB, false);
        vm.assertEq(_claimBlock(tree, 1, 0), 300e6);
        _checkPaid(300e6, 200e6);
    }

    /// @dev Somebody is blocked, and some have claimed by an older root: neither makes a difference.
    function testFuzz_singles_many_and_blocks_pay_the_same(uint256 seed, uint256 level) external {
        ReferenceTree.Tree memory tree = _payTwice(seed);
        level %= tree.levels.length;
        address blocked = tree.leaves[seed % tree.leaves.length].account;
        BlockingDollar(address(token)).setBlocked(blocked, true);
        uint256 state = vm.snapshotState();

        uint256 paid = 0;
        for (uint256 i = 0; i < tree.leaves.length; ++i) {
            paid += _claimOne(tree, i);
        }
        uint256[] memory singles = _balances(tree);

        require(vm.revertToState(state));
        vm.assertEq(_claimMany(tree), paid, "what many returned");
        _checkBalances(tree, singles);

        require(vm.revertToState(state));
        uint256 blocks = 0;
        for (uint256 i = 0; i << level < tree.leaves.length; ++i) {
            blocks += _claimBlock(tree, level, i);
        }
        vm.assertEq(blocks, paid, "what the blocks returned");
        _checkBalances(tree, singles);
    }

    function testFuzz_any_order_and_mixture_of_claims_pays_the_same(uint256 seed, uint256 order) external {
        ReferenceTree.Tree memory tree = _payTwice(seed);
        uint256[] memory who = _shuffled(tree.leaves.length, order);

        for (uint256 i = 0; i < who.length; ++i) {
            uint256 way = _random(order, i) % 4;
            SumTree.Proof memory p = tree.proof(who[i]);
            if (way == 0) {
                _claimOne(tree, who[i]);
            } else if (way == 1) {
                SumTree.Proof[] memory proofs = new SumTree.Proof[](1);
                proofs[0] = p;
                distributor.claimMany(proofs);
            } else {
                uint256 level = _random(order, i) / 4 % tree.levels.length;
                _claimBlock(tree, level, who[i] >> level);
            }
        }

        for (uint256 i = 0; i < tree.leaves.length; ++i) {
            vm.assertEq(token.balanceOf(tree.leaves[i].account), tree.leaves[i].cumulative);
        }
        vm.assertEq(token.balanceOf(address(distributor)), distributor.funded() - tree.root().sum);
    }

    /// @dev As calls, so that a test can expect their error after what they read.
    function claim(ReferenceTree.Tree memory tree, uint256 index) external {
        _claim(tree, index);
    }

    function claimBlock(ReferenceTree.Tree memory tree, uint256 level, uint256 index) external {
        _claimBlock(tree, level, index);
    }

    /// @dev Two epochs, the second of which pays; of the first, some have claimed.
    function _payTwice(uint256 seed) private returns (ReferenceTree.Tree memory tree) {
        SumTree.Leaf[] memory leaves = _people(seed, _within(seed, 1, MOST));
        tree = ReferenceTree.grow(leaves);
        _fund(1e12);
        _pay(tree);
        for (uint256 i = 0; i < leaves.length; i += 1 + _random(seed, i) % 4) {
            _claim(tree, i);
        }
        tree = ReferenceTree.grow(_grown(leaves, seed, MOST));
        _pay(tree);
    }

    /// @dev A single claim that may fail, as those of a batch may.
    function _claimOne(ReferenceTree.Tree memory tree, uint256 index) private returns (uint256 paid) {
        SumTree.Proof memory p = tree.proof(index);
        uint256 before = distributor.claimed(p.account);
        try distributor.claim(p.account, p.cumulative, p.index, p.path) {} catch {}
        return distributor.claimed(p.account) - before;
    }

    function _balances(ReferenceTree.Tree memory tree) private view returns (uint256[] memory balances) {
        balances = new uint256[](tree.leaves.length);
        for (uint256 i = 0; i < balances.length; ++i) {
            balances[i] = token.balanceOf(tree.leaves[i].account);
        }
    }

    function _checkBalances(ReferenceTree.Tree memory tree, uint256[] memory expected) private view {
        for (uint256 i = 0; i < expected.length; ++i) {
            vm.assertEq(token.balanceOf(tree.leaves[i].account), expected[i], "balance");
            vm.assertEq(distributor.claimed(tree.leaves[i].account), expected[i], "claimed");
        }
    }

    function _checkPaid(uint256 bob, uint256 alice) private view {
        vm.assertEq(token.balanceOf(BOB), bob, "Bob has");
        vm.assertEq(token.balanceOf(ALICE), alice, "Alice has");
        vm.assertEq(distributor.claimed(BOB), bob, "Bob claimed");
        vm.assertEq(distributor.claimed(ALICE), alice, "Alice claimed");
    }
}
