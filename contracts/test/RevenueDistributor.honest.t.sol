// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title An honest root cannot be rejected, whatever is brought against it: trees of 0 to 40 accounts, grown from one
/// epoch to the next, and challenges put together from true and from changed leaves, places, paths and preimages.
contract RevenueDistributorHonestTest is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    uint256 private constant MOST = 40;
    uint256 private constant TRIES = 8;

    function setUp() public override {
        super.setUp();
        _fund(1e12);
    }

    function testFuzz_true_leaves_prove_no_decrease(uint256 seed) external {
        (ReferenceTree.Tree memory old, ReferenceTree.Tree memory next) = _postHonest(seed);
        for (uint256 i = 0; i < old.leaves.length; ++i) {
            SumTree.Leaf memory before = old.leaves[i];
            uint256 index = _indexOf(next.leaves, before.account);
            _refused(
                abi.encodeCall(distributor.challengeDecrease, (old.proof(i), next.proof(index))),
                abi.encodeWithSelector(
                    IRevenueDistributor.NotLower.selector,
                    before.account,
                    before.cumulative,
                    next.leaves[index].cumulative
                )
            );
            index = _random(seed, i) % next.levels[0].length;
            if (next.leafAt(index).account == before.account) continue;
            _refused(
                abi.encodeCall(distributor.challengeDecrease, (old.proof(i), next.proof(index))),
                abi.encodeWithSelector(
                    IRevenueDistributor.DifferentAccounts.selector, before.account, next.leafAt(index).account
                )
            );
        }
        _checkPending(next);
    }

    function testFuzz_true_neighbours_prove_nobody_missing(uint256 seed) external {
        (ReferenceTree.Tree memory old, ReferenceTree.Tree memory next) = _postHonest(seed);
        for (uint256 i = 0; i < old.leaves.length; ++i) {
            uint256 index = _indexOf(next.leaves, old.leaves[i].account);
            _checkGap(old.proof(i), next, index);
            _checkGap(old.proof(i), next, index + 1);
            _checkGap(old.proof(i), next, _random(seed, i) % (next.levels[0].length + 1));
        }
        _checkPending(next);
    }

    function testFuzz_true_neighbours_are_in_order(uint256 seed) external {
        (, ReferenceTree.Tree memory next) = _postHonest(seed);
        for (uint256 i = 0; i + 1 < next.levels[0].length; ++i) {
            _refused(
                abi.encodeCall(distributor.challengeOrder, (next.proof(i), next.proof(i + 1))),
                abi.encodeWithSelector(
                    IRevenueDistributor.InOrder.selector, next.leafAt(i).account, next.leafAt(i + 1).account
                )
            );
        }
        _checkPending(next);
    }

    function testFuzz_true_nodes_are_well_formed(uint256 seed) external {
        (, ReferenceTree.Tree memory next) = _postHonest(seed);
        for (uint256 level = 0; level <= next.depthOf(); ++level) {
            uint256 index = _random(seed, level) % next.levels[level].length;
            bytes memory preimage = next.preimage(level, index);
            uint96 sum = next.levels[level][index].sum;
            _refused(
                abi.encodeCall(
                    distributor.challengeMalformed, (preimage, sum, index, next.path(level, index))
                ),
                abi.encodeWithSelector(IRevenueDistributor.WellFormed.selector, index, next.depthOf() - level)
            );
        }
        _checkPending(next);
    }

    /// @dev Leaves of either tree, each changed in some way or in none: never a proof, and always an error with a name.
    function testFuzz_changed_proofs_prove_nothing(uint256 seed) external {
        (ReferenceTree.Tree memory old, ReferenceTree.Tree memory next) = _postHonest(seed);
        for (uint256 i = 0; i < TRIES; ++i) {
            uint256 draw = _random(seed, 100 + i);
            SumTree.Proof memory a = _changed(draw % 2 == 0 ? old : next, draw);
            SumTree.Proof memory b = _changed(next, _random(draw, 1));
            SumTree.Proof memory c = _changed(next, _random(draw, 2));
            // What has to agree often does: else most tries would fail for that alone.
            unchecked {
                if (draw % 3 != 0) (b.account, c.index) = (a.account, b.index + 1);
            }
            _fails(abi.encodeCall(distributor.challengeDecrease, (a, b)));
            _fails(abi.encodeCall(distributor.challengeMissing, (a, b, c)));
            _fails(abi.encodeCall(distributor.challengeMissing, (a, _changed(next, _random(draw, 3)), c)));
            _fails(abi.encodeCall(distributor.challengeOrder, (b, c)));
            _fails(abi.encodeCall(distributor.challengeOrder, (a, c)));
        }
        _checkPending(next);
    }

    function testFuzz_changed_nodes_prove_nothing(uint256 seed, bytes calldata noise, uint96 sum) external {
        (ReferenceTree.Tree memory old, ReferenceTree.Tree memory next) = _postHonest(seed);
        for (uint256 i = 0; i < TRIES; ++i) {
            uint256 draw = _random(seed, 100 + i);
            ReferenceTree.Tree memory tree = draw % 4 == 0 ? old : next;
            uint256 level = _random(draw, 1) % tree.levels.length;
            uint256 index = _random(draw, 2) % tree.levels[level].length;
            bytes memory path = tree.path(level, index);
            bytes memory preimage = draw % 5 == 0 ? bytes(noise) : tree.preimage(level, index);
            uint96 said = draw % 3 == 0 ? sum : tree.levels[level][index].sum;
            if (draw % 7 == 0) index = _random(draw, 3) % (2 * tree.levels[level].length);
            if (draw % 11 == 0) path = bytes.concat(path, noise);
            if (draw % 13 == 0) path = noise;
            _fails(abi.encodeCall(distributor.challengeMalformed, (preimage, said, index, path)));
        }
        _checkPending(next);
    }

    function testFuzz_noise_proves_nothing(
        uint256 seed,
        SumTree.Proof calldata a,
        SumTree.Proof calldata b,
        SumTree.Proof calldata c
    )
        external
    {
        (, ReferenceTree.Tree memory next) = _postHonest(seed);
        _fails(abi.encodeCall(distributor.challengeDecrease, (a, b)));
        _fails(abi.encodeCall(distributor.challengeMissing, (a, b, c)));
        _fails(abi.encodeCall(distributor.challengeOrder, (b, c)));
        _fails(abi.encodeCall(distributor.challengeMalformed, (a.path, a.cumulative, a.index, b.path)));
        _checkPending(next);
    }

    /// @dev Activates an honest tree and posts the next.
    function _postHonest(uint256 seed)
        private
        returns (ReferenceTree.Tree memory old, ReferenceTree.Tree memory next)
    {
        old = ReferenceTree.grow(_people(seed, _random(seed, 0) % (MOST + 1)));
        // Now and then a tree of the same people, who have earned no more.
        next = seed % 8 == 0 ? old : ReferenceTree.grow(_grown(old.leaves, seed, MOST));
        _pay(old);
        _post(next);
    }

    function _changed(
        ReferenceTree.Tree memory tree,
        uint256 draw
    )
        private
        pure
        returns (SumTree.Proof memory p)
    {
        p = tree.proof(_random(draw, 10) % tree.levels[0].length);
        uint256 change = _random(draw, 11) % 10;
        uint256 other = _random(draw, 12);
        if (change == 0) p.account = address(uint160(p.account) + uint160(1 + other % 2));
        if (change == 1) p.cumulative = uint96(other % (uint256(p.cumulative) + 2));
        if (change == 2) p.index = other % (2 * tree.levels[0].length);
        if (change == 3) p.index = type(uint256).max - other % 2;
        if (change == 4) p.path = tree.path(0, other % tree.levels[0].length);
        if (change == 5) p.path = bytes.concat(p.path, new bytes(44));
        if (change == 6 && tree.depthOf() > 0) p.path = tree.path(1, p.index / 2);
        if (change == 7) (p.account, p.cumulative) = (address(0), 0);
    }

    function _checkGap(SumTree.Proof memory before, ReferenceTree.Tree memory next, uint256 gap) private {
        SumTree.Proof memory left = next.proof(gap == 0 ? 0 : gap - 1);
        SumTree.Proof memory right;
        if (gap == next.levels[0].length) right.index = gap;
        else right = next.proof(gap);
        _refused(
            abi.encodeCall(distributor.challengeMissing, (before, left, right)),
            abi.encodeWithSelector(
                IRevenueDistributor.NotBetween.selector, before.account, left.account, right.account
            )
        );
    }

    /// @dev With an error of ours: no panic, and no failure without a reason.
    function _fails(bytes memory challenge) private {
        vm.prank(CHALLENGER);
        (bool ok, bytes memory reason) = address(distributor).call(challenge);

        vm.assertFalse(ok, "an honest root was rejected");
        vm.assertTrue(reason.length >= 4, "it failed without a reason");
        vm.assertTrue(_isOurs(bytes4(reason)), "it failed for a reason that has no name");
    }

    function _isOurs(bytes4 selector) private pure returns (bool) {
        return selector == IRevenueDistributor.DifferentAccounts.selector
            || selector == IRevenueDistributor.NotLower.selector
            || selector == IRevenueDistributor.NotInActive.selector
            || selector == IRevenueDistributor.NotInPending.selector
            || selector == IRevenueDistributor.WrongDepth.selector
            || selector == IRevenueDistributor.IndexOutOfTree.selector
            || selector == IRevenueDistributor.NotAdjacent.selector
            || selector == IRevenueDistributor.NotBetween.selector
            || selector == IRevenueDistributor.InOrder.selector
            || selector == IRevenueDistributor.WellFormed.selector || selector == SumTree.SumOverflow.selector
            || selector == SumTree.WrongPathLength.selector || selector == SumTree.IndexOutOfRange.selector;
    }

    function _checkPending(ReferenceTree.Tree memory next) private view {
        (, bytes32 root, uint96 sum,, uint64 activeAt) = distributor.pending();
        vm.assertEq(root, next.root().hash);
        vm.assertEq(sum, next.root().sum);
        vm.assertTrue(activeAt != 0, "nothing is pending any more");
        vm.assertEq(distributor.bond(), BOND);
        vm.assertEq(CHALLENGER.balance, 0);
    }
}
