"""A run's metrics as an event file that TensorBoard reads, written without it: the format is a few fields.

TensorFlow's record framing (tsl/lib/io/record_writer.h) around Event messages (tensorflow/core/util/event.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainer.limits import writing

_POLYNOMIAL = 0x82F63B78
"""CRC-32C, reflected (RFC 3720, appendix B.4)."""


def events(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """Return progress lines as a file of events: each metric of a line is a scalar `stage/name` at the line's step.

    A stage that begins anew, as each reward model of several does, gets a number: `reward.2/loss`.
    """
    found = bytearray(_record(_double(1, 0.0) + _bytes(3, b"brain.Event:2")))
    round_of: dict[str, int] = {}
    last: dict[str, int] = {}
    for line in lines:
        stage, step = str(line["stage"]), int(line["step"])
        round_of[stage] = round_of.get(stage, 1) + (step <= last.get(stage, 0))
        last[stage] = step
        tag = stage if round_of[stage] == 1 else f"{stage}.{round_of[stage]}"
        values = b"".join(
            _bytes(1, _bytes(1, f"{tag}/{name}".encode()) + _float(2, float(value)))
            for name, value in line["metrics"].items()
            if value is not None
        )
        found += _record(_double(1, float(line["at"])) + _integer(2, step) + _bytes(5, values))
    return bytes(found)


def write(lines: Iterable[Mapping[str, Any]], name: str, out: Path) -> Path:
    """Leave the event file of an entry in a folder of its own below `out`, as TensorBoard tells runs apart by folder.

    Raises:
        DiskError: there is no room.
    """
    data, file = events(lines), out / name / "events.out.tfevents.0.haptic"
    with writing(file, len(data)):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(file)
    return file


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _entry(number: int) -> int:
    for _ in range(8):
        number = (number >> 1) ^ (_POLYNOMIAL if number & 1 else 0)
    return number


_TABLE = tuple(map(_entry, range(256)))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    """Return the checksum as it stands in a file: rotated, and a constant added, so that one over it is not itself."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


# Fields of protocol buffers: number and wire type in one varint, then the value.


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)
