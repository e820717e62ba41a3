// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {VaultTest} from "./support/VaultTest.sol";

/// @title Any sequence of stakes, requests and withdrawals, against a reference that adds up second by second.
contract StakeVaultFuzzTest is VaultTest {
    /// @dev What the reference knows of an account. It integrates whenever time passes, not when the stake changes.
    struct Ghost {
        uint256 staked;
        uint256 pending;
        uint256 availableAt;
        uint256 stakeSeconds;
        uint256 changedAt;
    }

    address[2] private _people;
    mapping(address account => Ghost) private _ghosts;
    uint256 private _now = START;

    function setUp() public override {
        super.setUp();
        _people = [alice, BOB];
    }

    function testFuzz_the_books_equal_a_reference_that_integrates(uint256[] calldata seeds) external {
        for (uint256 i = 0; i < seeds.length && i < 40; ++i) {
            uint256 seed = uint256(keccak256(abi.encode(seeds[i], i)));
            _pass(_within(seed >> 8, 0, 12 hours));
            _act(_people[seed & 1], (seed >> 1) % 4, uint96(_within(seed >> 160, 1, 50)));
        }
        _pass(1000);

        for (uint256 i = 0; i < _people.length; ++i) {
            _compare(_people[i]);
        }
        Ghost memory a = _ghosts[alice];
        Ghost memory b = _ghosts[BOB];
        vm.assertEq(vault.totalStaked(), a.staked + b.staked, "totalStaked");
        vm.assertEq(vault.totalPending(), a.pending + b.pending, "totalPending");
        vm.assertEq(token.balanceOf(address(vault)), a.staked + b.staked + a.pending + b.pending, "balance");
    }

    function testFuzz_no_sequence_of_requests_and_settings_shortens_a_cooldown(uint32[8] calldata seeds)
        external
    {
        _stake(alice, 100);
        uint256 earliest = 0;
        for (uint256 i = 0; i < seeds.length; ++i) {
            uint32 cooldown = uint32(_within(seeds[i], 0, 5 days));
            vm.prank(OWNER);
            vault.setCooldown(cooldown);
            _request(alice, 1);
            earliest = earliest > _now + cooldown ? earliest : _now + cooldown;
            _pass(seeds[i] % 7 hours);
        }

        (, uint64 availableAt) = vault.pendingOf(alice);
        vm.assertEq(availableAt, earliest);
    }

    /// @dev Splitting a span at any point changes nothing: touching an account is free of effect on its history.
    function testFuzz_touching_an_account_does_not_change_its_stake_seconds(
        uint32 first,
        uint32 second
    )
        external
    {
        uint256 middle = START + _within(first, 0, 365 days);
        uint256 end = middle + _within(second, 0, 365 days);
        _stake(alice, 7 ether);
        vm.warp(middle);
        _stake(alice, 1 ether);
        _request(alice, 1 ether);

        vm.assertEq(vault.stakeSecondsOf(alice, end), 7 ether * (end - START));
    }

    function _act(address account, uint256 action, uint96 amount) private {
        Ghost storage ghost = _ghosts[account];
        if (action == 0) {
            _stake(account, amount);
            ghost.staked += amount;
            ghost.changedAt = _now;
        } else if (action < 3 && amount <= ghost.staked) {
            _request(account, amount);
            ghost.staked -= amount;
            ghost.pending += amount;
            ghost.availableAt = _now + COOLDOWN;
            ghost.changedAt = _now;
        } else if (ghost.pending > 0 && ghost.availableAt <= _now) {
            _withdraw(account);
            ghost.pending = 0;
            ghost.availableAt = 0;
        }
    }

    function _pass(uint256 time) private {
        for (uint256 i = 0; i < _people.length; ++i) {
            _ghosts[_people[i]].stakeSeconds += _ghosts[_people[i]].staked * time;
        }
        _now += time;
        vm.warp(_now);
    }

    function _compare(address account) private view {
        Ghost memory ghost = _ghosts[account];
        (uint96 amount, uint64 availableAt) = vault.pendingOf(account);
        vm.assertEq(vault.stakedOf(account), ghost.staked, "staked");
        vm.assertEq(amount, ghost.pending, "pending");
        vm.assertEq(availableAt, ghost.availableAt, "availableAt");
        vm.assertEq(vault.stakeSecondsOf(account, _now), ghost.stakeSeconds, "stakeSeconds");
        vm.assertEq(
            vault.stakeSecondsOf(account, ghost.changedAt),
            ghost.stakeSeconds - ghost.staked * (_now - ghost.changedAt),
            "stakeSeconds at the last change"
        );
    }
}
