// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title Every way to forge a proof, refused: seven accounts, so that the tree has a padding leaf.
contract RevenueDistributorForgeryTest is DistributorTest {
    ReferenceTree.Leaf[] private _leaves;

    function setUp() public override {
        super.setUp();
        for (uint160 i = 0; i < 7; ++i) {
            _leaves.push(ReferenceTree.Leaf(address((i + 1) << 96), uint96(10 + i) * 1e6));
        }
        _pay(_leaves);
    }

    function testFuzz_another_amount_is_refused(uint256 index, uint96 cumulative) external {
        index %= 7;
        if (cumulative == _leaves[index].cumulative) return;

        _refused(_leaves[index].account, cumulative, index, ReferenceTree.proofOf(_leaves, index));
    }

    function testFuzz_another_account_is_refused(uint256 index, address account) external {
        index %= 7;
        if (account == _leaves[index].account) return;

        _refused(account, _leaves[index].cumulative, index, ReferenceTree.proofOf(_leaves, index));
    }

    function testFuzz_another_index_is_refused(uint256 index, uint256 claimed) external {
        index %= 7;
        claimed %= 8;
        if (claimed == index) return;

        _refused(
            _leaves[index].account, _leaves[index].cumulative, claimed, ReferenceTree.proofOf(_leaves, index)
        );
    }

    function testFuzz_an_index_beyond_the_proof_is_refused(uint256 index, uint256 high) external {
        index %= 7;
        uint256 claimed = index | (_within(high, 1, type(uint256).max >> 3) << 3);
        SumTree.Node[] memory proof = ReferenceTree.proofOf(_leaves, index);

        vm.expectRevert(abi.encodeWithSelector(SumTree.IndexOutOfRange.selector, claimed, 3));
        distributor.claim(_leaves[index].account, _leaves[index].cumulative, claimed, proof);
    }

    function testFuzz_another_sibling_hash_is_refused(uint256 index, uint256 level, uint256 bit) external {
        index %= 7;
        SumTree.Node[] memory proof = ReferenceTree.proofOf(_leaves, index);
        level %= 3;
        proof[level].hash ^= bytes32(uint256(1) << (bit % 256));

        _refused(_leaves[index].account, _leaves[index].cumulative, index, proof);
    }

    function testFuzz_another_sibling_sum_is_refused(uint256 index, uint256 level, uint96 sum) external {
        index %= 7;
        SumTree.Node[] memory proof = ReferenceTree.proofOf(_leaves, index);
        level %= 3;
        if (sum == proof[level].sum) return;
        proof[level].sum = sum;

        _refused(_leaves[index].account, _leaves[index].cumulative, index, proof);
    }

    /// @dev The total stays right: only the hashes of the nodes know how it is divided.
    function testFuzz_an_amount_taken_from_the_sibling_is_refused(
        uint256 index,
        uint256 level,
        uint96 amount
    )
        external
    {
        index %= 7;
        SumTree.Node[] memory proof = ReferenceTree.proofOf(_leaves, index);
        level %= 3;
        if (proof[level].sum == 0) return;
        amount = uint96(_within(amount, 1, proof[level].sum));
        proof[level].sum -= amount;

        _refused(_leaves[index].account, _leaves[index].cumulative + amount, index, proof);
    }

    function testFuzz_a_shorter_proof_is_refused(uint256 index, uint256 length) external {
        index %= 7;
        length %= 3;
        SumTree.Node[] memory proof = _prefix(ReferenceTree.proofOf(_leaves, index), length);

        _refused(_leaves[index].account, _leaves[index].cumulative, index % 2 ** length, proof);
    }

    function testFuzz_a_longer_proof_is_refused(uint256 index, bytes32 hash, uint96 sum) external {
        index %= 7;
        SumTree.Node[] memory proof = _prefix(ReferenceTree.proofOf(_leaves, index), 4);
        proof[3] = SumTree.Node(hash, sum);

        _refused(_leaves[index].account, _leaves[index].cumulative, index, proof);
    }

    function test_a_proof_with_an_empty_level_on_top_is_refused() external {
        SumTree.Node[] memory proof = _prefix(ReferenceTree.proofOf(_leaves, 0), 4);

        _refused(_leaves[0].account, _leaves[0].cumulative, 0, proof);
    }

    /// @dev An inner node's hash has the length of a leaf's preimage: 20 bytes of address and 12 of amount.
    function testFuzz_an_inner_node_is_not_a_leaf(uint256 level, uint256 position) external {
        level = _within(level, 1, 3);
        position %= 2 ** (3 - level);
        SumTree.Node memory node = ReferenceTree.subtree(_leaves, position << level, 2 ** level);
        SumTree.Node[] memory path = ReferenceTree.proofOf(_leaves, (position << level) % 7);
        SumTree.Node[] memory upper = new SumTree.Node[](3 - level);
        for (uint256 i = 0; i < upper.length; ++i) {
            upper[i] = path[level + i];
        }

        _refused(address(bytes20(node.hash)), uint96(uint256(node.hash)), position, upper);
        _refused(address(bytes20(node.hash)), node.sum, position, upper);
    }

    function testFuzz_a_padding_leaf_is_nobodys(address account, uint96 cumulative) external {
        _refused(account, cumulative, 7, ReferenceTree.proofOf(_leaves, 7));
    }

    function test_the_zero_account_does_not_own_the_padding() external {
        _refused(address(0), 0, 7, ReferenceTree.proofOf(_leaves, 7));
    }

    function test_sums_that_overflow_are_refused() external {
        SumTree.Node[] memory proof = ReferenceTree.proofOf(_leaves, 0);
        proof[0].sum = type(uint96).max;
        uint256 sum = uint256(type(uint96).max) + _leaves[0].cumulative;

        vm.expectRevert(abi.encodeWithSelector(SumTree.SumOverflow.selector, sum));
        distributor.claim(_leaves[0].account, _leaves[0].cumulative, 0, proof);
    }

    /// @dev Refused for the proof's own sake, not for some other reason, and without a payment.
    function _refused(
        address account,
        uint96 cumulative,
        uint256 index,
        SumTree.Node[] memory proof
    )
        private
    {
        uint256 before = token.balanceOf(address(distributor));
        try distributor.claim(account, cumulative, index, proof) {
            vm.assertTrue(false, "a forged proof was paid");
        } catch (bytes memory reason) {
            bytes4 selector = bytes4(reason);
            bool expected = selector == IRevenueDistributor.InvalidProof.selector
                || selector == SumTree.SumOverflow.selector;
            vm.assertTrue(expected, "refused for another reason");
        }
        vm.assertEq(token.balanceOf(address(distributor)), before);
    }

    function _prefix(
        SumTree.Node[] memory path,
        uint256 length
    )
        private
        pure
        returns (SumTree.Node[] memory prefix)
    {
        prefix = new SumTree.Node[](length);
        for (uint256 i = 0; i < length && i < path.length; ++i) {
            prefix[i] = path[i];
        }
    }
}
