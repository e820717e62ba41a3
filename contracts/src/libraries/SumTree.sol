// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The payout tree: a Merkle tree in which every node also carries the sum of what lies below it.
/// @notice Whoever proves a leaf proves at the same time that the leaf is part of the tree's total.
/// @dev The three preimages have three lengths (32, 88 and 44 bytes), so that none can pass for another.
/// Padding leaves at the right have hash 0 and sum 0. A path is the siblings from the bottom to the top, 44 bytes each:
/// hash and sum, as they stand in the node above, and without the zeros that the ABI would put between. The assembly hashes, and does nothing else: a claim spends most
/// of its own gas here.
library SumTree {
    /// @notice What an account has earned; all zeros for padding.
    struct Leaf {
        address account;
        uint96 cumulative;
    }

    /// @notice A leaf and the way from it to the root.
    struct Proof {
        address account;
        uint96 cumulative;
        /// @dev Position among the leaves, from 0; bit i is 1 where our node is the right child at level i.
        uint256 index;
        bytes path;
    }

    /// @notice The sums on a path add up to more than the 96 bits a sum may have.
    error SumOverflow(uint256 sum);

    /// @notice A path of `length` bytes is not of whole siblings, of 44 each.
    error WrongPathLength(uint256 length);

    /// @notice The path says that the node stands at `index`, which a tree of `depth` levels does not have.
    error IndexOutOfRange(uint256 index, uint256 depth);

    /// @notice A block of 2**`level` leaves was announced, and `count` were given.
    error WrongBlockSize(uint256 count, uint256 level);

    /// @notice The hash of a leaf, whose sum is `cumulative`; 0 for padding.
    function leafHash(address account, uint96 cumulative) internal pure returns (bytes32 hash) {
        uint256 word = uint256(uint160(account)) << 96 | cumulative;
        if (word == 0) return 0;
        assembly ("memory-safe") {
            mstore(0, word)
            hash := keccak256(0, 32)
        }
    }

    /// @notice What stands for the whole tree: its root and its total in one word.
    function commitment(bytes32 root, uint256 sum) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            mstore(12, sum)
            mstore(0, root)
            hash := keccak256(0, 44)
        }
    }

    /// @notice How many levels a path goes up.
    function levelsOf(bytes calldata path) internal pure returns (uint256) {
        if (path.length % 44 != 0) revert WrongPathLength(path.length);
        return path.length / 44;
    }

    /// @notice Walks from a node up to the root; what is no path of a tree is an error.
    /// @param hash the hash of the node at the bottom
    /// @param sum its sum
    /// @param index its position in its level, from 0; bit i is 1 where the path's node is the right child at level i
    /// @param path the siblings, from the bottom to the top
    /// @return root the root's hash
    /// @return total the root's sum
    function climb(
        bytes32 hash,
        uint96 sum,
        uint256 index,
        bytes calldata path
    )
        internal
        pure
        returns (bytes32 root, uint96 total)
    {
        uint256 levels = levelsOf(path);
        if (index >> levels != 0) revert IndexOutOfRange(index, levels);
        uint256 wide;
        (root, wide) = walk(hash, sum, index, path);
        if (wide > type(uint96).max) revert SumOverflow(wide);
        // It was bounded in the line above.
        total = uint96(wide);
    }

    /// @notice As `climb`, without an error: where `total` has more than 96 bits, there is no such path.
    /// @dev The path has to be of whole siblings. Sums only grow, so that where the last fits 96 bits, all did.
    function walk(
        bytes32 hash,
        uint256 sum,
        uint256 index,
        bytes calldata path
    )
        internal
        pure
        returns (bytes32 root, uint256 total)
    {
        assembly ("memory-safe") {
            // The two children lie at 0 and 44, each a hash with its sum behind it: the sum is written to the end of its
            // 44 bytes first, then the hash over what that word has too much. This reaches into the free memory
            // pointer, which is put back.
            let free := mload(0x40)
            let end := add(path.offset, path.length)
            for { let sibling := path.offset } lt(sibling, end) { sibling := add(sibling, 44) } {
                let ours := mul(44, and(index, 1))
                mstore(add(ours, 12), sum)
                mstore(ours, hash)
                let theirs := sub(44, ours)
                let siblingSum := shr(160, calldataload(add(sibling, 32)))
                mstore(add(theirs, 12), siblingSum)
                mstore(theirs, calldataload(sibling))
                hash := keccak256(0, 88)
                sum := add(sum, siblingSum)
                index := shr(1, index)
            }
            mstore(0x40, free)
            root := hash
            total := sum
        }
    }

    /// @notice The node above a block of leaves.
    /// @param leaves the block; what is missing of 2**level on its right is padding
    /// @param level how many levels the block has above its leaves, at most 16
    function blockNode(Leaf[] calldata leaves, uint256 level) internal pure returns (bytes32, uint96) {
        if (level > 16 || leaves.length == 0 || leaves.length > 2 ** level) {
            revert WrongBlockSize(leaves.length, level);
        }
        // As they stand in the nodes above, 44 bytes each; those that are not written are padding.
        bytes memory nodes = new bytes(44 * 2 ** level);
        uint256 total = 0;
        for (uint256 i = 0; i < leaves.length; ++i) {
            Leaf calldata leaf = leaves[i];
            (bytes32 hash, uint96 sum) = (leafHash(leaf.account, leaf.cumulative), leaf.cumulative);
            assembly ("memory-safe") {
                let node := add(add(nodes, 32), mul(44, i))
                mstore(add(node, 12), sum)
                mstore(node, hash)
            }
            total += sum;
        }
        if (total > type(uint96).max) revert SumOverflow(total);
        for (uint256 width = 2 ** level; width > 1; width >>= 1) {
            assembly ("memory-safe") {
                let above := add(nodes, 32)
                let end := add(above, mul(44, width))
                for { let pair := above } lt(pair, end) { pair := add(pair, 88) } {
                    let sum := add(shr(160, mload(add(pair, 32))), shr(160, mload(add(pair, 76))))
                    let hash := keccak256(pair, 88)
                    mstore(add(above, 12), sum)
                    mstore(above, hash)
                    above := add(above, 44)
                }
            }
        }
        bytes32 top;
        assembly ("memory-safe") {
            top := mload(add(nodes, 32))
        }
        // It was bounded above.
        return (top, uint96(total));
    }
}
