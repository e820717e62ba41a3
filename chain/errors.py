"""The errors of Haptic.

HapticError
├── ChainError            what the chain or a node of it says
│   ├── RpcError          a node that is down, slow, or answers with an error
│   ├── ReorgError        a finalized block changed: nothing may go on
│   ├── MissingLogError   a node hides events, or invents some
│   │   └── StakeMismatchError  what the events add up to differs from the contracts' own storage
│   ├── BusyIndexError    another process indexes too: nothing is lost, the same may be done again
│   ├── RevertError       a contract refused a call
│   └── DeploymentError   the contracts at these addresses are not the ones expected
├── QuorumError           fewer nodes answer than have to agree
├── ScoreInputError       rows that no valid feedback can give
├── PayoutError           amounts that do not add up
├── BundleError           a bundle that is not in the canonical form
├── VerifyError           the first row that differs from what was recomputed
├── SignatureError        a signature that is malformed or not by the named signer
│   └── UnprovenError     no key of the wallet's gave it; the wallet's own code may accept it all the same
├── KeyFileError          a wallet file that cannot be read or opened
├── SignerError           a signer that is down, lacks the key, or signs something else than it was asked
└── ServiceError          (see service.errors)
"""

from __future__ import annotations


class HapticError(Exception):
    """Root of all errors that a user can do something about; the message says what."""


class ChainError(HapticError):
    """The chain, or a node of it, does not give what is needed."""


class RpcError(ChainError):
    """A node is down, slow, or answered with an error."""


class ReorgError(ChainError):
    """A finalized block changed; nothing that depends on it may go on."""

    source = ""
    """Name of the node that says so, where one alone does."""


class MissingLogError(ChainError):
    """A node hides events, or invents some: what it sends does not follow from what it sent before."""


class BusyIndexError(ChainError):
    """Another process, such as the running service, moved the index on meanwhile; the same may be done again."""


class RevertError(ChainError):
    """A contract refused a call; the message names the custom error and its arguments."""


class DeploymentError(ChainError):
    """The contracts at the given addresses are not the ones expected."""


class StakeMismatchError(MissingLogError):
    """What the events add up to, stake above all, differs from the contracts' own storage."""


class QuorumError(HapticError):
    """Fewer nodes are given, or answer, than have to agree before money moves."""


class ScoreInputError(HapticError):
    """Rows that no valid feedback can give."""


class PayoutError(HapticError):
    """Amounts that do not add up, or a tree that cannot be built."""


class BundleError(HapticError):
    """A bundle that is not in the canonical form of SPEC 7."""


class VersionError(BundleError):
    """A bundle of rules that this program does not know: it says nothing of whether the bundle is right."""


class VerifyError(HapticError):
    """The first row that differs from what was recomputed."""


class NodeError(VerifyError):
    """What a node says contradicts itself: it hides or invents events. That is no fault of the operator's."""


class SignatureError(HapticError):
    """A signature that is malformed, or not by the signer it names."""


class UnprovenError(SignatureError):
    """No key that may sign for the wallet gave this signature; a contract at its address may still accept it."""


class KeyFileError(HapticError):
    """A wallet file that cannot be read or opened."""


class SignerError(HapticError):
    """A signer is down, has no key of the account, or signed something else than it was asked."""
