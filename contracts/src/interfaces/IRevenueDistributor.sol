// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SumTree} from "../libraries/SumTree.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title The distributor that takes revenue in and pays it to contributors by one proven root per epoch.
/// @notice A root lists what each account has earned in all epochs so far, together with the proven total. It is
/// posted, waits for the challenge window in which the guardian can veto it, and is then activated by anyone, unless somebody has
/// proved it wrong meanwhile and been paid the poster's bond. An
/// account is paid what the active root says less what it was paid before.
/// @dev Tokens leave by a claim against the active root and in no other way, for any role. A root once active is only
/// ever followed by one that totals at least as much.
interface IRevenueDistributor {
    /// @notice How a pending root was proven wrong.
    enum Fault {
        Decrease,
        Missing,
        Order,
        Malformed
    }

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

    /// @notice `challenger` proved the pending `root` wrong, and was paid the bond; the epoch can be posted again. The
    /// fault is about `account`, where it is about one.
    event Challenged(
        uint64 indexed epoch, bytes32 indexed root, address indexed challenger, Fault fault, address account
    );

    /// @notice Claims are paused until `until`, unless the guardian ends that before.
    event Paused(uint256 until);

    /// @notice Claims are paid again.
    event Unpaused();

    /// @notice `payer` gave `amount` wei to answer for the poster; `bond` lies here now.
    event BondAdded(address indexed payer, uint256 amount, uint256 bond);

    /// @notice The owner took `amount` wei of the bond back, to `to`; `bond` is left.
    event BondWithdrawn(address indexed to, uint256 amount, uint256 bond);

    /// @notice A batch left `account` out, because its proof is not of the active root or the token refused the
    /// transfer; nothing of it is lost.
    event ClaimSkipped(address indexed account, uint256 cumulative);

    /// @notice `amount` of what `account` earned went to `to`; it has been paid `cumulative` in all.
    event Claimed(address indexed account, address indexed to, uint256 amount, uint256 cumulative);

    /// @notice Roots are posted by `poster` from now on.
    event PosterSet(address indexed poster);

    /// @notice Pending roots can be vetoed by `guardian` from now on.
    event GuardianSet(address indexed guardian);

    /// @notice A token, a role, an account or a receiver would be the zero address.
    error ZeroAddress();

    /// @notice `to` would be paid, which is the distributor itself: the tokens would be nobody's.
    error BadReceiver(address to);

    /// @notice An amount of zero was given, or none of it arrived.
    error ZeroAmount();

    /// @notice An epoch would last `length` seconds; it lasts at least 1 and at most `max`.
    error BadEpochLength(uint64 length, uint64 max);

    /// @notice The challenge window would last `window` seconds; it lasts at least 1 and at most `max`.
    error BadChallengeWindow(uint64 window, uint64 max);

    /// @notice There is room for `room` more revenue, and `amount` arrived.
    error FundsTooLarge(uint256 amount, uint256 room);

    /// @notice `caller` is not the poster, `poster`, who alone may do this.
    error NotPoster(address caller, address poster);

    /// @notice `caller` is not the guardian, `guardian`, who alone may do this.
    error NotGuardian(address caller, address guardian);

    /// @notice The report of `epoch` is still pending; activate or veto it first.
    error AlreadyPending(uint64 epoch);

    /// @notice No report is pending.
    error NothingPending();

    /// @notice `root` was named, and `pending` is the root that waits.
    error NotPending(bytes32 root, bytes32 pending);

    /// @notice `epoch` was named, and `expected` is the one whose turn it is.
    error WrongEpoch(uint64 epoch, uint64 expected);

    /// @notice `epoch` lasts until `endsAt`.
    error EpochNotOver(uint64 epoch, uint256 endsAt);

    /// @notice The posted total `sum` is lower than the active one.
    error SumDecreased(uint96 sum, uint96 activeSum);

    /// @notice The posted total `sum` is more than the `funded` that ever came in.
    error SumExceedsFunded(uint96 sum, uint256 funded);

    /// @notice The posted tree has `depth` levels; `max` is the most.
    error TreeTooDeep(uint8 depth, uint8 max);

    /// @notice The report was read at block `snapshotBlock`, which is not yet past: this is block `blockNumber`.
    error SnapshotNotPast(uint64 snapshotBlock, uint256 blockNumber);

    /// @notice Block `snapshotBlock` has the hash `actual` on this chain, not the posted one.
    error SnapshotMismatch(uint64 snapshotBlock, bytes32 snapshotHash, bytes32 actual);

    /// @notice The pending root waits until `activeAt`.
    error WindowOpen(uint256 activeAt);

    /// @notice A bond of `bond` wei lies here, and `wanted` is more; nothing wanted is wrong too.
    error BondTooSmall(uint256 bond, uint256 wanted);

    /// @notice The bond would be `bond` wei, and `max` is the most.
    error BondTooLarge(uint256 bond, uint256 max);

    /// @notice `to` did not take the `amount` wei that it is due.
    error BondRefused(address to, uint256 amount);

    /// @notice Claims cannot be paused again before `notBefore`.
    error PauseTooSoon(uint256 notBefore);

    /// @notice Claims are not paused.
    error NotPaused();

    /// @notice Claims are paused until `until` at the latest.
    error ClaimsPaused(uint256 until);

    /// @notice The two proofs are of `before` and of `lowered`, and have to be of one account.
    error DifferentAccounts(address before, address lowered);

    /// @notice `account` has `active` in the active root and no less, `pending`, in the pending one.
    error NotLower(address account, uint96 active, uint96 pending);

    /// @notice The proof of `account` and `cumulative` leads to `root` and `sum`, which are not the active ones.
    error NotInActive(address account, uint96 cumulative, bytes32 root, uint96 sum);

    /// @notice The path from node `index` of `level` levels below the root leads to `root` and `sum`, which are not the pending ones.
    error NotInPending(uint256 index, uint256 level, bytes32 root, uint96 sum);

    /// @notice The path is `length` long; the pending tree has `depth` levels.
    error WrongDepth(uint256 length, uint256 depth);

    /// @notice A gap before leaf `index` was named, in a pending tree of `depth` levels, which has no such leaf.
    error IndexOutOfTree(uint256 index, uint256 depth);

    /// @notice The leaf at `left` is not the one before that at `right`.
    error NotAdjacent(uint256 left, uint256 right);

    /// @notice `account` would not stand between `left` and `right`.
    error NotBetween(address account, address left, address right);

    /// @notice `left` and `right` are in order.
    error InOrder(address left, address right);

    /// @notice The node at `index`, `level` levels below the root, is as it should be.
    error WellFormed(uint256 index, uint256 level);

    /// @notice The signature was good until `deadline`.
    error SignatureExpired(uint256 deadline);

    /// @notice The signature is not `account`'s over this claim and its next nonce.
    error WrongSignature(address account);

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
    /// @dev The snapshot's block has to be past. Its hash is compared where the EVM can still see it (256 blocks, or
    /// 8,191 with EIP-2935).
    /// @param report what the poster says
    function post(Report calldata report) external;

    /// @notice Makes the pending root the one that pays, once its window is over. Anyone may.
    function activate() external;

    /// @notice Throws the pending root out; the epoch can be posted again, with a new window. Guardian only.
    /// @dev It names the root because between a person's yes and the block the wrong one may have been challenged, and
    /// an honest one posted.
    /// @param root the root that waits
    function veto(bytes32 root) external;

    /// @notice Adds native coin to the bond that answers for the poster. Anyone may; only the owner can take it back.
    function addBond() external payable;

    /// @notice Takes bond back while no root is pending. Owner only.
    /// @param to who gets it
    /// @param amount how much, in wei
    function withdrawBond(address payable to, uint96 amount) external;

    /// @notice Stops claims for `PAUSE_LENGTH`, and then not again for `PAUSE_REST`. Guardian only.
    /// @dev Posting, activating and challenging go on. When its time is over the pause ends by itself.
    function pause() external;

    /// @notice Lets claims be paid again. The guardian may at any time; anyone once the pause is over.
    function unpause() external;

    /// @notice Rejects the pending root because an account has less in it than in the active one. Anyone may, and is
    /// paid the bond.
    /// @param before the account in the active root
    /// @param lowered the account in the pending root
    function challengeDecrease(SumTree.Proof calldata before, SumTree.Proof calldata lowered) external;

    /// @notice Rejects the pending root because an account of the active one is absent from it. Anyone may, and is paid
    /// the bond.
    /// @dev `right.index` is where the account would stand. At 0, before the first leaf, `left` is not looked at; at
    /// the number of leaves that a full tree has, `right` is not. After the last account of a tree that is not full,
    /// `right` is padding: account and cumulative 0.
    /// @param before the account in the active root
    /// @param left the leaf of the pending root before the gap
    /// @param right the leaf of the pending root after the gap
    function challengeMissing(
        SumTree.Proof calldata before,
        SumTree.Proof calldata left,
        SumTree.Proof calldata right
    )
        external;

    /// @notice Rejects the pending root because two neighbours in it are not strictly ascending, or because an account
    /// stands behind padding. Anyone may, and is paid the bond.
    /// @param left a leaf of the pending root
    /// @param right the leaf after it
    function challengeOrder(SumTree.Proof calldata left, SumTree.Proof calldata right) external;

    /// @notice Rejects the pending root because a node of it is none of a payout tree: a leaf, or padding, with another
    /// sum than its own; a node with another sum than its children's; a leaf too high up, or a node too far down; or
    /// something else altogether. Anyone may, and is paid the bond.
    /// @param preimage what the node's hash is the keccak256 of: nothing for padding, whose hash is 0
    /// @param sum the node's sum as the node above has it; at the root it is the posted one, whatever is given
    /// @param index the node's position in its level
    /// @param path the siblings from the node to the root
    function challengeMalformed(
        bytes calldata preimage,
        uint96 sum,
        uint256 index,
        bytes calldata path
    )
        external;

    /// @notice Pays `account` what it has earned and was not paid yet. Anyone may call; only `account` is paid.
    /// @param account who is paid
    /// @param cumulative what the active root says the account has earned in all
    /// @param index position of the account's leaf, from 0; bit i is 1 where our node is the right child at level i
    /// @param proof the siblings from the leaf to the root, 44 bytes each
    function claim(address account, uint96 cumulative, uint256 index, bytes calldata proof) external;

    /// @notice As `claim`, for the caller's own account, paid to another address.
    /// @param cumulative what the active root says the caller has earned in all
    /// @param index position of the caller's leaf
    /// @param proof the siblings from the leaf to the root
    /// @param to who is paid: anybody but the distributor itself
    function claimTo(uint96 cumulative, uint256 index, bytes calldata proof, address to) external;

    /// @notice As `claimTo`, sent by anyone, with the account's signature (EIP-712; ERC-1271 for a contract) over
    /// `Claim(address account,address to,uint96 cumulative,uint256 nonce,uint256 deadline)`.
    /// With its amount: a signature that somebody's `claim` overtook must not be good for what is earned later.
    /// @param proof the account and its way to the root
    /// @param to who is paid: anybody but the distributor itself
    /// @param deadline until when the signature is good, Unix seconds
    /// @param signature by the account
    function claimWithSig(
        SumTree.Proof calldata proof,
        address to,
        uint256 deadline,
        bytes calldata signature
    )
        external;

    /// @notice Pays several accounts; who has been paid, cannot be paid or is not in the active root is left out.
    /// @param proofs an account with its way to the root, each
    /// @return paid how much was paid in all
    function claimMany(SumTree.Proof[] calldata proofs) external returns (uint256 paid);

    /// @notice Pays all accounts of an aligned block of leaves with one proof; who has been paid, or cannot be, is left
    /// out.
    /// @param leaves the block's leaves from its left end; what is missing on its right is padding
    /// @param level the block has 2**level leaves, padding included; at most 16
    /// @param index the block's position among the blocks of its size
    /// @param path the siblings from the block to the root
    /// @return paid how much was paid in all
    function claimSubtree(
        SumTree.Leaf[] calldata leaves,
        uint256 level,
        uint256 index,
        bytes calldata path
    )
        external
        returns (uint256 paid);

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

    /// @notice Native coin, in wei, that has to lie here for a root to be posted, and is paid to who proves it wrong.
    function bondRequired() external view returns (uint96);

    /// @notice How long the guardian can pause claims, in seconds.
    function PAUSE_LENGTH() external view returns (uint40);

    /// @notice How long claims cannot be paused after a pause could have lasted, in seconds.
    function PAUSE_REST() external view returns (uint40);

    /// @notice The EIP-712 type of a signed claim.
    function CLAIM_TYPEHASH() external view returns (bytes32);

    /// @notice The EIP-712 domain: name Haptic, version 1, this chain, this contract.
    function DOMAIN_SEPARATOR() external view returns (bytes32);

    /// @notice Native coin that lies here to answer for the poster, in wei.
    function bond() external view returns (uint256);

    /// @notice Until when claims are paused; 0 when they are not.
    function pausedUntil() external view returns (uint256);

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

    /// @notice The one word that a claim is checked against: keccak256 of the active root and its sum; 0 at first, and
    /// while claims are paused.
    function commitment() external view returns (bytes32);

    /// @notice keccak256 of the active root and its sum, paused or not; 0 when there is none.
    function activeCommitment() external view returns (bytes32);

    /// @notice The epoch that comes next (the number of epochs activated so far), and total and depth of the root that
    /// pays. The root itself is in the event of its activation.
    function active() external view returns (uint64 nextEpoch, uint96 sum, uint8 depth);

    /// @notice The root that waits, and when it can be activated; all zeros when none does.
    function pending()
        external
        view
        returns (uint64 epoch, bytes32 root, uint96 sum, uint8 depth, uint64 activeAt);

    /// @notice The first second after `epoch`.
    function epochEnd(uint64 epoch) external view returns (uint256);
}
