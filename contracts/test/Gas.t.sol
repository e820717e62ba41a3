// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {HapticToken} from "../src/HapticToken.sol";
import {RevenueDistributor} from "../src/RevenueDistributor.sol";
import {StakeVault} from "../src/StakeVault.sol";
import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {BigTree} from "./support/BigTree.sol";
import {Test} from "./support/Test.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title A payment token as plain as OpenZeppelin's.
contract PlainToken is ERC20 {
    constructor() ERC20("Plain", "PLAIN") {
        _mint(msg.sender, 1e30);
    }
}

/// @title What a transaction costs, base fee and calldata included: 10,000 accounts, a tree of depth 14.
/// @dev Isolated, so that each call is a transaction of its own; see `make gas`.
/// forge-config: default.isolate = true
contract GasTest is Test {
    using BigTree for BigTree.Tree;

    uint256 private constant ACCOUNTS = 10_000;
    uint8 private constant DEPTH = 14;
    uint64 private constant LENGTH = 7 days;
    uint64 private constant WINDOW = 2 days;
    uint96 private constant BOND = 1 ether;
    address private constant CHALLENGER = address(0xC4A11E);

    PlainToken private _token;
    RevenueDistributor private _distributor;

    function setUp() public {
        vm.warp(START);
        vm.roll(20_000);
        _token = new PlainToken();
        _distributor = new RevenueDistributor(
            _token, uint64(START) - LENGTH, LENGTH, WINDOW, BOND, address(this), address(this), address(this)
        );
        _token.approve(address(_distributor), type(uint256).max);
        _distributor.fund(1, 1e27);
        _distributor.addBond{value: 10 ether}();
        // Neither nonce nor balance of who challenges is new.
        vm.deal(CHALLENGER, 1 ether);
    }

    function test_gas_of_posting_and_claiming() external {
        BigTree.Tree memory first = BigTree.build(_leaves(1), DEPTH);
        BigTree.Tree memory second = BigTree.build(_leaves(2), DEPTH);
        // As on a chain that runs for a while: an older root pays already.
        _pay(0, first);

        _post(1, second);
        vm.snapshotGasLastCall("post");
        vm.warp(START + LENGTH + WINDOW);
        _distributor.activate();
        vm.snapshotGasLastCall("activate");

        _claim(second, 4711);
        vm.snapshotGasLastCall("claim first, no balance");
        require(_token.transfer(second.leaves[4712].account, 1));
        _claim(second, 4712);
        vm.snapshotGasLastCall("claim first, balance");
        _pay(2, BigTree.build(_leaves(3), DEPTH));
        _claim(BigTree.build(_leaves(3), DEPTH), 4711);
        vm.snapshotGasLastCall("claim repeat");
    }

    function test_gas_of_a_subtree() external {
        _pay(0, BigTree.build(_leaves(1), DEPTH));
        _claimBlock(BigTree.build(_leaves(1), DEPTH));
        vm.snapshotGasLastCall("subtree of 128, first");
        _pay(1, BigTree.build(_leaves(2), DEPTH));
        _claimBlock(BigTree.build(_leaves(2), DEPTH));
        vm.snapshotGasLastCall("subtree of 128, repeat");
    }

    function test_gas_of_challenging_a_decrease() external {
        BigTree.Tree memory honest = _payFirst();
        SumTree.Leaf[] memory wrong = _leaves(2);
        wrong[4711].cumulative = honest.leaves[4711].cumulative - 1;
        BigTree.Tree memory posted = BigTree.build(wrong, DEPTH);
        _post(1, posted);

        vm.prank(CHALLENGER);
        _distributor.challengeDecrease(honest.proof(4711), posted.proof(4711));
        vm.snapshotGasLastCall("challengeDecrease");
    }

    function test_gas_of_challenging_an_absence() external {
        BigTree.Tree memory honest = _payFirst();
        SumTree.Leaf[] memory wrong = _without(_leaves(2), 4711);
        BigTree.Tree memory posted = BigTree.build(wrong, DEPTH);
        _post(1, posted);

        vm.prank(CHALLENGER);
        _distributor.challengeMissing(honest.proof(4711), posted.proof(4710), posted.proof(4711));
        vm.snapshotGasLastCall("challengeMissing");
    }

    function test_gas_of_challenging_an_order() external {
        _payFirst();
        SumTree.Leaf[] memory wrong = _leaves(2);
        (wrong[4711], wrong[4712]) = (wrong[4712], wrong[4711]);
        BigTree.Tree memory posted = BigTree.build(wrong, DEPTH);
        _post(1, posted);

        vm.prank(CHALLENGER);
        _distributor.challengeOrder(posted.proof(4711), posted.proof(4712));
        vm.snapshotGasLastCall("challengeOrder");
    }

    function test_gas_of_challenging_a_form() external {
        _payFirst();
        BigTree.Tree memory posted = BigTree.build(_leaves(2), DEPTH);
        BigTree.Node memory root = posted.root();
        bytes memory path = posted.path(1, 2355);
        BigTree.Node memory left = posted.levels[0][4710];
        BigTree.Node memory right = posted.levels[0][4711];
        // The node above two leaves says one more than they have.
        posted.levels[1][2355].sum += 1;
        for (uint256 level = 2; level <= DEPTH; ++level) {
            uint256 index = 4711 >> level;
            posted.levels[level][index] =
                BigTree.above(posted.levels[level - 1][2 * index], posted.levels[level - 1][2 * index + 1]);
        }
        root = posted.root();
        _post(1, posted);

        vm.prank(CHALLENGER);
        _distributor.challengeMalformed(
            bytes.concat(left.hash, bytes12(left.sum), right.hash, bytes12(right.sum)),
            left.sum + right.sum + 1,
            2355,
            path
        );
        vm.snapshotGasLastCall("challengeMalformed");
    }

    function test_gas_of_staking() external {
        HapticToken token = new HapticToken(address(this));
        StakeVault vault = new StakeVault(token, 1 days, address(this), address(this));
        address alice = address(0xA11CE);
        require(token.transfer(alice, 1000 ether));
        // As in a vault that has been used: somebody stakes, somebody has left.
        token.approve(address(vault), type(uint256).max);
        vault.stake(50 ether);
        vault.requestUnstake(1 ether);
        vm.warp(START + 2 days);
        vault.withdraw();
        vm.prank(alice);
        token.approve(address(vault), type(uint256).max);

        vm.prank(alice);
        vault.stake(100 ether);
        vm.snapshotGasLastCall("stake first");
        vm.warp(START + 3 days);
        vm.prank(alice);
        vault.stake(100 ether);
        vm.snapshotGasLastCall("stake more");
        vm.warp(START + 4 days);
        vm.prank(alice);
        vault.requestUnstake(100 ether);
        vm.snapshotGasLastCall("requestUnstake");
        vm.warp(START + 6 days);
        vm.prank(alice);
        vault.withdraw();
        vm.snapshotGasLastCall("withdraw");
    }

    function _payFirst() private returns (BigTree.Tree memory tree) {
        tree = BigTree.build(_leaves(1), DEPTH);
        _pay(0, tree);
        vm.warp(_distributor.epochEnd(1));
    }

    function _pay(uint64 epoch, BigTree.Tree memory tree) private {
        vm.warp(_distributor.epochEnd(epoch));
        _post(epoch, tree);
        vm.warp(_distributor.epochEnd(epoch) + WINDOW);
        _distributor.activate();
    }

    function _post(uint64 epoch, BigTree.Tree memory tree) private {
        vm.warp(_distributor.epochEnd(epoch));
        _distributor.post(
            IRevenueDistributor.Report({
                epoch: epoch,
                root: tree.root().hash,
                sum: tree.root().sum,
                depth: DEPTH,
                dataHash: keccak256("data"),
                ledgerRoot: keccak256("ledger"),
                rulesHash: keccak256("rules"),
                snapshotBlock: 19_999,
                snapshotHash: blockhash(19_999)
            })
        );
    }

    function _claim(BigTree.Tree memory tree, uint256 index) private {
        SumTree.Proof memory p = tree.proof(index);
        _distributor.claim(p.account, p.cumulative, p.index, p.path);
    }

    function _claimBlock(BigTree.Tree memory tree) private {
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](128);
        for (uint256 i = 0; i < 128; ++i) {
            leaves[i] = tree.leaves[128 * 37 + i];
        }
        _distributor.claimSubtree(leaves, 7, 37, tree.path(7, 37));
    }

    /// @dev Accounts spread over all addresses; amounts of dollars with 6 decimals, growing with the epoch.
    function _leaves(uint256 epoch) private pure returns (SumTree.Leaf[] memory leaves) {
        leaves = new SumTree.Leaf[](ACCOUNTS);
        uint256 step = type(uint160).max / ACCOUNTS;
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            uint256 noise = uint256(keccak256(abi.encode(i)));
            leaves[i] = SumTree.Leaf(
                address(uint160(i * step + noise % step)), uint96(epoch * (50e6 + noise % 100e6))
            );
        }
    }

    function _without(
        SumTree.Leaf[] memory leaves,
        uint256 index
    )
        private
        pure
        returns (SumTree.Leaf[] memory fewer)
    {
        fewer = new SumTree.Leaf[](leaves.length - 1);
        for (uint256 i = 0; i < fewer.length; ++i) {
            fewer[i] = leaves[i < index ? i : i + 1];
        }
    }
}
