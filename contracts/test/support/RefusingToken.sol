// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title A token that refuses whom it blocks, or everybody: with an error, or by answering false.
contract RefusingToken is ERC20 {
    error Refused(address account);

    mapping(address account => bool) public blocked;
    bool public silent;

    constructor() ERC20("Refusing", "NO") {
        _mint(msg.sender, 1e30);
    }

    function setBlocked(address account, bool blocked_) external {
        blocked[account] = blocked_;
    }

    function setSilent(bool silent_) external {
        silent = silent_;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        return !silent && super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return !silent && super.transferFrom(from, to, value);
    }

    function _update(address from, address to, uint256 value) internal override {
        if (blocked[from]) revert Refused(from);
        if (blocked[to]) revert Refused(to);
        super._update(from, to, value);
    }
}
