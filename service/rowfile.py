"""Rows as the bytes of a file, JSON lines or Parquet, made while they are read: a group of them in memory at a time."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import msgspec

from service.exports import COLUMNS, Kind, Row

if TYPE_CHECKING:
    import pyarrow as pa

Form: TypeAlias = Literal["jsonl", "parquet"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)
MEDIA: Final = {"jsonl": "application/jsonl", "parquet": "application/vnd.apache.parquet"}
GROUP: Final = 4096
"""Most rows of a Parquet row group."""
GROUP_BYTES: Final = 1 << 25
"""A group ends earlier where its texts are so long: whoever reads it has it in memory too."""


def parts(form: Form, kind: Kind, rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield the bytes of a file of these rows."""
    return jsonl(rows) if form == "jsonl" else parquet(kind, rows)


def jsonl(rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield a line per row; the same rows give the same bytes."""
    encode = msgspec.json.Encoder().encode
    for row in rows:
        yield encode(row) + b"\n"


def schema(kind: Kind) -> pa.Schema:
    """Return the Parquet schema of a kind: the same whatever the rows, so that files can be read together."""
    import pyarrow as pa

    types = {
        "string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_(),
        "list<string>": pa.list_(pa.string()), "list<int64>": pa.list_(pa.int64()),
    }  # fmt: skip
    return pa.schema([pa.field(name, types[named], nullable=False) for name, named in COLUMNS[kind].items()])


def parquet(kind: Kind, rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield a Parquet file row group by row group, its footer last."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink, columns = _Sink(), schema(kind)
    with pq.ParquetWriter(sink, columns, compression="zstd") as file:
        for group in _groups(iter(rows)):
            file.write_table(pa.Table.from_pylist(group, schema=columns), row_group_size=GROUP)
            yield sink.taken()
    yield sink.taken()


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yield rows in groups of at most GROUP, of not many more than GROUP_BYTES characters."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(v) for v in row.values() if isinstance(v, str))
        if len(group) == GROUP or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


class _Sink(io.RawIOBase):
    """A file that is written to and never kept: what was written is taken out in between."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def tell(self) -> int:
        return self._at

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        found = b"".join(self._parts)
        self._parts.clear()
        return found
