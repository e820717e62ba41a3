// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title DevnetDollar
/// @notice Revenue to play with on a devnet: anyone can mint any amount. Worth nothing; never deploy it elsewhere.
contract DevnetDollar is ERC20, ERC20Permit {
    constructor() ERC20("Devnet Dollar", "DUSD") ERC20Permit("Devnet Dollar") {}

    /// @notice Creates `amount` out of nothing.
    /// @param to who gets it
    /// @param amount how much, in millionths of a dollar
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @notice Six decimals, as the dollar tokens of live chains have.
    function decimals() public pure override returns (uint8) {
        return 6;
    }
}
