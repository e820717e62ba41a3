// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title Whoever has the nodes of a posted tree can prove it wrong whenever it is, in however many ways at once.
contract RevenueDistributorWatchTest is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    uint256 private constant MOST = 16;
    /// @dev How often a tree is damaged.
    uint256 private constant DAMAGES = 3;

    function setUp() public override {
        super.setUp();
        _fund(1e12);
    }

    function testFuzz_any_mixture_of_faults_is_found_and_proven(uint256 seed) external {
        ReferenceTree.Tree memory old = ReferenceTree.grow(_people(seed, _within(seed, 1, MOST)));
        _pay(old);
        SumTree.Leaf[] memory leaves = _grown(old.leaves, seed, MOST);
        bool honest = seed % 5 == 0;
        for (uint256 i = 0; !honest && i < _random(seed, 0) % (DAMAGES + 1); ++i) {
            leaves = _damaged(leaves, _random(seed, 10 + i));
        }
        ReferenceTree.Tree memory tree = ReferenceTree.grow(leaves);
        for (uint256 i = 0; !honest && i < _random(seed, 1) % DAMAGES; ++i) {
            _lie(tree, _random(seed, 20 + i));
        }
        uint256 draw = _random(seed, 2);
        uint8 depth = tree.depthOf();
        if (!honest && draw % 4 == 0) depth = uint8(draw / 4 % (depth + 3));
        // The total has to be postable; where it then is not the root's, that is one more fault.
        uint96 sum = tree.root().sum;
        if (sum < old.root().sum) sum = old.root().sum;
        if (sum > distributor.funded()) sum = uint96(distributor.funded());
        _post(tree, sum, depth);

        (bytes memory challenge, IRevenueDistributor.Fault fault, address account) =
            _watch(old, tree, sum, depth);

        if (challenge.length > 0) _rejected(challenge, fault, account);
        else _checkHonest(old, tree, sum, depth);
        if (honest) vm.assertEq(challenge.length, 0, "a fault was found in an honest tree");
    }

    /// @dev What proves the tree wrong; nothing where it is right.
    function _watch(
        ReferenceTree.Tree memory old,
        ReferenceTree.Tree memory tree,
        uint96 posted,
        uint256 depth
    )
        private
        pure
        returns (bytes memory challenge, IRevenueDistributor.Fault fault, address account)
    {
        // The highest malformed node first: above it all sums are true, so that its path leads to the root.
        for (uint256 down = 0; down <= depth && down <= tree.depthOf(); ++down) {
            challenge = _watchLevel(tree, tree.depthOf() - down, posted, down == depth);
            if (challenge.length > 0) return (challenge, IRevenueDistributor.Fault.Malformed, address(0));
        }
        for (uint256 i = 0; i + 1 < tree.levels[0].length; ++i) {
            SumTree.Leaf memory right = tree.leafAt(i + 1);
            if (_isPadding(right)) continue;
            if (tree.leafAt(i).account < right.account && !_isPadding(tree.leafAt(i))) continue;
            challenge = abi.encodeCall(IRevenueDistributor.challengeOrder, (tree.proof(i), tree.proof(i + 1)));
            return (challenge, IRevenueDistributor.Fault.Order, right.account);
        }
        return _watchAccounts(old, tree);
    }

    function _watchLevel(
        ReferenceTree.Tree memory tree,
        uint256 level,
        uint96 posted,
        bool atBottom
    )
        private
        pure
        returns (bytes memory)
    {
        for (uint256 i = 0; i < tree.levels[level].length; ++i) {
            bytes memory preimage = tree.preimage(level, i);
            uint96 sum = level == tree.depthOf() ? posted : tree.levels[level][i].sum;
            if (_isWellFormed(preimage, sum, atBottom)) continue;
            bytes memory path = tree.path(level, i);
            return abi.encodeCall(IRevenueDistributor.challengeMalformed, (preimage, sum, i, path));
        }
        return "";
    }

    function _watchAccounts(
        ReferenceTree.Tree memory old,
        ReferenceTree.Tree memory tree
    )
        private
        pure
        returns (bytes memory, IRevenueDistributor.Fault, address)
    {
        for (uint256 i = 0; i < old.leaves.length; ++i) {
            SumTree.Proof memory before = old.proof(i);
            uint256 index = 0;
            while (
                index < tree.levels[0].length && !_isPadding(tree.leafAt(index))
                    && tree.leafAt(index).account < before.account
            ) {
                ++index;
            }
            SumTree.Proof memory left;
            SumTree.Proof memory right;
            right.index = index;
            if (index > 0) left = tree.proof(index - 1);
            if (index < tree.levels[0].length) right = tree.proof(index);
            if (right.account != before.account) {
                return (
                    abi.encodeCall(IRevenueDistributor.challengeMissing, (before, left, right)),
                    IRevenueDistributor.Fault.Missing,
                    before.account
                );
            }
            if (right.cumulative < before.cumulative) {
                return (
                    abi.encodeCall(IRevenueDistributor.challengeDecrease, (before, right)),
                    IRevenueDistributor.Fault.Decrease,
                    before.account
                );
            }
        }
        return ("", IRevenueDistributor.Fault.Decrease, address(0));
    }

    /// @dev Where nothing was found, the tree is what an honest poster could have posted.
    function _checkHonest(
        ReferenceTree.Tree memory old,
        ReferenceTree.Tree memory tree,
        uint96 posted,
        uint256 depth
    )
        private
        pure
    {
        ReferenceTree.Tree memory again = ReferenceTree.grow(tree.leaves, uint8(depth));
        vm.assertEq(again.root().hash, tree.root().hash);
        uint256 sum = 0;
        address last = address(0);
        for (uint256 i = 0; i < tree.leaves.length; ++i) {
            vm.assertTrue(i == 0 || tree.leaves[i].account > last, "the leaves are not in order");
            last = tree.leaves[i].account;
            sum += tree.leaves[i].cumulative;
        }
        vm.assertEq(sum, posted, "the total is not what was posted");
        for (uint256 i = 0; i < old.leaves.length; ++i) {
            SumTree.Leaf memory leaf = tree.leafAt(_indexOf(tree.leaves, old.leaves[i].account));
            vm.assertEq(leaf.account, old.leaves[i].account);
            vm.assertTrue(leaf.cumulative >= old.leaves[i].cumulative, "somebody has less");
        }
    }

    /// @dev Wrong leaves: lowered, dropped, swapped, doubled, emptied, or of the zero address; now and then unchanged.
    function _damaged(
        SumTree.Leaf[] memory leaves,
        uint256 draw
    )
        private
        pure
        returns (SumTree.Leaf[] memory)
    {
        if (leaves.length < 2) return leaves;
        uint256 way = draw % 7;
        uint256 index = draw / 7 % (leaves.length - 1);
        if (way == 0) leaves[index].cumulative = uint96(draw >> 160) % (leaves[index].cumulative + 1);
        if (way == 1) return _without(leaves, index);
        if (way == 2) (leaves[index], leaves[index + 1]) = (leaves[index + 1], leaves[index]);
        if (way == 3) leaves[index + 1] = SumTree.Leaf(leaves[index].account, leaves[index + 1].cumulative);
        if (way == 4) leaves[index] = SumTree.Leaf(address(0), 0);
        if (way == 5) leaves[index] = SumTree.Leaf(address(0), leaves[index].cumulative);
        return leaves;
    }

    /// @dev A node that says another sum than it has.
    function _lie(ReferenceTree.Tree memory tree, uint256 draw) private pure {
        uint256 level = draw % tree.levels.length;
        uint256 index = _random(draw, 0) % tree.levels[level].length;
        ReferenceTree.Node memory node = tree.levels[level][index];
        uint96 sum = type(uint96).max - node.sum;
        unchecked {
            if (draw % 3 != 0) sum = node.sum + uint96(draw % 100);
        }
        tree.replace(level, index, ReferenceTree.Node(node.hash, sum));
    }

    function _isWellFormed(bytes memory preimage, uint96 sum, bool atBottom) private pure returns (bool) {
        if (preimage.length == 0) return atBottom && sum == 0;
        if (preimage.length == 32) {
            uint256 word = uint256(bytes32(preimage));
            return atBottom && word >> 96 != 0 && uint96(word) == sum;
        }
        uint256 sums = uint256(_sumAt(preimage, 32)) + _sumAt(preimage, 76);
        return !atBottom && sums == sum;
    }

    function _sumAt(bytes memory preimage, uint256 offset) private pure returns (uint96 sum) {
        for (uint256 i = offset; i < offset + 12; ++i) {
            sum = sum << 8 | uint8(preimage[i]);
        }
    }

    function _isPadding(SumTree.Leaf memory leaf) private pure returns (bool) {
        return leaf.account == address(0) && leaf.cumulative == 0;
    }
}
