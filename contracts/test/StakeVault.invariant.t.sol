// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {HapticToken} from "../src/HapticToken.sol";
import {StakeVault} from "../src/StakeVault.sol";
import {Test} from "./support/Test.sol";
import {VaultHandler} from "./support/VaultHandler.sol";

/// @title What holds after any sequence of calls, by anybody, at any time.
contract StakeVaultInvariantTest is Test {
    VaultHandler private _handler;
    StakeVault private _vault;
    HapticToken private _token;

    function setUp() public {
        _handler = new VaultHandler();
        _vault = _handler.vault();
        _token = _handler.token();
    }

    /// @dev Where forge looks for what it may call.
    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    /// @dev In the end everybody can leave, paused or not, with all that they have.
    function afterInvariant() external {
        for (uint256 i = 0; i < _handler.PEOPLE(); ++i) {
            address account = _handler.person(i);
            VaultHandler.Ghost memory ghost = _handler.ghostOf(account);
            if (ghost.staked + ghost.pending == 0) continue;
            if (ghost.staked > 0) {
                vm.prank(account);
                _vault.requestUnstake(uint96(ghost.staked));
            }
            vm.warp(_handler.time() + 60 days);
            vm.prank(account);
            _vault.withdraw();
            vm.warp(_handler.time());
            vm.assertEq(_token.balanceOf(account), ghost.wallet + ghost.staked + ghost.pending, "left with");
        }
        vm.assertEq(_token.balanceOf(address(_vault)), _handler.surplus(), "nothing but surplus is left");
    }

    function invariant_the_balance_is_all_stake_all_that_is_pending_and_what_came_past_stake() external view {
        uint256 staked = 0;
        uint256 pending = 0;
        for (uint256 i = 0; i < _handler.PEOPLE(); ++i) {
            address account = _handler.person(i);
            VaultHandler.Ghost memory ghost = _handler.ghostOf(account);
            (uint96 amount,) = _vault.pendingOf(account);
            vm.assertEq(_vault.stakedOf(account), ghost.staked, "staked");
            vm.assertEq(amount, ghost.pending, "pending");
            vm.assertEq(_token.balanceOf(account), ghost.wallet, "wallet");
            staked += ghost.staked;
            pending += ghost.pending;
        }
        vm.assertEq(_vault.totalStaked(), staked, "totalStaked");
        vm.assertEq(_vault.totalPending(), pending, "totalPending");
        vm.assertEq(_token.balanceOf(address(_vault)), staked + pending + _handler.surplus(), "balance");
        vm.assertEq(_token.balanceOf(_handler.SAFE()), _handler.swept(), "swept");
    }

    function invariant_stake_seconds_of_each_and_of_all_equal_an_integral_over_every_second() external view {
        uint256 time = _handler.time();
        uint256 total = 0;
        uint256 later = 0;
        for (uint256 i = 0; i < _handler.PEOPLE(); ++i) {
            address account = _handler.person(i);
            VaultHandler.Ghost memory ghost = _handler.ghostOf(account);
            vm.assertEq(_vault.stakeSecondsOf(account, time), ghost.stakeSeconds, "stakeSeconds");
            total += ghost.stakeSeconds;
            later += _vault.stakeSecondsOf(account, time + 1000);
        }
        vm.assertEq(_vault.totalStakeSeconds(time), total, "totalStakeSeconds");
        vm.assertEq(_vault.totalStakeSeconds(time + 1000), later, "totalStakeSeconds of later");
    }

    function invariant_no_sequence_shortens_a_cooldown() external view {
        vm.assertEq(_vault.cooldown(), _handler.cooldown(), "cooldown");
        for (uint256 i = 0; i < _handler.PEOPLE(); ++i) {
            address account = _handler.person(i);
            (, uint64 availableAt) = _vault.pendingOf(account);
            vm.assertEq(availableAt, _handler.ghostOf(account).availableAt, "availableAt");
        }
    }

    function invariant_what_one_does_changes_nothing_that_another_has() external view {
        vm.assertEq(_handler.disturbances(), 0);
    }
}
