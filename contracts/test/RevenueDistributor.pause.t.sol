// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";

/// @title The pause of claims: what it stops, what goes on, and that it ends.
contract RevenueDistributorPauseTest is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    uint256 private constant KEY = 0xC0FFEE;
    /// @dev When the first root pays, and most pauses begin.
    uint256 private constant PAID = START + WINDOW;
    uint256 private constant UNTIL = PAID + 7 days;

    function test_a_pause_lasts_seven_days_and_its_event_says_until_when() external {
        _pay(_tree(1));
        bytes32 commitment = distributor.commitment();

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Paused(UNTIL);
        _pause();

        vm.assertEq(distributor.pausedUntil(), UNTIL);
        vm.assertEq(distributor.commitment(), 0);
        vm.assertEq(distributor.activeCommitment(), commitment);
        vm.assertEq(distributor.PAUSE_LENGTH(), 7 days, "PAUSE_LENGTH");
        vm.assertEq(distributor.PAUSE_REST(), 21 days, "PAUSE_REST");
    }

    function testFuzz_only_the_guardian_pauses(address caller) external {
        if (caller == GUARDIAN) return;

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotGuardian.selector, caller, GUARDIAN));
        vm.prank(caller);
        distributor.pause();
    }

    function test_while_paused_no_claim_of_any_kind_is_paid() external {
        _pay(_tree(1));
        _pause();

        _checkRefused(UNTIL);
        vm.warp(UNTIL - 1);
        _checkRefused(UNTIL);
    }

    function test_a_pause_ends_by_itself_for_whatever_kind_of_claim_comes_first() external {
        _pay(_tree(1));
        bytes32 commitment = distributor.commitment();
        _pause();
        vm.warp(UNTIL);
        vm.assertEq(distributor.pausedUntil(), 0);
        bytes[] memory claims = _claims();
        uint256 state = vm.snapshotState();

        for (uint256 i = 0; i < claims.length; ++i) {
            vm.prank(_signer());
            (bool ok,) = address(distributor).call(claims[i]);
            vm.assertTrue(ok, "the claim failed");
            vm.assertEq(distributor.claimed(_signer()), 500e6);
            vm.assertEq(distributor.commitment(), commitment);
            require(vm.revertToState(state));
        }
    }

    function test_a_pause_that_is_over_does_not_let_a_forged_claim_pass() external {
        _pay(_tree(1));
        bytes32 commitment = distributor.commitment();
        _pause();
        vm.warp(UNTIL);
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](1);
        leaves[0] = SumTree.Leaf(_signer(), 501e6);
        ReferenceTree.Tree memory forged = ReferenceTree.grow(leaves);

        vm.expectRevert(_invalid(forged, 0, commitment));
        distributor.claim(_signer(), 501e6, 0, "");
        SumTree.Proof[] memory proofs = new SumTree.Proof[](1);
        proofs[0] = forged.proof(0);
        vm.assertEq(distributor.claimMany(proofs), 0);
    }

    function test_a_forged_claim_during_a_pause_is_told_of_the_pause() external {
        _pay(_tree(1));
        _pause();

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ClaimsPaused.selector, UNTIL));
        distributor.claim(ALICE, 1, 0, "");
    }

    function test_the_guardian_ends_a_pause_early() external {
        _pay(_tree(1));
        _pause();
        vm.warp(PAID + 1 days);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Unpaused();
        vm.prank(GUARDIAN);
        distributor.unpause();

        vm.assertEq(distributor.pausedUntil(), 0);
        _claim(_tree(1), 0);
    }

    function testFuzz_nobody_else_ends_a_pause_early(address caller) external {
        if (caller == GUARDIAN) return;
        _pay(_tree(1));
        _pause();
        vm.warp(UNTIL - 1);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotGuardian.selector, caller, GUARDIAN));
        vm.prank(caller);
        distributor.unpause();
    }

    function testFuzz_anyone_ends_a_pause_that_is_over(address caller) external {
        _pay(_tree(1));
        bytes32 commitment = distributor.commitment();
        _pause();
        vm.warp(UNTIL);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Unpaused();
        vm.prank(caller);
        distributor.unpause();

        vm.assertEq(distributor.commitment(), commitment);
        _claim(_tree(1), 0);
    }

    function test_what_is_not_paused_cannot_be_unpaused() external {
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotPaused.selector));
        distributor.unpause();

        _pay(_tree(1));
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotPaused.selector));
        distributor.unpause();

        _pause();
        vm.prank(GUARDIAN);
        distributor.unpause();
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotPaused.selector));
        vm.prank(GUARDIAN);
        distributor.unpause();
    }

    function test_after_a_pause_there_is_none_for_three_weeks() external {
        _pay(_tree(1));
        _pause();
        vm.warp(UNTIL + 21 days - 1);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.PauseTooSoon.selector, UNTIL + 21 days));
        _pause();

        vm.warp(UNTIL + 21 days);
        _pause();
        vm.assertEq(distributor.pausedUntil(), UNTIL + 28 days);
    }

    function test_a_pause_ended_early_does_not_come_back_earlier() external {
        _pay(_tree(1));
        _pause();
        vm.prank(GUARDIAN);
        distributor.unpause();
        vm.warp(UNTIL + 21 days - 1);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.PauseTooSoon.selector, UNTIL + 21 days));
        _pause();
    }

    /// @dev Nobody claimed in between: what was paused is still what comes back.
    function test_a_second_pause_keeps_the_root_that_the_first_one_kept() external {
        _pay(_tree(1));
        _pause();
        vm.warp(UNTIL + 21 days);
        _pause();
        vm.warp(UNTIL + 28 days);

        _claim(_tree(1), 0);

        vm.assertEq(token.balanceOf(_signer()), 500e6);
    }

    function test_posting_and_activating_go_on_and_the_new_root_waits_with_the_pause() external {
        _pay(_tree(1));
        _post(_tree(2));
        vm.warp(START + LENGTH + WINDOW - 1 days);
        _pause();
        uint256 until = START + LENGTH + WINDOW + 6 days;
        _activate();
        vm.assertEq(distributor.commitment(), 0);
        vm.assertEq(distributor.activeCommitment(), _tree(2).commitment());

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ClaimsPaused.selector, until));
        this.claim(_tree(2));

        vm.warp(until);
        vm.expectRevert(_invalid(_tree(1), 0, _tree(2).commitment()));
        this.claim(_tree(1));
        _claim(_tree(2), 0);
        vm.assertEq(token.balanceOf(_signer()), 501e6);
    }

    function test_a_root_activated_after_a_pause_pays_at_once() external {
        _pay(_tree(1));
        _pause();
        vm.warp(UNTIL);
        _pay(_tree(2));

        vm.assertEq(distributor.commitment(), _tree(2).commitment());
        _claim(_tree(2), 0);
    }

    function test_a_root_is_challenged_and_vetoed_during_a_pause() external {
        _pay(_tree(1));
        _pause();
        SumTree.Proof memory before = _tree(1).proof(0);
        ReferenceTree.Tree memory wrong = _tree(0);
        _post(wrong, 500e6, 0);

        vm.prank(CHALLENGER);
        distributor.challengeMalformed(wrong.preimage(0, 0), 0, 0, "");
        distributor.addBond{value: BOND}();
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](2);
        leaves[0] = SumTree.Leaf(_signer(), 499e6);
        leaves[1] = SumTree.Leaf(address(type(uint160).max), 1e6);
        wrong = ReferenceTree.grow(leaves);
        _post(wrong);
        vm.prank(CHALLENGER);
        distributor.challengeDecrease(before, wrong.proof(0));
        distributor.addBond{value: BOND}();
        _post(_tree(2));
        _veto();

        vm.assertEq(CHALLENGER.balance, 2 * BOND);
        vm.assertEq(distributor.activeCommitment(), _tree(1).commitment());
    }

    function test_a_pause_before_the_first_root_holds_that_root_up() external {
        _pause();
        vm.assertEq(distributor.activeCommitment(), 0);
        vm.expectRevert(_invalid(_tree(1), 0, 0));
        this.claim(_tree(1));

        _pay(_tree(1));
        _checkRefused(START + 7 days);

        vm.warp(START + 7 days);
        _claim(_tree(1), 0);
        vm.assertEq(token.balanceOf(_signer()), 500e6);
    }

    function test_a_pause_before_the_first_root_is_ended_by_the_guardian_and_that_root_pays_at_once()
        external
    {
        _pause();
        vm.warp(START + 1 days);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Unpaused();
        vm.prank(GUARDIAN);
        distributor.unpause();

        vm.assertEq(distributor.pausedUntil(), 0);
        vm.assertEq(distributor.activeCommitment(), 0);
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotPaused.selector));
        vm.prank(GUARDIAN);
        distributor.unpause();
        _pay(_tree(1));
        vm.assertEq(distributor.commitment(), _tree(1).commitment());
        _claim(_tree(1), 0);
    }

    function testFuzz_nobody_else_ends_a_pause_before_the_first_root(address caller) external {
        if (caller == GUARDIAN) return;
        _pause();

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotGuardian.selector, caller, GUARDIAN));
        vm.prank(caller);
        distributor.unpause();
    }

    /// @dev Its time is over and it kept no root: there is nothing to end.
    function test_a_pause_before_the_first_root_that_is_over_is_none() external {
        _pause();
        vm.warp(START + 7 days);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.NotPaused.selector));
        distributor.unpause();
        _pay(_tree(1));
        _claim(_tree(1), 0);
    }

    /// @dev As a call, so that a test can expect its error.
    function claim(ReferenceTree.Tree memory tree) external {
        _claim(tree, 0);
    }

    function _checkRefused(uint256 until) private {
        bytes[] memory claims = _claims();
        for (uint256 i = 0; i < claims.length; ++i) {
            vm.prank(_signer());
            (bool ok, bytes memory reason) = address(distributor).call(claims[i]);
            vm.assertFalse(ok, "the claim was paid");
            vm.assertEq(reason, abi.encodeWithSelector(IRevenueDistributor.ClaimsPaused.selector, until));
        }
        vm.assertEq(distributor.claimed(_signer()), 0);
    }

    /// @dev Every way to claim by the first root.
    function _claims() private view returns (bytes[] memory claims) {
        SumTree.Proof memory p = _tree(1).proof(0);
        bytes32 type_ =
            keccak256("Claim(address account,address to,uint96 cumulative,uint256 nonce,uint256 deadline)");
        bytes32 hash = keccak256(abi.encode(type_, p.account, ALICE, p.cumulative, 0, UNTIL + 1 days));
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(KEY, keccak256(abi.encodePacked(hex"1901", distributor.DOMAIN_SEPARATOR(), hash)));
        SumTree.Proof[] memory proofs = new SumTree.Proof[](1);
        proofs[0] = p;

        claims = new bytes[](5);
        claims[0] = abi.encodeCall(distributor.claim, (p.account, p.cumulative, p.index, p.path));
        claims[1] = abi.encodeCall(distributor.claimTo, (p.cumulative, p.index, p.path, ALICE));
        claims[2] =
            abi.encodeCall(distributor.claimWithSig, (p, ALICE, UNTIL + 1 days, abi.encodePacked(r, s, v)));
        claims[3] = abi.encodeCall(distributor.claimMany, (proofs));
        claims[4] = abi.encodeCall(distributor.claimSubtree, (_tree(1).leaves, 0, 0, ""));
    }

    /// @dev One account; what it has grows by a dollar from root 1 to root 2. Root 0 is that of nobody.
    function _tree(uint256 number) private pure returns (ReferenceTree.Tree memory) {
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](number == 0 ? 0 : 1);
        if (number > 0) leaves[0] = SumTree.Leaf(_signer(), 499e6 + uint96(number) * 1e6);
        return ReferenceTree.grow(leaves);
    }

    function _signer() private pure returns (address) {
        return vm.addr(KEY);
    }
}
