"""Files that lie in a tar archive as they are: named by where their bytes begin, and read without unpacking.

Such a file has the path ARCHIVE.tar/@OFFSET+SIZE/NAME. No real file can bear it, as an archive is no folder.
"""

import io
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_RANGE = re.compile(r"@(\d{1,15})\+(\d{1,15})")


@dataclass(frozen=True)
class Member:
    """A stretch of an archive's bytes."""

    archive: Path
    offset: int
    size: int

    def path(self, name: str) -> Path:
        """What it is called outside of this module; only the last part of its own name is kept."""
        return self.archive / f"@{self.offset}+{self.size}" / name.rsplit("/", 1)[-1]

    def open(self) -> "Window":
        """Its bytes."""
        return Window(self)


def member_of(path: Path | str) -> Member | None:
    """The stretch of an archive that a path names; None for the path of a file of its own."""
    if ".tar/@" not in str(path):  # nearly always, and asked for each of many files
        return None
    archive, here = os.path.split(os.path.dirname(path))
    found = _RANGE.fullmatch(here)
    if found is None or not archive.endswith(".tar"):
        return None
    return Member(Path(archive), int(found[1]), int(found[2]))


class Window(io.RawIOBase):
    """The bytes of a member, from 0 on. A seek to nowhere stays where it is, for decoders that follow a damaged header."""

    def __init__(self, member: Member) -> None:
        if not stat.S_ISREG(os.stat(member.archive).st_mode):  # asked before it is opened: opening a device can act on it
            raise OSError("its archive is not a regular file")
        self._file = io.FileIO(member.archive)
        there = os.fstat(self._file.fileno()).st_size
        self.size = max(0, min(member.size, there - member.offset))
        self._offset, self._at = member.offset, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._offset + self._at)
        read: int = self._file.readinto(memoryview(buffer)[: max(0, self.size - self._at)]) or 0
        self._at += read
        return read

    def seek(self, offset: int, whence: int = 0) -> int:
        to = (0, self._at, self.size)[whence] + offset
        if to >= 0:
            self._at = to
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
