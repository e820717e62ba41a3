// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {RevenueDistributor} from "../src/RevenueDistributor.sol";
import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorOperators} from "./RevenueDistributor.handler.t.sol";
import {BlockingDollar} from "./support/OddTokens.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";
import {Test} from "./support/Test.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Who is paid by a distributor, besides who runs it: claims of all five kinds, some of accounts that the token
/// blocks, and claims by roots that were rejected.
contract DistributorHandler is DistributorOperators {
    using ReferenceTree for ReferenceTree.Tree;

    /// @dev Where claims go that name a receiver.
    address public constant TO = address(0x70);

    uint256 public claimed;
    mapping(address account => uint256) public claimedOf;

    constructor() payable {}

    modifier whenActive() {
        if (_active.length > 0) _;
    }

    function setBlocked(uint256 seed, bool isBlocked) external {
        BlockingDollar(address(token)).setBlocked(accounts[seed % accounts.length], isBlocked);
    }

    function claim(uint256 seed) external whenActive {
        SumTree.Proof memory p = _tree().proof(seed % _active.length);
        _expect(p, p.account);
        distributor.claim(p.account, p.cumulative, p.index, p.path);
    }

    function claimTo(uint256 seed) external whenActive {
        SumTree.Proof memory p = _tree().proof(seed % _active.length);
        _expect(p, TO);
        vm.prank(p.account);
        distributor.claimTo(p.cumulative, p.index, p.path, TO);
    }

    function claimWithSig(uint256 seed) external whenActive {
        SumTree.Proof memory p = _tree().proof(seed % _active.length);
        uint256 deadline = vm.getBlockTimestamp();
        uint256 nonce = distributor.nonces(p.account);
        bytes32 said =
            keccak256(abi.encode(distributor.CLAIM_TYPEHASH(), p.account, TO, p.cumulative, nonce, deadline));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", distributor.DOMAIN_SEPARATOR(), said));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(_keys[p.account], digest);
        _expect(p, TO);
        distributor.claimWithSig(p, TO, deadline, abi.encodePacked(r, s, v));
    }

    /// @dev Everybody from a random one on, and one proof too much that is wrong.
    function claimMany(uint256 seed) external whenActive {
        ReferenceTree.Tree memory tree = _tree();
        uint256 first = seed % _active.length;
        SumTree.Proof[] memory proofs = new SumTree.Proof[](_active.length - first + 1);
        for (uint256 i = 0; i < proofs.length; ++i) {
            proofs[i] = tree.proof(i == 0 ? first : first + i - 1);
        }
        proofs[0].cumulative += 1;
        uint256 due = _expectBatch(first, _active.length);
        vm.assertEq(distributor.claimMany(proofs), due, "what many were paid");
    }

    function claimSubtree(uint256 seed) external whenActive {
        ReferenceTree.Tree memory tree = _tree();
        uint256 level = seed % tree.levels.length;
        uint256 index = _random(seed, 0) % ((_active.length - 1 >> level) + 1);
        SumTree.Leaf[] memory leaves = _block(tree, level, index);
        uint256 due = _expectBatch(index << level, (index << level) + leaves.length);
        uint256 paid = distributor.claimSubtree(leaves, level, index, tree.path(level, index));
        vm.assertEq(paid, due, "what the block was paid");
    }

    function claimByRejected(uint256 seed) external {
        if (_rejectedLeaves.length == 0) return;
        ReferenceTree.Tree memory tree = ReferenceTree.grow(_rejectedLeaves);
        bytes32 active = distributor.activeCommitment();
        if (tree.commitment() == active) return;
        uint256 index = seed % _rejectedLeaves.length;
        SumTree.Proof memory p = tree.proof(index);
        uint256 until = active == 0 ? 0 : distributor.pausedUntil();
        bytes memory paused = abi.encodeWithSelector(IRevenueDistributor.ClaimsPaused.selector, until);
        vm.expectRevert(until != 0 ? paused : _invalid(tree, index, active));
        distributor.claim(p.account, p.cumulative, p.index, p.path);
    }

    /// @dev At the end nobody has lost anything: everybody is paid all that the active root says, and the bond is free.
    function settle() external {
        if (_isPending()) _veto();
        if (bond > 0) {
            vm.prank(OWNER);
            distributor.withdrawBond(payable(OWNER), uint96(bond));
        }
        bond = 0;
        vm.warp(vm.getBlockTimestamp() + 7 days);
        for (uint256 i = 0; i < accounts.length; ++i) {
            BlockingDollar(address(token)).setBlocked(accounts[i], false);
        }
        if (_active.length > 0) {
            uint256 due = _expectBatch(0, _active.length);
            vm.assertEq(_claimMany(_tree()), due, "what was left");
        }
    }

    function deployed() external view returns (RevenueDistributor) {
        return distributor;
    }

    function cumulativeOf(address account) external view returns (uint256) {
        return _cumulativeOf(account);
    }

    function commitment() external view returns (bytes32) {
        return epochs == 0 ? bytes32(0) : _tree().commitment();
    }

    function _tree() private view returns (ReferenceTree.Tree memory) {
        return ReferenceTree.grow(_active);
    }

    /// @dev What the claim of one account has to come to: an error, or what is due.
    function _expect(SumTree.Proof memory p, address to) private {
        uint256 until = distributor.pausedUntil();
        uint256 paid = claimedOf[p.account];
        if (until != 0) {
            vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ClaimsPaused.selector, until));
        } else if (paid == p.cumulative) {
            bytes4 selector = IRevenueDistributor.NothingToClaim.selector;
            vm.expectRevert(abi.encodeWithSelector(selector, p.account, paid, paid));
        } else if (BlockingDollar(address(token)).blocked(to)) {
            vm.expectRevert(abi.encodeWithSelector(BlockingDollar.Blocked.selector, to));
        } else {
            _credit(p.account, p.cumulative);
        }
    }

    /// @dev What a batch has to come to: who is blocked is left out, and all others are paid.
    function _expectBatch(uint256 first, uint256 end) private returns (uint256 due) {
        uint256 until = distributor.pausedUntil();
        if (until != 0) {
            vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.ClaimsPaused.selector, until));
            return 0;
        }
        for (uint256 i = first; i < end; ++i) {
            if (BlockingDollar(address(token)).blocked(_active[i].account)) continue;
            due += _credit(_active[i].account, _active[i].cumulative);
        }
    }

    function _credit(address account, uint256 cumulative) private returns (uint256 due) {
        due = cumulative - claimedOf[account];
        claimedOf[account] = cumulative;
        claimed += due;
    }
}

/// @title What holds of a distributor after anything that anybody did.
contract RevenueDistributorInvariantTest is Test {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    DistributorHandler private _handler;
    RevenueDistributor private _distributor;
    IERC20 private _token;

    function setUp() external {
        vm.deal(address(this), 1e30);
        _handler = new DistributorHandler{value: 1e30}();
        _distributor = _handler.deployed();
        _token = _distributor.token();
    }

    /// @dev What leads somewhere is done more often.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[16] memory selectors = [
            _handler.post.selector,
            _handler.activate.selector,
            _handler.claim.selector,
            _handler.claimTo.selector,
            _handler.claimWithSig.selector,
            _handler.claimMany.selector,
            _handler.claimSubtree.selector,
            _handler.claimByRejected.selector,
            _handler.strike.selector,
            _handler.fund.selector,
            _handler.wait.selector,
            _handler.addBond.selector,
            _handler.withdrawBond.selector,
            _handler.setBlocked.selector,
            _handler.pause.selector,
            _handler.unpause.selector
        ];
        uint8[16] memory weights = [5, 5, 2, 2, 2, 2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 2];
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(_handler), new bytes4[](32));
        uint256 count = 0;
        for (uint256 i = 0; i < selectors.length; ++i) {
            for (uint256 j = 0; j < weights[i]; ++j) {
                targets[0].selectors[count++] = selectors[i];
            }
        }
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    function afterInvariant() external {
        _handler.settle();

        (, uint96 sum,) = _distributor.active();
        vm.assertEq(_distributor.claimedTotal(), sum, "everybody was paid everything");
        _checkBalance();
        _checkAccounts();
        vm.assertEq(address(_distributor).balance, 0, "the bond went back");
    }

    function invariant_the_balance_is_what_came_in_less_what_was_claimed_and_covers_what_is_owed()
        external
        view
    {
        _checkBalance();
    }

    function invariant_nobody_was_paid_more_than_the_newest_active_root_says() external view {
        _checkAccounts();
    }

    function invariant_only_right_roots_pay_each_in_its_turn() external view {
        (uint64 epochs,,) = _distributor.active();
        vm.assertEq(epochs, _handler.epochs(), "epochs");
        vm.assertEq(_distributor.activeCommitment(), _handler.commitment());
    }

    function invariant_the_bond_is_the_coin_that_lies_there() external view {
        vm.assertEq(_distributor.bond(), _handler.bond(), "the books");
        vm.assertEq(address(_distributor).balance, _handler.bond(), "the coin");
    }

    function _checkBalance() private view {
        (, uint96 sum,) = _distributor.active();
        uint256 balance = _token.balanceOf(address(_distributor));
        vm.assertEq(_distributor.funded(), _handler.funded(), "funded");
        vm.assertEq(_distributor.claimedTotal(), _handler.claimed(), "claimed");
        vm.assertEq(balance, _handler.funded() - _handler.claimed(), "balance");
        vm.assertTrue(balance >= sum - _handler.claimed(), "what is owed is not covered");
    }

    function _checkAccounts() private view {
        uint256 owed = 0;
        uint256 received = _token.balanceOf(_handler.TO());
        for (uint256 i = 0; i < 12; ++i) {
            address account = _handler.accounts(i);
            uint256 paid = _distributor.claimed(account);
            vm.assertEq(paid, _handler.claimedOf(account), "what the account was paid");
            vm.assertTrue(paid <= _handler.cumulativeOf(account), "more than it earned");
            owed += _handler.cumulativeOf(account);
            received += _token.balanceOf(account);
        }
        (, uint96 sum,) = _distributor.active();
        vm.assertEq(owed, sum, "the active total");
        vm.assertEq(received, _handler.claimed(), "what arrived");
    }
}
