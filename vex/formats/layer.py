"""What files a layer holds: a reader of tar archives, plain or compressed, that trusts nothing.

A layer is whatever its pusher made it: a bomb, an endless name, no archive at all. It is read as a stream, in constant
memory and within limits, each header, byte and record against the clock; what was listed before a limit or an error
stands. (OCI image specification 1.1, "Image Layer Filesystem Changeset".)
"""

from __future__ import annotations

import functools
import stat
import tarfile
import time
from collections.abc import Iterator
from typing import BinaryIO, Callable, NamedTuple

from vex.formats.tar_headers import Header, Incomplete, Meter, headers
from vex.formats.unpacking import Unreadable, unpack
from vex.progress import Work

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
# So many headers are read in a small part of a millisecond.
_HEADERS_AT_ONCE = 4
# Most files of a layer have one of a few modes.
_written = functools.lru_cache(maxsize=256)(stat.filemode)

FILE, DIRECTORY, LINK, SYMLINK = "file", "directory", "hard link", "symbolic link"
DEVICE, DELETED, OPAQUE = "device", "deleted", "opaque"
_KINDS = {
    tarfile.DIRTYPE: (DIRECTORY, stat.S_IFDIR),
    tarfile.SYMTYPE: (SYMLINK, stat.S_IFLNK),
    tarfile.LNKTYPE: (LINK, stat.S_IFREG),
    tarfile.CHRTYPE: (DEVICE, stat.S_IFCHR),
    tarfile.BLKTYPE: (DEVICE, stat.S_IFBLK),
    tarfile.FIFOTYPE: (DEVICE, stat.S_IFIFO),
}


class Limits(NamedTuple):
    """Where reading a layer ends: headers, of which a file may have several, unpacked bytes, seconds."""

    headers: int = 1_000_000
    unpacked: int = 16 * 1024**3
    seconds: float = 30.0


class Entry(NamedTuple):
    """A file of a layer; `mode` as `ls` writes it, `size` in bytes. Of a deleted or opaque one only the path counts."""

    kind: str
    path: str
    size: int
    mode: str
    owner: str
    target: str


class TooSlow(Incomplete):
    """The list ends because the time was up: another time it may end later."""


class _Meter(Meter):
    def __init__(self, limits: Limits, work: Work, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._work = work
        self._clock = clock
        self._deadline = clock() + limits.seconds
        self._headers = self._unpacked = 0

    def header(self) -> None:
        self._headers += 1
        if self._headers > self._limits.headers:
            raise Incomplete(f"the layer has more than {self._limits.headers:,} headers")
        if self._headers % _HEADERS_AT_ONCE == 0:
            self._work.step()
        self._check_time()

    def look(self) -> None:
        self._work.step()
        self._check_time()

    def _check_time(self) -> None:
        if self._clock() > self._deadline:
            raise TooSlow(f"reading the layer took more than {self._limits.seconds:g} seconds")

    def unpacked(self, count: int) -> None:
        """Note that a piece was unpacked; raises Incomplete."""
        self._work.resume()
        self._unpacked += count
        if self._unpacked > self._limits.unpacked:
            raise Incomplete(f"the layer unpacks to more than {self._limits.unpacked >> 20:,} MiB")
        self._check_time()


def list_files(
    file: BinaryIO, limits: Limits, work: Work, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Entry]:
    """List the files of a layer in their order in it; raises Incomplete at the end of what could be listed."""
    meter = _Meter(limits, work, clock)
    return filter(None, map(_entry, headers(_Stream(_pieces(file, meter)), meter)))


def _pieces(file: BinaryIO, meter: _Meter) -> Iterator[bytes]:
    try:
        for piece in unpack(file):
            meter.unpacked(len(piece))
            yield piece
    except Unreadable as error:
        raise Incomplete(str(error)) from error


class _Stream:
    """Reads a given number of bytes from pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = filter(None, pieces)
        self._piece = b""
        self._at = 0

    def read(self, count: int) -> bytes:
        """Return that many bytes, or fewer at the end."""
        end = self._at + count
        if end <= len(self._piece):
            start, self._at = self._at, end
            return self._piece[start:end]
        parts = []
        while count and (self._at < len(self._piece) or self._fill()):
            part = self._piece[self._at : self._at + count]
            self._at += len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def skip(self, count: int) -> int:
        """Skip that many bytes; returns how many are missing at the end."""
        if self._at + count <= len(self._piece):
            self._at += count
            return 0
        while count and (self._at < len(self._piece) or self._fill()):
            part = min(count, len(self._piece) - self._at)
            self._at += part
            count -= part
        return count

    def _fill(self) -> bool:
        self._piece, self._at = next(self._pieces, b""), 0
        return bool(self._piece)


def _entry(header: Header) -> Entry | None:
    directory, slash, name = header.name.rpartition("/")
    if name.startswith(_WHITEOUT):
        if name == _OPAQUE:
            return Entry(OPAQUE, directory or "/", 0, "", "", "")
        # The others with two dots are files that union file systems keep for themselves.
        if name.startswith(_WHITEOUT + _WHITEOUT):
            return None
        return Entry(DELETED, directory + slash + name[len(_WHITEOUT) :], 0, "", "", "")
    kind, file_type = _KINDS.get(header.type, (FILE, stat.S_IFREG))
    path = header.name + ("/" if kind == DIRECTORY else "")
    target = header.linkname if kind in (SYMLINK, LINK) else ""
    mode = file_type | (header.mode & 0o7777)
    return Entry(kind, path, header.size if kind == FILE else 0, _written(mode), f"{header.uid}:{header.gid}", target)
