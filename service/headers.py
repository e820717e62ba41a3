"""The headers that every answer wears: what a browser must not do with it, who may read it, how long it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""The set that OWASP recommends for an API: its answers are data, and nothing in them is ever run or framed."""
HSTS: Final = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")
"""Said only where TLS carried the request: elsewhere it means nothing, and on a devnet it would lock a browser out."""
_PAGE: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
_POLICIES: Final = dict.fromkeys(("/", "/docs"), _PAGE + "style-src 'unsafe-inline'")
"""The only pages: each has a style of its own, and neither runs anything or asks another host."""
_BASE: Final = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
_WORN: Final = {
    path: [(k, policy.encode() if k == b"content-security-policy" else v) for k, v in _BASE]
    for path, policy in _POLICIES.items()
}
EXPOSED: Final = b"ETag, Link, Retry-After, RateLimit, RateLimit-Policy, Content-Disposition, Idempotency-Key"
_PREFLIGHT: Final = [
    (b"access-control-allow-methods", b"GET, HEAD, POST"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, Idempotency-Key, If-None-Match"),
    (b"access-control-max-age", b"600"),
    (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
]


def worn(path: str, *, private: bool, secure: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer; a route's own go before them."""
    kept = b"no-store" if private else b"no-cache"
    found = [*_WORN.get(path, _BASE), (b"cache-control", kept)]
    return [*found, HSTS] if secure else found


class Readers:
    """The web pages that may read answers (CORS), by their origins; tokens go by header, so no cookie is ever sent."""

    def __init__(self, origins: str) -> None:
        self._origins = frozenset(o.encode() for o in origins.replace(",", " ").split())

    def preflight(self, method: str, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]] | None:
        """Return the headers by which a browser may go on; None where this is no question of one, or not a reader's."""
        if method != "OPTIONS" or b"access-control-request-method" not in headers:
            return None
        allowed = self.allowed(headers)
        return [*allowed[:1], *_PREFLIGHT] if len(allowed) > 1 else None

    def allowed(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """Return the headers by which a page may read an answer; nothing where no page may."""
        if not self._origins:
            return []
        origin = headers.get(b"origin", b"")
        if origin in self._origins:
            return [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", EXPOSED),
                (b"vary", b"Origin"),
            ]
        if b"*" in self._origins and origin:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", EXPOSED)]
        return [(b"vary", b"Origin")]
