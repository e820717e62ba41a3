// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DevnetDollar} from "../src/DevnetDollar.sol";
import {EpochLedger} from "../src/EpochLedger.sol";
import {RevenueDistributor} from "../src/RevenueDistributor.sol";
import {IEpochLedger} from "../src/interfaces/IEpochLedger.sol";
import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {Test} from "./support/Test.sol";

/// @title What is committed to, revealed and anchored, beside a distributor whose epochs it follows.
/// @dev The test contract owns and guards the distributor.
contract EpochLedgerTest is Test {
    address private constant POSTER = address(0x9057);
    uint64 private constant LENGTH = 7 days;
    uint64 private constant WINDOW = 2 days;
    bytes32 private constant SEED = keccak256("a secret");
    bytes32 private constant ROOT = keccak256("rankings");
    bytes32 private constant DATA = keccak256("bundle");

    RevenueDistributor private _distributor;
    EpochLedger private _ledger;

    function setUp() public {
        vm.warp(START);
        _distributor = new RevenueDistributor(
            new DevnetDollar(), uint64(START), LENGTH, WINDOW, 0, address(this), POSTER, address(this)
        );
        _ledger = new EpochLedger(_distributor);
    }

    function test_a_ledger_starts_empty_beside_its_distributor() external view {
        vm.assertEq(address(_ledger.distributor()), address(_distributor));
        vm.assertEq(_ledger.opened(), 0);
        vm.assertEq(_ledger.closed(), 0);
        IEpochLedger.Record memory nothing;
        _assertRecord(0, nothing);
    }

    function test_a_ledger_without_a_distributor_is_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.ZeroAddress.selector));
        new EpochLedger(IRevenueDistributor(address(0)));
    }

    function test_an_epoch_that_is_opened_is_committed_to() external {
        vm.warp(START + 5);

        vm.expectEmit(address(_ledger));
        emit IEpochLedger.EpochOpened(
            0, keccak256(abi.encode(SEED)), keccak256("gold"), keccak256("rules"), 10 ether, 3
        );
        _open(0);

        vm.assertEq(_ledger.opened(), 1);
        vm.assertEq(_ledger.closed(), 0);
        _assertRecord(0, _record(START + 5, 0, 0, 0));
    }

    function testFuzz_only_the_poster_opens(address caller) external {
        if (caller == POSTER) return;

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotPoster.selector, caller, POSTER));
        vm.prank(caller);
        _ledger.open(0, _opening());
    }

    function test_no_epoch_is_opened_ahead_of_its_turn() external {
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.WrongEpoch.selector, 1, 0));
        _open(1);
    }

    function test_no_epoch_is_opened_twice() external {
        _open(0);

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.WrongEpoch.selector, 0, 1));
        _open(0);

        vm.warp(START + LENGTH);
        _close(0);
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.WrongEpoch.selector, 0, 1));
        _open(0);
    }

    function test_no_epoch_is_opened_while_the_one_before_is_open() external {
        _open(0);
        vm.warp(START + LENGTH);

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.StillOpen.selector, 0));
        _open(1);

        _close(0);
        _open(1);
        vm.assertEq(_ledger.opened(), 2);
    }

    /// @dev What nobody opened in time is opened empty, so that reports follow each other without a gap.
    function test_an_epoch_that_is_over_can_still_be_opened_and_closed_and_its_record_says_when() external {
        vm.warp(START + 3 * LENGTH);
        _open(0);
        _close(0);

        _assertRecord(0, _record(START + 3 * LENGTH, START + 3 * LENGTH, ROOT, DATA));
    }

    function test_an_epoch_that_is_closed_reveals_its_seed_and_anchors_what_was_signed() external {
        _open(0);
        vm.warp(START + LENGTH);

        vm.expectEmit(address(_ledger));
        emit IEpochLedger.EpochClosed(0, SEED, ROOT, DATA);
        _close(0);

        vm.assertEq(_ledger.opened(), 1);
        vm.assertEq(_ledger.closed(), 1);
        _assertRecord(0, _record(START, START + LENGTH, ROOT, DATA));
    }

    function testFuzz_only_the_poster_closes(address caller) external {
        if (caller == POSTER) return;
        _open(0);
        vm.warp(START + LENGTH);

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotPoster.selector, caller, POSTER));
        vm.prank(caller);
        _ledger.close(0, SEED, _opening(), ROOT, DATA);
    }

    function test_no_epoch_is_closed_that_is_not_open() external {
        vm.warp(START + 2 * LENGTH);
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotOpen.selector, 0));
        _close(0);

        _open(0);
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotOpen.selector, 1));
        _close(1);

        _close(0);
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotOpen.selector, 0));
        _close(0);
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotOpen.selector, 1));
        _close(1);
    }

    function test_no_epoch_is_closed_a_second_before_its_end() external {
        _open(0);
        vm.warp(START + LENGTH - 1);

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.EpochNotOver.selector, 0, START + LENGTH));
        _close(0);
    }

    function testFuzz_nothing_is_revealed_that_was_not_committed_to(uint8 field, bytes32 other) external {
        IEpochLedger.Opening memory said = _opening();
        bytes32 committed = keccak256(abi.encode(said));
        _open(0);
        vm.warp(START + LENGTH);
        field %= 5;
        if (field == 0) said.seedHash = other;
        else if (field == 1) said.goldRoot = other;
        else if (field == 2) said.rulesHash = other;
        else if (field == 3) said.lambdaNumerator = uint256(other);
        else said.lambdaDenominator = uint256(other);
        bytes32 revealed = keccak256(abi.encode(said));
        if (revealed == committed) return;

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotCommitted.selector, 0, revealed, committed));
        vm.prank(POSTER);
        _ledger.close(0, SEED, said, ROOT, DATA);
    }

    function testFuzz_no_other_seed_is_revealed(bytes32 seed) external {
        if (seed == SEED) return;
        _open(0);
        vm.warp(START + LENGTH);

        vm.expectRevert(
            abi.encodeWithSelector(
                IEpochLedger.NotCommitted.selector,
                0,
                keccak256(abi.encodePacked(seed)),
                keccak256(abi.encodePacked(SEED))
            )
        );
        vm.prank(POSTER);
        _ledger.close(0, seed, _opening(), ROOT, DATA);
    }

    function test_an_epoch_that_cannot_be_revealed_any_more_is_abandoned_and_its_rankings_do_not_count()
        external
    {
        _open(0);
        vm.warp(START + LENGTH + 3);

        vm.expectEmit(address(_ledger));
        emit IEpochLedger.EpochAbandoned(0, keccak256("empty"));
        _abandon(0);

        vm.assertEq(_ledger.opened(), 1);
        vm.assertEq(_ledger.closed(), 1);
        _assertRecord(0, _givenUp(START, START + LENGTH + 3, 0, keccak256("empty")));
    }

    /// @dev Somebody with a stolen key opens with a secret of its own: the next poster does not need it to go on.
    function test_what_a_thief_has_opened_does_not_hold_the_next_poster_up() external {
        IEpochLedger.Opening memory strange = _opening();
        strange.seedHash = keccak256("nobody knows of what");
        vm.prank(POSTER);
        _ledger.open(0, strange);
        _distributor.setPoster(address(this));
        vm.warp(START + LENGTH);

        _ledger.abandon(0, DATA);
        _ledger.open(1, _opening());
        vm.warp(START + 2 * LENGTH);
        _ledger.close(1, SEED, _opening(), ROOT, DATA);

        vm.assertEq(_ledger.closed(), 2);
        _assertRecord(1, _record(START + LENGTH, START + 2 * LENGTH, ROOT, DATA));
    }

    /// @dev A thief sees the seed on its way to the chain, and closes with it first: nobody has ranked what it says.
    function test_what_a_thief_has_closed_is_given_up_by_the_next_poster() external {
        _open(0);
        vm.warp(START + LENGTH);
        vm.prank(POSTER);
        _ledger.close(0, SEED, _opening(), keccak256("false rankings"), keccak256("false bundle"));
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotOpen.selector, 0));
        _close(0);
        _distributor.setPoster(address(this));
        vm.warp(START + LENGTH + 3);

        vm.expectEmit(address(_ledger));
        emit IEpochLedger.EpochAbandoned(0, DATA);
        _ledger.abandon(0, DATA);

        vm.assertEq(_ledger.opened(), 1);
        vm.assertEq(_ledger.closed(), 1);
        _assertRecord(0, _givenUp(START, START + LENGTH, START + LENGTH + 3, DATA));
        _ledger.open(1, _opening());
        vm.assertEq(_ledger.opened(), 2);
    }

    function testFuzz_any_closed_epoch_can_be_abandoned_and_the_others_stay(
        uint64 count,
        uint64 which,
        bool nextIsOpen,
        bytes32 dataHash,
        uint32 passed
    )
        external
    {
        count = uint64(_within(count, 1, 5));
        which = uint64(_within(which, 0, count - 1));
        for (uint64 epoch = 0; epoch < count; ++epoch) {
            _openAndClose(epoch);
        }
        if (nextIsOpen) _open(count);
        uint256 time = START + uint256(count) * LENGTH + passed;
        vm.warp(time);

        vm.prank(POSTER);
        _ledger.abandon(which, dataHash);

        vm.assertEq(_ledger.opened(), nextIsOpen ? count + 1 : count);
        vm.assertEq(_ledger.closed(), count);
        for (uint64 epoch = 0; epoch < count; ++epoch) {
            uint256 closedAt = START + (uint256(epoch) + 1) * LENGTH;
            IEpochLedger.Record memory expected = epoch == which
                ? _givenUp(closedAt, closedAt, time, dataHash)
                : _record(closedAt, closedAt, ROOT, DATA);
            _assertRecord(epoch, expected);
        }
    }

    function test_a_closed_epoch_can_be_abandoned_while_no_root_of_it_waits_or_pays() external {
        _openAndClose(0);
        _openAndClose(1);
        _post(0);

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.StillPending.selector, 0));
        _abandon(0);
        _abandon(1);

        vm.prank(_distributor.guardian());
        _distributor.veto(0);
        _abandon(0);
        _post(0);
        vm.warp(START + 2 * LENGTH + WINDOW);
        _distributor.activate();

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.AlreadyActive.selector, 0));
        _abandon(0);
        _abandon(1);
    }

    function testFuzz_only_the_poster_abandons(address caller, bool isClosed) external {
        if (caller == POSTER) return;
        _open(0);
        vm.warp(START + LENGTH);
        if (isClosed) _close(0);

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotPoster.selector, caller, POSTER));
        vm.prank(caller);
        _ledger.abandon(0, DATA);
    }

    function test_no_epoch_is_abandoned_that_was_not_opened() external {
        vm.warp(START + 2 * LENGTH);
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotOpen.selector, 0));
        _abandon(0);

        _open(0);
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotOpen.selector, 1));
        _abandon(1);

        _close(0);
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotOpen.selector, 1));
        _abandon(1);
    }

    function test_no_epoch_is_abandoned_a_second_before_its_end() external {
        _open(0);
        vm.warp(START + LENGTH - 1);

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.EpochNotOver.selector, 0, START + LENGTH));
        _abandon(0);

        vm.warp(START + LENGTH);
        _abandon(0);
    }

    function testFuzz_an_abandoned_epoch_is_not_revealed_after_all(bool wasClosed) external {
        _open(0);
        vm.warp(START + LENGTH);
        if (wasClosed) _close(0);
        _abandon(0);

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotOpen.selector, 0));
        _close(0);
    }

    function test_the_bundle_of_an_abandoned_epoch_is_made_anew_like_any_other() external {
        _open(0);
        vm.warp(START + LENGTH);
        _abandon(0);
        vm.warp(START + LENGTH + 7);
        _amend(0);
        _assertRecord(0, _givenUp(START, START + LENGTH, START + LENGTH + 7, keccak256("mended")));

        // To abandon it once more does the same.
        vm.warp(START + LENGTH + 8);
        _abandon(0);
        _assertRecord(0, _givenUp(START, START + LENGTH, START + LENGTH + 8, keccak256("empty")));
        vm.assertEq(_ledger.closed(), 1);
    }

    function test_a_bundle_that_is_made_anew_changes_its_hash_says_when_and_changes_nothing_else() external {
        _openAndClose(0);
        vm.warp(START + LENGTH + 1);

        vm.expectEmit(address(_ledger));
        emit IEpochLedger.EpochAmended(0, keccak256("mended"));
        _amend(0);

        vm.assertEq(_ledger.opened(), 1);
        vm.assertEq(_ledger.closed(), 1);
        IEpochLedger.Record memory expected =
            _record(START + LENGTH, START + LENGTH, ROOT, keccak256("mended"));
        expected.amendedAt = uint64(START) + LENGTH + 1;
        _assertRecord(0, expected);

        vm.warp(START + LENGTH + 2);
        _amend(0);
        expected.amendedAt = uint64(START) + LENGTH + 2;
        _assertRecord(0, expected);
    }

    function testFuzz_only_the_poster_amends(address caller) external {
        if (caller == POSTER) return;
        _openAndClose(0);

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotPoster.selector, caller, POSTER));
        vm.prank(caller);
        _ledger.amend(0, DATA);
    }

    function test_nothing_is_amended_that_is_not_closed() external {
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotClosed.selector, 0));
        _amend(0);

        _open(0);
        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotClosed.selector, 0));
        _amend(0);
    }

    function test_a_bundle_can_be_made_anew_while_no_root_of_it_waits_or_pays() external {
        _openAndClose(0);
        _openAndClose(1);
        _amend(0);
        _post(0);

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.StillPending.selector, 0));
        _amend(0);
        _amend(1);

        vm.prank(_distributor.guardian());
        _distributor.veto(0);
        _amend(0);
        _post(0);
        vm.warp(START + 2 * LENGTH + WINDOW);
        _distributor.activate();

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.AlreadyActive.selector, 0));
        _amend(0);
        _amend(1);
    }

    function test_who_is_named_poster_of_the_distributor_writes_here_and_nobody_else() external {
        _distributor.setPoster(address(this));

        vm.expectRevert(abi.encodeWithSelector(IEpochLedger.NotPoster.selector, POSTER, address(this)));
        _open(0);

        _ledger.open(0, _opening());
        vm.assertEq(_ledger.opened(), 1);
    }

    function _opening() private pure returns (IEpochLedger.Opening memory) {
        // As PROTOCOL has it: the hash of the 32 bytes themselves.
        bytes32 seedHash = keccak256(abi.encodePacked(SEED));
        return IEpochLedger.Opening(seedHash, keccak256("gold"), keccak256("rules"), 10 ether, 3);
    }

    function _open(uint64 epoch) private {
        vm.prank(POSTER);
        _ledger.open(epoch, _opening());
    }

    function _close(uint64 epoch) private {
        vm.prank(POSTER);
        _ledger.close(epoch, SEED, _opening(), ROOT, DATA);
    }

    function _amend(uint64 epoch) private {
        vm.prank(POSTER);
        _ledger.amend(epoch, keccak256("mended"));
    }

    function _abandon(uint64 epoch) private {
        vm.prank(POSTER);
        _ledger.abandon(epoch, keccak256("empty"));
    }

    function _openAndClose(uint64 epoch) private {
        vm.warp(_distributor.epochEnd(epoch));
        _open(epoch);
        _close(epoch);
    }

    /// @dev Nobody has earned anything: what is paid does not matter here, only when.
    function _post(uint64 epoch) private {
        IRevenueDistributor.Report memory report;
        report.epoch = epoch;
        report.snapshotBlock = uint64(block.number) - 1;
        report.snapshotHash = blockhash(block.number - 1);
        vm.prank(POSTER);
        _distributor.post(report);
    }

    /// @dev Of an epoch that was opened as they all are here.
    function _record(
        uint256 openedAt,
        uint256 closedAt,
        bytes32 ledgerRoot,
        bytes32 dataHash
    )
        private
        pure
        returns (IEpochLedger.Record memory)
    {
        return IEpochLedger.Record({
            opening: keccak256(abi.encode(_opening())),
            openedAt: uint64(openedAt),
            closedAt: uint64(closedAt),
            amendedAt: 0,
            abandoned: false,
            ledgerRoot: ledgerRoot,
            dataHash: dataHash
        });
    }

    /// @dev As `_record`, of one that was abandoned.
    function _givenUp(
        uint256 openedAt,
        uint256 closedAt,
        uint256 amendedAt,
        bytes32 dataHash
    )
        private
        pure
        returns (IEpochLedger.Record memory record)
    {
        record = _record(openedAt, closedAt, 0, dataHash);
        record.amendedAt = uint64(amendedAt);
        record.abandoned = true;
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
