// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";

/// @title Whether a wallet's own code accepts a signature (ERC-1271), also where it is not deployed yet (ERC-6492).
/// @notice Never deployed: a node runs this creation code in an `eth_call` and forgets what it did. The one byte that
/// would have become its code is the verdict: 0 the wallet has no code, 1 it accepts, 2 it refuses.
/// @dev Each call has its own fixed limit of gas, and no more than a word of any answer is read: the verdict depends on
/// the chain's state alone, whatever the wallet does, and on every node alike.
contract SignatureProbe {
    uint256 private constant NO_CODE = 0;
    uint256 private constant ACCEPTED = 1;
    uint256 private constant REFUSED = 2;

    uint256 private constant ASK_GAS = 3_000_000;
    uint256 private constant PREPARE_GAS = 6_000_000;

    /// @param signature What the wallet is asked about: of an ERC-6492 signature the inner one.
    /// @param factory Who deploys or prepares the wallet, where it does not accept as it is; zero for nobody.
    /// @param preparation What the factory is called with.
    constructor(
        address wallet,
        bytes32 digest,
        bytes memory signature,
        address factory,
        bytes memory preparation
    ) {
        bytes memory question = abi.encodeCall(IERC1271.isValidSignature, (digest, signature));
        bool accepted = _accepts(wallet, question);
        if (!accepted && factory != address(0)) {
            accepted = _prepares(factory, preparation) && _accepts(wallet, question);
        }
        uint256 verdict = accepted ? ACCEPTED : wallet.code.length == 0 ? NO_CODE : REFUSED;
        assembly ("memory-safe") {
            mstore8(0, verdict)
            return(0, 1)
        }
    }

    function _accepts(address wallet, bytes memory question) private view returns (bool) {
        // An address without code answers every call with success, and a precompile even with bytes.
        if (wallet.code.length == 0) return false;
        bool answered;
        bytes32 word;
        assembly ("memory-safe") {
            mstore(0, 0)
            answered := staticcall(ASK_GAS, wallet, add(question, 0x20), mload(question), 0, 0x20)
            answered := and(answered, gt(returndatasize(), 0x1f))
            word := mload(0)
        }
        return answered && word == bytes32(IERC1271.isValidSignature.selector);
    }

    function _prepares(address factory, bytes memory preparation) private returns (bool done) {
        assembly ("memory-safe") {
            done := call(PREPARE_GAS, factory, 0, add(preparation, 0x20), mload(preparation), 0, 0)
        }
    }
}
