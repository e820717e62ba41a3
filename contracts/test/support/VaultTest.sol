// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {HapticToken} from "../../src/HapticToken.sol";
import {StakeVault} from "../../src/StakeVault.sol";
import {Test} from "./Test.sol";

/// @title A vault with a day's cooldown and two people who have tokens and have approved it.
abstract contract VaultTest is Test {
    uint256 internal constant ALICE_KEY = 0xA11CE;
    uint32 internal constant COOLDOWN = 1 days;
    address internal constant OWNER = address(0x0E);
    address internal constant GUARDIAN = address(0x6A);
    address internal constant BOB = address(0xB0B);

    address internal alice = vm.addr(ALICE_KEY);
    HapticToken internal token;
    StakeVault internal vault;

    function setUp() public virtual {
        vm.warp(START);
        token = new HapticToken(address(this));
        vault = new StakeVault(token, COOLDOWN, OWNER, GUARDIAN);
        _equip(alice);
        _equip(BOB);
    }

    function _equip(address account) internal {
        require(token.transfer(account, 1000 ether));
        vm.prank(account);
        token.approve(address(vault), type(uint256).max);
    }

    function _stake(address account, uint96 amount) internal {
        vm.prank(account);
        vault.stake(amount);
    }

    function _stakeFor(address payer, address account, uint96 amount) internal {
        vm.prank(payer);
        vault.stakeFor(account, amount);
    }

    function _request(address account, uint96 amount) internal {
        vm.prank(account);
        vault.requestUnstake(amount);
    }

    function _cancel(address account, uint96 amount) internal {
        vm.prank(account);
        vault.cancelUnstake(amount);
    }

    function _withdraw(address account) internal {
        vm.prank(account);
        vault.withdraw();
    }

    function _withdrawTo(address account, address to) internal {
        vm.prank(account);
        vault.withdrawTo(to);
    }

    function _setPaused(bool paused) internal {
        vm.prank(GUARDIAN);
        vault.setPaused(paused);
    }

    function _setCooldown(uint32 cooldown) internal {
        vm.prank(OWNER);
        vault.setCooldown(cooldown);
    }

    function _assertPending(address account, uint256 amount, uint256 availableAt) internal view {
        (uint96 amount_, uint64 availableAt_) = vault.pendingOf(account);
        vm.assertEq(amount_, amount, "pending");
        vm.assertEq(availableAt_, availableAt, "availableAt");
    }
}
