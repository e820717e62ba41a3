// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IStakeVault} from "./interfaces/IStakeVault.sol";
import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title The vault of `IStakeVault`, where every function, event and error is described.
contract StakeVault is IStakeVault, Ownable2Step, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @dev One slot: the stake, when it last changed, and its integral over time up to then.
    struct Account {
        uint96 staked;
        uint32 updatedAt;
        uint128 stakeSeconds;
    }

    /// @dev One slot: what is on its way out, and from when.
    struct Pending {
        uint96 amount;
        uint64 availableAt;
    }

    /// @inheritdoc IStakeVault
    uint32 public constant MAX_COOLDOWN = 60 days;

    /// @inheritdoc IStakeVault
    IERC20 public immutable token;

    /// @inheritdoc IStakeVault
    uint96 public totalStaked;

    /// @inheritdoc IStakeVault
    uint96 public totalPending;

    /// @inheritdoc IStakeVault
    uint32 public cooldown;

    mapping(address account => Account) private _accounts;
    mapping(address account => Pending) private _pending;

    /// @param token_ the token that is staked
    /// @param cooldown_ seconds between a request and its withdrawal, at most `MAX_COOLDOWN`
    /// @param owner_ who may change the cooldown of later requests, and nothing else
    constructor(IERC20 token_, uint32 cooldown_, address owner_) Ownable(owner_) {
        if (address(token_) == address(0)) revert ZeroAddress();

        token = token_;
        _setCooldown(cooldown_);
    }

    /// @inheritdoc IStakeVault
    function stake(uint96 amount) external nonReentrant {
        _stake(amount);
    }

    /// @inheritdoc IStakeVault
    function stakeWithPermit(
        uint96 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    )
        external
        nonReentrant
    {
        // A permit that somebody sent ahead of us fails here, and has done its work.
        try IERC20Permit(address(token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {}
            catch {}
        _stake(amount);
    }

    /// @inheritdoc IStakeVault
    function requestUnstake(uint96 amount) external {
        Account memory account = _accrued(msg.sender);
        if (amount == 0) revert ZeroAmount();
        if (amount > account.staked) revert InsufficientStake(msg.sender, amount, account.staked);

        account.staked -= amount;
        _accounts[msg.sender] = account;
        Pending memory pending = _pending[msg.sender];
        pending.amount += amount;
        pending.availableAt = _later(pending.availableAt, uint64(block.timestamp) + cooldown);
        _pending[msg.sender] = pending;
        totalStaked -= amount;
        totalPending += amount;

        emit UnstakeRequested(msg.sender, amount, account.staked, pending.amount, pending.availableAt);
    }

    /// @inheritdoc IStakeVault
    function withdraw() external {
        Pending memory pending = _pending[msg.sender];
        if (pending.amount == 0) revert NothingPending(msg.sender);
        if (block.timestamp < pending.availableAt) revert CooldownRunning(msg.sender, pending.availableAt);

        delete _pending[msg.sender];
        totalPending -= pending.amount;

        emit Withdrawn(msg.sender, msg.sender, pending.amount, 0);

        token.safeTransfer(msg.sender, pending.amount);
    }

    /// @inheritdoc IStakeVault
    function setCooldown(uint32 newCooldown) external onlyOwner {
        _setCooldown(newCooldown);
    }

    /// @inheritdoc IStakeVault
    function stakedOf(address account) external view returns (uint96) {
        return _accounts[account].staked;
    }

    /// @inheritdoc IStakeVault
    function stakeSecondsOf(address account, uint256 time) external view returns (uint256) {
        Account memory a = _accounts[account];
        if (time < a.updatedAt) revert BeforeLastUpdate(account, time, a.updatedAt);
        return a.stakeSeconds + uint256(a.staked) * (time - a.updatedAt);
    }

    /// @inheritdoc IStakeVault
    function pendingOf(address account) external view returns (uint96 amount, uint64 availableAt) {
        Pending memory pending = _pending[account];
        return (pending.amount, pending.availableAt);
    }

    /// @dev The one deposit that cannot transfer last: what counts is what arrives. Hence the guard on its callers.
    function _stake(uint96 amount) private {
        if (amount == 0) revert ZeroAmount();
        uint256 received = _pull(amount);
        if (received == 0) revert ZeroAmount();
        uint256 room = type(uint96).max - (uint256(totalStaked) + totalPending);
        if (received > room) revert VaultFull(received, room);

        // It fits the room, and the room fits 96 bits.
        // forge-lint: disable-next-line(unsafe-typecast)
        uint96 added = uint96(received);
        Account memory account = _accrued(msg.sender);
        account.staked += added;
        _accounts[msg.sender] = account;
        totalStaked += added;

        emit Staked(msg.sender, added, account.staked);
    }

    function _pull(uint96 amount) private returns (uint256 received) {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        return token.balanceOf(address(this)) - before;
    }

    function _setCooldown(uint32 newCooldown) private {
        if (newCooldown > MAX_COOLDOWN) revert CooldownTooLong(newCooldown, MAX_COOLDOWN);

        cooldown = newCooldown;

        emit CooldownSet(newCooldown);
    }

    /// @dev The account with its stake-seconds brought up to now. The 32-bit clock may wrap, and still leaving works:
    /// differences are taken modulo 2**32.
    function _accrued(address owner) private view returns (Account memory account) {
        account = _accounts[owner];
        uint32 now32 = uint32(block.timestamp);
        unchecked {
            account.stakeSeconds += uint128(account.staked) * (now32 - account.updatedAt);
        }
        account.updatedAt = now32;
    }

    function _later(uint64 a, uint64 b) private pure returns (uint64) {
        return a > b ? a : b;
    }
}
