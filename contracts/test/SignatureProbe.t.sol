// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SignatureProbe} from "../src/SignatureProbe.sol";
import {OddWallet, OwnerWallet, SelfWallet, WalletFactory} from "./support/SignatureWallets.sol";
import {Test} from "./support/Test.sol";

/// @title What the probe says of wallets that exist, that do not yet, and that misbehave.
contract SignatureProbeTest is Test {
    uint256 private constant KEY = 0xa11ce;
    bytes32 private constant DIGEST = keccak256("what is signed");
    bytes32 private constant SALT = bytes32(uint256(7));

    uint256 private constant NO_CODE = 0;
    uint256 private constant ACCEPTED = 1;
    uint256 private constant REFUSED = 2;

    address private immutable OWNER = vm.addr(KEY);
    WalletFactory private immutable FACTORY = new WalletFactory();

    function test_a_wallet_accepts_its_owners_signature() external {
        address wallet = address(new OwnerWallet(OWNER));

        vm.assertEq(_verdict(wallet, DIGEST, _signed(KEY)), ACCEPTED);
    }

    function test_a_wallet_refuses_another_key_another_digest_and_no_signature() external {
        address wallet = address(new OwnerWallet(OWNER));

        vm.assertEq(_verdict(wallet, DIGEST, _signed(KEY + 1)), REFUSED);
        vm.assertEq(_verdict(wallet, keccak256("another"), _signed(KEY)), REFUSED);
        vm.assertEq(_verdict(wallet, DIGEST, ""), REFUSED);
    }

    function test_an_address_without_code_accepts_nothing_not_even_as_a_precompile() external {
        vm.assertEq(_verdict(OWNER, DIGEST, _signed(KEY)), NO_CODE);
        for (uint160 precompile = 1; precompile < 18; precompile++) {
            vm.assertEq(_verdict(address(precompile), DIGEST, _signed(KEY)), NO_CODE);
        }
    }

    function test_a_wallet_that_is_not_deployed_yet_accepts_by_its_factory() external {
        address wallet = FACTORY.predict(OWNER, SALT);

        vm.assertEq(_prepared(wallet, _signed(KEY), _deployment()), ACCEPTED);
    }

    function test_a_factory_that_makes_another_wallet_proves_nothing() external {
        address wallet = FACTORY.predict(OWNER, bytes32(uint256(8)));

        vm.assertEq(_prepared(wallet, _signed(KEY), _deployment()), NO_CODE);
    }

    function test_a_wallet_that_is_not_deployed_yet_refuses_another_key() external {
        address wallet = FACTORY.predict(OWNER, SALT);

        vm.assertEq(_prepared(wallet, _signed(KEY + 1), _deployment()), REFUSED);
    }

    function test_a_wallet_that_was_deployed_meanwhile_is_asked_as_it_is_now() external {
        address wallet = FACTORY.deploy(OWNER, SALT);
        vm.assertEq(_prepared(wallet, _signed(KEY), _deployment()), ACCEPTED);

        OwnerWallet(wallet).setOwner(vm.addr(KEY + 1));

        vm.assertEq(_prepared(wallet, _signed(KEY), _deployment()), REFUSED);
        vm.assertEq(_prepared(wallet, _signed(KEY + 1), _deployment()), ACCEPTED);
    }

    function test_a_deployed_wallet_can_be_prepared() external {
        address wallet = address(new OwnerWallet(vm.addr(KEY + 1)));
        bytes memory preparation = abi.encodeCall(OwnerWallet.setOwner, (OWNER));
        vm.assertEq(_verdict(wallet, DIGEST, _signed(KEY)), REFUSED);

        SignatureProbe probe = new SignatureProbe(wallet, DIGEST, _signed(KEY), wallet, preparation);

        vm.assertEq(_byte(probe), ACCEPTED);
    }

    function test_a_preparation_that_fails_proves_nothing() external {
        address wallet = FACTORY.predict(OWNER, SALT);

        vm.assertEq(_prepared(wallet, _signed(KEY), abi.encodeCall(WalletFactory.refuse, ())), NO_CODE);
    }

    function test_an_account_that_delegates_is_asked_by_the_code_that_it_delegates_to() external {
        vm.etch(OWNER, abi.encodePacked(hex"ef0100", address(new SelfWallet())));

        vm.assertEq(_verdict(OWNER, DIGEST, bytes.concat(hex"07", _signed(KEY))), ACCEPTED);
        vm.assertEq(_verdict(OWNER, DIGEST, bytes.concat(hex"08", _signed(KEY))), REFUSED);
    }

    function test_whatever_a_wallet_does_there_is_a_verdict() external {
        address wallet = address(new OddWallet());

        for (uint8 way = 0; way < uint8(type(OddWallet.Way).max); way++) {
            bool yes = OddWallet.Way(way) == OddWallet.Way.Flood;
            vm.assertEq(_verdict(wallet, DIGEST, abi.encodePacked(way)), yes ? ACCEPTED : REFUSED);
        }
        vm.assertEq(_verdict(wallet, DIGEST, abi.encodePacked(OddWallet.Way.Yes)), ACCEPTED);
    }

    function test_how_much_gas_a_wallet_has_does_not_depend_on_the_node() external {
        address wallet = address(new OddWallet());

        vm.assertEq(_verdict(wallet, DIGEST, abi.encodePacked(OddWallet.Way.Greedy)), REFUSED);
    }

    function _verdict(address wallet, bytes32 digest, bytes memory signature) private returns (uint256) {
        return _byte(new SignatureProbe(wallet, digest, signature, address(0), ""));
    }

    function _prepared(
        address wallet,
        bytes memory signature,
        bytes memory preparation
    )
        private
        returns (uint256)
    {
        uint256 before = vm.snapshotState();
        uint256 verdict = _byte(new SignatureProbe(wallet, DIGEST, signature, address(FACTORY), preparation));
        // As after an eth_call, nothing of it stays.
        vm.assertTrue(vm.revertToState(before), "no snapshot");
        return verdict;
    }

    function _deployment() private view returns (bytes memory) {
        return abi.encodeCall(WalletFactory.deploy, (OWNER, SALT));
    }

    function _signed(uint256 key) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, DIGEST);
        return abi.encodePacked(r, s, v);
    }

    function _byte(SignatureProbe probe) private view returns (uint256) {
        bytes memory code = address(probe).code;
        vm.assertEq(code.length, 1);
        return uint8(code[0]);
    }
}
