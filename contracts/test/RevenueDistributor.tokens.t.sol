// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RevenueDistributor} from "../src/RevenueDistributor.sol";
import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {CallingToken, FeeToken, SilentToken} from "./support/OddTokens.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";
import {Test} from "./support/Test.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title Tokens that behave oddly do not break the distributor's books; the test contract has every role.
contract RevenueDistributorTokensTest is Test {
    address private constant ALICE = address(0xA11CE);
    SumTree.Node[] private _noProof;

    function setUp() external {
        vm.warp(START);
        vm.roll(20_000);
    }

    function test_a_token_with_a_fee_funds_what_arrives() external {
        FeeToken token = new FeeToken(100);
        RevenueDistributor distributor = _distributor(token);

        distributor.fund(1, 10_000);

        vm.assertEq(distributor.funded(), 9900);
        vm.assertEq(token.balanceOf(address(distributor)), 9900);
    }

    function test_a_token_that_keeps_everything_funds_nothing() external {
        RevenueDistributor distributor = _distributor(new FeeToken(10_000));

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ZeroAmount.selector));
        distributor.fund(1, 10_000);
    }

    function test_a_token_that_returns_nothing_can_be_funded_and_claimed() external {
        SilentToken token = new SilentToken();
        RevenueDistributor distributor = new RevenueDistributor(
            IERC20(address(token)), 0, 1, 1, address(this), address(this), address(this)
        );
        distributor.fund(1, 100);
        _pay(distributor, 100);

        distributor.claim(ALICE, 100, 0, _noProof);

        vm.assertEq(token.balanceOf(ALICE), 100);
    }

    function test_a_token_that_calls_back_cannot_fund_twice_with_one_deposit() external {
        CallingToken token = new CallingToken();
        RevenueDistributor distributor = _distributor(token);
        token.callNext(address(distributor), abi.encodeCall(IRevenueDistributor.fund, (1, 1)));

        vm.expectRevert(
            abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
        );
        distributor.fund(1, 10);
    }

    function test_a_token_that_calls_back_cannot_claim_twice() external {
        CallingToken token = new CallingToken();
        RevenueDistributor distributor = _distributor(token);
        distributor.fund(1, 1000);
        _pay(distributor, 100);
        token.callNext(
            address(distributor), abi.encodeCall(IRevenueDistributor.claim, (ALICE, 100, 0, _noProof))
        );

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NothingToClaim.selector, ALICE, 100, 100));
        distributor.claim(ALICE, 100, 0, _noProof);
    }

    function _distributor(IERC20 token) private returns (RevenueDistributor distributor) {
        distributor = new RevenueDistributor(token, 0, 1, 1, address(this), address(this), address(this));
        token.approve(address(distributor), type(uint256).max);
    }

    /// @dev Activates a tree in which Alice alone has earned.
    function _pay(RevenueDistributor distributor, uint96 cumulative) private {
        ReferenceTree.Leaf[] memory leaves = new ReferenceTree.Leaf[](1);
        leaves[0] = ReferenceTree.Leaf(ALICE, cumulative);
        distributor.post(
            IRevenueDistributor.Report(0, ReferenceTree.rootOf(leaves).hash, cumulative, 0, "", "", "", 0, "")
        );
        vm.warp(START + 1);
        distributor.activate();
    }
}
