// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title A token that takes a tenth from who sends, beside what is sent, and that can be reached by a second address.
contract TwinToken is ERC20 {
    TwinFace public immutable face = new TwinFace(this);
    bool public charging;

    constructor() ERC20("Twin", "TWIN") {
        _mint(msg.sender, 1e30);
    }

    function setCharging(bool charging_) external {
        charging = charging_;
    }

    function transferOf(address from, address to, uint256 value) external {
        require(msg.sender == address(face), "not the face");
        _update(from, to, value);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (charging) super._update(from, address(0), value / 10);
    }
}

/// @title The second address of a `TwinToken`.
contract TwinFace {
    TwinToken private immutable _twin;

    constructor(TwinToken twin) {
        _twin = twin;
    }

    function balanceOf(address account) external view returns (uint256) {
        return _twin.balanceOf(account);
    }

    function transfer(address to, uint256 value) external {
        _twin.transferOf(msg.sender, to, value);
    }
}
