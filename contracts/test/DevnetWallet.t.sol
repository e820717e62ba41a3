// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DevnetDollar} from "../src/DevnetDollar.sol";
import {DevnetWallet} from "../src/DevnetWallet.sol";
import {Test} from "./support/Test.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

/// @title Whose word is the wallet's, and who acts through it.
contract DevnetWalletTest is Test {
    uint256 private constant KEY = 0xa11ce;
    bytes4 private constant NO = 0xffffffff;

    DevnetWallet private immutable WALLET = new DevnetWallet(vm.addr(KEY));
    DevnetDollar private immutable MONEY = new DevnetDollar();

    function testFuzz_only_the_owners_signature_of_the_very_digest_is_accepted(
        bytes32 digest,
        bytes32 other,
        uint256 key
    )
        external
        view
    {
        key = key % 1e70 + 1;
        vm.assertEq(_said(digest, _signed(KEY, digest)), IERC1271.isValidSignature.selector);
        if (key != KEY) vm.assertEq(_said(digest, _signed(key, digest)), NO);
        if (other != digest) vm.assertEq(_said(other, _signed(KEY, digest)), NO);
    }

    function test_what_is_no_signature_is_refused_and_reverts_nothing() external {
        vm.assertEq(_said(keccak256("said"), ""), NO);
        vm.assertEq(_said(keccak256("said"), new bytes(65)), NO);
        DevnetWallet nobodys = new DevnetWallet(address(0));
        vm.assertEq(nobodys.isValidSignature(keccak256("said"), new bytes(65)), NO);
    }

    function test_the_owner_acts_in_the_wallets_name() external {
        MONEY.mint(address(WALLET), 5);

        vm.prank(vm.addr(KEY));
        WALLET.execute(address(MONEY), abi.encodeCall(MONEY.transfer, (address(this), 5)));

        vm.assertEq(MONEY.balanceOf(address(this)), 5);
    }

    function testFuzz_nobody_else_acts_through_the_wallet(address caller) external {
        if (caller == vm.addr(KEY)) return;

        vm.prank(caller);
        vm.expectRevert(abi.encodeWithSelector(DevnetWallet.NotOwner.selector, caller, vm.addr(KEY)));
        WALLET.execute(address(MONEY), abi.encodeCall(MONEY.transfer, (caller, 0)));
    }

    function test_what_the_other_contract_refuses_is_refused_in_its_words() external {
        vm.prank(vm.addr(KEY));
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, address(WALLET), 0, 1)
        );
        WALLET.execute(address(MONEY), abi.encodeCall(MONEY.transfer, (address(this), 1)));
    }

    function _said(bytes32 digest, bytes memory signature) private view returns (bytes4) {
        return WALLET.isValidSignature(digest, signature);
    }

    function _signed(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }
}
