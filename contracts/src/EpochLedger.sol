// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEpochLedger} from "./interfaces/IEpochLedger.sol";
import {IRevenueDistributor} from "./interfaces/IRevenueDistributor.sol";

/// @title The ledger of `IEpochLedger`, where every function, event and error is described.
contract EpochLedger is IEpochLedger {
    /// @inheritdoc IEpochLedger
    IRevenueDistributor public immutable distributor;

    /// @inheritdoc IEpochLedger
    uint64 public opened;

    /// @inheritdoc IEpochLedger
    uint64 public closed;

    mapping(uint64 epoch => Record) private _records;

    /// @param distributor_ the distributor whose epochs these are
    constructor(IRevenueDistributor distributor_) {
        if (address(distributor_) == address(0)) revert ZeroAddress();

        distributor = distributor_;
    }

    /// @inheritdoc IEpochLedger
    function open(uint64 epoch, Opening calldata opening) external {
        _onlyPoster();
        if (epoch != opened) revert WrongEpoch(epoch, opened);
        // Its price of stake follows from the epoch before, which therefore has to be over and done.
        if (opened != closed) revert StillOpen(closed);

        opened = epoch + 1;
        Record storage record = _records[epoch];
        record.opening = keccak256(abi.encode(opening));
        record.openedAt = uint64(block.timestamp);

        emit EpochOpened(
            epoch,
            opening.seedHash,
            opening.goldRoot,
            opening.rulesHash,
            opening.lambdaNumerator,
            opening.lambdaDenominator
        );
    }

    /// @inheritdoc IEpochLedger
    function close(
        uint64 epoch,
        bytes32 seed,
        Opening calldata opening,
        bytes32 ledgerRoot,
        bytes32 dataHash
    )
        external
    {
        _onlyPoster();
        Record storage record = _openAndOver(epoch);
        bytes32 revealed = keccak256(abi.encode(opening));
        if (revealed != record.opening) revert NotCommitted(epoch, revealed, record.opening);
        bytes32 seedHash = keccak256(abi.encode(seed));
        if (seedHash != opening.seedHash) revert NotCommitted(epoch, seedHash, opening.seedHash);

        closed = epoch + 1;
        record.closedAt = uint64(block.timestamp);
        record.ledgerRoot = ledgerRoot;
        record.dataHash = dataHash;

        emit EpochClosed(epoch, seed, ledgerRoot, dataHash);
    }

    /// @inheritdoc IEpochLedger
    function abandon(uint64 epoch, bytes32 dataHash) external {
        _onlyPoster();
        // A closed one too: who had the poster's key may have closed it falsely, and nothing else undoes that.
        bool wasClosed = epoch < closed;
        Record storage record = wasClosed ? _corrected(epoch) : _openAndOver(epoch);

        if (wasClosed) {
            record.ledgerRoot = 0;
        } else {
            closed = epoch + 1;
            record.closedAt = uint64(block.timestamp);
        }
        record.abandoned = true;
        record.dataHash = dataHash;

        emit EpochAbandoned(epoch, dataHash);
    }

    /// @inheritdoc IEpochLedger
    function amend(uint64 epoch, bytes32 dataHash) external {
        _onlyPoster();
        if (epoch >= closed) revert NotClosed(epoch);
        Record storage record = _corrected(epoch);

        record.dataHash = dataHash;

        emit EpochAmended(epoch, dataHash);
    }

    /// @inheritdoc IEpochLedger
    function recordOf(uint64 epoch) external view returns (Record memory) {
        return _records[epoch];
    }

    /// @dev The record of the epoch that is open, and over.
    function _openAndOver(uint64 epoch) private view returns (Record storage record) {
        if (epoch != closed || epoch == opened) revert NotOpen(epoch);
        uint256 endsAt = distributor.epochEnd(epoch);
        if (block.timestamp < endsAt) revert EpochNotOver(epoch, endsAt);
        return _records[epoch];
    }

    /// @dev The record of a closed epoch that is being corrected: none whose root waits or pays.
    function _corrected(uint64 epoch) private returns (Record storage record) {
        (uint64 nextEpoch,,) = distributor.active();
        if (epoch < nextEpoch) revert AlreadyActive(epoch);
        (uint64 posted,,,, uint64 activeAt) = distributor.pending();
        if (activeAt != 0 && epoch == posted) revert StillPending(epoch);

        record = _records[epoch];
        record.amendedAt = uint64(block.timestamp);
    }

    function _onlyPoster() private view {
        address poster = distributor.poster();
        if (msg.sender != poster) revert NotPoster(msg.sender, poster);
    }
}
