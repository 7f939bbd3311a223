"""The files of an image, by name, in a directory or in a tar archive that may be compressed.

A file of a compressed archive is found by unpacking what comes before it, since nothing is written anywhere.
Invariants: names in an archive are only ever compared; a file is read in pieces of bounded size; memory does not depend
on what an archive holds.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import os
import posixpath
import stat
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Callable, Protocol, cast

from vex.errors import Failure, Refused
from vex.formats.compression import BZIP2, GZIP, HEAD_BYTES, XZ, ZSTD, compression_of
from vex.formats.tar_headers import Header, Incomplete, headers
from vex.formats.unpacking import Unreadable
from vex.storage.folders import Folder, Unsafe, parse_path

_MAX_ENTRIES = 100_000
# Names are what is kept of an archive.
_MAX_FILES = 40_000
_MAX_NAME_BYTES = 4 * 1024 * 1024
_MAX_LINKS = 8
# More than any file of an image has, and not too much for an offset.
_MAX_SKIPPED = 1 << 43
_PIECE_BYTES = 256 * 1024
# What `xz -7` needs; -8 and -9, and zstd with windows beyond 16 MiB, need more than all the rest of an import.
_UNPACKING_BYTES = 24 * 1024 * 1024
_ZSTD_WINDOW_LOG = 24
_CONTENT_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class Missing(Refused):
    """A file is not there."""


class Files(Protocol):
    """Files by name; the names come from outside."""

    def size(self, name: str) -> int:
        """Return the size in bytes of a file, or -1 when there is none; raises Unsafe."""

    def open(self, name: str) -> BinaryIO:
        """Open a file that is there, at its first byte; raises Unsafe."""


class DirectoryFiles:
    """The files of a directory."""

    def __init__(self, directory: Path) -> None:
        """Open the directory; raises OSError."""
        self._folder = Folder.open(directory)

    def size(self, name: str) -> int:
        """Return the size in bytes of a file, or -1 when there is none; raises Unsafe."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self.open(name) as file:
            return os.fstat(file.fileno()).st_size
        return -1

    def open(self, name: str) -> BinaryIO:
        """Open a file that is there, at its first byte; raises Unsafe."""
        return open(self._folder.find(name), "rb", buffering=0)


class ArchiveFiles:
    """The files of a tar archive."""

    def __init__(self, path: Path) -> None:
        """Read all headers of the archive; raises Failure."""
        self._path = path
        self._contents: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._name_bytes = 0
        try:
            # Before it is opened: a FIFO would be waited for.
            if not stat.S_ISREG(path.stat().st_mode):
                raise Failure(f"{path} is neither a directory nor a file")
            with self._open_archive() as file:
                for count, header in enumerate(headers(_Seekable(file))):
                    if count == _MAX_ENTRIES:
                        raise Incomplete(f"it has more than the {_MAX_ENTRIES:,} entries that are read")
                    self._add(header, file.tell())
        except Incomplete as error:
            raise Failure(f"cannot read {path}: it is damaged, or no tar archive of images ({error.reason})") from error
        except (Unreadable, *READ_ERRORS) as error:
            raise Failure(f"cannot read {path}: {reason(error)}") from error

    def _add(self, header: Header, position: int) -> None:
        if header.type not in _CONTENT_TYPES and not header.issym() and not header.islnk():
            return
        with contextlib.suppress(Unsafe):
            name = "/".join(parse_path(header.name))
            self._contents.pop(name, None)
            self._links.pop(name, None)
            self._name_bytes += len(name) + len(header.linkname)
            if len(self._contents) + len(self._links) >= _MAX_FILES or self._name_bytes > _MAX_NAME_BYTES:
                raise Incomplete("it has more files, or longer names, than archives of images have")
            if header.type in _CONTENT_TYPES:
                self._contents[name] = position, header.size
            else:
                base = posixpath.dirname(name) if header.issym() else ""
                self._links[name] = posixpath.normpath(posixpath.join(base, header.linkname))

    def size(self, name: str) -> int:
        """Return the size in bytes of a file, or -1 when there is none; raises Unsafe."""
        return self._find(name)[1]

    def open(self, name: str) -> BinaryIO:
        """Open a file that is there, at its first byte; raises Unsafe."""
        file = self._open_archive()
        try:
            file.seek(self._find(name)[0])
        except BaseException:
            file.close()
            raise
        return file

    def _find(self, name: str) -> tuple[int, int]:
        name = "/".join(parse_path(name))
        for _ in range(_MAX_LINKS):
            if name in self._links:
                name = "/".join(parse_path(self._links[name]))
        return self._contents.get(name, (0, -1))

    def _open_archive(self) -> BinaryIO:
        """Open the archive, unpacked; raises Unreadable where that cannot be read here."""
        with open(self._path, "rb") as file:
            compression = compression_of(file.read(HEAD_BYTES))
        if compression == GZIP:
            return cast(BinaryIO, gzip.open(self._path))
        if not compression:
            return open(self._path, "rb")
        new, error = _decompressor(compression)
        return cast(BinaryIO, io.BufferedReader(_Unpacked(io.FileIO(self._path), new, error), _PIECE_BYTES))


class _Seekable:
    """An archive that skips without reading, where that is possible."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        return self._file.read(count)

    def skip(self, count: int) -> int:
        if count == 0:
            return 0
        if count > _MAX_SKIPPED:
            return count
        self._file.seek(count - 1, os.SEEK_CUR)
        return 0 if self._file.read(1) else 1


# Compression


class _Unpacked(io.RawIOBase):
    """What streams of a kind that stand one behind the other unpack to; goes forward only."""

    def __init__(self, file: io.FileIO, new: Callable[[], Any], error: type[Exception]) -> None:
        self._file = file
        self._new = new
        self._error = error
        self._stream = new()
        self._rest = b""
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        target = offset + (self._position if whence == os.SEEK_CUR else 0)
        while self._position < target and self.read(min(_PIECE_BYTES, target - self._position)):
            pass
        return self._position

    def readinto(self, buffer: Any) -> int:
        piece = b""
        while not piece:
            if self._stream.eof:
                # Zeros fill up streams of xz.
                self._rest = self._stream.unused_data.lstrip(b"\0") or self._file.read(_PIECE_BYTES).lstrip(b"\0")
                if not self._rest:
                    return 0
                self._stream = self._new()
            elif self._stream.needs_input and not self._rest:
                self._rest = self._file.read(_PIECE_BYTES)
                if not self._rest:
                    raise EOFError
            piece, self._rest = self._unpack(len(buffer)), b""
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _unpack(self, count: int) -> bytes:
        try:
            return bytes(self._stream.decompress(self._rest, count))
        except self._error as error:
            raise Unreadable(
                f"its compression is damaged, or needs more than {_UNPACKING_BYTES >> 20} MiB of memory; unpack it"
                " first"
            ) from error

    def close(self) -> None:
        self._file.close()
        super().close()


def _decompressor(compression: str) -> tuple[Callable[[], Any], type[Exception]]:
    """Find what unpacks a kind of compression, and what it raises; raises Unreadable where this Python has nothing."""
    try:
        if compression == XZ:
            lzma: Any = importlib.import_module("lzma")
            return lambda: lzma.LZMADecompressor(memlimit=_UNPACKING_BYTES), lzma.LZMAError
        if compression == BZIP2:
            bz2: Any = importlib.import_module("bz2")
            return bz2.BZ2Decompressor, OSError
        zstd: Any = importlib.import_module("compression.zstd")
        options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        return lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError
    except ImportError:
        newer = "; Python 3.14 and newer can" if compression == ZSTD else ""
        raise Unreadable(
            f"it is compressed with {compression}, which this Python cannot read{newer}; unpack it first, with"
            f" {compression} -d"
        ) from None


READ_ERRORS = (OSError, EOFError, zlib.error)


def reason(error: Exception) -> str:
    """Say in words what went wrong where a file was read."""
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, EOFError):
        return "it ends early"
    # gzip raises an OSError without a number for what is damaged.
    return getattr(error, "strerror", None) or "its compression is damaged"


def pieces_of_file(file: BinaryIO, count: int) -> Iterator[bytes]:
    """Read so many bytes, in pieces; raises Refused."""
    while count:
        try:
            piece = file.read(min(_PIECE_BYTES, count))
        except (Unreadable, *READ_ERRORS) as error:
            raise Refused(0, f"its file cannot be read: {reason(error)}") from error
        if not piece:
            raise Refused(0, "its file ends early")
        count -= len(piece)
        yield piece
