// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title Trees with a node that is none of a payout tree are rejected; levels are counted from the leaves up.
contract RevenueDistributorMalformedTest is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    uint256 private constant MOST = 40;

    function setUp() public override {
        super.setUp();
        _fund(1e15);
    }

    function testFuzz_a_node_whose_sum_lies_is_rejected(uint256 seed, uint96 lie) external {
        ReferenceTree.Tree memory tree = _tree(seed, 2);
        (uint256 level, uint256 index) = _anyNode(tree, seed, 1);
        bytes memory preimage = tree.preimage(level, index);
        lie %= 1e12;
        if (lie == tree.levels[level][index].sum) return;
        tree = tree.replace(level, index, ReferenceTree.Node(tree.levels[level][index].hash, lie));
        _post(tree);

        _rejected(_malformed(preimage, lie, index, tree.path(level, index)));
    }

    function testFuzz_a_leaf_or_padding_with_another_sum_is_rejected(uint256 seed, uint96 lie) external {
        ReferenceTree.Tree memory tree = _tree(seed, 1);
        uint256 index = seed % tree.levels[0].length;
        lie %= 1e12;
        if (lie == tree.levels[0][index].sum) return;
        tree = tree.replace(0, index, ReferenceTree.Node(tree.levels[0][index].hash, lie));
        _post(tree);

        _rejected(_malformed(tree.preimage(0, index), lie, index, tree.path(0, index)));
    }

    function testFuzz_padding_with_a_sum_is_rejected(uint96 lie) external {
        lie = uint96(_within(lie, 1, 1e12));
        ReferenceTree.Tree memory tree =
            ReferenceTree.grow(_people(1, 5)).replace(0, 6, ReferenceTree.Node(0, lie));
        _post(tree);

        _rejected(_malformed("", lie, 6, tree.path(0, 6)));
    }

    function testFuzz_a_posted_total_that_is_not_the_roots_is_rejected(
        uint256 seed,
        uint96 lie,
        uint96 given
    )
        external
    {
        ReferenceTree.Tree memory tree = _tree(seed, 0);
        lie %= 1e12;
        if (lie == tree.root().sum) return;
        _post(tree, lie, tree.depthOf());

        // At the root no sum is asked for: what is given does not count.
        _rejected(_malformed(tree.preimage(tree.depthOf(), 0), given, 0, ""));
    }

    function test_a_node_whose_sum_overflows_is_rejected() external {
        SumTree.Leaf[] memory leaves = _people(1, 4);
        leaves[2].cumulative = type(uint96).max;
        leaves[3].cumulative = 6;
        ReferenceTree.Tree memory tree = ReferenceTree.grow(leaves);
        vm.assertEq(tree.levels[1][1].sum, 5, "the sum that wraps around");
        _post(tree);

        _rejected(_malformed(tree.preimage(1, 1), 5, 1, tree.path(1, 1)));
    }

    function test_a_root_whose_sum_overflows_is_rejected() external {
        SumTree.Leaf[] memory leaves = _people(1, 2);
        leaves[0].cumulative = type(uint96).max;
        leaves[1].cumulative = 6;
        ReferenceTree.Tree memory tree = ReferenceTree.grow(leaves);
        _post(tree);

        _rejected(_malformed(tree.preimage(1, 0), 5, 0, ""));
    }

    function testFuzz_a_tree_deeper_than_posted_is_rejected(uint256 seed, uint8 less) external {
        ReferenceTree.Tree memory tree = _tree(seed, 2);
        less = uint8(_within(less, 1, tree.depthOf()));
        uint256 index = seed % tree.levels[less].length;
        _post(tree, tree.root().sum, tree.depthOf() - less);

        _rejected(
            _malformed(
                tree.preimage(less, index), tree.levels[less][index].sum, index, tree.path(less, index)
            )
        );
    }

    function testFuzz_a_tree_shallower_than_posted_is_rejected(uint256 seed, uint8 more) external {
        ReferenceTree.Tree memory tree = _tree(seed, 0);
        more = uint8(_within(more, 1, 32 - tree.depthOf()));
        uint256 index = seed % tree.levels[0].length;
        _post(tree, tree.root().sum, tree.depthOf() + more);

        _rejected(_malformed(tree.preimage(0, index), tree.levels[0][index].sum, index, tree.path(0, index)));
    }

    function testFuzz_a_node_of_something_else_altogether_is_rejected(
        uint256 seed,
        bytes calldata preimage
    )
        external
    {
        if (preimage.length == 0 || preimage.length == 32 || preimage.length == 88) return;

        _rejectedWith(_tree(seed, 0), seed, preimage, 0);
    }

    /// @dev An inner node in the place of a leaf.
    function testFuzz_a_node_at_the_bottom_is_rejected(
        uint256 seed,
        bytes32 a,
        uint96 b,
        bytes32 c
    )
        external
    {
        ReferenceTree.Tree memory tree = _tree(seed, 0);
        bytes memory preimage = bytes.concat(a, bytes12(b % 1e12), c, bytes12(0));
        uint256 index = seed % tree.levels[0].length;
        tree = tree.replace(0, index, ReferenceTree.Node(keccak256(preimage), b % 1e12));
        _post(tree);

        _rejected(_malformed(preimage, b % 1e12, index, tree.path(0, index)));
    }

    function testFuzz_a_leaf_above_the_bottom_is_rejected(
        uint256 seed,
        address account,
        uint96 amount
    )
        external
    {
        bytes memory preimage = bytes.concat(bytes20(account), bytes12(amount % 1e12));

        _rejectedWith(_tree(seed, 2), seed, preimage, 1);
    }

    function testFuzz_padding_above_the_bottom_is_rejected(uint256 seed) external {
        _rejectedWith(_tree(seed, 2), seed, "", 1);
    }

    /// @dev It has a hash of its own, so that it could neither be proven as a leaf nor as padding, and who stood in
    /// its place would be missing without a proof.
    function test_a_leaf_of_nobody_with_nothing_that_is_not_padding_is_rejected() external {
        ReferenceTree.Tree memory tree = ReferenceTree.grow(_people(1, 3));
        bytes memory preimage = new bytes(32);
        tree = tree.replace(0, 1, ReferenceTree.Node(keccak256(preimage), 0));
        _post(tree);

        _rejected(_malformed(preimage, 0, 1, tree.path(0, 1)));
    }

    /// @dev Nobody can earn for it, and its leaf would be too like padding.
    function testFuzz_a_leaf_of_the_zero_address_is_rejected(uint96 cumulative) external {
        SumTree.Leaf[] memory leaves = _people(1, 3);
        leaves[0] = SumTree.Leaf(address(0), uint96(_within(cumulative, 1, 1e12)));
        ReferenceTree.Tree memory tree = ReferenceTree.grow(leaves);
        _post(tree);

        _rejected(_malformed(tree.preimage(0, 0), leaves[0].cumulative, 0, tree.path(0, 0)));
    }

    function testFuzz_every_node_of_an_honest_tree_is_well_formed(uint256 seed, uint96 given) external {
        ReferenceTree.Tree memory tree = _tree(seed, 0);
        _post(tree);
        (uint256 level, uint256 index) = _anyNode(tree, seed, 0);
        // At the root no sum is asked for, so that none can lie.
        uint96 sum = level == tree.depthOf() ? given : tree.levels[level][index].sum;

        _refused(
            _malformed(tree.preimage(level, index), sum, index, tree.path(level, index)),
            abi.encodeWithSelector(IRevenueDistributor.WellFormed.selector, index, tree.depthOf() - level)
        );
    }

    function testFuzz_a_node_that_is_not_of_the_tree_is_refused(
        uint256 seed,
        bytes calldata preimage,
        uint96 sum
    )
        external
    {
        ReferenceTree.Tree memory tree = _tree(seed, 0);
        _post(tree);
        (uint256 level, uint256 index) = _anyNode(tree, seed, 0);
        if (keccak256(preimage) == keccak256(tree.preimage(level, index))) return;
        bytes memory path = tree.path(level, index);
        sum = path.length == 0 ? tree.root().sum : sum % 1e12;
        bytes32 hash = preimage.length == 0 ? bytes32(0) : keccak256(preimage);
        ReferenceTree.Node memory root = ReferenceTree.climb(ReferenceTree.Node(hash, sum), index, path);

        _refused(
            _malformed(preimage, sum, index, path),
            abi.encodeWithSelector(
                IRevenueDistributor.NotInPending.selector, index, tree.depthOf() - level, root.hash, root.sum
            )
        );
    }

    function test_a_path_that_is_none_is_refused() external {
        ReferenceTree.Tree memory tree = ReferenceTree.grow(_people(1, 3));
        _post(tree);
        bytes memory preimage = tree.preimage(0, 1);
        bytes memory path = tree.path(0, 1);
        uint96 most = type(uint96).max;

        _refused(
            _malformed(preimage, 0, 1, bytes.concat(path, new bytes(44))),
            abi.encodeWithSelector(IRevenueDistributor.WrongDepth.selector, 3, 2)
        );
        _refused(
            _malformed(preimage, 0, 1, bytes.concat(path, new bytes(43))),
            abi.encodeWithSelector(SumTree.WrongPathLength.selector, 131)
        );
        _refused(
            _malformed(preimage, 0, 5, path), abi.encodeWithSelector(SumTree.IndexOutOfRange.selector, 5, 2)
        );
        _refused(
            _malformed(preimage, most, 1, path),
            abi.encodeWithSelector(
                SumTree.SumOverflow.selector, uint256(most) + tree.root().sum - tree.leaves[1].cumulative
            )
        );
    }

    /// @dev Puts a node of that preimage into any place from `lowest` up, with a sum that could be its own.
    function _rejectedWith(
        ReferenceTree.Tree memory tree,
        uint256 seed,
        bytes memory preimage,
        uint256 lowest
    )
        private
    {
        (uint256 level, uint256 index) = _anyNode(tree, seed, lowest);
        bytes32 hash = preimage.length == 0 ? bytes32(0) : keccak256(preimage);
        uint96 sum =
            preimage.length == 32 ? uint96(uint256(bytes32(preimage))) : tree.levels[level][index].sum;
        tree = tree.replace(level, index, ReferenceTree.Node(hash, sum));
        _post(tree);

        _rejected(_malformed(preimage, sum, index, tree.path(level, index)));
    }

    function _rejected(bytes memory challenge) private {
        _rejected(challenge, IRevenueDistributor.Fault.Malformed, address(0));
    }

    function _malformed(
        bytes memory preimage,
        uint96 sum,
        uint256 index,
        bytes memory path
    )
        private
        pure
        returns (bytes memory)
    {
        return abi.encodeCall(IRevenueDistributor.challengeMalformed, (preimage, sum, index, path));
    }

    function _anyNode(
        ReferenceTree.Tree memory tree,
        uint256 seed,
        uint256 lowest
    )
        private
        pure
        returns (uint256 level, uint256 index)
    {
        level = _within(_random(seed, 1), lowest, tree.depthOf());
        index = _random(seed, 2) % tree.levels[level].length;
    }

    function _tree(uint256 seed, uint256 least) private pure returns (ReferenceTree.Tree memory) {
        return ReferenceTree.grow(_people(seed, _within(seed, least, MOST)));
    }
}
