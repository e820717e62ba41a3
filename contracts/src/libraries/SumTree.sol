// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The payout tree: a Merkle tree in which every node also carries the sum of what lies below it.
/// @notice Whoever proves a leaf proves at the same time that the leaf is part of the tree's total.
/// @dev The three preimages have three lengths (32, 88 and 44 bytes), so that none can pass for another.
/// Padding leaves at the right have hash 0 and sum 0.
library SumTree {
    /// @notice A subtree: its hash, and the sum of the leaves in it.
    struct Node {
        bytes32 hash;
        uint96 sum;
    }

    /// @notice The sums on a path add up to `sum`, more than the 96 bits a sum may have.
    error SumOverflow(uint256 sum);

    /// @notice The path says that the leaf stands at `index`, which a tree of `depth` levels does not have.
    error IndexOutOfRange(uint256 index, uint256 depth);

    /// @notice The hash of a leaf; its sum is `cumulative`.
    function leafHash(address account, uint96 cumulative) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(account, cumulative));
    }

    /// @notice The hash of the node above two; its sum is `leftSum + rightSum`, which the caller has bounded.
    function nodeHash(
        bytes32 left,
        uint96 leftSum,
        bytes32 right,
        uint96 rightSum
    )
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encodePacked(left, leftSum, right, rightSum));
    }

    /// @notice What stands for the whole tree: its root and its total in one word.
    function commitment(bytes32 root, uint96 sum) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(root, sum));
    }

    /// @notice Walks from a node up to the root.
    /// @param hash the hash of the node at the bottom
    /// @param sum its sum
    /// @param index its position in its level, from 0; bit i is 1 where the path's node is the right child at level i
    /// @param path the siblings, from the bottom to the top
    /// @return the root's hash
    /// @return the root's sum
    function climb(
        bytes32 hash,
        uint96 sum,
        uint256 index,
        Node[] calldata path
    )
        internal
        pure
        returns (bytes32, uint96)
    {
        if (index >> path.length != 0) revert IndexOutOfRange(index, path.length);
        for (uint256 level = 0; level < path.length; ++level) {
            Node calldata sibling = path[level];
            hash = index & 1 == 0
                ? nodeHash(hash, sum, sibling.hash, sibling.sum)
                : nodeHash(sibling.hash, sibling.sum, hash, sum);
            sum = add(sum, sibling.sum);
            index >>= 1;
        }
        return (hash, sum);
    }

    /// @notice The sum of two nodes' sums.
    function add(uint96 a, uint96 b) internal pure returns (uint96) {
        uint256 sum = uint256(a) + b;
        if (sum > type(uint96).max) revert SumOverflow(sum);
        // It was bounded in the line above.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint96(sum);
    }
}
