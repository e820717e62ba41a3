// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title Trees that lower an account, or whose leaves are not in order, are rejected; what proves neither is refused.
contract RevenueDistributorChallengeTest is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    uint256 private constant MOST = 40;
    address private constant LAST = address(type(uint160).max);

    function setUp() public override {
        super.setUp();
        _fund(1e12);
    }

    function testFuzz_a_tree_that_lowers_an_account_is_rejected(
        uint256 seed,
        uint256 which,
        uint96 less
    )
        external
    {
        ReferenceTree.Tree memory old = _payFirst(seed);
        SumTree.Leaf[] memory leaves = _grown(old.leaves, seed, MOST);
        which %= old.leaves.length;
        SumTree.Leaf memory victim = old.leaves[which];
        uint256 index = _indexOf(leaves, victim.account);
        leaves[index].cumulative = less % victim.cumulative;
        // The total may not fall: somebody has what the victim lost.
        if (leaves.length > 1) leaves[(index + 1) % leaves.length].cumulative += victim.cumulative;
        else leaves = _with(leaves, SumTree.Leaf(LAST, victim.cumulative));
        ReferenceTree.Tree memory wrong = ReferenceTree.grow(leaves);
        _post(wrong);

        _rejected(
            _decrease(old.proof(which), wrong.proof(index)),
            IRevenueDistributor.Fault.Decrease,
            victim.account
        );
    }

    function test_what_is_no_decrease_is_refused() external {
        ReferenceTree.Tree memory old = _twoPeople(300e6, 200e6);
        _pay(old);
        ReferenceTree.Tree memory next = _twoPeople(300e6, 250e6);
        _post(next);

        _refused(
            _decrease(old.proof(0), next.proof(1)),
            abi.encodeWithSelector(IRevenueDistributor.DifferentAccounts.selector, BOB, ALICE)
        );
        _refused(
            _decrease(old.proof(0), next.proof(0)),
            abi.encodeWithSelector(IRevenueDistributor.NotLower.selector, BOB, 300e6, 300e6)
        );
        _refused(
            _decrease(old.proof(1), next.proof(1)),
            abi.encodeWithSelector(IRevenueDistributor.NotLower.selector, ALICE, 200e6, 250e6)
        );
    }

    function test_a_decrease_from_what_is_not_in_the_active_root_is_refused() external {
        _pay(_twoPeople(300e6, 200e6));
        ReferenceTree.Tree memory next = _twoPeople(300e6, 250e6);
        _post(next);
        ReferenceTree.Tree memory dream = _twoPeople(300e6, 900e6);

        _refused(
            _decrease(dream.proof(1), next.proof(1)),
            abi.encodeWithSelector(
                IRevenueDistributor.NotInActive.selector, ALICE, 900e6, dream.root().hash, 1200e6
            )
        );
    }

    function test_a_decrease_to_what_is_not_in_the_pending_root_is_refused() external {
        ReferenceTree.Tree memory old = _twoPeople(300e6, 200e6);
        _pay(old);
        _post(_twoPeople(300e6, 250e6));
        ReferenceTree.Tree memory dream = _twoPeople(300e6, 100e6);

        _refused(
            _decrease(old.proof(1), dream.proof(1)),
            abi.encodeWithSelector(IRevenueDistributor.NotInPending.selector, 1, 1, dream.root().hash, 400e6)
        );
    }

    /// @dev The pending leaf has to stand at the bottom of the pending tree.
    function test_a_decrease_at_another_depth_is_refused() external {
        ReferenceTree.Tree memory old = _twoPeople(300e6, 200e6);
        _pay(old);
        ReferenceTree.Tree memory next = _twoPeople(400e6, 100e6);
        _post(next, 500e6, 2);

        _refused(
            _decrease(old.proof(1), next.proof(1)),
            abi.encodeWithSelector(IRevenueDistributor.WrongDepth.selector, 1, 2)
        );
    }

    /// @dev Nobody can earn for the zero address; if somebody did, later roots must not fall for their padding. What is
    /// lowered to padding is of the zero address, and that counts for nothing in the active root.
    function test_padding_is_not_the_zero_address_that_has_lost_everything() external {
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](3);
        leaves[0] = SumTree.Leaf(address(0), 5e6);
        leaves[1] = SumTree.Leaf(BOB, 5e6);
        leaves[2] = SumTree.Leaf(ALICE, 5e6);
        ReferenceTree.Tree memory tree = ReferenceTree.grow(leaves);
        _pay(tree);
        _post(tree);

        _refused(
            _decrease(tree.proof(0), tree.proof(3)),
            abi.encodeWithSelector(
                IRevenueDistributor.NotInActive.selector, address(0), 5e6, tree.root().hash, 15e6
            )
        );
    }

    function test_nothing_is_challenged_when_nothing_is_pending() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _pay(tree);
        bytes memory reason = abi.encodeWithSelector(IRevenueDistributor.NothingPending.selector);
        (SumTree.Proof memory bob, SumTree.Proof memory alice) = (tree.proof(0), tree.proof(1));

        _refused(_decrease(bob, alice), reason);
        _refused(abi.encodeCall(distributor.challengeMissing, (bob, bob, alice)), reason);
        _refused(_order(bob, alice), reason);
        _refused(abi.encodeCall(distributor.challengeMalformed, ("", 0, 0, alice.path)), reason);
    }

    function test_a_root_can_be_challenged_until_it_is_activated() external {
        ReferenceTree.Tree memory wrong = _twoPeople(300e6, 200e6);
        (wrong.leaves[0], wrong.leaves[1]) = (wrong.leaves[1], wrong.leaves[0]);
        wrong = ReferenceTree.grow(wrong.leaves);
        _post(wrong);
        vm.warp(START + WINDOW + 30 days);

        _rejected(_order(wrong.proof(0), wrong.proof(1)), IRevenueDistributor.Fault.Order, BOB);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NothingPending.selector));
        distributor.activate();
    }

    function testFuzz_neighbours_that_are_swapped_are_rejected(uint256 seed, uint256 which) external {
        SumTree.Leaf[] memory leaves = _people(seed, _within(seed, 2, MOST));
        which %= leaves.length - 1;
        (leaves[which], leaves[which + 1]) = (leaves[which + 1], leaves[which]);

        _rejectedForOrder(leaves, which);
    }

    function testFuzz_an_account_that_stands_twice_is_rejected(
        uint256 seed,
        uint256 which,
        bool alike
    )
        external
    {
        SumTree.Leaf[] memory leaves = _people(seed, _within(seed, 2, MOST));
        which %= leaves.length - 1;
        leaves[which + 1].account = leaves[which].account;
        if (alike) leaves[which + 1].cumulative = leaves[which].cumulative;

        _rejectedForOrder(leaves, which);
    }

    function testFuzz_an_account_behind_padding_is_rejected(uint256 seed, uint256 which) external {
        SumTree.Leaf[] memory leaves = _people(seed, _within(seed, 2, MOST));
        which %= leaves.length - 1;
        delete leaves[which];

        _rejectedForOrder(leaves, which);
    }

    function test_the_zero_address_behind_another_is_rejected() external {
        SumTree.Leaf[] memory leaves = _people(1, 3);
        leaves[1].account = address(0);

        _rejectedForOrder(leaves, 0);
    }

    function test_what_is_in_order_is_refused() external {
        SumTree.Leaf[] memory leaves = _people(1, 5);
        ReferenceTree.Tree memory tree = ReferenceTree.grow(leaves);
        _post(tree);

        for (uint256 i = 0; i < 7; ++i) {
            _refused(
                _order(tree.proof(i), tree.proof(i + 1)),
                abi.encodeWithSelector(
                    IRevenueDistributor.InOrder.selector, tree.leafAt(i).account, tree.leafAt(i + 1).account
                )
            );
        }
    }

    function testFuzz_leaves_that_are_no_neighbours_are_refused(uint256 left, uint256 right) external {
        SumTree.Proof memory a;
        SumTree.Proof memory b;
        (a.index, b.index) = (left, right);
        if (right != 0 && left == right - 1) return;
        _post(_twoPeople(300e6, 200e6));

        _refused(_order(a, b), abi.encodeWithSelector(IRevenueDistributor.NotAdjacent.selector, left, right));
    }

    /// @dev Its neighbour would be 2**256, which is 0 to a careless adder.
    function test_the_last_index_there_is_has_no_neighbour() external {
        SumTree.Proof memory a;
        SumTree.Proof memory b;
        a.index = type(uint256).max;
        _post(_twoPeople(300e6, 200e6));

        _refused(_order(a, b), abi.encodeWithSelector(IRevenueDistributor.NotAdjacent.selector, a.index, 0));
    }

    function test_neighbours_of_another_tree_are_refused() external {
        ReferenceTree.Tree memory tree = _twoPeople(300e6, 200e6);
        _post(tree);
        (tree.leaves[0], tree.leaves[1]) = (tree.leaves[1], tree.leaves[0]);
        ReferenceTree.Tree memory other = ReferenceTree.grow(tree.leaves);
        SumTree.Proof memory longer = other.proof(0);
        longer.path = bytes.concat(longer.path, new bytes(44));

        _refused(
            _order(other.proof(0), other.proof(1)),
            abi.encodeWithSelector(IRevenueDistributor.NotInPending.selector, 0, 1, other.root().hash, 500e6)
        );
        _refused(
            _order(longer, other.proof(1)),
            abi.encodeWithSelector(IRevenueDistributor.WrongDepth.selector, 2, 1)
        );
    }

    function _rejectedForOrder(SumTree.Leaf[] memory leaves, uint256 which) private {
        ReferenceTree.Tree memory wrong = ReferenceTree.grow(leaves);
        _post(wrong);

        _rejected(
            _order(wrong.proof(which), wrong.proof(which + 1)),
            IRevenueDistributor.Fault.Order,
            leaves[which + 1].account
        );
    }

    function _payFirst(uint256 seed) private returns (ReferenceTree.Tree memory tree) {
        tree = ReferenceTree.grow(_people(seed, _within(seed, 1, MOST / 2)));
        _pay(tree);
    }

    function _decrease(
        SumTree.Proof memory before,
        SumTree.Proof memory lowered
    )
        private
        pure
        returns (bytes memory)
    {
        return abi.encodeCall(IRevenueDistributor.challengeDecrease, (before, lowered));
    }

    function _order(
        SumTree.Proof memory left,
        SumTree.Proof memory right
    )
        private
        pure
        returns (bytes memory)
    {
        return abi.encodeCall(IRevenueDistributor.challengeOrder, (left, right));
    }
}
