// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "./IRevenueDistributor.sol";

/// @title The ledger of what the operator commits to before an epoch's first task, and reveals after its end.
/// @notice An epoch is opened with the hashes of its secrets, and closed with what they were and with the hashes of
/// what people signed and of the bundle that follows from it. Each epoch once, in order: 0 opened, 0 closed, 1 opened.
/// One that cannot be revealed any more, or was closed falsely, is abandoned: nothing that was ranked in it counts.
/// @dev It holds no money and stops none. Who verifies an epoch compares the bundle with it.
interface IEpochLedger {
    /// @notice What is committed to before the first task of an epoch.
    struct Opening {
        /// @dev keccak256 of the secret seed.
        bytes32 seedHash;
        /// @dev Merkle root of the salted gold answers; 0 without any.
        bytes32 goldRoot;
        /// @dev keccak256 of the rules by which the epoch is scored.
        bytes32 rulesHash;
        /// @dev The price of stake by which the epoch is scored: wei of stake per unit of proven surplus.
        uint256 lambdaNumerator;
        uint256 lambdaDenominator;
    }

    /// @notice What is known of an epoch; all zeros before it is opened.
    struct Record {
        /// @dev keccak256 of the ABI encoding of its `Opening`.
        bytes32 opening;
        /// @dev Block time, Unix seconds.
        uint64 openedAt;
        /// @dev Block time, Unix seconds; 0 while it is open.
        uint64 closedAt;
        /// @dev When it was last corrected, by `amend`, or by `abandon` after its close: block time, Unix seconds; 0 if
        /// never. The next epoch is scored by the price of stake that follows from the corrected bundle, and may have
        /// been opened with another before: this tells who verifies why the two differ.
        uint64 amendedAt;
        /// @dev Whether no ranking of it counts: it was closed without being revealed, or given up after its close.
        bool abandoned;
        /// @dev Merkle root of the rankings that were accepted; 0 where it was abandoned: none of them counts.
        bytes32 ledgerRoot;
        /// @dev keccak256 of the published bundle.
        bytes32 dataHash;
    }

    /// @notice `epoch` is open; the fields are those of `Opening`.
    event EpochOpened(
        uint64 indexed epoch,
        bytes32 seedHash,
        bytes32 goldRoot,
        bytes32 rulesHash,
        uint256 lambdaNumerator,
        uint256 lambdaDenominator
    );

    /// @notice `epoch` is closed: its seed was `seed`, its rankings and its bundle have these hashes.
    event EpochClosed(uint64 indexed epoch, bytes32 seed, bytes32 ledgerRoot, bytes32 dataHash);

    /// @notice `epoch` is closed, or stays so, and no ranking of it counts; its bundle has this hash. What an earlier
    /// `EpochClosed` of it said holds no more.
    event EpochAbandoned(uint64 indexed epoch, bytes32 dataHash);

    /// @notice The bundle of `epoch` was made anew, from the same rankings.
    event EpochAmended(uint64 indexed epoch, bytes32 dataHash);

    /// @notice A token, a role, an account or a receiver would be the zero address.
    error ZeroAddress();

    /// @notice `caller` is not the poster, `poster`, who alone may do this.
    error NotPoster(address caller, address poster);

    /// @notice `epoch` was named, and `expected` is the one whose turn it is.
    error WrongEpoch(uint64 epoch, uint64 expected);

    /// @notice `epoch` is still open: it has to be closed first.
    error StillOpen(uint64 epoch);

    /// @notice `epoch` was not opened, or is closed already.
    error NotOpen(uint64 epoch);

    /// @notice `epoch` is not closed yet.
    error NotClosed(uint64 epoch);

    /// @notice `epoch` lasts until `endsAt`.
    error EpochNotOver(uint64 epoch, uint256 endsAt);

    /// @notice What was revealed hashes to `revealed`; `committed` was committed to.
    error NotCommitted(uint64 epoch, bytes32 revealed, bytes32 committed);

    /// @notice The root of `epoch` pays already: its bundle is final.
    error AlreadyActive(uint64 epoch);

    /// @notice A root of `epoch` waits to become active: what it was checked by stays as it is.
    error StillPending(uint64 epoch);

    /// @notice Opens the next epoch. Poster only, after the one before it is closed.
    /// @param epoch its number
    /// @param opening what is committed to
    function open(uint64 epoch, Opening calldata opening) external;

    /// @notice Closes the open epoch. Poster only, after its end.
    /// @param epoch its number
    /// @param seed the secret seed
    /// @param opening what was committed to
    /// @param ledgerRoot Merkle root of the rankings that were accepted
    /// @param dataHash keccak256 of the published bundle
    function close(
        uint64 epoch,
        bytes32 seed,
        Opening calldata opening,
        bytes32 ledgerRoot,
        bytes32 dataHash
    )
        external;

    /// @notice Gives up an epoch for good: no ranking of it counts. Poster only.
    ///
    /// The open one is closed by it, after its end, without revealing anything, for when that is no longer possible:
    /// the secret is lost, or somebody with a stolen poster's key opened it. A closed one can be given up while no root
    /// of it waits or pays, for when somebody with a stolen key saw the seed on its way to the chain and closed it
    /// first, with false rankings. To give one up again only replaces the bundle's hash.
    /// @dev An operator gains nothing but time by the latter: what an epoch comes to it knows before it closes it, when
    /// it could abandon it too. It drops all rankings or none, and everybody sees it for good.
    /// @param epoch its number
    /// @param dataHash keccak256 of the published bundle
    function abandon(uint64 epoch, bytes32 dataHash) external;

    /// @notice Replaces the hash of a closed epoch's bundle, while no root of it waits or pays: the operator found its own
    /// arithmetic wrong. What people signed stays as it was anchored, and the record says when this was. Poster only.
    /// @param epoch its number
    /// @param dataHash keccak256 of the new bundle
    function amend(uint64 epoch, bytes32 dataHash) external;

    /// @notice The distributor whose epochs these are, and whose poster may write here.
    function distributor() external view returns (IRevenueDistributor);

    /// @notice How many epochs have been opened.
    function opened() external view returns (uint64);

    /// @notice How many epochs have been closed, the abandoned ones included.
    function closed() external view returns (uint64);

    /// @notice What is known of an epoch.
    function recordOf(uint64 epoch) external view returns (Record memory);
}
