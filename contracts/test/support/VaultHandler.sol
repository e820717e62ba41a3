// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {HapticToken} from "../../src/HapticToken.sol";
import {StakeVault} from "../../src/StakeVault.sol";
import {IStakeVault} from "../../src/interfaces/IStakeVault.sol";
import {Test} from "./Test.sol";

/// @title Does to a vault whatever people, its owner and its guardian can do, and keeps books of its own.
/// @dev Every call is possible or is expected to fail with the one error that the books foretell.
contract VaultHandler is Test {
    /// @dev What somebody has, by these books. They integrate whenever time passes, not when a stake changes.
    struct Ghost {
        uint256 wallet;
        uint256 staked;
        uint256 pending;
        /// @dev The latest that its requests may be withdrawn from; 0 when nothing is pending.
        uint256 availableAt;
        uint256 stakeSeconds;
    }

    uint256 public constant PEOPLE = 4;
    address public constant SAFE = address(0x5AFE);
    uint256 private constant KEY = 0xA11CE;
    bytes32 private constant PERMIT =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");

    HapticToken public immutable token = new HapticToken(address(this));
    /// @dev The handler owns and guards it.
    StakeVault public immutable vault = new StakeVault(token, 1 days, address(this), address(this));

    uint256 public time = START;
    uint256 public cooldown = 1 days;
    bool public paused;

    /// @dev Sent past `stake`, and not swept yet.
    uint256 public surplus;
    uint256 public swept;

    /// @dev How often what somebody has was changed by what another did.
    uint256 public disturbances;

    address[PEOPLE] private _people;
    mapping(address account => Ghost) private _ghosts;

    constructor() {
        vm.warp(time);
        for (uint256 i = 0; i < PEOPLE; ++i) {
            address account = vm.addr(KEY + i);
            _people[i] = account;
            _ghosts[account].wallet = 1000 ether;
            require(token.transfer(account, 1000 ether));
        }
    }

    /// @dev Sees to it that only `first` and `second` get more or less by what follows.
    modifier concerning(address first, address second) {
        bytes32 before = _figuresOfAllBut(first, second);
        _;
        if (_figuresOfAllBut(first, second) != before) ++disturbances;
    }

    function person(uint256 seed) public view returns (address) {
        return _people[seed % PEOPLE];
    }

    function ghostOf(address account) external view returns (Ghost memory) {
        return _ghosts[account];
    }

    function pass(uint256 seed) external {
        _pass(seed % 3 == 0 ? seed % 5 : seed % 2 days);
    }

    function stake(uint256 who, uint256 seed) external concerning(person(who), person(who)) {
        address account = person(who);
        uint256 amount = _draw(seed, _ghosts[account].wallet);
        _approve(account, amount);
        _bookStake(account, account, amount);
        vm.prank(account);
        vault.stake(uint96(amount));
    }

    function stakeFor(
        uint256 who,
        uint256 whom,
        uint256 seed
    )
        external
        concerning(person(who), person(whom))
    {
        address account = person(who);
        uint256 amount = _draw(seed, _ghosts[account].wallet);
        _approve(account, amount);
        _bookStake(account, person(whom), amount);
        vm.prank(account);
        vault.stakeFor(person(whom), uint96(amount));
    }

    function stakeWithPermit(uint256 who, uint256 seed) external concerning(person(who), person(who)) {
        address account = person(who);
        uint256 amount = _draw(seed, _ghosts[account].wallet);
        _approve(account, 0);
        bytes32 hash =
            keccak256(abi.encode(PERMIT, account, address(vault), amount, token.nonces(account), time));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(
            KEY + who % PEOPLE, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), hash))
        );
        _bookStake(account, account, amount);
        vm.prank(account);
        vault.stakeWithPermit(uint96(amount), time, v, r, s);
    }

    function requestUnstake(uint256 who, uint256 seed) external concerning(person(who), person(who)) {
        address account = person(who);
        Ghost storage ghost = _ghosts[account];
        uint256 amount = _draw(seed, ghost.staked + 1);
        if (amount == 0) {
            vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        } else if (amount > ghost.staked) {
            vm.expectRevert(
                abi.encodeWithSelector(IStakeVault.InsufficientStake.selector, account, amount, ghost.staked)
            );
        } else {
            ghost.staked -= amount;
            ghost.pending += amount;
            if (ghost.availableAt < time + cooldown) ghost.availableAt = time + cooldown;
        }
        vm.prank(account);
        vault.requestUnstake(uint96(amount));
    }

    function cancelUnstake(uint256 who, uint256 seed) external concerning(person(who), person(who)) {
        address account = person(who);
        Ghost storage ghost = _ghosts[account];
        uint256 amount = _draw(seed, ghost.pending + 1);
        if (amount == 0) {
            vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        } else if (amount > ghost.pending) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    IStakeVault.InsufficientPending.selector, account, amount, ghost.pending
                )
            );
        } else {
            ghost.pending -= amount;
            ghost.staked += amount;
        }
        vm.prank(account);
        vault.cancelUnstake(uint96(amount));
    }

    function withdraw(uint256 who) external concerning(person(who), person(who)) {
        _bookWithdrawal(person(who), person(who));
        vm.prank(person(who));
        vault.withdraw();
    }

    function withdrawTo(uint256 who, uint256 whom) external concerning(person(who), person(whom)) {
        _bookWithdrawal(person(who), person(whom));
        vm.prank(person(who));
        vault.withdrawTo(person(whom));
    }

    /// @dev Or almost nothing would ever be withdrawn.
    function waitUntilAvailable(uint256 who) external {
        uint256 availableAt = _ghosts[person(who)].availableAt;
        if (time < availableAt) _pass(availableAt - time);
    }

    function sendPastStake(uint256 who, uint256 seed) external concerning(person(who), person(who)) {
        uint256 amount = _draw(seed, _ghosts[person(who)].wallet / 10);
        _ghosts[person(who)].wallet -= amount;
        surplus += amount;
        vm.prank(person(who));
        require(token.transfer(address(vault), amount));
    }

    function sweep() external concerning(address(0), address(0)) {
        uint256 owed = vault.totalStaked() + vault.totalPending();
        if (surplus == 0) {
            vm.expectRevert(
                abi.encodeWithSelector(IStakeVault.NothingToSweep.selector, address(token), owed, owed)
            );
        } else {
            swept += surplus;
            surplus = 0;
        }
        vault.sweep(token, SAFE);
    }

    function setCooldown(uint256 seed) external concerning(address(0), address(0)) {
        cooldown = seed % 3 == 0 ? _within(seed, 1, 5) : _within(seed, 1, 5 days);
        vault.setCooldown(uint32(cooldown));
    }

    function setPaused(uint256 seed) external concerning(address(0), address(0)) {
        paused = seed % 3 == 0;
        vault.setPaused(paused);
    }

    function _bookStake(address payer, address account, uint256 amount) private {
        if (amount == 0) {
            vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        } else if (paused) {
            vm.expectRevert(abi.encodeWithSelector(IStakeVault.StakingPaused.selector));
        } else {
            _ghosts[payer].wallet -= amount;
            _ghosts[account].staked += amount;
        }
    }

    function _bookWithdrawal(address account, address to) private {
        Ghost storage ghost = _ghosts[account];
        if (ghost.pending == 0) {
            vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingPending.selector, account));
        } else if (time < ghost.availableAt) {
            vm.expectRevert(
                abi.encodeWithSelector(IStakeVault.CooldownRunning.selector, account, ghost.availableAt)
            );
        } else {
            _ghosts[to].wallet += ghost.pending;
            ghost.pending = 0;
            ghost.availableAt = 0;
        }
    }

    function _pass(uint256 passed) private {
        for (uint256 i = 0; i < PEOPLE; ++i) {
            _ghosts[_people[i]].stakeSeconds += _ghosts[_people[i]].staked * passed;
        }
        time += passed;
        vm.warp(time);
    }

    function _approve(address account, uint256 amount) private {
        vm.prank(account);
        token.approve(address(vault), amount);
    }

    function _figuresOfAllBut(address first, address second) private view returns (bytes32 figures) {
        for (uint256 i = 0; i < PEOPLE; ++i) {
            address account = _people[i];
            if (account == first || account == second) continue;
            (uint96 pending, uint64 availableAt) = vault.pendingOf(account);
            figures = keccak256(
                abi.encode(
                    figures,
                    vault.stakedOf(account),
                    vault.stakeSecondsOf(account, time),
                    pending,
                    availableAt,
                    token.balanceOf(account)
                )
            );
        }
    }

    /// @dev From 0 to `max`, often at one of the ends.
    function _draw(uint256 seed, uint256 max) private pure returns (uint256) {
        uint256 kind = seed % 8;
        if (kind == 0) return max;
        if (kind < 3) return _within(seed >> 3, 0, max < 3 ? max : 3);
        return _within(seed >> 3, 0, max);
    }
}
