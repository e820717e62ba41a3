// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SumTree} from "../../src/libraries/SumTree.sol";

/// @title The payout tree as its specification states it, without the library under test; and trees that lie.
/// @notice `SumTree.Leaf` and `SumTree.Proof` are borrowed as the ABI's types; no hashing is.
library ReferenceTree {
    /// @dev A subtree: its hash, and the sum of the leaves in it.
    struct Node {
        bytes32 hash;
        uint96 sum;
    }

    struct Tree {
        SumTree.Leaf[] leaves;
        /// @dev By level from the leaves up, padding included; each level half as wide as the one below.
        Node[][] levels;
    }

    /// @notice The fewest levels under which `count` leaves fit.
    function depthOf(uint256 count) internal pure returns (uint8 depth) {
        while (2 ** depth < count) ++depth;
    }

    /// @notice The tree over the leaves, with the fewest levels.
    function grow(SumTree.Leaf[] memory leaves) internal pure returns (Tree memory) {
        return grow(leaves, depthOf(leaves.length));
    }

    /// @notice The tree over the leaves, `depth` levels deep.
    function grow(SumTree.Leaf[] memory leaves, uint8 depth) internal pure returns (Tree memory tree) {
        tree = Tree(leaves, new Node[][](depth + 1));
        tree.levels[0] = new Node[](2 ** depth);
        for (uint256 i = 0; i < leaves.length; ++i) {
            tree.levels[0][i] = leafNode(leaves[i]);
        }
        for (uint256 level = 1; level <= depth; ++level) {
            tree.levels[level] = new Node[](2 ** (depth - level));
            for (uint256 i = 0; i < tree.levels[level].length; ++i) {
                tree.levels[level][i] =
                    above(tree.levels[level - 1][2 * i], tree.levels[level - 1][2 * i + 1]);
            }
        }
    }

    /// @notice Puts another node in the place of one; what is above it is hashed anew, over whatever it says.
    function replace(
        Tree memory tree,
        uint256 level,
        uint256 index,
        Node memory node
    )
        internal
        pure
        returns (Tree memory)
    {
        tree.levels[level][index] = node;
        while (++level < tree.levels.length) {
            index /= 2;
            Node[] memory below = tree.levels[level - 1];
            tree.levels[level][index] = above(below[2 * index], below[2 * index + 1]);
        }
        return tree;
    }

    function root(Tree memory tree) internal pure returns (Node memory) {
        return tree.levels[tree.levels.length - 1][0];
    }

    function depthOf(Tree memory tree) internal pure returns (uint8) {
        return uint8(tree.levels.length - 1);
    }

    /// @notice The siblings from the node at `index` of `level` to the root, 44 bytes each.
    function path(
        Tree memory tree,
        uint256 level,
        uint256 index
    )
        internal
        pure
        returns (bytes memory siblings)
    {
        for (; level < tree.levels.length - 1; ++level) {
            siblings =
                bytes.concat(siblings, pack(tree.levels[level][index % 2 == 0 ? index + 1 : index - 1]));
            index /= 2;
        }
    }

    /// @notice The leaf at `index`: all zeros for padding.
    function leafAt(Tree memory tree, uint256 index) internal pure returns (SumTree.Leaf memory leaf) {
        if (index < tree.leaves.length) leaf = tree.leaves[index];
    }

    function proof(Tree memory tree, uint256 index) internal pure returns (SumTree.Proof memory) {
        SumTree.Leaf memory leaf = leafAt(tree, index);
        return SumTree.Proof(leaf.account, leaf.cumulative, index, path(tree, 0, index));
    }

    /// @notice What the hash of a node is made of; nothing for padding.
    function preimage(Tree memory tree, uint256 level, uint256 index) internal pure returns (bytes memory) {
        if (level == 0) return preimage(leafAt(tree, index));
        Node[] memory below = tree.levels[level - 1];
        return bytes.concat(pack(below[2 * index]), pack(below[2 * index + 1]));
    }

    function preimage(SumTree.Leaf memory leaf) internal pure returns (bytes memory) {
        if (leaf.account == address(0) && leaf.cumulative == 0) return "";
        return bytes.concat(bytes20(leaf.account), bytes12(leaf.cumulative));
    }

    function leafNode(SumTree.Leaf memory leaf) internal pure returns (Node memory) {
        bytes memory said = preimage(leaf);
        return Node(said.length == 0 ? bytes32(0) : keccak256(said), leaf.cumulative);
    }

    /// @notice The node above two. Its sum wraps around: a tree that lies can have one that does.
    function above(Node memory left, Node memory right) internal pure returns (Node memory) {
        unchecked {
            return Node(keccak256(bytes.concat(pack(left), pack(right))), left.sum + right.sum);
        }
    }

    /// @notice What a path leads to from a node.
    function climb(
        Node memory node,
        uint256 index,
        bytes memory siblings
    )
        internal
        pure
        returns (Node memory)
    {
        for (uint256 offset = 0; offset < siblings.length; offset += 44) {
            Node memory sibling =
                Node(bytes32(_word(siblings, offset)), uint96(_word(siblings, offset + 32) >> 160));
            node = index % 2 == 0 ? above(node, sibling) : above(sibling, node);
            index /= 2;
        }
        return node;
    }

    /// @notice A node as it stands in a path and in the node above it; the root's is what the commitment hashes.
    function pack(Node memory node) internal pure returns (bytes memory) {
        return bytes.concat(node.hash, bytes12(node.sum));
    }

    function commitment(Tree memory tree) internal pure returns (bytes32) {
        return keccak256(pack(root(tree)));
    }

    function _word(bytes memory from, uint256 offset) private pure returns (uint256 word) {
        for (uint256 i = 0; i < 32; ++i) {
            word = word << 8 | (offset + i < from.length ? uint8(from[offset + i]) : 0);
        }
    }
}
