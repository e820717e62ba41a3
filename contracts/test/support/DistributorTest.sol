// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DevnetDollar} from "../../src/DevnetDollar.sol";
import {RevenueDistributor} from "../../src/RevenueDistributor.sol";
import {IRevenueDistributor} from "../../src/interfaces/IRevenueDistributor.sol";
import {ReferenceTree} from "./ReferenceTree.sol";
import {Test} from "./Test.sol";

/// @title A distributor with its roles named and a thousand dollars of revenue in it, just after epoch 0.
abstract contract DistributorTest is Test {
    uint64 internal constant LENGTH = 7 days;
    uint64 internal constant WINDOW = 2 days;
    uint64 internal constant GENESIS = uint64(START) - LENGTH;
    uint96 internal constant FUNDED = 1000e6;
    address internal constant OWNER = address(0x0E);
    address internal constant POSTER = address(0x20);
    address internal constant GUARDIAN = address(0x6A);
    address internal constant ALICE = address(0xA11CE);
    address internal constant BOB = address(0xB0B);

    DevnetDollar internal token;
    RevenueDistributor internal distributor;

    function setUp() public virtual {
        vm.warp(START);
        vm.roll(20_000);
        token = new DevnetDollar();
        distributor = new RevenueDistributor(token, GENESIS, LENGTH, WINDOW, OWNER, POSTER, GUARDIAN);
        token.approve(address(distributor), type(uint256).max);
        _fund(FUNDED);
    }

    function _fund(uint96 amount) internal {
        token.mint(address(this), amount);
        distributor.fund(1, amount);
    }

    /// @dev A report whose snapshot is too old for the EVM to know its hash.
    function _report(
        uint64 epoch,
        bytes32 root,
        uint96 sum
    )
        internal
        pure
        returns (IRevenueDistributor.Report memory)
    {
        return IRevenueDistributor.Report({
            epoch: epoch,
            root: root,
            sum: sum,
            depth: 5,
            dataHash: "data",
            ledgerRoot: "ledger",
            rulesHash: "rules",
            snapshotBlock: 7,
            snapshotHash: "snapshot"
        });
    }

    function _post(IRevenueDistributor.Report memory report) internal {
        vm.prank(POSTER);
        distributor.post(report);
    }

    function _post(uint64 epoch, ReferenceTree.Leaf[] memory leaves) internal {
        IRevenueDistributor.Report memory report =
            _report(epoch, ReferenceTree.rootOf(leaves).hash, ReferenceTree.rootOf(leaves).sum);
        report.depth = ReferenceTree.depthOf(leaves.length);
        _post(report);
    }

    /// @dev Posts the tree as the next epoch's and lets time pass until it pays.
    function _pay(ReferenceTree.Leaf[] memory leaves) internal {
        (uint64 epoch,,,) = distributor.active();
        vm.warp(distributor.epochEnd(epoch));
        _post(epoch, leaves);
        vm.warp(distributor.epochEnd(epoch) + WINDOW);
        distributor.activate();
    }

    function _veto() internal {
        vm.prank(GUARDIAN);
        distributor.veto();
    }

    function _claim(ReferenceTree.Leaf[] memory leaves, uint256 index) internal {
        distributor.claim(
            leaves[index].account, leaves[index].cumulative, index, ReferenceTree.proofOf(leaves, index)
        );
    }
}
