"""What a node's JSON-RPC error means: that it is busy, that the batch was too large, or what any node would say.

Neither codes nor words are agreed on, so both are looked at; where nothing is known, another node is worth asking.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from chain.wire import Failure

_BUSY: Final = re.compile(
    r"rate.?limit|too many req|request.{0,20}(rate|limit).{0,20}(exceed|reach)|exceed\w* .{0,30}(per second|capacity)"
    r"|capacity exceeded|throttl|overloaded|try again later|temporarily unavailable|requests? per (second|minute)",
    re.IGNORECASE,
)
_BUSY_CODES: Final = frozenset({429, -32005, -32029, -32097})
"""-32005 is EIP-1474's "limit exceeded", which says as well that a range of logs has too many results."""
_RANGE: Final = re.compile(
    r"range|results|limited to|more than|response size|response (is )?too (large|big)|too many (blocks|logs)"
    r"|query (exceeds|timeout|timed out)|limit exceeded|exceeds? (the )?(max|limit)",
    re.IGNORECASE,
)
_ABSENT: Final = re.compile(
    r"not found|unknown block|missing trie node|out.?of.?range|beyond|pruned|state .{0,40}(not|un)\s?available"
    r"|historical state|not (yet )?available|not (currently )?canonical|after last accepted|in the future",
    re.IGNORECASE,
)
_SIZE: Final = re.compile(
    r"batch|response (size )?(is )?too (large|big)|request (entity )?too large", re.IGNORECASE
)
_UNABLE: Final = frozenset({-32601, -32603, -32001, -32002, -32004})
"""No such method, internal error, resource not found or unavailable, method not supported (EIP-1474)."""
_JUDGED: Final = frozenset({"eth_call", "eth_estimateGas", "eth_sendRawTransaction"})
"""Methods whose errors are about what was sent: any node would judge it alike."""


def _is_revert(error: Failure, method: str) -> bool:
    """Tell whether a contract refused, which is an answer like any other (geth and Anvil: code 3)."""
    return method in _JUDGED and (error.code == 3 or "revert" in error.message.lower())


def is_busy(error: Failure, method: str) -> bool:
    """Tell whether the same call will do after a pause."""
    if _is_revert(error, method):
        return False
    # Where the words do not tell, fewer logs at once cure either.
    ambiguous = method == "eth_getLogs" or _RANGE.search(error.message)
    return bool(_BUSY.search(error.message)) or (error.code in _BUSY_CODES and not ambiguous)


def is_too_large(error: Failure, method: str) -> bool:
    """Tell whether the call may do in a smaller batch."""
    return not _is_revert(error, method) and bool(_SIZE.search(error.message))


def is_local(error: Failure, method: str, params: Sequence[Any]) -> bool:
    """Tell whether this is the node's own trouble, such as a block that it has not, so that another may answer."""
    if _is_revert(error, method):
        return False
    if _ABSENT.search(error.message):
        return True
    if method == "eth_getLogs":
        # One block cannot be narrowed any further.
        return _is_narrow(params) or not (error.code == -32005 or _RANGE.search(error.message))
    return method not in _JUDGED or error.code in _UNABLE


def _is_narrow(params: Sequence[Any]) -> bool:
    wanted = params[0] if params and isinstance(params[0], dict) else {}
    return wanted.get("fromBlock") == wanted.get("toBlock")
