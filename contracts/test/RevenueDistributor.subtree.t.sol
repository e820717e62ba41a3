// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title Blocks of leaves: of every size there is, and every way to forge one; eleven accounts in a tree of depth 4.
contract RevenueDistributorSubtreeTest is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    function setUp() public override {
        super.setUp();
        _fund(1e12);
        _pay(_tree());
    }

    function testFuzz_a_block_of_any_size_pays_its_accounts_and_nobody_else(
        uint256 level,
        uint256 index
    )
        external
    {
        ReferenceTree.Tree memory tree = _tree();
        level %= 5;
        index %= ((tree.leaves.length - 1) >> level) + 1;

        uint256 paid = _claimBlock(tree, level, index);

        uint256 expected = 0;
        for (uint256 i = 0; i < tree.leaves.length; ++i) {
            uint96 due = i >> level == index ? tree.leaves[i].cumulative : 0;
            vm.assertEq(token.balanceOf(tree.leaves[i].account), due);
            expected += due;
        }
        vm.assertEq(paid, expected);
        vm.assertEq(expected, tree.levels[level][index].sum);
    }

    function test_padding_may_be_spelled_out() external {
        ReferenceTree.Tree memory tree = _tree();
        SumTree.Leaf[] memory leaves = _copy(_block(tree, 2, 2), 4);

        vm.assertEq(leaves[3].cumulative, 0, "the last leaf is padding");
        vm.assertEq(distributor.claimSubtree(leaves, 2, 2, tree.path(2, 2)), tree.levels[2][2].sum);
    }

    function test_a_block_of_nobody_is_refused() external {
        bytes memory path = _tree().path(1, 0);

        vm.expectRevert(abi.encodeWithSelector(SumTree.WrongBlockSize.selector, 0, 1));
        distributor.claimSubtree(new SumTree.Leaf[](0), 1, 0, path);
    }

    function test_more_leaves_than_the_block_has_are_refused() external {
        ReferenceTree.Tree memory tree = _tree();
        SumTree.Leaf[] memory leaves = _copy(_block(tree, 1, 0), 3);
        bytes memory path = tree.path(1, 0);

        vm.expectRevert(abi.encodeWithSelector(SumTree.WrongBlockSize.selector, 3, 1));
        distributor.claimSubtree(leaves, 1, 0, path);
    }

    function test_a_block_of_more_than_16_levels_is_refused() external {
        vm.expectRevert(abi.encodeWithSelector(SumTree.WrongBlockSize.selector, 1, 17));
        distributor.claimSubtree(new SumTree.Leaf[](1), 17, 0, "");
    }

    function testFuzz_a_block_of_levels_that_no_tree_has_is_refused(uint256 level) external {
        level = _within(level, 17, type(uint256).max - 1);

        vm.expectRevert(abi.encodeWithSelector(SumTree.WrongBlockSize.selector, 1, level));
        distributor.claimSubtree(new SumTree.Leaf[](1), level, 0, "");
    }

    function test_a_block_of_16_levels_is_the_largest() external {
        SumTree.Leaf[] memory leaves = _people(1, 1);
        leaves[0].cumulative = 2e10;
        ReferenceTree.Node memory node = ReferenceTree.leafNode(leaves[0]);
        ReferenceTree.Node memory padding;
        for (uint256 level = 0; level < 16; ++level) {
            node = ReferenceTree.above(node, padding);
            padding = ReferenceTree.above(padding, padding);
        }
        IRevenueDistributor.Report memory report = _report(1, node.hash, node.sum);
        report.depth = 16;
        vm.warp(distributor.epochEnd(1));
        _post(report);
        _activate();

        vm.assertEq(distributor.claimSubtree(leaves, 16, 0, ""), 2e10);
    }

    function test_a_block_whose_sum_overflows_is_refused() external {
        SumTree.Leaf[] memory leaves = _people(1, 2);
        leaves[0].cumulative = type(uint96).max;
        leaves[1].cumulative = 1;

        vm.expectRevert(abi.encodeWithSelector(SumTree.SumOverflow.selector, 2 ** 96));
        distributor.claimSubtree(leaves, 1, 0, "");
    }

    function test_a_path_on_which_the_sum_overflows_is_refused() external {
        SumTree.Leaf[] memory leaves = _people(1, 1);
        leaves[0].cumulative = type(uint96).max;
        bytes memory path = ReferenceTree.pack(ReferenceTree.Node(0, 1));

        vm.expectRevert(abi.encodeWithSelector(SumTree.SumOverflow.selector, 2 ** 96));
        distributor.claimSubtree(leaves, 0, 0, path);
    }

    function testFuzz_an_index_beyond_the_path_is_refused(uint256 level, uint256 index) external {
        ReferenceTree.Tree memory tree = _tree();
        level %= 5;
        index = _within(index, 2 ** (4 - level), type(uint256).max - 1);
        SumTree.Leaf[] memory leaves = _block(tree, level, 0);
        bytes memory path = tree.path(level, 0);

        vm.expectRevert(abi.encodeWithSelector(SumTree.IndexOutOfRange.selector, index, 4 - level));
        distributor.claimSubtree(leaves, level, index, path);
    }

    function testFuzz_a_block_at_another_place_is_refused(
        uint256 level,
        uint256 index,
        uint256 place
    )
        external
    {
        ReferenceTree.Tree memory tree = _tree();
        (level, index) = _any(level, index);
        place %= 2 ** (4 - level);
        if (place == index) return;

        _refused(_block(tree, level, index), level, place, tree.path(level, index));
    }

    function testFuzz_a_block_said_to_be_of_another_size_is_refused(
        uint256 level,
        uint256 index,
        uint256 said
    )
        external
    {
        ReferenceTree.Tree memory tree = _tree();
        (level, index) = _any(level, index);
        SumTree.Leaf[] memory leaves = _block(tree, level, index);
        said %= 5;
        if (said == level || leaves.length > 2 ** said) return;

        _refused(leaves, said, index, tree.path(level, index));
        _refused(leaves, said, 0, tree.path(said, 0));
    }

    function testFuzz_another_amount_in_a_block_is_refused(
        uint256 level,
        uint256 index,
        uint256 which,
        uint96 cumulative
    )
        external
    {
        ReferenceTree.Tree memory tree = _tree();
        (level, index) = _any(level, index);
        SumTree.Leaf[] memory leaves = _block(tree, level, index);
        which %= leaves.length;
        cumulative %= 1e27;
        if (leaves[which].cumulative == cumulative) return;
        leaves[which].cumulative = cumulative;

        _refused(leaves, level, index, tree.path(level, index));
    }

    /// @dev The block's sum stays right: only the hashes know who has what.
    function testFuzz_an_amount_moved_within_a_block_is_refused(uint256 index, uint96 amount) external {
        ReferenceTree.Tree memory tree = _tree();
        index %= 5;
        SumTree.Leaf[] memory leaves = _block(tree, 1, index);
        amount = uint96(_within(amount, 1, leaves[0].cumulative));
        leaves[0].cumulative -= amount;
        leaves[1].cumulative += amount;

        _refused(leaves, 1, index, tree.path(1, index));
    }

    function testFuzz_another_account_in_a_block_is_refused(
        uint256 level,
        uint256 index,
        uint256 which,
        address account
    )
        external
    {
        ReferenceTree.Tree memory tree = _tree();
        (level, index) = _any(level, index);
        SumTree.Leaf[] memory leaves = _block(tree, level, index);
        which %= leaves.length;
        if (leaves[which].account == account) return;
        leaves[which].account = account;

        _refused(leaves, level, index, tree.path(level, index));
    }

    function testFuzz_a_leaf_less_or_more_in_a_block_is_refused(uint256 level, uint256 index) external {
        ReferenceTree.Tree memory tree = _tree();
        (level, index) = _any(level, index);
        SumTree.Leaf[] memory leaves = _block(tree, level, index);
        bytes memory path = tree.path(level, index);

        if (leaves.length > 1) _refused(_copy(leaves, leaves.length - 1), level, index, path);
        if (leaves.length < 2 ** level) {
            SumTree.Leaf[] memory more = _copy(leaves, leaves.length + 1);
            more[leaves.length] = SumTree.Leaf(ALICE, 0);
            _refused(more, level, index, path);
        }
    }

    function testFuzz_inner_nodes_are_not_the_leaves_of_a_block(uint256 level, uint256 index) external {
        ReferenceTree.Tree memory tree = _tree();
        level = _within(level, 2, 4);
        index %= 2 ** (4 - level);
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](2);
        for (uint256 i = 0; i < 2; ++i) {
            ReferenceTree.Node memory node = tree.levels[level - 1][2 * index + i];
            leaves[i] = SumTree.Leaf(address(bytes20(node.hash)), node.sum);
        }

        _refused(leaves, 1, index, tree.path(level, index));
        for (uint256 i = 0; i < 2; ++i) {
            bytes32 hash = tree.levels[level - 1][2 * index + i].hash;
            leaves[i] = SumTree.Leaf(address(bytes20(hash)), uint96(uint256(hash)) >> 1);
        }
        _refused(leaves, 1, index, tree.path(level, index));
    }

    function _refused(SumTree.Leaf[] memory leaves, uint256 level, uint256 index, bytes memory path) private {
        ReferenceTree.Node memory node =
            ReferenceTree.climb(ReferenceTree.grow(leaves, uint8(level)).root(), index, path);
        bytes memory reason = abi.encodeWithSelector(
            IRevenueDistributor.InvalidProof.selector,
            leaves[0].account,
            leaves[0].cumulative,
            keccak256(ReferenceTree.pack(node)),
            distributor.commitment()
        );
        if (index >> path.length / 44 != 0) {
            reason = abi.encodeWithSelector(SumTree.IndexOutOfRange.selector, index, path.length / 44);
        }
        uint256 before = token.balanceOf(address(distributor));

        vm.expectRevert(reason);
        distributor.claimSubtree(leaves, level, index, path);

        vm.assertEq(token.balanceOf(address(distributor)), before);
    }

    /// @dev Any block that has an account.
    function _any(uint256 level, uint256 index) private pure returns (uint256, uint256) {
        level %= 5;
        return (level, index % ((10 >> level) + 1));
    }

    function _tree() private pure returns (ReferenceTree.Tree memory) {
        return ReferenceTree.grow(_people(7, 11));
    }

    function _copy(
        SumTree.Leaf[] memory leaves,
        uint256 length
    )
        private
        pure
        returns (SumTree.Leaf[] memory copy)
    {
        copy = new SumTree.Leaf[](length);
        for (uint256 i = 0; i < length && i < leaves.length; ++i) {
            copy[i] = leaves[i];
        }
    }
}
