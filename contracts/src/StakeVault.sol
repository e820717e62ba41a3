// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IStakeVault} from "./interfaces/IStakeVault.sol";
import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title The vault of `IStakeVault`, where every function, event and error is described.
/// @dev Three totals are kept, and each call writes one of them: what was deposited, what was requested back, what was
/// withdrawn. Staked is deposited less requested, pending is requested less withdrawn, owed is deposited less withdrawn.
contract StakeVault is IStakeVault, Ownable2Step, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

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
    address public guardian;

    /// @dev One word, from its lowest bit: the stake (96 bits), when it last changed (32), and its integral over time
    /// up to then (128). Packed by hand, here and in the totals, because every stake pays for it.
    mapping(address account => uint256) private _accounts;
    mapping(address account => Pending) private _pending;

    /// @dev One word, from its lowest bit: an amount (104 bits: 256 times what can be in the vault at once), a setting
    /// that the same calls read (24), and the amount's moment (128), which is the sum of every change times the second
    /// it came. The integral of the amount up to time t is then `amount * t - moment`, modulo 2**128.
    /// Here the setting is 1 while new stake is paused.
    uint256 private _deposited;

    /// @dev As `_deposited`; the setting is the cooldown in seconds. What is cancelled is taken off again.
    uint256 private _requested;

    uint256 private _withdrawn;

    /// @param token_ the token that is staked
    /// @param cooldown_ seconds between a request and its withdrawal, at least 1 and at most `MAX_COOLDOWN`
    /// @param owner_ who sets the cooldown of later requests, names the guardian, and takes what is owed to nobody
    /// @param guardian_ who can pause new stake
    constructor(IERC20 token_, uint32 cooldown_, address owner_, address guardian_) Ownable(owner_) {
        if (address(token_) == address(0)) revert ZeroAddress();

        token = token_;
        _setCooldown(cooldown_);
        _setGuardian(guardian_);
    }

    /// @inheritdoc IStakeVault
    function stake(uint96 amount) external nonReentrant {
        _stake(msg.sender, amount);
    }

    /// @inheritdoc IStakeVault
    function stakeFor(address account, uint96 amount) external nonReentrant {
        if (account == address(0)) revert ZeroAddress();
        _stake(account, amount);
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
        _stake(msg.sender, amount);
    }

    /// @inheritdoc IStakeVault
    function requestUnstake(uint96 amount) external {
        if (amount == 0) revert ZeroAmount();
        uint256 word = _accrued(msg.sender);
        if (amount > uint96(word)) revert InsufficientStake(msg.sender, amount, uint96(word));

        word -= amount;
        _accounts[msg.sender] = word;
        uint256 total = _requested;
        unchecked {
            _requested = total + _change(amount);
        }
        Pending memory pending = _pending[msg.sender];
        pending.amount += amount;
        // A cooldown that was made shorter meanwhile shortens nothing that already waits.
        uint64 availableAt = uint64(block.timestamp + _setting(total));
        if (pending.availableAt < availableAt) pending.availableAt = availableAt;
        _pending[msg.sender] = pending;

        emit UnstakeRequested(msg.sender, amount, uint96(word), pending.amount, pending.availableAt);
    }

    /// @inheritdoc IStakeVault
    function cancelUnstake(uint96 amount) external {
        if (amount == 0) revert ZeroAmount();
        uint96 waiting = _pending[msg.sender].amount;
        if (amount > waiting) revert InsufficientPending(msg.sender, amount, waiting);

        // Its clock stays, also of nothing: who cancels all and asks anew does not come out earlier.
        _pending[msg.sender].amount = waiting - amount;
        uint256 word = _accrued(msg.sender) + amount;
        _accounts[msg.sender] = word;
        unchecked {
            _requested -= _change(amount);
        }

        emit UnstakeCancelled(msg.sender, amount, uint96(word), waiting - amount);
    }

    /// @inheritdoc IStakeVault
    function withdraw() external nonReentrant {
        _withdraw(msg.sender);
    }

    /// @inheritdoc IStakeVault
    function withdrawTo(address to) external nonReentrant {
        if (to == address(0)) revert ZeroAddress();
        if (to == address(this)) revert BadReceiver(to);
        _withdraw(to);
    }

    /// @inheritdoc IStakeVault
    function setPaused(bool paused_) external {
        if (msg.sender != guardian) revert NotGuardian(msg.sender, guardian);

        _deposited = _withSetting(_deposited, paused_ ? 1 : 0);

        emit PausedSet(paused_);
    }

    /// @inheritdoc IStakeVault
    function setCooldown(uint32 newCooldown) external onlyOwner {
        _setCooldown(newCooldown);
    }

    /// @inheritdoc IStakeVault
    function setGuardian(address newGuardian) external onlyOwner {
        _setGuardian(newGuardian);
    }

    /// @inheritdoc IStakeVault
    function sweep(IERC20 other, address to) external onlyOwner nonReentrant {
        if (to == address(0)) revert ZeroAddress();
        uint256 balance = other.balanceOf(address(this));
        uint256 owed = uint104(_deposited) - _withdrawn;
        uint256 kept = address(other) == address(token) ? owed : 0;
        if (balance <= kept) revert NothingToSweep(address(other), balance, kept);

        emit Swept(address(other), to, balance - kept);

        other.safeTransfer(to, balance - kept);
        // A token may go by a second address, or take a fee from who sends: what is owed has to be left all the same.
        uint256 left = token.balanceOf(address(this));
        if (left < owed) revert NothingToSweep(address(token), left, owed);
    }

    /// @inheritdoc IStakeVault
    function stakedOf(address account) external view returns (uint96) {
        return uint96(_accounts[account]);
    }

    /// @inheritdoc IStakeVault
    function stakeSecondsOf(address account, uint256 time) external view returns (uint256) {
        uint256 word = _accounts[account];
        uint256 updatedAt = uint32(word >> 96);
        if (time < updatedAt) revert BeforeLastUpdate(account, time, updatedAt);
        return (word >> 128) + uint96(word) * (time - updatedAt);
    }

    /// @inheritdoc IStakeVault
    function pendingOf(address account) external view returns (uint96 amount, uint64 availableAt) {
        Pending memory pending = _pending[account];
        return (pending.amount, pending.availableAt);
    }

    /// @inheritdoc IStakeVault
    function totalStaked() public view returns (uint256) {
        return uint104(_deposited) - uint104(_requested);
    }

    /// @inheritdoc IStakeVault
    function totalPending() external view returns (uint256) {
        return uint104(_requested) - _withdrawn;
    }

    /// @inheritdoc IStakeVault
    function totalStakeSeconds(uint256 time) external view returns (uint256) {
        if (time < block.timestamp) revert BeforeNow(time, block.timestamp);
        uint256 staked = totalStaked();
        uint256 soFar;
        unchecked {
            // The moments may have wrapped; the integral up to now, which is below 2**128, has not.
            soFar = uint128(staked * block.timestamp - (_deposited >> 128) + (_requested >> 128));
        }
        return soFar + staked * (time - block.timestamp);
    }

    /// @inheritdoc IStakeVault
    function cooldown() external view returns (uint32) {
        return uint32(_setting(_requested));
    }

    /// @inheritdoc IStakeVault
    function paused() external view returns (bool) {
        return _setting(_deposited) != 0;
    }

    /// @dev The one deposit that cannot transfer last: what counts is what arrives. Hence the guard on its callers.
    function _stake(address account, uint96 amount) private {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 balance = token.balanceOf(address(this));
        if (balance <= before) revert ZeroAmount();
        // The balance is at least what is owed: while it fits 96 bits, so does every account's stake.
        if (balance > type(uint96).max) revert VaultFull(balance, type(uint96).max);

        _credit(account, balance - before);
    }

    function _credit(address account, uint256 received) private {
        uint256 word = _accrued(account);
        unchecked {
            // Nothing carries over: the amounts fit their bits, and the moments are modulo 2**128.
            uint256 total = _deposited;
            uint256 grown = total + _change(received);
            // An amount that outgrows its bits shows in the setting above them.
            if (_setting(grown) != 0) {
                if (_setting(total) != 0) revert StakingPaused();
                revert VaultFull(uint104(total) + received, type(uint104).max);
            }
            _deposited = grown;
            word += received;
            _accounts[account] = word;
        }

        emit Staked(account, received, uint96(word));
    }

    /// @dev While the token pays it may call somebody: what is on its way out is no longer owed, but still here, and
    /// would be swept. Hence the guard on its callers.
    function _withdraw(address to) private {
        Pending memory pending = _pending[msg.sender];
        if (pending.amount == 0) revert NothingPending(msg.sender);
        if (block.timestamp < pending.availableAt) revert CooldownRunning(msg.sender, pending.availableAt);

        delete _pending[msg.sender];
        _withdrawn += pending.amount;

        emit Withdrawn(msg.sender, to, pending.amount, 0);

        token.safeTransfer(to, pending.amount);
    }

    function _setCooldown(uint32 newCooldown) private {
        if (newCooldown == 0 || newCooldown > MAX_COOLDOWN) revert BadCooldown(newCooldown, MAX_COOLDOWN);

        _requested = _withSetting(_requested, newCooldown);

        emit CooldownSet(newCooldown);
    }

    function _setGuardian(address newGuardian) private {
        if (newGuardian == address(0)) revert ZeroAddress();

        guardian = newGuardian;

        emit GuardianSet(newGuardian);
    }

    /// @dev The account's word with its stake-seconds brought up to now. The 32-bit clock may wrap, and still leaving
    /// works: differences are taken modulo 2**32.
    function _accrued(address account) private view returns (uint256) {
        uint256 word = _accounts[account];
        unchecked {
            uint256 passed = uint32(block.timestamp - (word >> 96));
            uint256 stakeSeconds = (word >> 128) + uint96(word) * passed;
            return uint96(word) | uint256(uint32(block.timestamp)) << 96 | stakeSeconds << 128;
        }
    }

    /// @dev What a change of `amount` now adds to a total's word: the amount, and its moment.
    function _change(uint256 amount) private view returns (uint256) {
        unchecked {
            return amount | amount * block.timestamp << 128;
        }
    }

    function _setting(uint256 total) private pure returns (uint256) {
        return uint24(total >> 104);
    }

    function _withSetting(uint256 total, uint256 setting) private pure returns (uint256) {
        return total & ~(uint256(type(uint24).max) << 104) | setting << 104;
    }
}
