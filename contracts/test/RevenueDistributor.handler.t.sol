// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DevnetDollar} from "../src/DevnetDollar.sol";
import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {BlockingDollar} from "./support/OddTokens.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title Who runs a distributor, for the invariants: funds, posts right and wrong roots, rejects the wrong ones.
/// @notice Twelve accounts. A root may be wrong in five ways; it is challenged, or vetoed where no challenge can see the
/// fault, before anyone activates it. The sums are this contract's own.
abstract contract DistributorOperators is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    enum Flaw {
        None,
        Decrease,
        Missing,
        Order,
        Malformed,
        Misallocation
    }

    uint256 public funded = FUNDED;
    uint256 public bond = BOND;
    uint256 public pauseNotBefore;
    uint64 public epochs;
    address[] public accounts;

    mapping(address account => uint256) internal _keys;
    SumTree.Leaf[] internal _active;
    SumTree.Leaf[] internal _pending;
    SumTree.Leaf[] internal _rejectedLeaves;

    Flaw private _flaw;
    /// @dev Which leaf of the pending tree has the flaw, and which of the active tree it is about.
    uint256 private _place;
    uint256 private _victim;

    constructor() payable {
        setUp();
        for (uint256 key = 1; key <= 12; ++key) {
            accounts.push(vm.addr(key));
            _keys[vm.addr(key)] = key;
            for (uint256 i = key - 1; i > 0 && accounts[i] < accounts[i - 1]; --i) {
                (accounts[i], accounts[i - 1]) = (accounts[i - 1], accounts[i]);
            }
        }
    }

    function _newToken() internal override returns (DevnetDollar) {
        return new BlockingDollar();
    }

    function fund(uint96 amount) external {
        amount = uint96(_within(amount, 1, 1e9));
        _fund(amount);
        funded += amount;
    }

    function wait(uint256 time) external {
        vm.warp(vm.getBlockTimestamp() + time % 10 days);
    }

    function addBond(uint96 amount) public {
        amount = uint96(_within(amount, 1, 3 * BOND));
        distributor.addBond{value: amount}();
        bond += amount;
    }

    function withdrawBond(uint96 amount) external {
        if (bond == 0) return;
        amount = uint96(_within(amount, 1, bond));
        bool refused = _isPending();
        if (refused) {
            vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.AlreadyPending.selector, epochs));
        }
        vm.prank(OWNER);
        distributor.withdrawBond(payable(OWNER), amount);
        if (!refused) bond -= amount;
    }

    function post(uint256 seed) external {
        if (_isPending()) return;
        if (bond < BOND) addBond(BOND);
        _earn(seed);
        _flaw = Flaw(_random(seed, 0) % 5 < 3 ? 0 : 1 + _random(seed, 1) % 5);
        if (_active.length == 0 || (_pending.length < 2 && _flaw != Flaw.Malformed)) _flaw = Flaw.None;
        if (_flaw != Flaw.None) _break(seed);
        ReferenceTree.Tree memory tree = ReferenceTree.grow(_pending);
        _post(tree, tree.root().sum, tree.depthOf() + (_flaw == Flaw.Malformed ? 1 : 0));
    }

    /// @dev Too early first; then, more often than not, at the right moment. A wrong root does not live so long.
    function activate(uint256 seed) external {
        (uint64 epoch,,,, uint64 activeAt) = distributor.pending();
        bytes memory reason = abi.encodeWithSelector(IRevenueDistributor.NothingPending.selector);
        if (activeAt != 0) {
            reason = abi.encodeWithSelector(IRevenueDistributor.WindowOpen.selector, activeAt);
        }
        if (vm.getBlockTimestamp() < activeAt || activeAt == 0) {
            vm.expectRevert(reason);
            distributor.activate();
            if (activeAt == 0 || seed % 4 == 0) return;
            vm.warp(activeAt);
        }
        if (_flaw != Flaw.None) return strike(seed);
        (, uint96 sum,) = distributor.active();
        distributor.activate();
        (uint64 next, uint96 newSum,) = distributor.active();
        vm.assertTrue(newSum >= sum, "the active total fell");
        vm.assertEq(epoch, epochs++, "the epoch that was activated");
        vm.assertEq(next, epochs, "the epoch that comes next");
        _active = _pending;
    }

    /// @dev Rejects what is wrong, by its challenge or by the veto; what is right by the veto, now and then.
    function strike(uint256 seed) public {
        if (!_isPending() || (_flaw == Flaw.None && seed % 8 != 0)) return;
        _rejectedLeaves = _pending;
        if (_flaw == Flaw.None || _flaw == Flaw.Misallocation || seed % 3 == 0) return _veto();
        ReferenceTree.Tree memory wrong = ReferenceTree.grow(_pending);
        SumTree.Proof memory before;
        SumTree.Proof memory left;
        SumTree.Proof memory right;
        if (_flaw == Flaw.Decrease || _flaw == Flaw.Missing) {
            before = ReferenceTree.grow(_active).proof(_victim);
        }
        if (_place > 0) left = wrong.proof(_place - 1);
        if (_place < wrong.levels[0].length) right = wrong.proof(_place);
        right.index = _place;
        bytes memory challenge;
        if (_flaw == Flaw.Decrease) {
            challenge = abi.encodeCall(distributor.challengeDecrease, (before, right));
        } else if (_flaw == Flaw.Missing) {
            challenge = abi.encodeCall(distributor.challengeMissing, (before, left, right));
        } else if (_flaw == Flaw.Order) {
            challenge = abi.encodeCall(distributor.challengeOrder, (left, right));
        } else {
            (bytes memory preimage, uint96 sum) = (wrong.preimage(0, 0), wrong.levels[0][0].sum);
            challenge = abi.encodeCall(distributor.challengeMalformed, (preimage, sum, 0, wrong.path(0, 0)));
        }
        address named =
            _flaw == Flaw.Malformed ? address(0) : _flaw == Flaw.Order ? right.account : before.account;
        _rejected(challenge, IRevenueDistributor.Fault(uint256(_flaw) - 1), named);
        bond -= BOND;
    }

    function pause() external {
        bool refused = vm.getBlockTimestamp() < pauseNotBefore;
        if (refused) {
            vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.PauseTooSoon.selector, pauseNotBefore));
        } else {
            pauseNotBefore = vm.getBlockTimestamp() + 28 days;
        }
        _pause();
    }

    function unpause() external {
        bool kept = distributor.commitment() == 0 && distributor.activeCommitment() != 0;
        if (distributor.pausedUntil() == 0 && !kept) {
            vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotPaused.selector));
        }
        vm.prank(GUARDIAN);
        distributor.unpause();
    }

    function _isPending() internal view returns (bool) {
        (,,,, uint64 activeAt) = distributor.pending();
        return activeAt != 0;
    }

    /// @dev What everybody has an epoch later: who has nothing yet may be new.
    function _earn(uint256 seed) private {
        (, uint96 sum,) = distributor.active();
        uint256 room = funded - sum;
        uint256 j = 0;
        delete _pending;
        for (uint256 i = 0; i < accounts.length; ++i) {
            bool known = j < _active.length && _active[j].account == accounts[i];
            uint256 more = _random(seed, i + 2) % 3 == 0 ? 0 : _random(seed, i + 2) % (room / 4 + 1);
            room -= more;
            uint96 total = uint96(more) + (known ? _active[j++].cumulative : 0);
            if (total != 0) _pending.push(SumTree.Leaf(accounts[i], total));
        }
    }

    /// @dev Whoever loses something loses it to a neighbour, so that the total stays what it was.
    function _break(uint256 seed) private {
        uint256 count = _pending.length;
        _place = _random(seed, 20) % count;
        if (_flaw == Flaw.Decrease || _flaw == Flaw.Missing) {
            _victim = _random(seed, 21) % _active.length;
            _place = _indexOf(_pending, _active[_victim].account);
        }
        SumTree.Leaf storage loser = _pending[_place];
        SumTree.Leaf storage winner = _pending[_place == 0 ? count - 1 : _place - 1];
        if (_flaw == Flaw.Order) {
            if (_place == 0) _place = 1;
            SumTree.Leaf memory first = _pending[_place - 1];
            _pending[_place - 1] = _pending[_place];
            _pending[_place] = first;
        } else if (_flaw != Flaw.Malformed) {
            uint96 least = 0;
            if (_flaw == Flaw.Decrease) least = uint96(_random(seed, 22) % _active[_victim].cumulative);
            if (_flaw == Flaw.Misallocation) least = _cumulativeOf(loser.account);
            winner.cumulative += loser.cumulative - least;
            loser.cumulative = least;
        }
        if (_flaw == Flaw.Missing) {
            for (uint256 i = _place; i + 1 < count; ++i) {
                _pending[i] = _pending[i + 1];
            }
            _pending.pop();
        }
    }

    /// @dev By the newest active tree.
    function _cumulativeOf(address account) internal view returns (uint96) {
        uint256 index = _indexOf(_active, account);
        return index < _active.length && _active[index].account == account ? _active[index].cumulative : 0;
    }
}
