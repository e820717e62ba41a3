// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRevenueDistributor} from "../src/interfaces/IRevenueDistributor.sol";
import {SumTree} from "../src/libraries/SumTree.sol";
import {DistributorTest} from "./support/DistributorTest.sol";
import {ReferenceTree} from "./support/ReferenceTree.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title A wallet that is a contract: good is what its owner signed.
contract Wallet is IERC1271 {
    address private immutable _owner;

    constructor(address owner) {
        _owner = owner;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        (address signer,,) = ECDSA.tryRecover(hash, signature);
        return signer == _owner ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}

/// @title Payment to another address, by the account itself or by its signature.
contract RevenueDistributorRecipientTest is DistributorTest {
    using ReferenceTree for ReferenceTree.Tree;

    uint256 private constant KEY = 0xC0FFEE;
    address private constant TO = address(0x70);
    uint256 private constant DEADLINE = START + 30 days;

    address private _signer;
    Wallet private _wallet;

    function setUp() public override {
        super.setUp();
        _signer = vm.addr(KEY);
        _wallet = new Wallet(_signer);
        _pay(_tree(300e6, 200e6));
    }

    function test_an_account_is_paid_to_where_it_says() external {
        SumTree.Proof memory p = _proof(_signer);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Claimed(_signer, TO, p.cumulative, p.cumulative);
        vm.prank(_signer);
        distributor.claimTo(p.cumulative, p.index, p.path, TO);

        _checkPaid(_signer, TO);
    }

    function testFuzz_nobody_else_says_where(address caller) external {
        SumTree.Proof memory p = _proof(_signer);
        if (caller == _signer) return;
        ReferenceTree.Node memory leaf = ReferenceTree.leafNode(SumTree.Leaf(caller, p.cumulative));
        bytes32 proven = keccak256(ReferenceTree.pack(ReferenceTree.climb(leaf, p.index, p.path)));

        vm.expectRevert(
            abi.encodeWithSelector(
                IRevenueDistributor.InvalidProof.selector,
                caller,
                p.cumulative,
                proven,
                distributor.commitment()
            )
        );
        vm.prank(caller);
        distributor.claimTo(p.cumulative, p.index, p.path, TO);
    }

    function test_who_was_paid_elsewhere_is_not_paid_again() external {
        SumTree.Proof memory p = _proof(_signer);
        vm.prank(_signer);
        distributor.claimTo(p.cumulative, p.index, p.path, TO);

        vm.expectRevert(_nothing(p));
        vm.prank(_signer);
        distributor.claimTo(p.cumulative, p.index, p.path, TO);
        vm.expectRevert(_nothing(p));
        distributor.claim(p.account, p.cumulative, p.index, p.path);
    }

    function testFuzz_anyone_sends_what_the_account_signed(address caller, address to) external {
        if (to == address(0) || to == address(distributor) || token.balanceOf(to) != 0) return;
        SumTree.Proof memory p = _proof(_signer);
        bytes memory signature = _signed(_signer, to, 0, DEADLINE);

        vm.expectEmit(address(distributor));
        emit IRevenueDistributor.Claimed(_signer, to, p.cumulative, p.cumulative);
        vm.prank(caller);
        distributor.claimWithSig(p, to, DEADLINE, signature);

        _checkPaid(_signer, to);
        vm.assertEq(distributor.nonces(_signer), 1);
    }

    function test_a_wallet_that_is_a_contract_signs_by_its_own_rules() external {
        SumTree.Proof memory p = _proof(address(_wallet));

        distributor.claimWithSig(p, TO, DEADLINE, _signed(address(_wallet), TO, 0, DEADLINE));

        _checkPaid(address(_wallet), TO);
        vm.assertEq(distributor.nonces(address(_wallet)), 1);
    }

    function test_a_wallet_that_is_a_contract_refuses_what_its_owner_did_not_sign() external {
        _refused(address(_wallet), TO, DEADLINE, _signedBy(KEY + 1, address(_wallet), TO, 0, DEADLINE));
    }

    function test_a_signature_is_good_once() external {
        SumTree.Proof memory p = _proof(_signer);
        bytes memory signature = _signed(_signer, TO, 0, DEADLINE);
        distributor.claimWithSig(p, TO, DEADLINE, signature);
        _pay(_tree(400e6, 400e6));

        _refused(_signer, TO, DEADLINE, signature);

        distributor.claimWithSig(_proof(_signer), TO, DEADLINE, _signed(_signer, TO, 1, DEADLINE));
        _checkPaid(_signer, TO);
    }

    function test_a_claim_that_pays_nothing_spends_no_nonce() external {
        SumTree.Proof memory p = _proof(_signer);
        bytes memory signature = _signed(_signer, TO, 0, DEADLINE);
        distributor.claim(p.account, p.cumulative, p.index, p.path);

        vm.expectRevert(_nothing(p));
        distributor.claimWithSig(p, TO, DEADLINE, signature);

        vm.assertEq(distributor.nonces(_signer), 0);
    }

    function test_a_signature_that_a_claim_overtook_is_not_good_for_what_is_earned_later() external {
        SumTree.Proof memory p = _proof(_signer);
        bytes memory signature = _signed(_signer, TO, 0, type(uint256).max);
        distributor.claim(p.account, p.cumulative, p.index, p.path);
        _pay(_tree(400e6, 400e6));
        SumTree.Proof memory later = _proof(_signer);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.WrongSignature.selector, _signer));
        distributor.claimWithSig(later, TO, type(uint256).max, signature);
    }

    function test_a_signature_is_good_until_its_deadline_and_no_longer() external {
        SumTree.Proof memory p = _proof(_signer);
        bytes memory signature = _signed(_signer, TO, 0, DEADLINE);

        vm.warp(DEADLINE + 1);
        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.SignatureExpired.selector, DEADLINE));
        distributor.claimWithSig(p, TO, DEADLINE, signature);

        vm.warp(DEADLINE);
        distributor.claimWithSig(p, TO, DEADLINE, signature);
        _checkPaid(_signer, TO);
    }

    function test_the_distributor_is_no_receiver_however_it_is_named() external {
        SumTree.Proof memory p = _proof(_signer);
        bytes memory signature = _signed(_signer, address(distributor), 0, DEADLINE);
        bytes memory reason =
            abi.encodeWithSelector(IRevenueDistributor.BadReceiver.selector, address(distributor));

        vm.expectRevert(reason);
        vm.prank(_signer);
        distributor.claimTo(p.cumulative, p.index, p.path, address(distributor));
        vm.expectRevert(reason);
        distributor.claimWithSig(p, address(distributor), DEADLINE, signature);

        vm.assertEq(distributor.claimed(_signer), 0);
        vm.assertEq(distributor.nonces(_signer), 0);
        distributor.claim(p.account, p.cumulative, p.index, p.path);
        _checkPaid(_signer, _signer);
    }

    function testFuzz_another_receiver_than_was_signed_is_refused(address to) external {
        if (to == TO || to == address(distributor)) return;

        _refused(_signer, to, DEADLINE, _signed(_signer, TO, 0, DEADLINE));
    }

    function testFuzz_another_deadline_than_was_signed_is_refused(uint256 deadline) external {
        deadline = _within(deadline, START + WINDOW, type(uint256).max - 1);
        if (deadline == DEADLINE) return;

        _refused(_signer, TO, deadline, _signed(_signer, TO, 0, DEADLINE));
    }

    function testFuzz_another_nonce_than_the_next_is_refused(uint256 nonce) external {
        if (nonce == 0) return;

        _refused(_signer, TO, DEADLINE, _signed(_signer, TO, nonce, DEADLINE));
    }

    function testFuzz_who_signs_for_another_is_refused(uint256 key) external {
        key = _within(key, 1, 1e70);
        if (key == KEY) return;

        _refused(_signer, TO, DEADLINE, _signedBy(key, _signer, TO, 0, DEADLINE));
    }

    function testFuzz_noise_is_no_signature(bytes calldata noise) external {
        _refused(_signer, TO, DEADLINE, noise);
    }

    function test_a_signature_for_another_chain_is_refused() external {
        bytes memory signature = _signed(_signer, TO, 0, DEADLINE);
        bytes32 domain = distributor.DOMAIN_SEPARATOR();
        vm.chainId(1);
        vm.assertFalse(distributor.DOMAIN_SEPARATOR() == domain, "the domain knows its chain");

        _refused(_signer, TO, DEADLINE, signature);
    }

    function test_the_domain_is_haptics_on_this_chain_for_this_contract() external view {
        bytes32 domain =
            keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        vm.assertEq(
            distributor.DOMAIN_SEPARATOR(),
            keccak256(
                abi.encode(domain, keccak256("Haptic"), keccak256("1"), block.chainid, address(distributor))
            )
        );
    }

    function test_a_signature_does_not_stand_in_for_a_proof() external {
        SumTree.Proof memory p = _proof(_signer);
        p.cumulative += 1;
        ReferenceTree.Node memory leaf = ReferenceTree.leafNode(SumTree.Leaf(p.account, p.cumulative));
        bytes32 proven = keccak256(ReferenceTree.pack(ReferenceTree.climb(leaf, p.index, p.path)));
        bytes memory signature = _signedFor(KEY, p, TO, 0, DEADLINE);

        vm.expectRevert(
            abi.encodeWithSelector(
                IRevenueDistributor.InvalidProof.selector,
                p.account,
                p.cumulative,
                proven,
                distributor.commitment()
            )
        );
        distributor.claimWithSig(p, TO, DEADLINE, signature);
        vm.assertEq(distributor.nonces(_signer), 0);
    }

    function _refused(address account, address to, uint256 deadline, bytes memory signature) private {
        SumTree.Proof memory p = _proof(account);

        vm.expectRevert(abi.encodeWithSelector(IRevenueDistributor.WrongSignature.selector, account));
        distributor.claimWithSig(p, to, deadline, signature);
    }

    function _signed(
        address account,
        address to,
        uint256 nonce,
        uint256 deadline
    )
        private
        view
        returns (bytes memory)
    {
        return _signedBy(KEY, account, to, nonce, deadline);
    }

    function _signedBy(
        uint256 key,
        address account,
        address to,
        uint256 nonce,
        uint256 deadline
    )
        private
        view
        returns (bytes memory)
    {
        SumTree.Proof memory p = _proof(account);
        p.account = account;
        return _signedFor(key, p, to, nonce, deadline);
    }

    function _signedFor(
        uint256 key,
        SumTree.Proof memory p,
        address to,
        uint256 nonce,
        uint256 deadline
    )
        private
        view
        returns (bytes memory)
    {
        bytes32 claim =
            keccak256("Claim(address account,address to,uint96 cumulative,uint256 nonce,uint256 deadline)");
        bytes32 hash = keccak256(abi.encode(claim, p.account, to, p.cumulative, nonce, deadline));
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(key, keccak256(abi.encodePacked(hex"1901", distributor.DOMAIN_SEPARATOR(), hash)));
        return abi.encodePacked(r, s, v);
    }

    function _nothing(SumTree.Proof memory p) private pure returns (bytes memory) {
        return abi.encodeWithSelector(
            IRevenueDistributor.NothingToClaim.selector, p.account, p.cumulative, p.cumulative
        );
    }

    /// @dev By the tree that pays.
    function _proof(address account) private view returns (SumTree.Proof memory p) {
        (uint64 epochs,,) = distributor.active();
        ReferenceTree.Tree memory tree = epochs == 1 ? _tree(300e6, 200e6) : _tree(400e6, 400e6);
        p = tree.proof(0);
        if (p.account != account) p = tree.proof(1);
    }

    function _tree(uint96 signer, uint96 wallet) private view returns (ReferenceTree.Tree memory) {
        SumTree.Leaf[] memory leaves = new SumTree.Leaf[](2);
        uint256 first = _signer < address(_wallet) ? 0 : 1;
        leaves[first] = SumTree.Leaf(_signer, signer);
        leaves[1 - first] = SumTree.Leaf(address(_wallet), wallet);
        return ReferenceTree.grow(leaves);
    }

    function _checkPaid(address account, address to) private view {
        vm.assertEq(distributor.claimed(account), _proof(account).cumulative, "claimed");
        vm.assertEq(token.balanceOf(to), _proof(account).cumulative, "paid");
        if (account != to) vm.assertEq(token.balanceOf(account), 0, "the account itself got nothing");
    }
}
