// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DevnetDollar} from "../../src/DevnetDollar.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title A token that keeps a fee, in ten-thousandths, of every transfer.
contract FeeToken is ERC20 {
    uint256 private immutable _fee;

    constructor(uint256 fee) ERC20("Fee", "FEE") {
        _fee = fee;
        _mint(msg.sender, 1e30);
    }

    function _update(address from, address to, uint256 value) internal override {
        uint256 fee = from == address(0) ? 0 : value * _fee / 10_000;
        super._update(from, to, value - fee);
        if (fee > 0) super._update(from, address(0), fee);
    }
}

/// @title A token that can be told to call somebody before it moves anything.
contract CallingToken is ERC20 {
    address private _target;
    bytes private _call;

    constructor() ERC20("Calling", "CALL") {
        _mint(msg.sender, 1e30);
    }

    function callNext(address target, bytes calldata data) external {
        _target = target;
        _call = data;
    }

    function _update(address from, address to, uint256 value) internal override {
        address target = _target;
        _target = address(0);
        if (target != address(0)) {
            (bool ok, bytes memory answer) = target.call(_call);
            if (!ok) {
                assembly ("memory-safe") {
                    revert(add(answer, 32), mload(answer))
                }
            }
        }
        super._update(from, to, value);
    }
}

/// @title A token of the old kind, whose transfers return nothing.
contract SilentToken {
    mapping(address account => uint256) public balanceOf;

    constructor() {
        balanceOf[msg.sender] = 1e30;
    }

    function transfer(address to, uint256 value) external {
        _move(msg.sender, to, value);
    }

    function transferFrom(address from, address to, uint256 value) external {
        _move(from, to, value);
    }

    function _move(address from, address to, uint256 value) private {
        balanceOf[from] -= value;
        balanceOf[to] += value;
    }
}

/// @title A dollar that its issuer can block for an account.
contract BlockingDollar is DevnetDollar {
    mapping(address account => bool) public blocked;

    error Blocked(address account);

    function setBlocked(address account, bool isBlocked) external {
        blocked[account] = isBlocked;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (blocked[from]) revert Blocked(from);
        if (blocked[to]) revert Blocked(to);
        super._update(from, to, value);
    }
}

/// @title A dollar whose transfers can be told to return false and move nothing; first it calls whom it was told to.
contract FalseDollar is DevnetDollar {
    bool private _fails;
    address private _target;
    bytes private _call;

    function setFailing(bool fails) external {
        _fails = fails;
    }

    /// @dev Fails the next transfer after the call, and no other.
    function callNextAndFail(address target, bytes calldata data) external {
        _target = target;
        _call = data;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        address target = _target;
        _target = address(0);
        if (target != address(0)) {
            (bool ok,) = target.call(_call);
            require(ok, "the call failed");
            return false;
        }
        return !_fails && super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return !_fails && super.transferFrom(from, to, value);
    }
}
