// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RevenueDistributor} from "../src/RevenueDistributor.sol";
import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";
import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

/// @title A challenger, owner and poster that is a contract: it takes coin if told to, and then makes a call.
contract Receiver {
    bool private _takes;
    address private _target;
    bytes private _call;
    bytes public answer;

    error NoThanks();

    receive() external payable {
        if (!_takes) revert NoThanks();
        if (_target == address(0)) return;
        (bool ok, bytes memory said) = _target.call(_call);
        answer = ok ? bytes("it worked") : said;
    }

    function take(address target, bytes calldata data) external {
        (_takes, _target, _call) = (true, target, data);
    }

    function send(address target, bytes calldata data) external {
        (bool ok, bytes memory said) = target.call(data);
        if (ok) return;
        assembly ("memory-safe") {
            revert(add(said, 32), mload(said))
        }
    }
}

/// @title The bond that answers for the poster: in, out, and to who proved a root wrong.
contract RevenueDistributorBondTest is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    address payable private constant TO = payable(address(0x70));

    function test_anyone_adds_to_the_bond() external {
        vm.deal(ALICE, 5);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.BondAdded(ALICE, 3, BOND + 3);
        vm.prank(ALICE);
        distributor.addBond{value: 3}();

        _checkBond(BOND + 3);
    }

    function test_a_bond_of_nothing_is_refused() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ZeroAmount.selector));
        distributor.addBond();
    }

    function test_a_bond_beyond_96_bits_is_refused() external {
        vm.deal(address(this), 2 ** 97);

        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.BondTooLarge.selector, 2 ** 96, type(uint96).max)
        );
        distributor.addBond{value: 2 ** 96 - BOND}();

        distributor.addBond{value: 2 ** 96 - BOND - 1}();
        _checkBond(type(uint96).max);
    }

    function test_coin_that_is_just_sent_is_refused() external {
        (bool ok,) = address(distributor).call{value: 1}("");

        vm.assertFalse(ok, "it was taken");
        _checkBond(BOND);
    }

    function test_the_owner_takes_bond_back() external {
        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.BondWithdrawn(TO, BOND / 4, BOND - BOND / 4);
        vm.prank(OWNER);
        distributor.withdrawBond(TO, BOND / 4);

        vm.assertEq(TO.balance, BOND / 4);
        _checkBond(BOND - BOND / 4);
    }

    function testFuzz_only_the_owner_takes_bond_back(address caller) external {
        if (caller == OWNER) return;

        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, caller));
        vm.prank(caller);
        distributor.withdrawBond(TO, 1);
    }

    function test_no_bond_is_taken_back_while_a_root_is_pending() external {
        _post(_twoPeople(300e6, 200e6));

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.AlreadyPending.selector, 0));
        vm.prank(OWNER);
        distributor.withdrawBond(TO, 1);

        _activate();
        vm.prank(OWNER);
        distributor.withdrawBond(TO, BOND);
        _checkBond(0);
    }

    function test_no_more_bond_is_taken_back_than_lies_there() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.BondTooSmall.selector, BOND, BOND + 1));
        vm.prank(OWNER);
        distributor.withdrawBond(TO, BOND + 1);
    }

    function test_taking_no_bond_back_is_refused() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.BondTooSmall.selector, BOND, 0));
        vm.prank(OWNER);
        distributor.withdrawBond(TO, 0);
    }

    function test_bond_is_not_taken_back_to_nobody() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ZeroAddress.selector));
        vm.prank(OWNER);
        distributor.withdrawBond(payable(0), 1);
    }

    function test_bond_that_its_receiver_refuses_stays() external {
        Receiver receiver = new Receiver();

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.BondRefused.selector, receiver, BOND));
        vm.prank(OWNER);
        distributor.withdrawBond(payable(receiver), BOND);

        _checkBond(BOND);
    }

    function test_nothing_is_posted_without_a_bond() external {
        vm.prank(OWNER);
        distributor.withdrawBond(TO, 1);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.BondTooSmall.selector, BOND - 1, BOND));
        _post(_report(0, "root", 1));

        distributor.addBond{value: 1}();
        _post(_report(0, "root", 1));
    }

    function test_where_no_bond_is_required_a_root_is_posted_without_one() external {
        RevenueDistributor free =
            new RevenueDistributor(token, GENESIS, LENGTH, WINDOW, 0, OWNER, POSTER, GUARDIAN);
        vm.prank(POSTER);
        free.post(_report(0, 0, 0));

        vm.prank(CHALLENGER);
        free.challengeMalformed("", 0, 0, "");

        vm.assertEq(CHALLENGER.balance, 0);
    }

    function test_where_no_bond_is_required_a_challenger_that_takes_no_coin_can_challenge() external {
        RevenueDistributor free =
            new RevenueDistributor(token, GENESIS, LENGTH, WINDOW, 0, OWNER, POSTER, GUARDIAN);
        vm.prank(POSTER);
        free.post(_report(0, 0, 0));
        Receiver receiver = new Receiver();

        vm.expectEmit(address(free));
        emit IRevenueDistributor.Challenged(
            0, 0, address(receiver), IRevenueDistributor.Fault.Malformed, address(0)
        );
        receiver.send(address(free), _challenge());

        (,,,, uint64 activeAt) = free.pending();
        vm.assertEq(activeAt, 0, "it is still pending");
    }

    function test_a_challenge_is_paid_what_was_required_and_no_more() external {
        distributor.addBond{value: 2 ether}();
        _post(_report(0, 0, 0));

        vm.prank(CHALLENGER);
        distributor.challengeMalformed("", 0, 0, "");

        vm.assertEq(CHALLENGER.balance, BOND);
        _checkBond(2 ether);
    }

    function test_after_a_challenge_nothing_is_posted_until_there_is_a_bond_again() external {
        _post(_report(0, 0, 0));
        vm.prank(CHALLENGER);
        distributor.challengeMalformed("", 0, 0, "");

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.BondTooSmall.selector, 0, BOND));
        _post(_report(0, "root", 1));

        distributor.addBond{value: BOND}();
        _post(_report(0, "root", 1));
    }

    function test_a_veto_costs_no_bond() external {
        _post(_report(0, 0, 0));
        _veto();

        _checkBond(BOND);
    }

    function test_where_the_challenger_refuses_the_bond_nothing_has_changed() external {
        Receiver receiver = new Receiver();
        _post(_report(0, 0, 0));
        bytes memory challenge = _challenge();

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.BondRefused.selector, receiver, BOND));
        receiver.send(address(distributor), challenge);

        _checkBond(BOND);
        (,,,, uint64 activeAt) = distributor.pending();
        vm.assertEq(activeAt, START + WINDOW, "still pending");
        vm.prank(CHALLENGER);
        distributor.challengeMalformed("", 0, 0, "");
        vm.assertEq(CHALLENGER.balance, BOND);
    }

    function test_a_challenger_that_calls_back_is_not_paid_twice() external {
        distributor.addBond{value: 5 ether}();
        _post(_report(0, 0, 0));

        Receiver receiver = new Receiver();
        receiver.take(address(distributor), _challenge());

        receiver.send(address(distributor), _challenge());

        vm.assertEq(receiver.answer(), abi.encodeWithSelector(IRevenueDistributor.NothingPending.selector));
        vm.assertEq(address(receiver).balance, BOND);
        _checkBond(5 ether);
    }

    /// @dev A poster that challenges itself has its own bond back, and has lost the window.
    function test_a_poster_that_challenges_itself_can_post_at_once_and_waits_anew() external {
        distributor.addBond{value: 5 ether}();
        _post(_report(0, 0, 0));
        Receiver receiver = new Receiver();
        vm.prank(OWNER);
        distributor.setPoster(address(receiver));
        receiver.take(address(distributor), abi.encodeCall(IRevenueDistributor.post, (_report(0, "root", 1))));
        bytes memory challenge = _challenge();
        vm.warp(START + 1 days);

        receiver.send(address(distributor), challenge);

        vm.assertEq(receiver.answer(), "it worked");
        vm.assertEq(address(receiver).balance, BOND);
        (, bytes32 root,,, uint64 activeAt) = distributor.pending();
        vm.assertEq(root, "root");
        vm.assertEq(activeAt, START + 1 days + WINDOW);
        _checkBond(5 ether);
    }

    function test_an_owner_that_calls_back_does_not_take_the_bond_twice() external {
        Receiver receiver = new Receiver();
        vm.prank(OWNER);
        distributor.transferOwnership(address(receiver));
        receiver.send(address(distributor), abi.encodeWithSignature("acceptOwnership()"));
        bytes memory again =
            abi.encodeCall(IRevenueDistributor.withdrawBond, (payable(receiver), BOND / 4 * 3));
        receiver.take(address(distributor), again);

        receiver.send(address(distributor), again);

        vm.assertEq(
            receiver.answer(),
            abi.encodeWithSelector(IRevenueDistributor.BondTooSmall.selector, BOND / 4, BOND / 4 * 3)
        );
        vm.assertEq(address(receiver).balance, BOND / 4 * 3);
        _checkBond(BOND / 4);
    }

    /// @dev Proves a root of hash 0 wrong that was said to be five levels deep.
    function _challenge() private pure returns (bytes memory) {
        return abi.encodeCall(IRevenueDistributor.challengeMalformed, ("", 0, 0, ""));
    }

    function _checkBond(uint256 bond) private view {
        vm.assertEq(distributor.bond(), bond, "the books");
        vm.assertEq(address(distributor).balance, bond, "the coin");
    }
}
