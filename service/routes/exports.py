"""Routes by which closed epochs are taken as training data: a file per epoch and kind, made while it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse

from service import exports, rowfile
from service.errors import NotFoundError
from service.exports import Kind
from service.guard import HEAD
from service.routes.depends import Ctx, EpochPath, Reading, closed_report
from service.rowfile import Form

router = APIRouter(tags=["exports"])
_PART: Final = 1 << 16
"""Lines are sent together up to so many bytes: each part that is sent costs a thread."""


@router.get(
    "/epochs/{epoch}/exports/{kind}.{form}",
    response_class=StreamingResponse,
    responses={
        200: {"content": {media: {"schema": {"type": "string"}} for media in rowfile.MEDIA.values()}},
        304: {"description": "The file is the one that the ETag in If-None-Match names."},
    },
)
def export(
    ctx: Ctx, db: Reading, epoch: EpochPath, kind: Kind, form: Form,
    request: Request,
    confidence: Annotated[float, Query(ge=0.5, le=1, description="leave out labels that are less sure")] = 0.5,
    if_none_match: Annotated[str, Header()] = "",
) -> Response:  # fmt: skip
    """A closed epoch's labels, or the rankings as they were signed; see the README for the columns.

    `datasets.load_dataset("parquet", data_files=URL)` reads it in one line. It follows from the epoch's bundle
    alone: `haptic export` makes the same rows from a bundle that you have checked.
    """
    report = closed_report(db, epoch, "what was ranked in it is published then")
    # Weak: rows are the same where the tag is, bytes are too with the same version of the Parquet library.
    headers = {
        "ETag": f'W/"{report.data_hash}"',
        "Content-Disposition": f'attachment; filename="epoch-{epoch}.{kind}.{form}"',
    }
    if report.data_hash in if_none_match:
        return Response(status_code=304, headers=headers)
    if HEAD in request.scope:
        return Response(headers=headers, media_type=rowfile.MEDIA[form])
    bundle = _open(ctx.place.bundle_path(epoch))
    sent = _joined(_closing(bundle, kind, form, confidence))
    # A plain iterator is read in a thread, so that others are served while a large bundle is read.
    return StreamingResponse(sent, media_type=rowfile.MEDIA[form], headers=headers)


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise NotFoundError(f"the bundle of this epoch is not here: {error.strerror}") from error


def _closing(bundle: IO[bytes], kind: Kind, form: Form, confidence: float) -> Iterator[bytes]:
    with bundle:
        yield from rowfile.parts(form, kind, exports.rows(kind, bundle, confidence))


def _joined(parts: Iterator[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for part in parts:
        held += part
        if len(held) >= _PART:
            yield bytes(held)
            held.clear()
    yield bytes(held)
