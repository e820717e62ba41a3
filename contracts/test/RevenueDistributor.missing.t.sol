// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title Trees in which an account of the active root is absent are rejected, whatever edge it fell off.
contract RevenueDistributorMissingTest is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    uint256 private constant MOST = 40;
    address private constant LAST = address(type(uint160).max);

    function setUp() public override {
        super.setUp();
        _fund(1e12);
    }

    function testFuzz_a_tree_that_drops_an_account_is_rejected(uint256 seed, uint256 which) external {
        SumTree.Leaf[] memory old = _people(seed, _within(seed, 1, MOST / 2));
        _pay(ReferenceTree.grow(old));
        which %= old.length;
        SumTree.Leaf[] memory leaves = _grown(old, seed, MOST);
        leaves = _without(leaves, _indexOf(leaves, old[which].account));
        // The total may not fall: somebody has what was taken.
        leaves = _with(leaves, SumTree.Leaf(LAST, old[which].cumulative));

        _rejectedFor(ReferenceTree.grow(old), ReferenceTree.grow(leaves), which);
    }

    function test_an_account_dropped_from_the_front_is_found() external {
        SumTree.Leaf[] memory old = _people(1, 5);
        _checkDropped(old, 0, 4);
    }

    function test_an_account_dropped_from_the_middle_is_found() external {
        SumTree.Leaf[] memory old = _people(1, 5);
        _checkDropped(old, 2, 4);
    }

    /// @dev Four are left in a tree for four: nothing stands behind the gap.
    function test_an_account_dropped_from_the_end_of_a_full_tree_is_found() external {
        SumTree.Leaf[] memory old = _people(1, 5);
        _checkDropped(old, 4, 4);
    }

    /// @dev Six are left in a tree for eight: padding stands behind the gap.
    function test_an_account_dropped_from_the_end_of_a_tree_with_padding_is_found() external {
        SumTree.Leaf[] memory old = _people(1, 7);
        _checkDropped(old, 6, 6);
    }

    function test_a_tree_of_other_people_altogether_is_rejected_for_each() external {
        SumTree.Leaf[] memory old = _people(1, 3);
        SumTree.Leaf[] memory other = _people(2, 3);
        _pay(ReferenceTree.grow(old));
        other[2].cumulative += 3e9;

        for (uint256 i = 0; i < 3; ++i) {
            _rejectedFor(ReferenceTree.grow(old), ReferenceTree.grow(other), i);
            distributor.addBond{value: BOND}();
        }
    }

    /// @dev An account with nothing can be dropped without lowering the total.
    function test_a_tree_of_nobody_is_rejected_where_there_was_somebody() external {
        SumTree.Leaf[] memory old = new SumTree.Leaf[](1);
        old[0].account = ALICE;
        _pay(ReferenceTree.grow(old));

        _rejectedFor(ReferenceTree.grow(old), ReferenceTree.grow(new SumTree.Leaf[](0)), 0);
    }

    /// @dev Else a leaf of nobody that nobody stopped in time would let no later root pass: with it, it is malformed.
    function test_the_zero_address_of_an_active_root_is_not_missing() external {
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](2);
        leaves[0] = SumTree.Leaf(address(0), 5e6);
        leaves[1] = SumTree.Leaf(BOB, 5e6);
        ReferenceTree.Tree memory old = ReferenceTree.grow(leaves);
        _pay(old);
        ReferenceTree.Tree memory next = _twoPeople(5e6, 5e6);
        _post(next);

        vm.expectRevert(
            abi.encodeWithSelector(
                IRevenueDistributor.NotInActive.selector, address(0), 5e6, old.root().hash, old.root().sum
            )
        );
        distributor.challengeMissing(old.proof(0), next.proof(0), next.proof(0));
    }

    function test_an_account_that_is_there_is_not_missing() external {
        ReferenceTree.Tree memory old = _payThree();
        _post(old);

        for (uint256 i = 0; i < 3; ++i) {
            for (uint256 gap = 0; gap < 4; ++gap) {
                SumTree.Proof memory left = old.proof(gap == 0 ? 0 : gap - 1);
                SumTree.Proof memory right = old.proof(gap);
                _refused(_missing(old.proof(i), left, right), _notBetween(old.proof(i), left, right));
            }
        }
    }

    /// @dev On the right of padding nobody is, so that everybody would be missing there.
    function test_a_gap_behind_padding_proves_nothing() external {
        ReferenceTree.Tree memory old = _payThree();
        _post(ReferenceTree.grow(old.leaves, 3));
        ReferenceTree.Tree memory next = ReferenceTree.grow(old.leaves, 3);
        SumTree.Proof memory end;
        end.index = 8;

        _refused(
            _missing(old.proof(0), next.proof(4), next.proof(5)),
            _notBetween(old.proof(0), next.proof(4), next.proof(5))
        );
        _refused(_missing(old.proof(0), next.proof(7), end), _notBetween(old.proof(0), next.proof(7), end));
    }

    function test_a_gap_that_the_tree_does_not_have_is_refused() external {
        ReferenceTree.Tree memory old = _payThree();
        _post(old);
        (SumTree.Proof memory left, SumTree.Proof memory right) = (old.proof(2), old.proof(3));
        (left.index, right.index) = (4, 5);

        _refused(
            _missing(old.proof(0), left, right),
            abi.encodeWithSelector(IRevenueDistributor.IndexOutOfTree.selector, 5, 2)
        );
    }

    function testFuzz_a_gap_between_leaves_that_are_no_neighbours_is_refused(
        uint256 left,
        uint256 right
    )
        external
    {
        ReferenceTree.Tree memory old = _payThree();
        _post(old);
        right = _within(right, 1, 4);
        if (left == right - 1) return;
        SumTree.Proof memory a;
        SumTree.Proof memory b;
        (a.index, b.index) = (left, right);

        _refused(
            _missing(old.proof(0), a, b),
            abi.encodeWithSelector(IRevenueDistributor.NotAdjacent.selector, left, right)
        );
    }

    function test_neighbours_that_are_not_in_the_pending_root_are_refused() external {
        ReferenceTree.Tree memory old = _payThree();
        _post(old);
        ReferenceTree.Tree memory other = ReferenceTree.grow(_without(old.leaves, 1), 2);
        bytes memory reason = abi.encodeWithSelector(
            IRevenueDistributor.NotInPending.selector, 0, 2, other.root().hash, other.root().sum
        );
        bytes memory atRight = abi.encodeWithSelector(
            IRevenueDistributor.NotInPending.selector, 1, 2, other.root().hash, other.root().sum
        );

        _refused(_missing(old.proof(1), other.proof(0), other.proof(1)), reason);
        _refused(_missing(old.proof(1), old.proof(0), other.proof(1)), atRight);
    }

    function test_neighbours_of_another_depth_are_refused() external {
        ReferenceTree.Tree memory old = _payThree();
        _post(old);
        ReferenceTree.Tree memory other = ReferenceTree.grow(_without(old.leaves, 1));
        bytes memory reason = abi.encodeWithSelector(IRevenueDistributor.WrongDepth.selector, 1, 2);

        _refused(_missing(old.proof(1), other.proof(0), other.proof(1)), reason);
        _refused(_missing(old.proof(1), old.proof(0), other.proof(1)), reason);
    }

    function test_who_was_not_in_the_active_root_is_not_missing() external {
        ReferenceTree.Tree memory old = _payThree();
        _post(old);
        ReferenceTree.Tree memory dream = _twoPeople(5e6, 6e6);

        _refused(
            _missing(dream.proof(0), old.proof(0), old.proof(1)),
            abi.encodeWithSelector(
                IRevenueDistributor.NotInActive.selector, BOB, 5e6, dream.root().hash, 11e6
            )
        );
    }

    function test_padding_of_the_active_root_is_not_missing() external {
        ReferenceTree.Tree memory old = _payThree();
        _post(old);

        _refused(
            _missing(old.proof(3), old.proof(0), old.proof(0)),
            abi.encodeWithSelector(
                IRevenueDistributor.NotInActive.selector, address(0), 0, old.root().hash, old.root().sum
            )
        );
    }

    function test_before_the_first_root_nobody_is_missing() external {
        ReferenceTree.Tree memory tree = _twoPeople(5e6, 6e6);
        _post(tree);

        _refused(
            _missing(tree.proof(0), tree.proof(0), tree.proof(1)),
            abi.encodeWithSelector(IRevenueDistributor.NotInActive.selector, BOB, 5e6, tree.root().hash, 11e6)
        );
    }

    function _payThree() private returns (ReferenceTree.Tree memory tree) {
        tree = ReferenceTree.grow(_people(1, 3));
        _pay(tree);
    }

    /// @dev Drops one, gives what it had to its neighbour, and expects the gap before `gap`.
    function _checkDropped(SumTree.Leaf[] memory old, uint256 which, uint256 left) private {
        _pay(ReferenceTree.grow(old));
        SumTree.Leaf[] memory leaves = _without(_copy(old), which);
        leaves[which == 0 ? 0 : which - 1].cumulative += old[which].cumulative;
        vm.assertEq(leaves.length, left, "who is left");

        _rejectedFor(ReferenceTree.grow(old), ReferenceTree.grow(leaves), which);
    }

    function _rejectedFor(
        ReferenceTree.Tree memory old,
        ReferenceTree.Tree memory wrong,
        uint256 which
    )
        private
    {
        _post(wrong);
        address account = old.leaves[which].account;
        uint256 gap = _indexOf(wrong.leaves, account);
        // What is not looked at may be anything.
        SumTree.Proof memory left = SumTree.Proof(account, 7, 77, "nothing");
        SumTree.Proof memory right = SumTree.Proof(account, 7, gap, "nothing");
        if (gap != 0) left = wrong.proof(gap - 1);
        if (gap != wrong.levels[0].length) right = wrong.proof(gap);

        _rejected(_missing(old.proof(which), left, right), IRevenueDistributor.Fault.Missing, account);
    }

    function _missing(
        SumTree.Proof memory before,
        SumTree.Proof memory left,
        SumTree.Proof memory right
    )
        private
        pure
        returns (bytes memory)
    {
        return abi.encodeCall(IRevenueDistributor.challengeMissing, (before, left, right));
    }

    function _notBetween(
        SumTree.Proof memory before,
        SumTree.Proof memory left,
        SumTree.Proof memory right
    )
        private
        pure
        returns (bytes memory)
    {
        return abi.encodeWithSelector(
            IRevenueDistributor.NotBetween.selector, before.account, left.account, right.account
        );
    }

    function _copy(SumTree.Leaf[] memory leaves) private pure returns (SumTree.Leaf[] memory copy) {
        copy = new SumTree.Leaf[](leaves.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            copy[i] = SumTree.Leaf(leaves[i].account, leaves[i].cumulative);
        }
    }
}
