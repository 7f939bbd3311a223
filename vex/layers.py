"""What files a layer holds: a reader of tar archives, plain or compressed, that trusts nothing.

A layer is whatever its pusher made it: a bomb, an endless name, no archive at all. It is read as a stream, in constant memory and
within limits; what was listed before a limit or an error stands. Headers are read by `tarfile`, one block at a time: its own
reader keeps names and extended headers of any size in memory, and recurses into chains of them.
(OCI image specification 1.1, "Image Layer Filesystem Changeset"; POSIX pax.)
"""

from __future__ import annotations

import importlib
import stat
import tarfile
import time
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Callable, NamedTuple, Protocol

from vex.errors import VexError

_BLOCK = 512
_READ_BYTES = 64 * 1024
# The ratio of a few KiB says nothing: an empty archive is mostly zeros.
_RATIO_FROM_BYTES = 1024 * 1024
# More than any path, and more than extended attributes usually have.
_MAX_EXTENDED_HEADER = 256 * 1024
# zstd needs as much memory as a window; encoders use up to 8 MiB unless told otherwise.
_ZSTD_WINDOW_LOG = 23
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_PAX_NUMBERS = ("size", "uid", "gid")

FILE, DIRECTORY, LINK, SYMLINK, DEVICE, DELETED, OPAQUE = "file", "directory", "hard link", "symbolic link", "device", "deleted", "opaque"
_KINDS = {
    tarfile.DIRTYPE: (DIRECTORY, stat.S_IFDIR),
    tarfile.SYMTYPE: (SYMLINK, stat.S_IFLNK),
    tarfile.LNKTYPE: (LINK, stat.S_IFREG),
    tarfile.CHRTYPE: (DEVICE, stat.S_IFCHR),
    tarfile.BLKTYPE: (DEVICE, stat.S_IFBLK),
    tarfile.FIFOTYPE: (DEVICE, stat.S_IFIFO),
}


class Limits(NamedTuple):
    """Where reading a layer ends: entries, unpacked bytes, unpacked bytes for each packed one, seconds of work."""

    entries: int = 100_000
    unpacked: int = 1024**3
    ratio: int = 200
    seconds: float = 10.0


class Entry(NamedTuple):
    """A file of a layer; `mode` as `ls` writes it, `size` in bytes. Of a deleted or opaque one only the path counts."""

    kind: str
    path: str
    size: int
    mode: str
    owner: str
    target: str


class Incomplete(VexError):
    """The list ends before the layer does; the text says why, in a sentence."""


def list_files(file: BinaryIO, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Entry]:
    """List the files of a layer in their order in it; raises Incomplete at the end of what could be listed."""
    archive = _Stream(_unpack(file, limits, clock))
    for count, entry in enumerate(filter(None, map(_entry, headers(archive))), 1):
        if count > limits.entries:
            raise Incomplete(f"This list is cut: the layer has more than {limits.entries:,} entries.")
        yield entry


# Decompression


def _unpack(file: BinaryIO, limits: Limits, clock: Callable[[], float]) -> Iterator[bytes]:
    """Give the bytes of the archive in pieces of bounded size, and watch the limits."""
    head = file.read(_READ_BYTES)
    pieces = _unpacker(head)(file, head)
    spent = 0.0
    unpacked = 0
    while True:
        started = clock()
        try:
            piece = next(pieces, None)
        except (zlib.error, EOFError, ValueError) as error:
            raise Incomplete("This list is cut: the layer is damaged, its compression is broken here.") from error
        spent += clock() - started
        if piece is None:
            return
        unpacked += len(piece[0])
        if unpacked > limits.unpacked:
            raise Incomplete(f"This list is cut: the layer unpacks to more than {limits.unpacked >> 20:,} MiB.")
        if unpacked > max(limits.ratio * piece[1], _RATIO_FROM_BYTES):
            raise Incomplete(f"This list is cut: the layer unpacks to more than {limits.ratio} times its size.")
        if spent > limits.seconds:
            raise Incomplete(f"This list is cut: reading the layer took more than {limits.seconds:g} seconds.")
        yield piece[0]


# A piece of the archive, and how many bytes of the layer were read for all pieces so far.
_Piece = tuple[bytes, int]


def _unpacker(head: bytes) -> Callable[[BinaryIO, bytes], Iterator[_Piece]]:
    if head.startswith(_GZIP_MAGIC):
        return _gunzip
    if head.startswith(_ZSTD_MAGIC):
        return _unzstd
    return _plain


def _plain(file: BinaryIO, data: bytes) -> Iterator[_Piece]:
    read = 0
    while data:
        read += len(data)
        yield data, read
        data = file.read(_READ_BYTES)


def _gunzip(file: BinaryIO, data: bytes) -> Iterator[_Piece]:
    """Decompress gzip members, one behind the other, as parallel compressors and lazy-loading formats write them."""
    read = len(data)
    while data.startswith(_GZIP_MAGIC):
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not member.eof:
            piece = member.decompress(data, _READ_BYTES)
            data = member.unconsumed_tail
            # Also when it is empty: what unpacks to nothing takes time too.
            yield piece, read
            if not piece and not data and not member.eof:
                data = file.read(_READ_BYTES)
                read += len(data)
                if not data:
                    raise EOFError
        data = member.unused_data or file.read(_READ_BYTES)
        if len(data) < len(_GZIP_MAGIC):
            data += file.read(_READ_BYTES)


def _unzstd(file: BinaryIO, data: bytes) -> Iterator[_Piece]:
    """Decompress zstd frames, one behind the other, where the running Python can."""
    try:
        zstd: Any = importlib.import_module("compression.zstd")
    except ImportError:
        raise Incomplete("This layer is compressed with zstd, which the Python that runs this registry cannot read; Python 3.14 and newer can.") from None
    read = len(data)
    while data.startswith(_ZSTD_MAGIC):
        frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
        while not frame.eof:
            try:
                piece = frame.decompress(data, _READ_BYTES)
            except zstd.ZstdError as error:
                raise EOFError from error
            data = b""
            yield piece, read
            if frame.needs_input and not frame.eof:
                data = file.read(_READ_BYTES)
                read += len(data)
                if not data:
                    raise EOFError
        data = frame.unused_data or file.read(_READ_BYTES)
        if len(data) < len(_ZSTD_MAGIC):
            data += file.read(_READ_BYTES)


class Archive(Protocol):
    """What an archive is read from."""

    def read(self, count: int) -> bytes:
        """Return that many bytes, or fewer at the end."""

    def skip(self, count: int) -> int:
        """Skip that many bytes; returns how many are missing at the end."""


class _Stream:
    """Reads a given number of bytes from pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, count: int) -> bytes:
        """Return that many bytes, or fewer at the end."""
        parts = []
        while count and (self._left or self._fill()):
            part = self._left[:count]
            self._left = self._left[count:]
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> int:
        """Skip that many bytes; returns how many are missing at the end."""
        while count and (self._left or self._fill()):
            part = min(count, len(self._left))
            self._left = self._left[part:]
            count -= part
        return count

    def _fill(self) -> bool:
        self._left = next(filter(None, self._pieces), b"")
        return bool(self._left)


# The archive


def headers(archive: Archive) -> Iterator[tarfile.TarInfo]:
    """Read the headers of an archive, each while its content comes next; raises Incomplete."""
    extended: dict[str, str] = {}
    while True:
        block = archive.read(_BLOCK)
        # Two blocks of zeros end an archive; some writers leave them out, and what follows the first is of no use.
        if not block or not block.strip(b"\0"):
            return
        header = _header(block)
        if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            extended.update(_extended_header(archive, header))
            continue
        if header.type == tarfile.XGLTYPE:
            _skip(archive, header.size)
            continue
        _apply(header, extended)
        extended = {}
        if header.type == tarfile.GNUTYPE_SPARSE:
            _skip_sparse_map(archive, block)
        yield header
        if header.isreg() or header.type not in tarfile.SUPPORTED_TYPES:
            _skip(archive, header.size)


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except (tarfile.HeaderError, ValueError) as error:
        raise Incomplete("This list ends here: what follows is not a tar archive.") from error
    if header.size < 0:
        raise Incomplete("This list ends here: a file has a size below zero.")
    return header


def _extended_header(archive: Archive, header: tarfile.TarInfo) -> dict[str, str]:
    if header.size > _MAX_EXTENDED_HEADER:
        raise Incomplete("This list is cut: a file has a name, or attributes, of extraordinary length.")
    content = archive.read(header.size)
    _skip_padding(archive, header.size)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": _decode(content.rstrip(b"\0"))}
    if header.type == tarfile.GNUTYPE_LONGLINK:
        return {"linkpath": _decode(content.rstrip(b"\0"))}
    return dict(_pax_records(content))


def _pax_records(content: bytes) -> Iterator[tuple[str, str]]:
    """Read records of the form `LENGTH NAME=VALUE` and a line feed; what is none ends them."""
    while content:
        digits, _, _ = content[:20].partition(b" ")
        if not digits.isdigit() or not len(digits) < int(digits) <= len(content):
            return
        name, _, value = content[len(digits) + 1 : int(digits) - 1].partition(b"=")
        yield _decode(name), _decode(value)
        content = content[int(digits) :]


def _apply(header: tarfile.TarInfo, extended: dict[str, str]) -> None:
    header.name = extended.get("path", header.name).rstrip("/")
    header.linkname = extended.get("linkpath", header.linkname)
    for name in _PAX_NUMBERS:
        text = extended.get(name, "")
        if text.isdecimal() and text.isascii() and len(text) < 20:
            setattr(header, name, int(text))


def _entry(header: tarfile.TarInfo) -> Entry | None:
    directory, slash, name = header.name.rpartition("/")
    if name == _OPAQUE:
        return Entry(OPAQUE, directory or "/", 0, "", "", "")
    if name.startswith(_WHITEOUT + _WHITEOUT):
        # Files that union file systems keep for themselves.
        return None
    if name.startswith(_WHITEOUT):
        return Entry(DELETED, directory + slash + name[len(_WHITEOUT) :], 0, "", "", "")
    kind, file_type = _KINDS.get(header.type, (FILE, stat.S_IFREG))
    path = header.name + ("/" if kind == DIRECTORY else "")
    target = header.linkname if kind in (SYMLINK, LINK) else ""
    mode = stat.filemode(file_type | (header.mode & 0o7777))
    return Entry(kind, path, header.size if kind == FILE else 0, mode, f"{header.uid}:{header.gid}", target)


def _skip_sparse_map(archive: Archive, block: bytes) -> None:
    """Skip the blocks in which GNU tar goes on with the map of a sparse file; a byte in each says whether another follows."""
    more = block[482:483]
    while more.strip(b"\0"):
        more = archive.read(_BLOCK)[504:505]


def _skip(archive: Archive, size: int) -> None:
    if archive.skip(size):
        raise Incomplete("This list ends here: the layer ends in the middle of a file.")
    _skip_padding(archive, size)


def _skip_padding(archive: Archive, size: int) -> None:
    archive.skip(-size % _BLOCK)


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "replace")
