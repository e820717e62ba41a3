// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RevenueDistributor} from "../src/RevenueDistributor.sol";
import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Deployment, roles and funding, one behaviour a test.
contract RevenueDistributorTest is DistributorTest {
    function test_revenue_comes_in_and_its_event_says_the_total() external {
        token.mint(ALICE, 5e6);
        vm.prank(ALICE);
        token.approve(address(distributor), 5e6);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Funded(3, ALICE, 5e6, FUNDED + 5e6);
        vm.prank(ALICE);
        distributor.fund(3, 5e6);

        vm.assertEq(distributor.funded(), FUNDED + 5e6);
        vm.assertEq(token.balanceOf(address(distributor)), FUNDED + 5e6);
    }

    function test_revenue_of_nothing_is_refused() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ZeroAmount.selector));
        distributor.fund(1, 0);
    }

    function test_revenue_beyond_96_bits_is_refused() external {
        uint96 room = type(uint96).max - FUNDED;
        token.mint(address(this), type(uint96).max);

        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.FundsTooLarge.selector, uint256(room) + 1, room)
        );
        distributor.fund(1, room + 1);

        distributor.fund(1, room);
        vm.assertEq(distributor.funded(), type(uint96).max);
    }

    function test_an_epoch_ends_where_the_next_begins() external view {
        vm.assertEq(distributor.epochEnd(0), START);
        vm.assertEq(distributor.epochEnd(1), START + LENGTH);
    }

    function test_the_end_of_the_last_epoch_there_is_can_be_told() external view {
        vm.assertEq(distributor.epochEnd(type(uint64).max), uint256(GENESIS) + 2 ** 64 * uint256(LENGTH));
    }

    function test_the_owner_names_the_poster() external {
        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.PosterSet(ALICE);
        vm.prank(OWNER);
        distributor.setPoster(ALICE);

        vm.assertEq(distributor.poster(), ALICE);
    }

    function test_the_owner_names_the_guardian() external {
        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.GuardianSet(ALICE);
        vm.prank(OWNER);
        distributor.setGuardian(ALICE);

        vm.assertEq(distributor.guardian(), ALICE);
    }

    function testFuzz_only_the_owner_names_the_poster(address caller) external {
        if (caller == OWNER) return;

        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, caller));
        vm.prank(caller);
        distributor.setPoster(ALICE);
    }

    function testFuzz_only_the_owner_names_the_guardian(address caller) external {
        if (caller == OWNER) return;

        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, caller));
        vm.prank(caller);
        distributor.setGuardian(ALICE);
    }

    function test_nobody_is_not_a_poster() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ZeroAddress.selector));
        vm.prank(OWNER);
        distributor.setPoster(address(0));
    }

    function test_nobody_is_not_a_guardian() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ZeroAddress.selector));
        vm.prank(OWNER);
        distributor.setGuardian(address(0));
    }

    function test_a_new_owner_has_to_accept() external {
        vm.prank(OWNER);
        distributor.transferOwnership(ALICE);
        vm.assertEq(distributor.owner(), OWNER);

        vm.prank(ALICE);
        distributor.acceptOwnership();
        vm.assertEq(distributor.owner(), ALICE);
    }

    function test_a_distributor_without_a_token_is_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ZeroAddress.selector));
        new RevenueDistributor(IERC20(address(0)), GENESIS, LENGTH, WINDOW, BOND, OWNER, POSTER, GUARDIAN);
    }

    function test_a_distributor_without_an_owner_is_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0)));
        new RevenueDistributor(token, GENESIS, LENGTH, WINDOW, BOND, address(0), POSTER, GUARDIAN);
    }

    function test_a_distributor_without_a_poster_is_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ZeroAddress.selector));
        new RevenueDistributor(token, GENESIS, LENGTH, WINDOW, BOND, OWNER, address(0), GUARDIAN);
    }

    function test_a_distributor_without_a_guardian_is_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ZeroAddress.selector));
        new RevenueDistributor(token, GENESIS, LENGTH, WINDOW, BOND, OWNER, POSTER, address(0));
    }

    function test_epochs_of_no_length_are_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.BadEpochLength.selector, 0, 365 days));
        new RevenueDistributor(token, GENESIS, 0, WINDOW, BOND, OWNER, POSTER, GUARDIAN);
    }

    function test_epochs_beyond_the_bound_are_not_deployed() external {
        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.BadEpochLength.selector, 365 days + 1, 365 days)
        );
        new RevenueDistributor(token, GENESIS, 365 days + 1, WINDOW, BOND, OWNER, POSTER, GUARDIAN);
    }

    function test_no_challenge_window_is_not_deployed() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.BadChallengeWindow.selector, 0, 30 days));
        new RevenueDistributor(token, GENESIS, LENGTH, 0, BOND, OWNER, POSTER, GUARDIAN);
    }

    function test_a_challenge_window_beyond_the_bound_is_not_deployed() external {
        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.BadChallengeWindow.selector, 30 days + 1, 30 days)
        );
        new RevenueDistributor(token, GENESIS, LENGTH, 30 days + 1, BOND, OWNER, POSTER, GUARDIAN);
    }

    function test_the_longest_epoch_and_window_are_deployed() external {
        RevenueDistributor longest =
            new RevenueDistributor(token, GENESIS, 365 days, 30 days, BOND, OWNER, POSTER, GUARDIAN);

        vm.assertEq(longest.epochLength(), longest.MAX_EPOCH_LENGTH());
        vm.assertEq(longest.challengeWindow(), longest.MAX_CHALLENGE_WINDOW());
        vm.assertEq(longest.genesis(), GENESIS);
        vm.assertEq(address(longest.token()), address(token));
        vm.assertEq(longest.bondRequired(), BOND);
    }
}
