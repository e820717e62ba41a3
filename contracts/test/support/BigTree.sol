// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SumTree} from "../../src/libraries/SumTree.sol";

/// @title A payout tree of many accounts, built level by level, for measuring.
/// @dev `ReferenceTree` is the readable one; both are held equal by a test.
library BigTree {
    /// @dev A subtree: its hash, and the sum of the leaves in it.
    struct Node {
        bytes32 hash;
        uint96 sum;
    }

    struct Tree {
        SumTree.Leaf[] leaves;
        /// @dev By level from the leaves up; each level half as wide as the one below.
        Node[][] levels;
    }

    function build(SumTree.Leaf[] memory leaves, uint8 depth) internal pure returns (Tree memory tree) {
        tree.leaves = leaves;
        tree.levels = new Node[][](depth + 1);
        tree.levels[0] = new Node[](1 << depth);
        for (uint256 i = 0; i < leaves.length; ++i) {
            tree.levels[0][i] = Node(
                keccak256(abi.encodePacked(leaves[i].account, leaves[i].cumulative)), leaves[i].cumulative
            );
        }
        for (uint256 level = 0; level < depth; ++level) {
            Node[] memory below = tree.levels[level];
            Node[] memory upper = new Node[](below.length / 2);
            for (uint256 i = 0; i < upper.length; ++i) {
                upper[i] = above(below[2 * i], below[2 * i + 1]);
            }
            tree.levels[level + 1] = upper;
        }
    }

    /// @dev The node above two.
    function above(Node memory left, Node memory right) internal pure returns (Node memory) {
        return Node(_hash(left, right), left.sum + right.sum);
    }

    function root(Tree memory tree) internal pure returns (Node memory) {
        return tree.levels[tree.levels.length - 1][0];
    }

    /// @dev The siblings from the node at `index` of `level` to the root.
    function path(
        Tree memory tree,
        uint256 level,
        uint256 index
    )
        internal
        pure
        returns (bytes memory siblings)
    {
        for (uint256 i = level; i < tree.levels.length - 1; ++i) {
            Node memory sibling = tree.levels[i][(index >> (i - level)) ^ 1];
            siblings = bytes.concat(siblings, sibling.hash, bytes12(sibling.sum));
        }
    }

    /// @dev The proof of leaf `index`; of padding behind the last account.
    function proof(Tree memory tree, uint256 index) internal pure returns (SumTree.Proof memory) {
        SumTree.Leaf memory leaf;
        if (index < tree.leaves.length) leaf = tree.leaves[index];
        return SumTree.Proof(leaf.account, leaf.cumulative, index, path(tree, 0, index));
    }

    /// @dev Without allocating: a tree of 10,000 would run out of memory's price.
    function _hash(Node memory left, Node memory right) private pure returns (bytes32 hash) {
        (bytes32 a, uint256 b, bytes32 c, uint256 d) = (left.hash, left.sum, right.hash, right.sum);
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, a)
            mstore(add(at, 32), shl(160, b))
            mstore(add(at, 44), c)
            mstore(add(at, 76), shl(160, d))
            hash := keccak256(at, 88)
        }
    }
}
