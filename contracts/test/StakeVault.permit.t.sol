// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {VaultTest} from "./support/VaultTest.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

/// @title Staking with a signature instead of an approval.
contract StakeVaultPermitTest is VaultTest {
    bytes32 private constant PERMIT =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");

    struct Signature {
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    function setUp() public override {
        super.setUp();
        vm.prank(alice);
        token.approve(address(vault), 0);
    }

    function test_a_permit_stakes_without_an_approval() external {
        _stakeWith(_sign(40 ether), 40 ether);

        vm.assertEq(vault.stakedOf(alice), 40 ether);
        vm.assertEq(token.allowance(alice, address(vault)), 0);
    }

    function test_a_permit_that_somebody_sent_ahead_does_not_stop_the_stake() external {
        Signature memory signature = _sign(40 ether);
        vm.prank(BOB);
        token.permit(alice, address(vault), 40 ether, START, signature.v, signature.r, signature.s);

        _stakeWith(signature, 40 ether);

        vm.assertEq(vault.stakedOf(alice), 40 ether);
    }

    function test_a_permit_for_less_does_not_stake_more() external {
        Signature memory signature = _sign(39 ether);

        vm.expectRevert(_insufficient());
        _stakeWith(signature, 40 ether);
    }

    function test_an_expired_permit_stakes_nothing() external {
        Signature memory signature = _sign(40 ether);
        vm.warp(START + 1);

        vm.expectRevert(_insufficient());
        _stakeWith(signature, 40 ether);
    }

    function test_a_permit_of_another_wallet_stakes_nothing() external {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(ALICE_KEY + 1, _digest(40 ether));

        vm.expectRevert(_insufficient());
        _stakeWith(Signature(v, r, s), 40 ether);
    }

    function test_a_permit_does_not_stake_nothing() external {
        Signature memory signature = _sign(0);

        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        _stakeWith(signature, 0);
    }

    function _stakeWith(Signature memory signature, uint96 amount) private {
        vm.prank(alice);
        vault.stakeWithPermit(amount, START, signature.v, signature.r, signature.s);
    }

    function _sign(uint96 amount) private view returns (Signature memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(ALICE_KEY, _digest(amount));
        return Signature(v, r, s);
    }

    function _digest(uint96 amount) private view returns (bytes32) {
        bytes32 hash =
            keccak256(abi.encode(PERMIT, alice, address(vault), amount, token.nonces(alice), START));
        return keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), hash));
    }

    function _insufficient() private view returns (bytes memory) {
        return
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientAllowance.selector, address(vault), 0, 40 ether
            );
    }
}
