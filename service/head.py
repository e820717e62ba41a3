"""The way to the head of a Ray cluster: Ray's own client, bounded in time and size, and its many errors as one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import httpx

from chain.errors import RpcError
from chain.exchange import DIRECT, MAX_ANSWER_BYTES, OversizeError, Watchdog
from service.errors import ClusterError, ConfigError

ANSWER_S = 30.0
"""What the head has for one answer as a whole, however steadily its bytes come."""

_MISSHAPEN = (TypeError, AttributeError, KeyError)
"""What Ray's client raises at JSON of another form than it expects. A plain LookupError is ours: nothing is there."""
_FAULTS = (OSError, RuntimeError, ValueError, httpx.HTTPError, RpcError, *_MISSHAPEN)


def client(address: str, token: str) -> Any:
    """Return Ray's client of its jobs, connected.

    Raises:
        ConfigError: Ray is not installed, or its own settings contradict.
        ClusterError: the head does not answer, or not to this token.
    """
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        if os.environ.get(name):
            raise ConfigError(
                f"{name} is set, and Ray would go by it instead of HAPTIC_RAY_ADDRESS: unset it"
            )
    made = _client_type()
    with asking():
        try:
            return made(address, headers={"Authorization": f"Bearer {token}"} if token else None)
        except LookupError as error:
            raise ClusterError(_away(error)) from error


def is_open(address: str) -> bool:
    """Tell whether the head takes jobs without a token; ClusterError where it does not answer."""
    with asking():
        return _ask("GET", f"{address}/api/jobs/").is_success


def printed(client: Any, name: str) -> str | None:
    """Return all that a job printed, or None where that cannot be had now, whatever the reason.

    It is no text, its node is gone, what stands before the head answers for it, or it is more than the head sends in
    ANSWER_S or MAX_ANSWER_BYTES. Ray sends a log from its beginning each time (or, over a socket that it holds open,
    from its beginning on), and nothing from an offset.
    """
    try:
        with asking():
            text = client.get_job_logs(name)
    except (ClusterError, LookupError):
        return None
    # JSON may hold halves of a character, which no file takes.
    return text.encode(errors="replace").decode() if isinstance(text, str) else None


@contextmanager
def asking() -> Iterator[None]:
    """Turn the many errors of Ray's client into one with the setting's name; LookupError is left as it is."""
    from ray.exceptions import AuthenticationError, RayError

    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            "HAPTIC_RAY_TOKEN: the Ray cluster refuses this token, or wants one; it is what its head was started with "
            "(RAY_AUTH_TOKEN, or the file RAY_AUTH_TOKEN_PATH)"
        ) from error
    except (*_FAULTS, RayError) as error:
        raise ClusterError(_away(error)) from error


def _away(error: BaseException) -> str:
    return (
        f"HAPTIC_RAY_ADDRESS: the head of the Ray cluster does not answer as it should ({type(error).__name__}); is it "
        "running, and is this its dashboard's URL?"
    )


def _ask(method: str, url: str, **options: Any) -> httpx.Response:
    """Return the head's answer, read to its end. Nobody is followed elsewhere: a proxy's login page is no head.

    Raises:
        httpx.HTTPError: there is none.
        RpcError: it is not all there within ANSWER_S, or more than MAX_ANSWER_BYTES.
    """
    watchdog, content = Watchdog(), bytearray()
    with (
        # Reading the certificates takes 40 ms, which plain HTTP can do without.
        httpx.Client(timeout=ANSWER_S, verify=url.startswith("https:"), mounts=DIRECT) as http,
        watchdog.within(ANSWER_S),
        http.stream(method, url, extensions={"trace": watchdog.remember}, **options) as answer,
    ):
        for part in answer.iter_bytes():
            content += part
            if len(content) > MAX_ANSWER_BYTES:
                raise OversizeError(f"more than {MAX_ANSWER_BYTES} bytes")
    return httpx.Response(answer.status_code, content=bytes(content), request=answer.request)


@lru_cache
def _client_type() -> Any:
    """Return Ray's client, which asks as `_ask` does, with LookupError for what is not there."""
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ConfigError(
            "HAPTIC_RAY_ADDRESS needs Ray, which is an extra: pip install -e '.[ray]' in the repository"
        ) from error

    class Client(JobSubmissionClient):  # type: ignore[misc]  # untyped where it is not installed
        def _do_request(
            self, method: str, endpoint: str, *, data: bytes | None = None, json_data: Any = None
        ) -> Any:
            answer = _ask(
                method, self._address + endpoint, headers=self._headers, content=data, json=json_data
            )
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise LookupError(endpoint)
            if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
                raise AuthenticationError(answer.text)
            return answer

    return Client
