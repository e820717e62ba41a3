// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SumTree} from "../libraries/SumTree.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title The distributor that takes revenue in and pays it to contributors by one proven root per epoch.
/// @notice A root lists what each account has earned in all epochs so far, together with the proven total. It is
/// posted, waits for the challenge window in which the guardian can veto it, and is then activated by anyone. An
/// account is paid what the active root says less what it was paid before.
/// @dev Tokens leave by a claim against the active root and in no other way, for any role. A root once active is only
/// ever followed by one that totals at least as much.
interface IRevenueDistributor {
    /// @notice What the poster says about an epoch.
    struct Report {
        /// @dev Number of the epoch, from 0, without gaps.
        uint64 epoch;
        /// @dev Hash of the payout tree's root.
        bytes32 root;
        /// @dev Total of the payout tree: everything ever earned.
        uint96 sum;
        /// @dev Levels of the payout tree above its leaves.
        uint8 depth;
        /// @dev keccak256 of the epoch's published bundle.
        bytes32 dataHash;
        /// @dev Merkle root of the rankings that were accepted.
        bytes32 ledgerRoot;
        /// @dev keccak256 of the rules by which the epoch was scored.
        bytes32 rulesHash;
        /// @dev The block at which the chain was read.
        uint64 snapshotBlock;
        /// @dev The hash of that block.
        bytes32 snapshotHash;
    }

    /// @notice `payer` gave `amount` as the revenue of `run` (0: of none); `totalFunded` has come in for all runs.
    event Funded(uint64 indexed run, address indexed payer, uint256 amount, uint256 totalFunded);

    /// @notice A report waits until `activeAt`; its fields are those of `Report`.
    event Posted(
        uint64 indexed epoch,
        bytes32 indexed root,
        uint96 sum,
        uint8 depth,
        bytes32 dataHash,
        bytes32 ledgerRoot,
        bytes32 rulesHash,
        uint64 snapshotBlock,
        bytes32 snapshotHash,
        uint64 activeAt
    );

    /// @notice Claims are now paid by `root`, which totals `sum`.
    event Activated(uint64 indexed epoch, bytes32 indexed root, uint96 sum);

    /// @notice The guardian threw out the pending `root`; the epoch can be posted again.
    event Vetoed(uint64 indexed epoch, bytes32 indexed root);

    /// @notice `amount` of what `account` earned went to `to`; it has been paid `cumulative` in all.
    event Claimed(address indexed account, address indexed to, uint256 amount, uint256 cumulative);

    /// @notice Roots are posted by `poster` from now on.
    event PosterSet(address poster);

    /// @notice Pending roots can be vetoed by `guardian` from now on.
    event GuardianSet(address guardian);

    /// @notice A token or a role would be the zero address.
    error ZeroAddress();

    /// @notice An amount of zero was given, or none of it arrived.
    error ZeroAmount();

    /// @notice An epoch would last `length` seconds; it lasts at least 1 and at most `max`.
    error BadEpochLength(uint64 length, uint64 max);

    /// @notice The challenge window would last `window` seconds; it lasts at least 1 and at most `max`.
    error BadChallengeWindow(uint64 window, uint64 max);

    /// @notice There is room for `room` more revenue, and `amount` arrived.
    error FundsTooLarge(uint256 amount, uint256 room);

    /// @notice `caller` posted, but `poster` is the one who may.
    error NotPoster(address caller, address poster);

    /// @notice `caller` vetoed, but `guardian` is the one who may.
    error NotGuardian(address caller, address guardian);

    /// @notice The report of `epoch` is still pending; activate or veto it first.
    error AlreadyPending(uint64 epoch);

    /// @notice No report is pending.
    error NothingPending();

    /// @notice `epoch` was posted, and `expected` is the next.
    error WrongEpoch(uint64 epoch, uint64 expected);

    /// @notice `epoch` lasts until `endsAt`.
    error EpochNotOver(uint64 epoch, uint256 endsAt);

    /// @notice The posted total `sum` is lower than the active one.
    error SumDecreased(uint96 sum, uint96 activeSum);

    /// @notice The posted total `sum` is more than the `funded` that ever came in.
    error SumExceedsFunded(uint96 sum, uint256 funded);

    /// @notice The posted tree has `depth` levels; `max` is the most.
    error TreeTooDeep(uint8 depth, uint8 max);

    /// @notice Block `snapshotBlock` has the hash `actual` on this chain, not the posted one.
    error SnapshotMismatch(uint64 snapshotBlock, bytes32 snapshotHash, bytes32 actual);

    /// @notice The pending root waits until `activeAt`.
    error WindowOpen(uint256 activeAt);

    /// @notice The proof of `account` and `cumulative` leads to the commitment `proven`; `active` is the valid one.
    error InvalidProof(address account, uint96 cumulative, bytes32 proven, bytes32 active);

    /// @notice `account` has already been paid `claimed`, which is no less than the proven `cumulative`.
    error NothingToClaim(address account, uint96 cumulative, uint256 claimed);

    /// @notice Pays revenue in. Anyone may; needs an allowance.
    /// @dev What counts is what arrives: a token that takes a fee funds less.
    /// @param run number of the retraining run that earned it, or 0 for none
    /// @param amount how much the caller gives, in the token's smallest unit
    function fund(uint64 run, uint96 amount) external;

    /// @notice Puts the report of the next epoch up for challenge. Poster only.
    /// @dev The block hash is compared where the EVM can still see it (256 blocks, or 8,191 with EIP-2935).
    /// @param report what the poster says
    function post(Report calldata report) external;

    /// @notice Makes the pending root the one that pays, once its window is over. Anyone may.
    function activate() external;

    /// @notice Throws the pending root out; the epoch can be posted again, with a new window. Guardian only.
    function veto() external;

    /// @notice Pays `account` what it has earned and was not paid yet. Anyone may call; only `account` is paid.
    /// @param account who is paid
    /// @param cumulative what the active root says the account has earned in all
    /// @param index position of the account's leaf, from 0; bit i is 1 where our node is the right child at level i
    /// @param proof the siblings from the leaf to the root
    function claim(address account, uint96 cumulative, uint256 index, SumTree.Node[] calldata proof) external;

    /// @notice Sets who posts. Owner only.
    /// @param newPoster any address but zero
    function setPoster(address newPoster) external;

    /// @notice Sets who vetoes. Owner only.
    /// @param newGuardian any address but zero
    function setGuardian(address newGuardian) external;

    /// @notice The token in which revenue comes in and goes out.
    function token() external view returns (IERC20);

    /// @notice When epoch 0 began, Unix seconds.
    function genesis() external view returns (uint64);

    /// @notice Seconds in an epoch.
    function epochLength() external view returns (uint64);

    /// @notice Seconds between a post and the earliest activation.
    function challengeWindow() external view returns (uint64);

    /// @notice The longest epoch that can be deployed, in seconds.
    function MAX_EPOCH_LENGTH() external view returns (uint64);

    /// @notice The longest challenge window that can be deployed, in seconds.
    function MAX_CHALLENGE_WINDOW() external view returns (uint64);

    /// @notice The most levels a payout tree may have.
    function MAX_DEPTH() external view returns (uint8);

    /// @notice Who may post.
    function poster() external view returns (address);

    /// @notice Who may veto.
    function guardian() external view returns (address);

    /// @notice All revenue that ever came in.
    function funded() external view returns (uint256);

    /// @notice What has been paid out: `funded` less the balance.
    /// @dev Exact as long as nobody sends tokens past `fund`; then lower by as much. The exact figure is in the
    /// events: no claim pays for a counter that no rule needs.
    function claimedTotal() external view returns (uint256);

    /// @notice What `account` has been paid in all.
    function claimed(address account) external view returns (uint256);

    /// @notice The one word that a claim is checked against: keccak256 of the active root and its sum; 0 at first.
    function commitment() external view returns (bytes32);

    /// @notice The root that pays, and the epoch that comes next (the number of epochs activated so far).
    function active() external view returns (uint64 nextEpoch, bytes32 root, uint96 sum, uint8 depth);

    /// @notice The root that waits, and when it can be activated; all zeros when none does.
    function pending()
        external
        view
        returns (uint64 epoch, bytes32 root, uint96 sum, uint8 depth, uint64 activeAt);

    /// @notice The first second after `epoch`.
    function epochEnd(uint64 epoch) external view returns (uint256);
}
