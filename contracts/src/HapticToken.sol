// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title HapticToken
/// @notice The token that contributors stake: a fixed supply, minted once, with EIP-2612 permits and no owner.
contract HapticToken is ERC20, ERC20Permit {
    /// @notice All the tokens there will ever be.
    uint256 public constant SUPPLY = 1_000_000_000e18;

    /// @param recipient who gets the whole supply
    constructor(address recipient) ERC20("Haptic", "HPT") ERC20Permit("Haptic") {
        _mint(recipient, SUPPLY);
    }
}
