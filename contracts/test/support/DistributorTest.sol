// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DevnetDollar} from "../../src/DevnetDollar.sol";
import {RevenueDistributor} from "../../src/RevenueDistributor.sol";
import {IRevenueDistributor} from "../../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../../src/libraries/SumTree.sol";
import {ReferenceTree} from "./ReferenceTree.sol";
import {Test} from "./Test.sol";

/// @title A distributor with its roles named and a thousand dollars of revenue in it, just after epoch 0.
abstract contract DistributorTest is Test {
    using ReferenceTree for ReferenceTree.Tree;

    uint64 internal constant LENGTH = 7 days;
    uint64 internal constant WINDOW = 2 days;
    uint64 internal constant GENESIS = uint64(START) - LENGTH;
    uint96 internal constant FUNDED = 1000e6;
    uint96 internal constant BOND = 1 ether;
    address internal constant OWNER = address(0x0E12);
    address internal constant POSTER = address(0x20);
    address internal constant GUARDIAN = address(0x6A);
    address internal constant CHALLENGER = address(0xC4A11E);
    address internal constant ALICE = address(0xA11CE);
    address internal constant BOB = address(0xB0B);

    DevnetDollar internal token;
    RevenueDistributor internal distributor;

    function setUp() public virtual {
        vm.warp(START);
        vm.roll(20_000);
        token = _newToken();
        distributor = new RevenueDistributor(token, GENESIS, LENGTH, WINDOW, BOND, OWNER, POSTER, GUARDIAN);
        distributor.addBond{value: BOND}();
        token.approve(address(distributor), type(uint256).max);
        _fund(FUNDED);
    }

    function _newToken() internal virtual returns (DevnetDollar) {
        return new DevnetDollar();
    }

    function _fund(uint96 amount) internal {
        token.mint(address(this), amount);
        distributor.fund(1, amount);
    }

    /// @dev A report whose snapshot is too old for the EVM to know its hash.
    function _report(
        uint64 epoch,
        bytes32 root,
        uint96 sum
    )
        internal
        pure
        returns (IRevenueDistributor.Report memory)
    {
        return IRevenueDistributor.Report({
            epoch: epoch,
            root: root,
            sum: sum,
            depth: 5,
            dataHash: "data",
            ledgerRoot: "ledger",
            rulesHash: "rules",
            snapshotBlock: 7,
            snapshotHash: "snapshot"
        });
    }

    function _post(IRevenueDistributor.Report memory report) internal {
        vm.prank(POSTER);
        distributor.post(report);
    }

    /// @dev Posts the tree as the next epoch's, as soon as that is over.
    function _post(ReferenceTree.Tree memory tree) internal {
        _post(tree, tree.root().sum, tree.depthOf());
    }

    /// @dev As `_post`, with another total or depth than the tree has.
    function _post(ReferenceTree.Tree memory tree, uint96 sum, uint8 depth) internal {
        (uint64 epoch,,) = distributor.active();
        if (vm.getBlockTimestamp() < distributor.epochEnd(epoch)) vm.warp(distributor.epochEnd(epoch));
        IRevenueDistributor.Report memory report = _report(epoch, tree.root().hash, sum);
        report.depth = depth;
        _post(report);
    }

    function _activate() internal {
        (,,,, uint64 activeAt) = distributor.pending();
        vm.warp(activeAt);
        distributor.activate();
    }

    /// @dev Posts the tree as the next epoch's and lets time pass until it pays.
    function _pay(ReferenceTree.Tree memory tree) internal {
        _post(tree);
        _activate();
    }

    function _veto() internal {
        (, bytes32 root,,,) = distributor.pending();
        vm.prank(GUARDIAN);
        distributor.veto(root);
    }

    function _pause() internal {
        vm.prank(GUARDIAN);
        distributor.pause();
    }

    function _claim(ReferenceTree.Tree memory tree, uint256 index) internal {
        SumTree.Proof memory p = tree.proof(index);
        distributor.claim(p.account, p.cumulative, p.index, p.path);
    }

    function _claimMany(ReferenceTree.Tree memory tree) internal returns (uint256 paid) {
        SumTree.Proof[] memory proofs = new SumTree.Proof[](tree.leaves.length);
        for (uint256 i = 0; i < proofs.length; ++i) {
            proofs[i] = tree.proof(i);
        }
        return distributor.claimMany(proofs);
    }

    /// @dev Claims the block of 2**`level` leaves at `index`, as far as it has leaves.
    function _claimBlock(
        ReferenceTree.Tree memory tree,
        uint256 level,
        uint256 index
    )
        internal
        returns (uint256 paid)
    {
        return distributor.claimSubtree(_block(tree, level, index), level, index, tree.path(level, index));
    }

    function _block(
        ReferenceTree.Tree memory tree,
        uint256 level,
        uint256 index
    )
        internal
        pure
        returns (SumTree.Leaf[] memory leaves)
    {
        uint256 first = index << level;
        uint256 end = first + 2 ** level < tree.leaves.length ? first + 2 ** level : tree.leaves.length;
        leaves = new SumTree.Leaf[](end - first);
        for (uint256 i = 0; i < leaves.length; ++i) {
            leaves[i] = tree.leaves[first + i];
        }
    }

    /// @dev The challenge takes the pending root away and pays exactly the bond; all else stays as it was.
    function _rejected(bytes memory challenge, IRevenueDistributor.Fault fault, address account) internal {
        (uint64 epoch, bytes32 root,,,) = distributor.pending();
        (uint256 bond, bytes32 active) = (distributor.bond(), distributor.activeCommitment());
        uint256 before = CHALLENGER.balance;

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Challenged(epoch, root, CHALLENGER, fault, account);
        vm.prank(CHALLENGER);
        (bool ok,) = address(distributor).call(challenge);

        vm.assertTrue(ok, "the challenge failed");
        vm.assertEq(CHALLENGER.balance, before + BOND, "what the challenger was paid");
        vm.assertEq(distributor.bond(), bond - BOND, "bond");
        vm.assertEq(address(distributor).balance, bond - BOND, "coin");
        vm.assertEq(distributor.activeCommitment(), active);
        (,,,, uint64 activeAt) = distributor.pending();
        vm.assertEq(activeAt, 0, "it is still pending");
        (uint64 next,,) = distributor.active();
        vm.assertEq(next, epoch, "the epoch that comes next");
    }

    /// @dev The challenge fails with exactly this error.
    function _refused(bytes memory challenge, bytes memory reason) internal {
        vm.prank(CHALLENGER);
        (bool ok, bytes memory said) = address(distributor).call(challenge);

        vm.assertFalse(ok, "the challenge succeeded");
        vm.assertEq(said, reason);
    }

    /// @dev The error of a claim by a tree that is not the one that pays.
    function _invalid(
        ReferenceTree.Tree memory tree,
        uint256 index,
        bytes32 active
    )
        internal
        pure
        returns (bytes memory)
    {
        (address account, uint96 cumulative) = (tree.leaves[index].account, tree.leaves[index].cumulative);
        return abi.encodeWithSelector(
            IRevenueDistributor.InvalidProof.selector, account, cumulative, tree.commitment(), active
        );
    }

    function _twoPeople(uint96 bob, uint96 alice) internal pure returns (ReferenceTree.Tree memory) {
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](2);
        leaves[0] = SumTree.Leaf(BOB, bob);
        leaves[1] = SumTree.Leaf(ALICE, alice);
        return ReferenceTree.grow(leaves);
    }

    /// @dev Accounts in ascending order, some of them next to each other, each with up to a thousand dollars.
    function _people(uint256 seed, uint256 count) internal pure returns (SumTree.Leaf[] memory leaves) {
        leaves = new SumTree.Leaf[](count);
        uint160 account = 0xFFFF;
        for (uint256 i = 0; i < count; ++i) {
            uint256 random = _random(seed, i);
            account += random % 4 == 0 ? 1 : 1 + uint160(uint128(random >> 8));
            leaves[i] = SumTree.Leaf(address(account), uint96(_within(random >> 160, 1, 1e9)));
        }
    }

    /// @dev The same people an epoch later: nobody has less, some have more, some are new.
    function _grown(
        SumTree.Leaf[] memory old,
        uint256 seed,
        uint256 most
    )
        internal
        pure
        returns (SumTree.Leaf[] memory leaves)
    {
        leaves = new SumTree.Leaf[](most);
        uint256 count = 0;
        for (uint256 i = 0; i <= old.length; ++i) {
            uint256 random = _random(seed, i);
            uint160 low = i == 0 ? 0xFFFF : uint160(old[i - 1].account);
            uint160 high = i == old.length ? type(uint160).max : uint160(old[i].account);
            if (random % 2 == 0 && count + old.length - i < most && high - low > 1) {
                address account = address(low + 1 + uint160(random >> 96) % (high - low - 1));
                leaves[count++] = SumTree.Leaf(account, uint96(_within(random >> 8, 1, 1e9)));
            }
            if (i == old.length) break;
            uint96 more = random % 3 == 0 ? 0 : uint96(_within(random >> 8, 1, 1e9));
            leaves[count++] = SumTree.Leaf(old[i].account, old[i].cumulative + more);
        }
        assembly ("memory-safe") {
            mstore(leaves, count)
        }
    }

    /// @dev Where the account stands, or where it would.
    function _indexOf(SumTree.Leaf[] memory leaves, address account) internal pure returns (uint256 index) {
        while (index < leaves.length && leaves[index].account < account) ++index;
    }

    function _with(
        SumTree.Leaf[] memory leaves,
        SumTree.Leaf memory last
    )
        internal
        pure
        returns (SumTree.Leaf[] memory more)
    {
        more = new SumTree.Leaf[](leaves.length + 1);
        for (uint256 i = 0; i < leaves.length; ++i) {
            more[i] = leaves[i];
        }
        more[leaves.length] = last;
    }

    function _without(
        SumTree.Leaf[] memory leaves,
        uint256 index
    )
        internal
        pure
        returns (SumTree.Leaf[] memory fewer)
    {
        fewer = new SumTree.Leaf[](leaves.length - 1);
        for (uint256 i = 0; i < fewer.length; ++i) {
            fewer[i] = leaves[i < index ? i : i + 1];
        }
    }

    function _shuffled(uint256 count, uint256 seed) internal pure returns (uint256[] memory order) {
        order = new uint256[](count);
        for (uint256 i = 0; i < count; ++i) {
            uint256 j = _random(seed, i) % (i + 1);
            order[i] = order[j];
            order[j] = i;
        }
    }
}
