// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {DistributorTest} from "./support/DistributorTest.sol";

/// @title From a report to the root that pays: order, time, totals, the window and the veto.
contract RevenueDistributorPostTest is DistributorTest {
    bytes32 private constant ROOT = "root";
    address private constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;

    function test_a_post_waits_and_its_event_says_everything() external {
        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Posted(
            0, ROOT, 600e6, 5, "data", "ledger", "rules", 7, "snapshot", uint64(START) + WINDOW
        );
        _post(_report(0, ROOT, 600e6));

        _checkPending(ROOT, 600e6, 5, START + WINDOW);
        _checkActive(0, 0, 0);
        vm.assertEq(distributor.commitment(), 0);
    }

    function testFuzz_only_the_poster_posts(address caller) external {
        if (caller == POSTER) return;

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotPoster.selector, caller, POSTER));
        vm.prank(caller);
        distributor.post(_report(0, ROOT, 1));
    }

    function test_nothing_is_posted_over_a_pending_root() external {
        _post(_report(0, ROOT, 1));

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.AlreadyPending.selector, 0));
        _post(_report(0, ROOT, 2));
    }

    function test_no_epoch_is_skipped() external {
        vm.warp(START + LENGTH);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.WrongEpoch.selector, 1, 0));
        _post(_report(1, ROOT, 1));
    }

    function test_no_epoch_is_posted_again_once_active() external {
        _activated(ROOT, 1);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.WrongEpoch.selector, 0, 1));
        _post(_report(0, ROOT, 2));
    }

    function test_an_epoch_is_not_posted_a_second_before_its_end() external {
        vm.warp(START - 1);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.EpochNotOver.selector, 0, START));
        _post(_report(0, ROOT, 1));
    }

    function test_the_total_never_falls() external {
        _activated(ROOT, 600e6);
        vm.warp(START + LENGTH);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.SumDecreased.selector, 600e6 - 1, 600e6));
        _post(_report(1, ROOT, 600e6 - 1));

        _post(_report(1, ROOT, 600e6));
    }

    function test_no_more_is_promised_than_came_in() external {
        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.SumExceedsFunded.selector, FUNDED + 1, FUNDED)
        );
        _post(_report(0, ROOT, FUNDED + 1));

        _post(_report(0, ROOT, FUNDED));
    }

    function test_tokens_sent_past_fund_cannot_be_promised() external {
        token.mint(address(distributor), 1);

        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.SumExceedsFunded.selector, FUNDED + 1, FUNDED)
        );
        _post(_report(0, ROOT, FUNDED + 1));
    }

    function test_a_tree_beyond_the_bound_is_refused() external {
        IRevenueDistributor.Report memory report = _report(0, ROOT, 1);
        report.depth = 33;

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.TreeTooDeep.selector, 33, 32));
        _post(report);

        report.depth = 32;
        _post(report);
    }

    function testFuzz_a_snapshot_that_is_not_yet_past_is_refused(uint64 ahead) external {
        IRevenueDistributor.Report memory report = _report(0, ROOT, 1);
        report.snapshotBlock = uint64(_within(ahead, 20_000, type(uint64).max));

        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.SnapshotNotPast.selector, report.snapshotBlock, 20_000)
        );
        _post(report);
    }

    function test_a_snapshot_of_this_very_block_is_refused_and_one_of_the_block_before_is_accepted()
        external
    {
        IRevenueDistributor.Report memory report = _report(0, ROOT, 1);
        report.snapshotBlock = 20_000;

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.SnapshotNotPast.selector, 20_000, 20_000));
        _post(report);

        report.snapshotBlock = 19_999;
        vm.setBlockhash(19_999, "snapshot");
        _post(report);
        _checkPending(ROOT, 1, 5, START + WINDOW);
    }

    function test_a_snapshot_of_another_chain_is_refused() external {
        IRevenueDistributor.Report memory report = _report(0, ROOT, 1);
        report.snapshotBlock = 19_900;
        vm.setBlockhash(19_900, "other");

        vm.expectRevert(
            abi.encodeWithSelector(
                IRevenueDistributor.SnapshotMismatch.selector, 19_900, bytes32("snapshot"), bytes32("other")
            )
        );
        _post(report);
    }

    function test_a_snapshot_of_this_chain_is_accepted() external {
        IRevenueDistributor.Report memory report = _report(0, ROOT, 1);
        report.snapshotBlock = 19_900;
        vm.setBlockhash(19_900, "snapshot");

        _post(report);

        _checkPending(ROOT, 1, 5, START + WINDOW);
    }

    function test_a_snapshot_beyond_256_blocks_is_looked_up_in_the_history() external {
        bytes32 kept = "kept";
        vm.etch(HISTORY, abi.encodePacked(hex"7f", kept, hex"5f5260205ff3"));

        vm.expectRevert(
            abi.encodeWithSelector(
                IRevenueDistributor.SnapshotMismatch.selector, 7, bytes32("snapshot"), kept
            )
        );
        _post(_report(0, ROOT, 1));
    }

    function test_nothing_activates_a_second_early() external {
        _post(_report(0, ROOT, 1));
        vm.warp(START + WINDOW - 1);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.WindowOpen.selector, START + WINDOW));
        distributor.activate();
    }

    function test_nothing_activates_when_nothing_is_pending() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NothingPending.selector));
        distributor.activate();
    }

    function test_nothing_activates_twice() external {
        _activated(ROOT, 1);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NothingPending.selector));
        distributor.activate();
    }

    function testFuzz_anyone_activates_after_the_window(address caller) external {
        _post(_report(0, ROOT, 600e6));
        vm.warp(START + WINDOW);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Activated(0, ROOT, 600e6);
        vm.prank(caller);
        distributor.activate();

        _checkActive(1, 600e6, 5);
        _checkPending(0, 0, 0, 0);
        vm.assertEq(distributor.commitment(), keccak256(bytes.concat(ROOT, bytes12(uint96(600e6)))));
    }

    function test_epochs_follow_each_other() external {
        _activated(ROOT, 1);
        vm.warp(START + LENGTH);
        _post(_report(1, "next", 2));
        vm.warp(START + LENGTH + WINDOW);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Activated(1, "next", 2);
        distributor.activate();

        _checkActive(2, 2, 5);
    }

    function test_an_epoch_in_which_nobody_ever_earned_can_be_activated() external {
        _activated(bytes32(0), 0);

        _checkActive(1, 0, 5);
    }

    function test_the_guardian_vetoes_a_pending_root() external {
        _activated("first", 1);
        vm.warp(START + LENGTH);
        _post(_report(1, ROOT, 2));

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Vetoed(1, ROOT);
        _veto();

        _checkPending(0, 0, 0, 0);
        _checkActive(1, 1, 5);
        vm.assertEq(distributor.commitment(), keccak256(bytes.concat(bytes32("first"), bytes12(uint96(1)))));
        vm.assertEq(distributor.activeCommitment(), distributor.commitment());
    }

    function testFuzz_only_the_guardian_vetoes(address caller) external {
        if (caller == GUARDIAN) return;
        _post(_report(0, ROOT, 1));

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotGuardian.selector, caller, GUARDIAN));
        vm.prank(caller);
        distributor.veto(ROOT);
    }

    function test_there_is_no_veto_when_nothing_is_pending() external {
        _activated(ROOT, 1);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NothingPending.selector));
        vm.prank(GUARDIAN);
        distributor.veto(ROOT);
    }

    function testFuzz_a_veto_is_for_the_root_that_it_names(bytes32 named) external {
        if (named == ROOT) return;
        _post(_report(0, ROOT, 1));

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotPending.selector, named, ROOT));
        vm.prank(GUARDIAN);
        distributor.veto(named);

        _checkPending(ROOT, 1, 5, START + WINDOW);
    }

    function test_a_veto_that_comes_after_a_challenge_spares_the_honest_root_posted_since() external {
        _post(_report(0, 0, 0));
        vm.prank(CHALLENGER);
        distributor.challengeMalformed("", 0, 0, "");
        distributor.addBond{value: BOND}();
        _post(_report(0, ROOT, 1));

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotPending.selector, bytes32(0), ROOT));
        vm.prank(GUARDIAN);
        distributor.veto(0);

        _activate();
        _checkActive(1, 1, 5);
    }

    function test_a_vetoed_root_never_activates() external {
        _post(_report(0, ROOT, 1));
        _veto();
        vm.warp(START + WINDOW);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NothingPending.selector));
        distributor.activate();
    }

    function test_a_root_can_be_vetoed_until_it_is_activated() external {
        _post(_report(0, ROOT, 1));
        vm.warp(START + WINDOW + 1 days);
        _veto();

        _checkPending(0, 0, 0, 0);
    }

    function test_a_repost_restarts_the_window() external {
        _post(_report(0, ROOT, 1));
        vm.warp(START + 1 days);
        _veto();
        _post(_report(0, "better", 2));
        vm.warp(START + WINDOW);

        vm.expectRevert(
            abi.encodeWithSelector(IRevenueDistributor.WindowOpen.selector, START + 1 days + WINDOW)
        );
        distributor.activate();
    }

    function _activated(bytes32 root, uint96 sum) private {
        _post(_report(0, root, sum));
        vm.warp(START + WINDOW);
        distributor.activate();
    }

    function _checkActive(uint64 nextEpoch, uint96 sum, uint8 depth) private view {
        (uint64 nextEpoch_, uint96 sum_, uint8 depth_) = distributor.active();
        vm.assertEq(nextEpoch_, nextEpoch, "nextEpoch");
        vm.assertEq(sum_, sum, "sum");
        vm.assertEq(depth_, depth, "depth");
    }

    /// @dev The pending epoch is always the next one.
    function _checkPending(bytes32 root, uint96 sum, uint8 depth, uint256 activeAt) private view {
        (uint64 nextEpoch,,) = distributor.active();
        (uint64 epoch_, bytes32 root_, uint96 sum_, uint8 depth_, uint64 activeAt_) = distributor.pending();
        vm.assertEq(epoch_, activeAt == 0 ? 0 : nextEpoch, "epoch");
        vm.assertEq(root_, root);
        vm.assertEq(sum_, sum, "sum");
        vm.assertEq(depth_, depth, "depth");
        vm.assertEq(activeAt_, activeAt, "activeAt");
    }
}
