// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title The vault that holds contributors' stake and remembers for how long it was held.
/// @notice Stake counts from the second it is in until the second its return is requested; a requested amount
/// waits for the cooldown and is then paid to its owner. Nobody else can move it, and nobody can stop it.
/// @dev Every event carries the balances that result, so that a lost one shows in the next.
interface IStakeVault {
    /// @notice `account` put in `amount` and now has `staked`.
    event Staked(address indexed account, uint256 amount, uint256 staked);

    /// @notice `account` asked for `amount` back: `staked` is left, `pending` can be withdrawn from `availableAt` on.
    event UnstakeRequested(
        address indexed account, uint256 amount, uint256 staked, uint256 pending, uint256 availableAt
    );

    /// @notice `amount` of `account`'s stake went back to `to`; `pending` is still waiting.
    event Withdrawn(address indexed account, address indexed to, uint256 amount, uint256 pending);

    /// @notice `account` took `amount` of its request back: `staked` counts again, `pending` is still waiting.
    event UnstakeCancelled(address indexed account, uint256 amount, uint256 staked, uint256 pending);

    /// @notice Requests made from now on wait for `cooldown` seconds.
    event CooldownSet(uint32 cooldown);

    /// @notice New stake is refused from now on, or taken again.
    event PausedSet(bool paused);

    /// @notice New stake can be paused by `guardian` from now on.
    event GuardianSet(address indexed guardian);

    /// @notice `amount` of `token` that the vault owed to nobody went to `to`.
    event Swept(address indexed token, address indexed to, uint256 amount);

    /// @notice A token, a role, an account or a receiver would be the zero address.
    error ZeroAddress();

    /// @notice `to` would be paid, which is the vault itself: the tokens would no longer be the staker's.
    error BadReceiver(address to);

    /// @notice An amount of zero was given, or none of it arrived.
    error ZeroAmount();

    /// @notice New stake is paused; everything else goes on.
    error StakingPaused();

    /// @notice The vault would hold `balance`, and can count up to `max`.
    error VaultFull(uint256 balance, uint256 max);

    /// @notice `account` asked for `requested` but has only `staked`.
    error InsufficientStake(address account, uint256 requested, uint256 staked);

    /// @notice `account` would cancel `amount` but has requested only `pending`.
    error InsufficientPending(address account, uint256 amount, uint256 pending);

    /// @notice `account` has requested nothing, so nothing can be withdrawn.
    error NothingPending(address account);

    /// @notice `account`'s cooldown runs until `availableAt`.
    error CooldownRunning(address account, uint256 availableAt);

    /// @notice The history before `account`'s last change at `updatedAt` is not kept; `time` is before it.
    error BeforeLastUpdate(address account, uint256 time, uint256 updatedAt);

    /// @notice The history of totals is not kept: `time` is before `present`, this block's own time.
    error BeforeNow(uint256 time, uint256 present);

    /// @notice A cooldown of `cooldown` seconds was asked for; it lasts at least 1 and at most `max`.
    error BadCooldown(uint32 cooldown, uint32 max);

    /// @notice `caller` is not the guardian, `guardian`, who alone may do this.
    error NotGuardian(address caller, address guardian);

    /// @notice The vault holds `balance` of `token` and owes `owed` of it.
    error NothingToSweep(address token, uint256 balance, uint256 owed);

    /// @notice Puts the caller's tokens into the vault.
    /// @dev Needs an allowance. What counts is what arrives: a token that takes a fee stakes less.
    /// @param amount how much the caller gives, in the token's smallest unit
    function stake(uint96 amount) external;

    /// @notice As `stake`, for somebody else: the caller pays, `account` has the stake and alone can take it out.
    /// @param account whose stake grows
    /// @param amount how much the caller gives, in the token's smallest unit
    function stakeFor(address account, uint96 amount) external;

    /// @notice As `stake`, with the allowance given by an EIP-2612 signature.
    /// @dev Anyone may have used the permit before; then the allowance that it left is what counts.
    /// @param amount how much the caller gives, and the value signed for
    /// @param deadline the permit's deadline, Unix seconds
    /// @param v the signature's recovery number
    /// @param r the signature's first half
    /// @param s the signature's second half
    function stakeWithPermit(uint96 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Takes stake out of the score at once and starts the cooldown that leads to its withdrawal.
    /// @dev A further request adds to the pending amount and restarts its clock; no clock ever gets shorter.
    /// @param amount how much of the caller's stake
    function requestUnstake(uint96 amount) external;

    /// @notice Turns pending stake, wholly or in part, into stake again, which counts from now on. The clock of what
    /// is left stays as it is. Not stopped by a pause: no token comes in.
    /// @param amount how much of the caller's pending amount
    function cancelUnstake(uint96 amount) external;

    /// @notice Pays the caller's pending amount to the caller, once its cooldown is over.
    function withdraw() external;

    /// @notice As `withdraw`, to another address, for when the token refuses the caller's own.
    /// @param to who is paid: anybody but the vault itself
    function withdrawTo(address to) external;

    /// @notice Refuses new stake, or takes it again. Guardian only.
    /// @dev Requests, their cancelling and withdrawals go on.
    /// @param paused_ whether new stake is refused
    function setPaused(bool paused_) external;

    /// @notice Sets the cooldown of requests made from now on; one that runs stays as it is. Owner only.
    /// @dev Never 0, or the same tokens could go in and out in one transaction.
    /// @param newCooldown seconds, at least 1 and at most `MAX_COOLDOWN`
    function setCooldown(uint32 newCooldown) external;

    /// @notice Sets who can pause new stake. Owner only.
    /// @param newGuardian any address but zero
    function setGuardian(address newGuardian) external;

    /// @notice Sends what the vault holds of a token and owes to nobody. Owner only.
    /// @dev Of the staked token that is what came in past `stake`; of any other token it is all.
    /// @param other any token
    /// @param to who gets it
    function sweep(IERC20 other, address to) external;

    /// @notice The token that is staked.
    function token() external view returns (IERC20);

    /// @notice Seconds between a request and its withdrawal.
    function cooldown() external view returns (uint32);

    /// @notice The longest cooldown that the owner can set, in seconds.
    function MAX_COOLDOWN() external view returns (uint32);

    /// @notice What `account` has staked now, without what it has requested back.
    function stakedOf(address account) external view returns (uint96);

    /// @notice The integral of `account`'s stake over time, in wei times seconds, up to `time`.
    /// @dev The difference of two readings, divided by the seconds between them, is the average stake of that time.
    /// A reading beyond now holds if nothing changes until then. The clock is 32 bits wide and ends in 2106.
    /// @param account whose stake
    /// @param time Unix seconds, not before the account's last change
    function stakeSecondsOf(address account, uint256 time) external view returns (uint256);

    /// @notice What `account` has requested back, and when it can be withdrawn; a clock that still runs stays when all
    /// was cancelled, for the next request.
    function pendingOf(address account) external view returns (uint96 amount, uint64 availableAt);

    /// @notice Whether new stake is refused.
    function paused() external view returns (bool);

    /// @notice Who can pause new stake.
    function guardian() external view returns (address);

    /// @notice The sum of all accounts' stake.
    function totalStaked() external view returns (uint256);

    /// @notice The sum of all accounts' pending amounts.
    function totalPending() external view returns (uint256);

    /// @notice The sum of all accounts' stake-seconds up to `time`.
    /// @dev A reading beyond now holds if nothing changes until then.
    /// @param time Unix seconds, not before now
    function totalStakeSeconds(uint256 time) external view returns (uint256);
}
