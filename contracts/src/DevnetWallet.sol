// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title DevnetWallet
/// @notice A wallet that is a contract, to play with on a devnet: one key owns it, signs for it (ERC-1271) and acts
/// through it. Never use it elsewhere: a lost key cannot be replaced.
contract DevnetWallet is IERC1271 {
    /// @notice `caller` does not own this wallet: `owner` does.
    error NotOwner(address caller, address owner);

    /// @notice Whose key signs for this wallet.
    address public immutable owner;

    /// @param owner_ whose key signs for this wallet
    constructor(address owner_) {
        owner = owner_;
    }

    /// @notice Calls another contract in this wallet's name; only its owner can.
    /// @param to what is called
    /// @param data what it is called with
    /// @return answer what it answered
    function execute(address to, bytes calldata data) external returns (bytes memory answer) {
        if (msg.sender != owner) revert NotOwner(msg.sender, owner);

        return Address.functionCall(to, data);
    }

    /// @inheritdoc IERC1271
    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        (address signer, ECDSA.RecoverError fault,) = ECDSA.tryRecoverCalldata(hash, signature);
        bool good = fault == ECDSA.RecoverError.NoError && signer == owner;
        return good ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}
