// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SumTree} from "../../src/libraries/SumTree.sol";

/// @title The payout tree as its specification states it, built top down and without the library under test.
/// @notice `SumTree.Node` is borrowed as the ABI's type; no hashing is.
library ReferenceTree {
    struct Leaf {
        address account;
        uint96 cumulative;
    }

    /// @notice The fewest levels under which `count` leaves fit.
    function depthOf(uint256 count) internal pure returns (uint8 depth) {
        while (2 ** depth < count) ++depth;
    }

    /// @notice The root over all leaves.
    function rootOf(Leaf[] memory leaves) internal pure returns (SumTree.Node memory) {
        return subtree(leaves, 0, 2 ** depthOf(leaves.length));
    }

    /// @notice The siblings of leaf `index`, from the bottom to the top.
    function proofOf(Leaf[] memory leaves, uint256 index)
        internal
        pure
        returns (SumTree.Node[] memory proof)
    {
        proof = new SumTree.Node[](depthOf(leaves.length));
        for (uint256 level = 0; level < proof.length; ++level) {
            uint256 width = 2 ** level;
            uint256 ours = index / width;
            uint256 sibling = ours % 2 == 0 ? ours + 1 : ours - 1;
            proof[level] = subtree(leaves, sibling * width, width);
        }
    }

    /// @notice The node over the `width` leaves from `first` on; those beyond the last are padding.
    function subtree(
        Leaf[] memory leaves,
        uint256 first,
        uint256 width
    )
        internal
        pure
        returns (SumTree.Node memory node)
    {
        if (width == 1) {
            return first < leaves.length ? _leaf(leaves[first]) : SumTree.Node(bytes32(0), 0);
        }
        SumTree.Node memory left = subtree(leaves, first, width / 2);
        SumTree.Node memory right = subtree(leaves, first + width / 2, width / 2);
        bytes memory preimage = bytes.concat(left.hash, bytes12(left.sum), right.hash, bytes12(right.sum));
        return SumTree.Node(keccak256(preimage), left.sum + right.sum);
    }

    function _leaf(Leaf memory leaf) private pure returns (SumTree.Node memory) {
        bytes memory preimage = bytes.concat(bytes20(leaf.account), bytes12(leaf.cumulative));
        return SumTree.Node(keccak256(preimage), leaf.cumulative);
    }
}
