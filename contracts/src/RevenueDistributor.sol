// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "./interfaces/IRevenueDistributor.sol";
import {SumTree} from "./libraries/SumTree.sol";
import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Blockhash} from "@openzeppelin/contracts/utils/Blockhash.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title The distributor of `IRevenueDistributor`, where every function, event and error is described.
contract RevenueDistributor is IRevenueDistributor, Ownable2Step, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @dev Two slots: the root that pays, its total and depth, and the epoch that comes next.
    struct Active {
        bytes32 root;
        uint64 nextEpoch;
        uint96 sum;
        uint8 depth;
    }

    /// @dev Two slots: the root that waits, its total and depth, and until when; `activeAt` is 0 when none does.
    struct Pending {
        bytes32 root;
        uint64 activeAt;
        uint96 sum;
        uint8 depth;
    }

    /// @inheritdoc IRevenueDistributor
    uint64 public constant MAX_EPOCH_LENGTH = 365 days;

    /// @inheritdoc IRevenueDistributor
    uint64 public constant MAX_CHALLENGE_WINDOW = 30 days;

    /// @inheritdoc IRevenueDistributor
    uint8 public constant MAX_DEPTH = 32;

    /// @inheritdoc IRevenueDistributor
    IERC20 public immutable token;

    /// @inheritdoc IRevenueDistributor
    uint64 public immutable genesis;

    /// @inheritdoc IRevenueDistributor
    uint64 public immutable epochLength;

    /// @inheritdoc IRevenueDistributor
    uint64 public immutable challengeWindow;

    /// @inheritdoc IRevenueDistributor
    address public poster;

    /// @inheritdoc IRevenueDistributor
    address public guardian;

    /// @inheritdoc IRevenueDistributor
    uint256 public funded;

    /// @inheritdoc IRevenueDistributor
    bytes32 public commitment;

    /// @inheritdoc IRevenueDistributor
    mapping(address account => uint256) public claimed;

    Active private _active;
    Pending private _pending;

    /// @param token_ the token in which revenue comes in and goes out
    /// @param genesis_ when epoch 0 begins, Unix seconds
    /// @param epochLength_ seconds in an epoch, at least 1 and at most `MAX_EPOCH_LENGTH`
    /// @param challengeWindow_ seconds a root waits, at least 1 and at most `MAX_CHALLENGE_WINDOW`
    /// @param owner_ who names the poster and the guardian, and nothing else
    /// @param poster_ who posts
    /// @param guardian_ who vetoes
    constructor(
        IERC20 token_,
        uint64 genesis_,
        uint64 epochLength_,
        uint64 challengeWindow_,
        address owner_,
        address poster_,
        address guardian_
    )
        Ownable(owner_)
    {
        if (address(token_) == address(0)) revert ZeroAddress();
        if (epochLength_ == 0 || epochLength_ > MAX_EPOCH_LENGTH) {
            revert BadEpochLength(epochLength_, MAX_EPOCH_LENGTH);
        }
        if (challengeWindow_ == 0 || challengeWindow_ > MAX_CHALLENGE_WINDOW) {
            revert BadChallengeWindow(challengeWindow_, MAX_CHALLENGE_WINDOW);
        }

        token = token_;
        genesis = genesis_;
        epochLength = epochLength_;
        challengeWindow = challengeWindow_;
        _setPoster(poster_);
        _setGuardian(guardian_);
    }

    /// @inheritdoc IRevenueDistributor
    function fund(uint64 run, uint96 amount) external nonReentrant {
        if (amount == 0) revert ZeroAmount();
        // The one deposit that cannot transfer last: what counts is what arrives. Hence the guard.
        uint256 received = _pull(amount);
        if (received == 0) revert ZeroAmount();
        uint256 room = type(uint96).max - funded;
        if (received > room) revert FundsTooLarge(received, room);

        funded += received;

        emit Funded(run, msg.sender, received, funded);
    }

    /// @inheritdoc IRevenueDistributor
    function post(Report calldata report) external {
        if (msg.sender != poster) revert NotPoster(msg.sender, poster);
        _checkPostable(report);

        uint64 activeAt = uint64(block.timestamp) + challengeWindow;
        _pending = Pending({root: report.root, activeAt: activeAt, sum: report.sum, depth: report.depth});

        emit Posted(
            report.epoch,
            report.root,
            report.sum,
            report.depth,
            report.dataHash,
            report.ledgerRoot,
            report.rulesHash,
            report.snapshotBlock,
            report.snapshotHash,
            activeAt
        );
    }

    /// @inheritdoc IRevenueDistributor
    function activate() external {
        Pending memory next = _pending;
        if (next.activeAt == 0) revert NothingPending();
        if (block.timestamp < next.activeAt) revert WindowOpen(next.activeAt);

        uint64 epoch = _active.nextEpoch;
        _active = Active({root: next.root, nextEpoch: epoch + 1, sum: next.sum, depth: next.depth});
        commitment = SumTree.commitment(next.root, next.sum);
        delete _pending;

        emit Activated(epoch, next.root, next.sum);
    }

    /// @inheritdoc IRevenueDistributor
    function veto() external {
        if (msg.sender != guardian) revert NotGuardian(msg.sender, guardian);
        if (_pending.activeAt == 0) revert NothingPending();

        bytes32 root = _pending.root;
        delete _pending;

        emit Vetoed(_active.nextEpoch, root);
    }

    /// @inheritdoc IRevenueDistributor
    function claim(
        address account,
        uint96 cumulative,
        uint256 index,
        SumTree.Node[] calldata proof
    )
        external
    {
        (bytes32 root, uint96 sum) =
            SumTree.climb(SumTree.leafHash(account, cumulative), cumulative, index, proof);
        bytes32 proven = SumTree.commitment(root, sum);
        if (proven != commitment) revert InvalidProof(account, cumulative, proven, commitment);
        uint256 paid = claimed[account];
        if (cumulative <= paid) revert NothingToClaim(account, cumulative, paid);

        claimed[account] = cumulative;

        emit Claimed(account, account, cumulative - paid, cumulative);

        token.safeTransfer(account, cumulative - paid);
    }

    /// @inheritdoc IRevenueDistributor
    function setPoster(address newPoster) external onlyOwner {
        _setPoster(newPoster);
    }

    /// @inheritdoc IRevenueDistributor
    function setGuardian(address newGuardian) external onlyOwner {
        _setGuardian(newGuardian);
    }

    /// @inheritdoc IRevenueDistributor
    function claimedTotal() external view returns (uint256) {
        uint256 balance = token.balanceOf(address(this));
        return balance < funded ? funded - balance : 0;
    }

    /// @inheritdoc IRevenueDistributor
    function active() external view returns (uint64 nextEpoch, bytes32 root, uint96 sum, uint8 depth) {
        return (_active.nextEpoch, _active.root, _active.sum, _active.depth);
    }

    /// @inheritdoc IRevenueDistributor
    function pending()
        external
        view
        returns (uint64 epoch, bytes32 root, uint96 sum, uint8 depth, uint64 activeAt)
    {
        Pending memory next = _pending;
        if (next.activeAt != 0) epoch = _active.nextEpoch;
        return (epoch, next.root, next.sum, next.depth, next.activeAt);
    }

    /// @inheritdoc IRevenueDistributor
    function epochEnd(uint64 epoch) public view returns (uint256) {
        return genesis + (uint256(epoch) + 1) * epochLength;
    }

    function _pull(uint96 amount) private returns (uint256 received) {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        return token.balanceOf(address(this)) - before;
    }

    function _setPoster(address newPoster) private {
        if (newPoster == address(0)) revert ZeroAddress();

        poster = newPoster;

        emit PosterSet(newPoster);
    }

    function _setGuardian(address newGuardian) private {
        if (newGuardian == address(0)) revert ZeroAddress();

        guardian = newGuardian;

        emit GuardianSet(newGuardian);
    }

    function _checkPostable(Report calldata report) private view {
        uint64 expected = _active.nextEpoch;
        if (_pending.activeAt != 0) revert AlreadyPending(expected);
        if (report.epoch != expected) revert WrongEpoch(report.epoch, expected);
        uint256 endsAt = epochEnd(report.epoch);
        if (block.timestamp < endsAt) revert EpochNotOver(report.epoch, endsAt);
        if (report.sum < _active.sum) revert SumDecreased(report.sum, _active.sum);
        if (report.sum > funded) revert SumExceedsFunded(report.sum, funded);
        if (report.depth > MAX_DEPTH) revert TreeTooDeep(report.depth, MAX_DEPTH);
        bytes32 actual = Blockhash.blockHash(report.snapshotBlock);
        if (actual != 0 && actual != report.snapshotHash) {
            revert SnapshotMismatch(report.snapshotBlock, report.snapshotHash, actual);
        }
    }
}
