// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DevnetDollar} from "../src/DevnetDollar.sol";
import {EpochLedger} from "../src/EpochLedger.sol";
import {RevenueDistributor} from "../src/RevenueDistributor.sol";
import {IEpochLedger} from "../src/interfaces/IEpochLedger.sol";
import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {Test} from "./support/Test.sol";

/// @title Any sequence of calls to the ledger, against books that keep the order of epochs.
/// @dev The test contract owns the distributor, and posts.
contract EpochLedgerFuzzTest is Test {
    uint64 private constant LENGTH = 7 days;
    uint64 private constant WINDOW = 2 days;

    RevenueDistributor private _distributor;
    EpochLedger private _ledger;

    uint64 private _opened;
    uint64 private _closed;
    uint64 private _activated;
    bool private _waits;
    uint256 private _postedAt;
    uint256 private _time = START;
    mapping(uint64 epoch => IEpochLedger.Record) private _records;
    mapping(uint64 epoch => IEpochLedger.Opening) private _openings;

    function setUp() public {
        vm.warp(START);
        _distributor = new RevenueDistributor(
            new DevnetDollar(), uint64(START), LENGTH, WINDOW, 0, address(this), address(this), address(this)
        );
        _ledger = new EpochLedger(_distributor);
    }

    /// @dev Any calls in any order, with the epoch they name off by one as often as not: either the one error that the
    /// books foretell, or what was called for and nothing else.
    function testFuzz_epochs_are_opened_and_closed_once_and_in_order_and_stay_recorded(uint256[] calldata seeds)
        external
    {
        for (uint256 i = 0; i < seeds.length && i < 40; ++i) {
            uint256 seed = uint256(keccak256(abi.encode(seeds[i], i)));
            uint256 action = seed % 10;
            if (action < 2) _tryOpen(_near(_opened, seed >> 8), bytes32(seed));
            else if (action < 4) _tryClose(_near(_closed, seed >> 8), bytes32(seed), seed >> 16);
            else if (action == 4) _tryAmend(_any(seed >> 8), bytes32(seed));
            else if (action == 5) _postOrSettle(seed >> 8);
            else if (action == 6) _tryAbandon(_any(seed >> 8), bytes32(seed));
            else _pass(_within(seed >> 8, 0, LENGTH));

            vm.assertEq(_ledger.opened(), _opened, "opened");
            vm.assertEq(_ledger.closed(), _closed, "closed");
            vm.assertTrue(_opened == _closed || _opened == _closed + 1, "closed, or one is open");
            for (uint64 epoch = 0; epoch <= _opened; ++epoch) {
                _assertRecord(epoch, _records[epoch]);
            }
        }
    }

    function _tryOpen(uint64 epoch, bytes32 word) private {
        IEpochLedger.Opening memory opening =
            IEpochLedger.Opening(keccak256(abi.encode(_seedOf(epoch))), word, ~word, uint256(word) >> 9, 7);
        if (epoch != _opened) {
            vm.expectRevert(abi.encodeWithSelector(IEpochLedger.WrongEpoch.selector, epoch, _opened));
        } else if (_opened != _closed) {
            vm.expectRevert(abi.encodeWithSelector(IEpochLedger.StillOpen.selector, _closed));
        } else {
            _opened = epoch + 1;
            _openings[epoch] = opening;
            _records[epoch].opening = keccak256(abi.encode(opening));
            _records[epoch].openedAt = uint64(_time);
        }
        _ledger.open(epoch, opening);
    }

    function _tryClose(uint64 epoch, bytes32 word, uint256 lie) private {
        IEpochLedger.Opening memory opening = _openings[epoch];
        IEpochLedger.Record storage record = _records[epoch];
        if (lie % 8 == 0) opening.lambdaDenominator += 1;
        bytes32 revealed = keccak256(abi.encode(opening));
        uint256 endsAt = START + (uint256(epoch) + 1) * LENGTH;
        if (record.openedAt == 0 || record.closedAt != 0) {
            vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotOpen.selector, epoch));
        } else if (_time < endsAt) {
            vm.expectRevert(abi.encodeWithSelector(IEpochLedger.EpochNotOver.selector, epoch, endsAt));
        } else if (revealed != record.opening) {
            vm.expectRevert(
                abi.encodeWithSelector(IEpochLedger.NotCommitted.selector, epoch, revealed, record.opening)
            );
        } else {
            _closed = epoch + 1;
            record.closedAt = uint64(_time);
            record.ledgerRoot = word;
            record.dataHash = ~word;
        }
        _ledger.close(epoch, _seedOf(epoch), opening, word, ~word);
    }

    function _tryAbandon(uint64 epoch, bytes32 word) private {
        IEpochLedger.Record storage record = _records[epoch];
        uint256 endsAt = START + (uint256(epoch) + 1) * LENGTH;
        if (record.openedAt == 0) {
            vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotOpen.selector, epoch));
        } else if (_time < endsAt) {
            vm.expectRevert(abi.encodeWithSelector(IEpochLedger.EpochNotOver.selector, epoch, endsAt));
        } else if (_foretellFinal(epoch)) {
            if (record.closedAt != 0) record.amendedAt = uint64(_time);
            else record.closedAt = uint64(_time);
            if (epoch == _closed) ++_closed;
            record.abandoned = true;
            record.ledgerRoot = 0;
            record.dataHash = word;
        }
        _ledger.abandon(epoch, word);
    }

    function _tryAmend(uint64 epoch, bytes32 word) private {
        if (epoch >= _closed) {
            vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotClosed.selector, epoch));
        } else if (_foretellFinal(epoch)) {
            _records[epoch].amendedAt = uint64(_time);
            _records[epoch].dataHash = word;
        }
        _ledger.amend(epoch, word);
    }

    /// @dev Expects the error where a root of the epoch waits or pays, and returns whether none does.
    function _foretellFinal(uint64 epoch) private returns (bool) {
        bytes4 fault;
        if (epoch < _activated) fault = IEpochLedger.AlreadyActive.selector;
        else if (_waits && epoch == _activated) fault = IEpochLedger.StillPending.selector;
        else return true;
        vm.expectRevert(abi.encodeWithSelector(fault, epoch));
        return false;
    }

    /// @dev A root of the next closed epoch waits; the one that waits is vetoed, or pays once its window is over.
    function _postOrSettle(uint256 seed) private {
        if (!_waits) {
            if (_activated == _closed) return;
            _post(_activated);
            (_waits, _postedAt) = (true, _time);
        } else if (seed % 4 == 0) {
            _distributor.veto(0);
            _waits = false;
        } else if (_time >= _postedAt + WINDOW) {
            _distributor.activate();
            _waits = false;
            ++_activated;
        }
    }

    function _pass(uint256 passed) private {
        _time += passed;
        vm.warp(_time);
    }

    /// @dev The epoch itself, the one before or the one after.
    function _near(uint64 epoch, uint256 seed) private pure returns (uint64) {
        if (seed % 4 == 0 && epoch > 0) return epoch - 1;
        return seed % 4 == 1 ? epoch + 1 : epoch;
    }

    /// @dev Every epoch that was ever opened, and the next.
    function _any(uint256 seed) private view returns (uint64) {
        return uint64(_within(seed, 0, _opened));
    }

    function _seedOf(uint64 epoch) private pure returns (bytes32) {
        return keccak256(abi.encode("seed", epoch));
    }

    /// @dev Nobody has earned anything: what is paid does not matter here, only when.
    function _post(uint64 epoch) private {
        IRevenueDistributor.Report memory report;
        report.epoch = epoch;
        report.snapshotBlock = uint64(block.number) - 1;
        report.snapshotHash = blockhash(block.number - 1);
        _distributor.post(report);
    }

    function _assertRecord(uint64 epoch, IEpochLedger.Record memory expected) private view {
        IEpochLedger.Record memory record = _ledger.recordOf(epoch);
        vm.assertEq(record.opening, expected.opening);
        vm.assertEq(record.openedAt, expected.openedAt, "openedAt");
        vm.assertEq(record.closedAt, expected.closedAt, "closedAt");
        vm.assertEq(record.amendedAt, expected.amendedAt, "amendedAt");
        vm.assertTrue(record.abandoned == expected.abandoned, "abandoned");
        vm.assertEq(record.ledgerRoot, expected.ledgerRoot);
        vm.assertEq(record.dataHash, expected.dataHash);
    }
}
