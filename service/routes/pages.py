"""Lists page by page: `limit`, an opaque `cursor`, and the way to the next page as a Link header (RFC 8288).

A cursor says after which row the page begins, not how many came before it: what is added meanwhile moves nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response

from chain.types import MAX_EPOCH
from service.errors import BadRequestError

MOST: Final = 500
"""Rows of a page, at most."""
NEXT: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "headers": {
            "Link": {
                "description": 'Where the next page is, as <?…>; rel="next"; absent on the last page',
                "schema": {"type": "string"},
            }
        }
    }
}
"""What the OpenAPI document says of a list's answer."""
T = TypeVar("T")


class Page:
    """The page that a request asks for."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=MOST, description="rows at once")] = 100,
        cursor: Annotated[
            str | None, Query(max_length=64, description="from the Link of the page before")
        ] = None,
    ) -> None:
        self._request, self._response = request, response
        self._limit, self._cursor = limit, cursor

    @property
    def wanted(self) -> int:
        """Return how many rows to read: one more than are shown says whether there is another page."""
        return self._limit + 1

    def after(self, width: int) -> tuple[int, ...] | None:
        """Return the key, of `width` numbers, of the last row of the page before; None on the first page."""
        if self._cursor is None:
            return None
        try:
            raw = base64.b64decode(self._cursor.encode(), b"-_", validate=True).decode()
            found = tuple(map(int, raw.split(".")))
        except (binascii.Error, ValueError):
            found = ()
        # What is written in two ways would be two addresses of one page.
        if len(found) != width or not all(0 <= n <= MAX_EPOCH for n in found) or _text(found) != self._cursor:
            raise BadRequestError(
                f"cursor {self._cursor!r} is none of this list: take it from the Link of a page, or leave it out"
            )
        return found

    def cut(self, rows: Sequence[T], key: Callable[[T], tuple[int, ...]]) -> Sequence[T]:
        """Return the page's rows of those that were read, and say in the answer where the next page is."""
        shown = rows[: self._limit]
        if len(rows) > len(shown):
            query = [(k, v) for k, v in self._request.query_params.multi_items() if k != "cursor"]
            # Relative to what was asked, whatever a proxy calls that.
            following = urlencode([*query, ("cursor", _text(key(shown[-1])))])
            self._response.headers["Link"] = f'<?{following}>; rel="next"'
        return shown


Paged = Annotated[Page, Depends()]


def _text(key: tuple[int, ...]) -> str:
    return base64.urlsafe_b64encode(".".join(map(str, key)).encode()).decode()
