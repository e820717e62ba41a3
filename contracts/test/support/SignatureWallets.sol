// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title A wallet that accepts its owner's signature, and can be given another owner.
contract OwnerWallet is IERC1271 {
    address public owner;

    constructor(address owner_) {
        owner = owner_;
    }

    /// @dev Open to all: nothing is kept here, and a prepared wallet is what some tests want.
    function setOwner(address owner_) external {
        owner = owner_;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        (address signer,,) = ECDSA.tryRecover(hash, signature);
        return
            signer == owner && signer != address(0) ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// @title Deploys owners' wallets at addresses that are known before.
contract WalletFactory {
    error Refused();

    function deploy(address owner, bytes32 salt) external returns (address) {
        return address(new OwnerWallet{salt: salt}(owner));
    }

    function refuse() external pure {
        revert Refused();
    }

    function predict(address owner, bytes32 salt) external view returns (address) {
        bytes memory code = abi.encodePacked(type(OwnerWallet).creationCode, abi.encode(owner));
        bytes32 hash = keccak256(abi.encodePacked(hex"ff", address(this), salt, keccak256(code)));
        return address(uint160(uint256(hash)));
    }
}

/// @title What an account of its own key delegates to (EIP-7702): accepts that key's signature with a 7 before it.
contract SelfWallet is IERC1271 {
    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        (address signer,,) = ECDSA.tryRecover(hash, signature[1:]);
        bool good = signature[0] == 0x07 && signer == address(this);
        return good ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}

/// @title A wallet that does something else with the question, by its first byte.
contract OddWallet {
    enum Way {
        Revert,
        Spin,
        Flood,
        FloodRevert,
        Short,
        Dirty,
        Empty,
        Greedy,
        Yes
    }

    fallback(bytes calldata question) external returns (bytes memory) {
        Way way = Way(uint8(question[question.length - 32]));
        if (way == Way.Revert) revert("no");
        if (way == Way.Spin) while (true) {}
        if (way == Way.Flood) return _yes(1_000_000);
        if (way == Way.FloodRevert) {
            assembly {
                revert(0, 1000000)
            }
        }
        if (way == Way.Short) return _yes(4);
        if (way == Way.Dirty) return abi.encodePacked(IERC1271.isValidSignature.selector, uint224(1));
        if (way == Way.Empty) return "";
        if (way == Way.Greedy && gasleft() < 3_000_000) revert("more");
        return _yes(32);
    }

    function _yes(uint256 size) private pure returns (bytes memory answer) {
        answer = new bytes(size);
        bytes4 magic = IERC1271.isValidSignature.selector;
        for (uint256 i = 0; i < 4; i++) {
            answer[i] = magic[i];
        }
    }
}
