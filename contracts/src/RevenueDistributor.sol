// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "./interfaces/IRevenueDistributor.sol";
import {SumTree} from "./libraries/SumTree.sol";
import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Blockhash} from "@openzeppelin/contracts/utils/Blockhash.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title The distributor of `IRevenueDistributor`, where every function, event and error is described.
contract RevenueDistributor is IRevenueDistributor, Ownable2Step, ReentrancyGuardTransient, EIP712, Nonces {
    using SafeERC20 for IERC20;

    /// @dev One slot: the total and depth of the root that pays, the epoch that comes next, until when claims are
    /// paused, and when they can be paused again.
    struct Active {
        uint96 sum;
        uint8 depth;
        uint64 nextEpoch;
        uint40 pausedUntil;
        uint40 pauseNotBefore;
    }

    /// @dev Two slots: the root that waits, its total and depth, and until when; `activeAt` is 0 when none does.
    struct Pending {
        bytes32 root;
        uint64 activeAt;
        uint96 sum;
        uint8 depth;
    }

    /// @dev One slot: revenue that ever came in, and the native coin that answers for the poster.
    struct Books {
        uint96 funded;
        uint96 bond;
    }

    /// @inheritdoc IRevenueDistributor
    bytes32 public constant CLAIM_TYPEHASH =
        keccak256("Claim(address account,address to,uint96 cumulative,uint256 nonce,uint256 deadline)");

    /// @inheritdoc IRevenueDistributor
    uint64 public constant MAX_EPOCH_LENGTH = 365 days;

    /// @inheritdoc IRevenueDistributor
    uint64 public constant MAX_CHALLENGE_WINDOW = 30 days;

    /// @inheritdoc IRevenueDistributor
    uint8 public constant MAX_DEPTH = 32;

    /// @inheritdoc IRevenueDistributor
    uint40 public constant PAUSE_LENGTH = 7 days;

    /// @inheritdoc IRevenueDistributor
    uint40 public constant PAUSE_REST = 21 days;

    /// @inheritdoc IRevenueDistributor
    IERC20 public immutable token;

    /// @inheritdoc IRevenueDistributor
    uint64 public immutable genesis;

    /// @inheritdoc IRevenueDistributor
    uint64 public immutable epochLength;

    /// @inheritdoc IRevenueDistributor
    uint64 public immutable challengeWindow;

    /// @inheritdoc IRevenueDistributor
    uint96 public immutable bondRequired;

    /// @inheritdoc IRevenueDistributor
    address public poster;

    /// @inheritdoc IRevenueDistributor
    address public guardian;

    /// @inheritdoc IRevenueDistributor
    bytes32 public commitment;

    /// @inheritdoc IRevenueDistributor
    mapping(address account => uint256) public claimed;

    Books private _books;
    Active private _active;
    Pending private _pending;

    /// @dev While claims are paused, what `commitment` will be again.
    bytes32 private _paused;

    /// @param token_ the token in which revenue comes in and goes out
    /// @param genesis_ when epoch 0 begins, Unix seconds
    /// @param epochLength_ seconds in an epoch, at least 1 and at most `MAX_EPOCH_LENGTH`
    /// @param challengeWindow_ seconds a root waits, at least 1 and at most `MAX_CHALLENGE_WINDOW`
    /// @param bondRequired_ native coin, in wei, that has to lie here before a root is posted
    /// @param owner_ who names the poster and the guardian and may take the bond back while nothing is pending
    /// @param poster_ who posts
    /// @param guardian_ who vetoes and pauses
    constructor(
        IERC20 token_,
        uint64 genesis_,
        uint64 epochLength_,
        uint64 challengeWindow_,
        uint96 bondRequired_,
        address owner_,
        address poster_,
        address guardian_
    )
        Ownable(owner_)
        EIP712("Haptic", "1")
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
        bondRequired = bondRequired_;
        _setPoster(poster_);
        _setGuardian(guardian_);
    }

    /// @inheritdoc IRevenueDistributor
    function fund(uint64 run, uint96 amount) external nonReentrant {
        if (amount == 0) revert ZeroAmount();
        // The one deposit that cannot transfer last: what counts is what arrives. Hence the guard.
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 balance = token.balanceOf(address(this));
        if (balance <= before) revert ZeroAmount();
        uint256 received = balance - before;
        uint256 room = type(uint96).max - _books.funded;
        if (received > room) revert FundsTooLarge(received, room);

        // It fits the room, and the room fits 96 bits.
        uint96 total = _books.funded + uint96(received);
        _books.funded = total;

        emit Funded(run, msg.sender, received, total);
    }

    /// @inheritdoc IRevenueDistributor
    function addBond() external payable {
        if (msg.value == 0) revert ZeroAmount();
        uint256 total = _books.bond + msg.value;
        if (total > type(uint96).max) revert BondTooLarge(total, type(uint96).max);

        // It was bounded in the line above.
        _books.bond = uint96(total);

        emit BondAdded(msg.sender, msg.value, total);
    }

    /// @inheritdoc IRevenueDistributor
    function withdrawBond(address payable to, uint96 amount) external onlyOwner {
        if (to == address(0)) revert ZeroAddress();
        if (_pending.activeAt != 0) revert AlreadyPending(_active.nextEpoch);
        uint96 bond_ = _books.bond;
        if (amount == 0 || amount > bond_) revert BondTooSmall(bond_, amount);

        _books.bond = bond_ - amount;

        emit BondWithdrawn(to, amount, bond_ - amount);

        _send(to, amount);
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

        Active memory last = _active;
        uint64 epoch = last.nextEpoch;
        last.nextEpoch = epoch + 1;
        last.sum = next.sum;
        last.depth = next.depth;
        _active = last;
        delete _pending;
        bytes32 fresh = SumTree.commitment(next.root, next.sum);
        // Claims that are paused stay so: the new root waits with them.
        if (block.timestamp < last.pausedUntil) _paused = fresh;
        else commitment = fresh;

        emit Activated(epoch, next.root, next.sum);
    }

    /// @inheritdoc IRevenueDistributor
    function veto(bytes32 root) external {
        _onlyGuardian();
        Pending memory next = _waiting();
        if (root != next.root) revert NotPending(root, next.root);

        (uint64 epoch,) = _reject();

        emit Vetoed(epoch, root);
    }

    /// @inheritdoc IRevenueDistributor
    function pause() external {
        _onlyGuardian();
        if (block.timestamp < _active.pauseNotBefore) revert PauseTooSoon(_active.pauseNotBefore);

        uint40 until = uint40(block.timestamp) + PAUSE_LENGTH;
        _active.pausedUntil = until;
        _active.pauseNotBefore = until + PAUSE_REST;
        _paused = activeCommitment();
        commitment = 0;

        emit Paused(until);
    }

    /// @inheritdoc IRevenueDistributor
    function unpause() external {
        if (block.timestamp < _active.pausedUntil) {
            // Also before the first root, of which there is nothing to put back yet.
            _onlyGuardian();
            _active.pausedUntil = uint40(block.timestamp);
        } else if (commitment != 0 || _paused == 0) {
            revert NotPaused();
        }

        commitment = _paused;

        emit Unpaused();
    }

    /// @inheritdoc IRevenueDistributor
    function challengeDecrease(SumTree.Proof calldata before, SumTree.Proof calldata lowered) external {
        Pending memory next = _waiting();
        if (before.account != lowered.account) revert DifferentAccounts(before.account, lowered.account);
        if (lowered.cumulative >= before.cumulative) {
            revert NotLower(before.account, before.cumulative, lowered.cumulative);
        }
        _requireActive(before);
        _requirePending(lowered, next);

        _slash(Fault.Decrease, before.account);
    }

    /// @inheritdoc IRevenueDistributor
    function challengeMissing(
        SumTree.Proof calldata before,
        SumTree.Proof calldata left,
        SumTree.Proof calldata right
    )
        external
    {
        Pending memory next = _waiting();
        _requireActive(before);
        uint256 gap = right.index;
        if (gap > 2 ** next.depth) revert IndexOutOfTree(gap, next.depth);
        if (gap != 0) {
            if (left.index != gap - 1) revert NotAdjacent(left.index, gap);
            // Not beside padding: on its right side everybody is missing.
            if (left.account >= before.account || _isPadding(left)) {
                revert NotBetween(before.account, left.account, right.account);
            }
            _requirePending(left, next);
        }
        if (gap != 2 ** next.depth) {
            if (right.account <= before.account && !_isPadding(right)) {
                revert NotBetween(before.account, left.account, right.account);
            }
            _requirePending(right, next);
        }

        _slash(Fault.Missing, before.account);
    }

    /// @inheritdoc IRevenueDistributor
    function challengeOrder(SumTree.Proof calldata left, SumTree.Proof calldata right) external {
        Pending memory next = _waiting();
        if (right.index == 0 || left.index != right.index - 1) revert NotAdjacent(left.index, right.index);
        if (_isPadding(right) || (left.account < right.account && !_isPadding(left))) {
            revert InOrder(left.account, right.account);
        }
        _requirePending(left, next);
        _requirePending(right, next);

        _slash(Fault.Order, right.account);
    }

    /// @inheritdoc IRevenueDistributor
    function challengeMalformed(
        bytes calldata preimage,
        uint96 sum,
        uint256 index,
        bytes calldata path
    )
        external
    {
        Pending memory next = _waiting();
        uint256 level = SumTree.levelsOf(path);
        if (level > next.depth) revert WrongDepth(level, next.depth);
        // Nothing binds the sum of a root that has no node above it, so that it is taken from the report.
        if (level == 0) sum = next.sum;
        _requireNode(preimage.length == 0 ? bytes32(0) : keccak256(preimage), sum, index, path, next);
        if (_isWellFormed(preimage, sum, level == next.depth)) revert WellFormed(index, level);

        _slash(Fault.Malformed, address(0));
    }

    /// @inheritdoc IRevenueDistributor
    function claim(address account, uint96 cumulative, uint256 index, bytes calldata proof) external {
        _check(account, cumulative, index, proof);
        _pay(account, account, cumulative);
    }

    /// @inheritdoc IRevenueDistributor
    function claimTo(uint96 cumulative, uint256 index, bytes calldata proof, address to) external {
        _checkReceiver(to);
        _check(msg.sender, cumulative, index, proof);
        _pay(msg.sender, to, cumulative);
    }

    /// @inheritdoc IRevenueDistributor
    function claimWithSig(
        SumTree.Proof calldata proof,
        address to,
        uint256 deadline,
        bytes calldata signature
    )
        external
    {
        _checkReceiver(to);
        if (block.timestamp > deadline) revert SignatureExpired(deadline);
        address account = proof.account;
        bytes32 said = keccak256(
            abi.encode(CLAIM_TYPEHASH, account, to, proof.cumulative, _useNonce(account), deadline)
        );
        if (!SignatureChecker.isValidSignatureNow(account, _hashTypedDataV4(said), signature)) {
            revert WrongSignature(account);
        }
        _check(account, proof.cumulative, proof.index, proof.path);
        _pay(account, to, proof.cumulative);
    }

    /// @inheritdoc IRevenueDistributor
    function claimMany(SumTree.Proof[] calldata proofs) external returns (uint256 paid) {
        if (commitment == 0) _endPause();
        for (uint256 i = 0; i < proofs.length; ++i) {
            SumTree.Proof calldata p = proofs[i];
            (bytes32 root, uint256 sum) =
                SumTree.walk(SumTree.leafHash(p.account, p.cumulative), p.cumulative, p.index, p.path);
            bool proven = p.path.length % 44 == 0 && p.index >> (p.path.length / 44) == 0
                && sum <= type(uint96).max && SumTree.commitment(root, sum) == commitment;
            if (proven) paid += _tryPay(p.account, p.cumulative);
            else emit ClaimSkipped(p.account, p.cumulative);
        }
    }

    /// @inheritdoc IRevenueDistributor
    function claimSubtree(
        SumTree.Leaf[] calldata leaves,
        uint256 level,
        uint256 index,
        bytes calldata path
    )
        external
        returns (uint256 paid)
    {
        (bytes32 hash, uint96 blockSum) = SumTree.blockNode(leaves, level);
        (bytes32 root, uint96 sum) = SumTree.climb(hash, blockSum, index, path);
        _checkProven(leaves[0].account, leaves[0].cumulative, SumTree.commitment(root, sum));
        for (uint256 i = 0; i < leaves.length; ++i) {
            paid += _tryPay(leaves[i].account, leaves[i].cumulative);
        }
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
    function funded() external view returns (uint256) {
        return _books.funded;
    }

    /// @inheritdoc IRevenueDistributor
    function bond() external view returns (uint256) {
        return _books.bond;
    }

    /// @inheritdoc IRevenueDistributor
    function claimedTotal() external view returns (uint256) {
        uint256 balance = token.balanceOf(address(this));
        return balance < _books.funded ? _books.funded - balance : 0;
    }

    /// @inheritdoc IRevenueDistributor
    function active() external view returns (uint64 nextEpoch, uint96 sum, uint8 depth) {
        return (_active.nextEpoch, _active.sum, _active.depth);
    }

    /// @inheritdoc IRevenueDistributor
    function activeCommitment() public view returns (bytes32) {
        return commitment == 0 ? _paused : commitment;
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
    function pausedUntil() external view returns (uint256) {
        return block.timestamp < _active.pausedUntil ? _active.pausedUntil : 0;
    }

    /// @inheritdoc IRevenueDistributor
    function DOMAIN_SEPARATOR() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @inheritdoc IRevenueDistributor
    function epochEnd(uint64 epoch) public view returns (uint256) {
        return genesis + (uint256(epoch) + 1) * epochLength;
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

    function _check(address account, uint96 cumulative, uint256 index, bytes calldata path) private {
        (bytes32 root, uint96 sum) =
            SumTree.climb(SumTree.leafHash(account, cumulative), cumulative, index, path);
        _checkProven(account, cumulative, SumTree.commitment(root, sum));
    }

    /// @dev Claims are paused by taking the commitment away, so that those that are not paused pay nothing for it.
    function _checkProven(address account, uint96 cumulative, bytes32 proven) private {
        bytes32 expected = commitment;
        if (proven == expected) return;
        if (expected == 0) expected = _endPause();
        if (proven != expected) revert InvalidProof(account, cumulative, proven, expected);
    }

    /// @dev A pause that is over ends here, by the first claim that comes. 0 when there is no root that could pay.
    function _endPause() private returns (bytes32 expected) {
        expected = _paused;
        if (expected == 0) return 0;
        if (block.timestamp < _active.pausedUntil) revert ClaimsPaused(_active.pausedUntil);
        commitment = expected;
    }

    function _pay(address account, address to, uint96 cumulative) private {
        uint256 paid = claimed[account];
        if (cumulative <= paid) revert NothingToClaim(account, cumulative, paid);

        claimed[account] = cumulative;
        unchecked {
            paid = cumulative - paid;
        }

        emit Claimed(account, to, paid, cumulative);

        token.safeTransfer(to, paid);
    }

    /// @dev Pays an account of a batch, or nobody: what the token refuses is taken back and stays claimable.
    function _tryPay(address account, uint96 cumulative) private returns (uint256 amount) {
        uint256 paid = claimed[account];
        if (cumulative <= paid) return 0;

        amount = cumulative - paid;
        claimed[account] = cumulative;
        if (!token.trySafeTransfer(account, amount)) {
            // Taken off, not set back: the token may have called back and claimed by a newer root meanwhile.
            claimed[account] -= amount;
            emit ClaimSkipped(account, cumulative);
            return 0;
        }

        emit Claimed(account, account, amount, cumulative);
    }

    /// @dev Takes the pending root away.
    function _reject() private returns (uint64 epoch, bytes32 root) {
        epoch = _active.nextEpoch;
        root = _pending.root;
        delete _pending;
    }

    /// @dev Rejects the pending root and pays the bond to who proved it wrong.
    function _slash(Fault fault, address account) private {
        (uint64 epoch, bytes32 root) = _reject();
        _books.bond -= bondRequired;

        emit Challenged(epoch, root, msg.sender, fault, account);

        _send(payable(msg.sender), bondRequired);
    }

    function _send(address payable to, uint256 amount) private {
        // Where no bond is required, who takes no coin can challenge too.
        if (amount == 0) return;
        (bool ok,) = to.call{value: amount}("");
        if (!ok) revert BondRefused(to, amount);
    }

    function _onlyGuardian() private view {
        if (msg.sender != guardian) revert NotGuardian(msg.sender, guardian);
    }

    function _checkPostable(Report calldata report) private view {
        uint64 expected = _active.nextEpoch;
        Books memory books = _books;
        if (_pending.activeAt != 0) revert AlreadyPending(expected);
        if (report.epoch != expected) revert WrongEpoch(report.epoch, expected);
        uint256 endsAt = epochEnd(report.epoch);
        if (block.timestamp < endsAt) revert EpochNotOver(report.epoch, endsAt);
        if (report.sum < _active.sum) revert SumDecreased(report.sum, _active.sum);
        if (report.sum > books.funded) revert SumExceedsFunded(report.sum, books.funded);
        if (books.bond < bondRequired) revert BondTooSmall(books.bond, bondRequired);
        if (report.depth > MAX_DEPTH) revert TreeTooDeep(report.depth, MAX_DEPTH);
        if (report.snapshotBlock >= block.number) revert SnapshotNotPast(report.snapshotBlock, block.number);
        bytes32 actual = Blockhash.blockHash(report.snapshotBlock);
        if (actual != 0 && actual != report.snapshotHash) {
            revert SnapshotMismatch(report.snapshotBlock, report.snapshotHash, actual);
        }
    }

    function _checkReceiver(address to) private view {
        if (to == address(this)) revert BadReceiver(to);
    }

    /// @dev The root that waits, for whoever would reject it.
    function _waiting() private view returns (Pending memory next) {
        next = _pending;
        if (next.activeAt == 0) revert NothingPending();
    }

    function _requireActive(SumTree.Proof calldata p) private view {
        (bytes32 root, uint96 sum) =
            SumTree.climb(SumTree.leafHash(p.account, p.cumulative), p.cumulative, p.index, p.path);
        if (SumTree.commitment(root, sum) != activeCommitment() || p.account == address(0)) {
            revert NotInActive(p.account, p.cumulative, root, sum);
        }
    }

    function _requirePending(SumTree.Proof calldata p, Pending memory next) private pure {
        uint256 levels = SumTree.levelsOf(p.path);
        if (levels != next.depth) revert WrongDepth(levels, next.depth);
        _requireNode(SumTree.leafHash(p.account, p.cumulative), p.cumulative, p.index, p.path, next);
    }

    function _requireNode(
        bytes32 hash,
        uint96 nodeSum,
        uint256 index,
        bytes calldata path,
        Pending memory next
    )
        private
        pure
    {
        (bytes32 root, uint96 sum) = SumTree.climb(hash, nodeSum, index, path);
        if (root != next.root || sum != next.sum) revert NotInPending(index, path.length / 44, root, sum);
    }

    function _isPadding(SumTree.Proof calldata p) private pure returns (bool) {
        return p.account == address(0) && p.cumulative == 0;
    }

    /// @dev What a node of a payout tree can be: at the bottom padding or a leaf with its own sum, above it a node with
    /// the sum of its two.
    function _isWellFormed(bytes calldata preimage, uint96 sum, bool atBottom) private pure returns (bool) {
        if (preimage.length == 0) return atBottom && sum == 0;
        if (preimage.length == 32) {
            // A leaf of nobody could neither be proven nor stepped over: it would hide who is missing beside it.
            uint256 word = uint256(bytes32(preimage));
            return atBottom && word >> 96 != 0 && uint96(word) == sum;
        }
        if (preimage.length != 88) return false;
        uint256 sums = uint256(uint96(bytes12(preimage[32:44]))) + uint96(bytes12(preimage[76:88]));
        return !atBottom && sums == sum;
    }
}
