// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DevnetDollar} from "../src/DevnetDollar.sol";
import {HapticToken} from "../src/HapticToken.sol";
import {Test} from "./support/Test.sol";

/// @title What the two tokens promise beyond being ERC-20.
contract TokensTest is Test {
    function test_the_recipient_gets_the_whole_supply_of_haptic() external {
        HapticToken token = new HapticToken(address(0xA11CE));

        vm.assertEq(token.balanceOf(address(0xA11CE)), 1e27);
        vm.assertEq(token.totalSupply(), token.SUPPLY());
    }

    function test_haptic_says_its_name_symbol_and_decimals() external {
        HapticToken token = new HapticToken(address(this));

        vm.assertEq(token.name(), "Haptic");
        vm.assertEq(token.symbol(), "HPT");
        vm.assertEq(token.decimals(), 18);
    }

    function test_the_devnet_dollar_says_its_name_symbol_and_decimals() external {
        DevnetDollar token = new DevnetDollar();

        vm.assertEq(token.name(), "Devnet Dollar");
        vm.assertEq(token.symbol(), "DUSD");
        vm.assertEq(token.decimals(), 6);
    }

    function testFuzz_anyone_mints_devnet_dollars(address caller, uint256 amount) external {
        DevnetDollar token = new DevnetDollar();

        vm.prank(caller);
        token.mint(address(0xA11CE), amount);

        vm.assertEq(token.balanceOf(address(0xA11CE)), amount);
    }

    function test_a_permit_gives_the_allowance_that_was_signed() external {
        (DevnetDollar token, address owner) = (new DevnetDollar(), vm.addr(7));
        bytes32 permit =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 hash = keccak256(abi.encode(permit, owner, address(this), 5, 0, START));
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(7, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), hash)));

        token.permit(owner, address(this), 5, START, v, r, s);

        vm.assertEq(token.allowance(owner, address(this)), 5);
    }
}
