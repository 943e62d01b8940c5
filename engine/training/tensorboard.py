"""Curves as TensorBoard reads them: records with checksums, each an event with named numbers.

The format is TensorFlow's: length, its sum, the event, its sum; the event is a protocol buffer of four fields.
"""

import errno
import os
import struct
from collections.abc import Mapping
from pathlib import Path


class EventFile:
    """A file of events; it begins anew where there was one."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
        self._append(_record(_bytes(3, b"brain.Event:2")))

    def add(self, seconds: float, step: int, values: Mapping[str, float]) -> None:
        """The numbers of a step, told at a time in seconds since 1970."""
        summary = b"".join(_bytes(1, _bytes(1, name.encode()) + _float(2, value)) for name, value in values.items())
        self._append(_record(_double(1, seconds) + _whole(2, step) + _bytes(5, summary)))

    def _append(self, record: bytes) -> None:
        with self.file.open("ab", buffering=0) as handle:
            size = os.fstat(handle.fileno()).st_size
            try:
                if handle.write(record) < len(record):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))
            except OSError:
                handle.truncate(size)  # half a record would hide all that come after it
                raise


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + _sum(length) + event + _sum(event)


def _sum(data: bytes) -> bytes:
    """CRC-32C, turned by 15 bits and raised by a constant so that the sum of something with a sum in it is no accident."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE = [_row(byte) for byte in range(256)]


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def _whole(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _double(field: int, number: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", number)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _float(field: int, number: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", number)
