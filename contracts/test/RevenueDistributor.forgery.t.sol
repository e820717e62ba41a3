// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title Every way to forge a proof, refused by every kind of claim: seven accounts, so that there is padding.
contract RevenueDistributorForgeryTest is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    bytes32 private _active;

    function setUp() public override {
        super.setUp();
        _pay(_tree());
        _active = distributor.commitment();
    }

    function testFuzz_another_amount_is_refused(uint256 index, uint96 cumulative) external {
        SumTree.Proof memory p = _proof(index);
        if (cumulative == p.cumulative) return;
        p.cumulative = cumulative;

        _refused(p);
    }

    function testFuzz_another_account_is_refused(uint256 index, address account) external {
        SumTree.Proof memory p = _proof(index);
        if (account == p.account) return;
        p.account = account;

        _refused(p);
    }

    function testFuzz_another_index_is_refused(uint256 index, uint256 claimed) external {
        SumTree.Proof memory p = _proof(index);
        if (claimed % 8 == p.index) return;
        p.index = claimed % 8;

        _refused(p);
    }

    function testFuzz_an_index_beyond_the_proof_is_refused(uint256 index, uint256 high) external {
        SumTree.Proof memory p = _proof(index);
        p.index |= _within(high, 1, type(uint256).max >> 3) << 3;

        _refused(p, abi.encodeWithSelector(SumTree.IndexOutOfRange.selector, p.index, 3));
    }

    function testFuzz_another_bit_of_the_path_is_refused(
        uint256 index,
        uint256 offset,
        uint256 bit
    )
        external
    {
        SumTree.Proof memory p = _proof(index);
        offset %= p.path.length;
        p.path[offset] ^= bytes1(uint8(1 << bit % 8));

        _refused(p);
    }

    function testFuzz_another_sibling_is_refused(
        uint256 index,
        uint256 level,
        bytes32 hash,
        uint96 sum
    )
        external
    {
        SumTree.Proof memory p = _proof(index);
        level %= 3;
        bytes memory sibling = ReferenceTree.pack(ReferenceTree.Node(hash, sum));
        p.path = bytes.concat(_prefix(p.path, level), sibling, _suffix(p.path, level + 1));

        _refused(p);
    }

    /// @dev The total stays right: only the hashes of the nodes know how it is divided.
    function testFuzz_an_amount_taken_from_the_sibling_is_refused(
        uint256 index,
        uint256 level,
        uint96 amount
    )
        external
    {
        ReferenceTree.Tree memory tree = _tree();
        SumTree.Proof memory p = _proof(index);
        level %= 3;
        ReferenceTree.Node memory sibling = tree.levels[level][(p.index >> level) ^ 1];
        if (sibling.sum == 0) return;
        amount = uint96(_within(amount, 1, sibling.sum));
        sibling.sum -= amount;
        p.cumulative += amount;
        p.path = bytes.concat(_prefix(p.path, level), ReferenceTree.pack(sibling), _suffix(p.path, level + 1));

        _refused(p);
    }

    function testFuzz_a_shorter_proof_is_refused(uint256 index, uint256 levels) external {
        SumTree.Proof memory p = _proof(index);
        p.path = _prefix(p.path, levels % 3);
        p.index %= 2 ** (levels % 3);

        _refused(p);
    }

    function testFuzz_a_longer_proof_is_refused(
        uint256 index,
        bytes32 hash,
        uint96 sum,
        bool right
    )
        external
    {
        SumTree.Proof memory p = _proof(index);
        p.path = bytes.concat(p.path, ReferenceTree.pack(ReferenceTree.Node(hash, sum)));
        if (right) p.index += 8;

        _refused(p);
    }

    function test_a_proof_with_an_empty_level_on_top_is_refused() external {
        SumTree.Proof memory p = _proof(0);
        p.path = bytes.concat(p.path, new bytes(44));

        _refused(p);
    }

    function testFuzz_a_proof_that_ends_within_a_sibling_is_refused(uint256 index, uint256 length) external {
        SumTree.Proof memory p = _proof(index);
        length %= 5 * 44;
        if (length % 44 == 0) length += 1;
        p.path = _cut(bytes.concat(p.path, new bytes(88)), length);

        _refused(p, abi.encodeWithSelector(SumTree.WrongPathLength.selector, length));
    }

    /// @dev An inner node's hash has the length of a leaf's preimage: 20 bytes of address and 12 of amount.
    function testFuzz_an_inner_node_is_not_a_leaf(uint256 level, uint256 index) external {
        ReferenceTree.Tree memory tree = _tree();
        level = _within(level, 1, 3);
        index %= 2 ** (3 - level);
        ReferenceTree.Node memory node = tree.levels[level][index];
        bytes memory path = tree.path(level, index);

        _refused(SumTree.Proof(address(bytes20(node.hash)), uint96(uint256(node.hash)), index, path));
        _refused(SumTree.Proof(address(bytes20(node.hash)), node.sum, index, path));
    }

    function testFuzz_a_padding_leaf_is_nobodys(address account, uint96 cumulative) external {
        if (account == address(0) && cumulative == 0) return;
        SumTree.Proof memory p = _tree().proof(7);
        (p.account, p.cumulative) = (account, cumulative);

        _refused(p);
    }

    function test_the_zero_address_does_not_own_the_padding() external {
        SumTree.Proof memory p = _tree().proof(7);
        SumTree.Proof[] memory proofs = new SumTree.Proof[](1);
        proofs[0] = p;

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NothingToClaim.selector, address(0), 0, 0));
        distributor.claim(p.account, p.cumulative, p.index, p.path);
        vm.assertEq(distributor.claimMany(proofs), 0);
        vm.assertEq(distributor.claimSubtree(new SumTree.Leaf[](1), 0, 7, p.path), 0);
    }

    function test_sums_that_overflow_are_refused() external {
        SumTree.Proof memory p = _proof(0);
        ReferenceTree.Node memory sibling = _tree().levels[0][1];
        sibling.sum = type(uint96).max;
        p.path = bytes.concat(ReferenceTree.pack(sibling), _suffix(p.path, 1));
        uint256 sum = uint256(_tree().root().sum) + type(uint96).max - _tree().leaves[1].cumulative;

        _refused(p, abi.encodeWithSelector(SumTree.SumOverflow.selector, sum));
    }

    /// @dev A sum of 2**96 more is the same 96 bits in every hash, but not in the total.
    function test_sums_that_wrap_around_to_the_posted_total_are_refused() external {
        SumTree.Leaf[] memory leaves = _people(1, 2);
        leaves[0].cumulative = type(uint96).max;
        leaves[1].cumulative = 700e6 + 1;
        ReferenceTree.Tree memory tree = ReferenceTree.grow(leaves);
        vm.assertEq(tree.root().sum, 700e6, "the total that wraps around");
        _pay(tree);

        bytes memory reason =
            abi.encodeWithSelector(SumTree.SumOverflow.selector, uint256(type(uint96).max) + 700e6 + 1);
        _refused(tree.proof(0), reason);
        _refused(tree.proof(1), reason);
    }

    function _refused(SumTree.Proof memory p) private {
        ReferenceTree.Node memory node = ReferenceTree.leafNode(SumTree.Leaf(p.account, p.cumulative));
        uint256 sum = p.cumulative;
        for (uint256 offset = 32; offset < p.path.length; offset += 44) {
            sum += uint96(bytes12(_cut(_skip(p.path, offset), 12)));
        }
        bytes memory reason = abi.encodeWithSelector(SumTree.SumOverflow.selector, sum);
        if (sum <= type(uint96).max) {
            bytes32 proven = keccak256(ReferenceTree.pack(ReferenceTree.climb(node, p.index, p.path)));
            reason = abi.encodeWithSelector(
                IRevenueDistributor.InvalidProof.selector, p.account, p.cumulative, proven, _active
            );
        }
        _refused(p, reason);
    }

    /// @dev By the three claims of one account with exactly the reason, by the batch without one; nobody is paid.
    function _refused(SumTree.Proof memory p, bytes memory reason) private {
        uint256 before = token.balanceOf(address(distributor));
        vm.expectRevert(reason);
        distributor.claim(p.account, p.cumulative, p.index, p.path);
        vm.expectRevert(reason);
        vm.prank(p.account);
        distributor.claimTo(p.cumulative, p.index, p.path, ALICE);

        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](1);
        leaves[0] = SumTree.Leaf(p.account, p.cumulative);
        vm.expectRevert(reason);
        distributor.claimSubtree(leaves, 0, p.index, p.path);

        SumTree.Proof[] memory proofs = new SumTree.Proof[](1);
        proofs[0] = p;
        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.ClaimSkipped(p.account, p.cumulative);
        vm.assertEq(distributor.claimMany(proofs), 0);
        vm.assertEq(token.balanceOf(address(distributor)), before);
    }

    function _proof(uint256 index) private pure returns (SumTree.Proof memory) {
        return _tree().proof(index % 7);
    }

    function _tree() private pure returns (ReferenceTree.Tree memory) {
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](7);
        for (uint160 i = 0; i < 7; ++i) {
            leaves[i] = SumTree.Leaf(address((i + 1) << 96), uint96(10 + i) * 1e6);
        }
        return ReferenceTree.grow(leaves);
    }

    function _prefix(bytes memory path, uint256 levels) private pure returns (bytes memory) {
        return _cut(path, 44 * levels);
    }

    function _suffix(bytes memory path, uint256 levels) private pure returns (bytes memory) {
        return _skip(path, 44 * levels);
    }

    function _cut(bytes memory path, uint256 length) private pure returns (bytes memory shorter) {
        shorter = new bytes(length);
        for (uint256 i = 0; i < length; ++i) {
            shorter[i] = path[i];
        }
    }

    function _skip(bytes memory path, uint256 length) private pure returns (bytes memory rest) {
        rest = new bytes(path.length - length);
        for (uint256 i = 0; i < rest.length; ++i) {
            rest[i] = path[length + i];
        }
    }
}
