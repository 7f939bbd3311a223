"""What files a layer holds: a reader of tar archives, plain or compressed, that trusts nothing.

A layer is whatever its pusher made it: a bomb, an endless name, no archive at all. It is read as a stream, in constant
memory and within limits, each header, byte and record against the clock; what was listed before a limit or an error
stands. Headers are read here and not by `tarfile`, whose reader keeps names and extended headers of any size in memory,
and recurses into chains of them. Where readers differ this one does as Go's archive/tar, with which docker, containerd
and podman unpack layers. (OCI image specification 1.1, "Image Layer Filesystem Changeset"; POSIX.1-2017, pax, "pax
Interchange Format" and "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".)
"""

from __future__ import annotations

import stat
import tarfile
import time
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Callable, NamedTuple, Protocol

from vex.errors import VexError
from vex.formats.unpacking import Unreadable, unpack

_BLOCK = 512
# More than extended attributes usually have, and than any path.
_MAX_EXTENDED_HEADER = 256 * 1024
_RECORDS_AT_ONCE = 100
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_USTAR, _STAR = b"ustar\x0000", b"tar\0"
_SPARSE_NAME, _SPARSE_SIZES = "GNU.sparse.name", ("GNU.sparse.size", "GNU.sparse.realsize")
_PAX_NAMES = {name.encode(): name for name in ("path", "linkpath", "size", "uid", "gid", _SPARSE_NAME, *_SPARSE_SIZES)}
_MAX_PAX_NAME = max(map(len, _PAX_NAMES))
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG_NAMES = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
# Whatever size these claim, no content follows.
_HEADER_ONLY = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
_ENDS_HERE = "This list ends here"
_ENDS_EARLY = "the archive ends in the middle of a file"
_NO_ARCHIVE = "what follows is not a tar archive"

FILE, DIRECTORY, LINK, SYMLINK, DEVICE, DELETED, OPAQUE = (
    "file",
    "directory",
    "hard link",
    "symbolic link",
    "device",
    "deleted",
    "opaque",
)
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


class Incomplete(VexError):
    """The list ends before the layer does; the text says why, in a sentence, and `reason` without the words that it
    begins with.
    """

    def __init__(self, reason: str, opening: str = "This list is cut") -> None:
        super().__init__(f"{opening}: {reason}.")
        self.reason = reason


class TooSlow(Incomplete):
    """The list ends because the time was up: another time it may end later."""


class Pace(Protocol):
    """What is told of each small piece of work; whatever it raises ends the list."""

    def step(self) -> None:
        """Note a piece of work."""

    def resume(self) -> None:
        """Note a piece of work during which others could work: data was read or unpacked."""


class Header(NamedTuple):
    """What the headers of one file say: `type` as tar writes it, `size` of the file in bytes, and how many of them are
    `stored`.
    """

    type: bytes
    name: str
    linkname: str
    size: int
    stored: int
    mode: int
    uid: int
    gid: int

    def issym(self) -> bool:
        """Tell whether it is a symbolic link."""
        return self.type == tarfile.SYMTYPE

    def islnk(self) -> bool:
        """Tell whether it is a hard link."""
        return self.type == tarfile.LNKTYPE


class Meter:
    """What reading headers is measured by; this one has no limits."""

    def header(self) -> None:
        """Note a block that is no content; raises Incomplete."""

    def look(self) -> None:
        """Look at the clock; raises Incomplete."""


_UNLIMITED = Meter()


class _Meter(Meter):
    def __init__(self, limits: Limits, pace: Pace, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._pace = pace
        self._clock = clock
        self._deadline = clock() + limits.seconds
        self._headers = self._unpacked = 0

    def header(self) -> None:
        self._headers += 1
        if self._headers > self._limits.headers:
            raise Incomplete(f"the layer has more than {self._limits.headers:,} headers")
        self.look()

    def look(self) -> None:
        self._pace.step()
        if self._clock() > self._deadline:
            raise TooSlow(f"reading the layer took more than {self._limits.seconds:g} seconds")

    def unpacked(self, count: int) -> None:
        """Note that a piece was unpacked; raises Incomplete."""
        self._pace.resume()
        self._unpacked += count
        if self._unpacked > self._limits.unpacked:
            raise Incomplete(f"the layer unpacks to more than {self._limits.unpacked >> 20:,} MiB")
        self.look()


def list_files(
    file: BinaryIO, limits: Limits, pace: Pace, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Entry]:
    """List the files of a layer in their order in it; raises Incomplete at the end of what could be listed."""
    meter = _Meter(limits, pace, clock)
    return filter(None, map(_entry, headers(_Stream(_pieces(file, meter)), meter)))


def _pieces(file: BinaryIO, meter: _Meter) -> Iterator[bytes]:
    try:
        for piece in unpack(file):
            meter.unpacked(len(piece))
            yield piece
    except Unreadable as error:
        raise Incomplete(str(error)) from error


class Archive(Protocol):
    """What an archive is read from."""

    def read(self, count: int) -> bytes:
        """Return that many bytes, or fewer at the end."""

    def skip(self, count: int) -> int:
        """Skip that many bytes; returns how many are missing at the end."""


class _Stream:
    """Reads a given number of bytes from pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = filter(None, pieces)
        self._piece = b""
        self._at = 0

    def read(self, count: int) -> bytes:
        """Return that many bytes, or fewer at the end."""
        parts = []
        while count and (self._at < len(self._piece) or self._fill()):
            part = self._piece[self._at : self._at + count]
            self._at += len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def skip(self, count: int) -> int:
        """Skip that many bytes; returns how many are missing at the end."""
        while count and (self._at < len(self._piece) or self._fill()):
            part = min(count, len(self._piece) - self._at)
            self._at += part
            count -= part
        return count

    def _fill(self) -> bool:
        self._piece, self._at = next(self._pieces, b""), 0
        return bool(self._piece)


# The archive


def headers(archive: Archive, meter: Meter = _UNLIMITED) -> Iterator[Header]:
    """Read the headers of an archive, each while its content comes next; raises Incomplete."""
    extended: dict[str, str] = {}
    while True:
        block = archive.read(_BLOCK)
        # Two blocks of zeros end an archive; some writers leave them out, and what follows the first is of no use.
        if not block or not block.strip(b"\0"):
            return
        meter.header()
        header = _header(block)
        if header.type in _PAX_TYPES or header.type in _LONG_NAMES:
            extended.update(_extended_header(archive, header, meter))
            continue
        if header.type == tarfile.XGLTYPE:
            # What holds for all files that follow; those who unpack layers pass over it.
            _skip(archive, header.size)
            continue
        header = _apply(header, extended)
        extended.clear()
        if header.type == tarfile.GNUTYPE_SPARSE:
            header = header._replace(size=max(_number(block[483:495]), 0))
            _skip_sparse_map(archive, block, meter)
        yield header
        if header.type not in _HEADER_ONLY:
            _skip(archive, header.stored)


def _header(block: bytes) -> Header:
    """Read one block (POSIX, "ustar Interchange Format"); raises Incomplete."""
    if len(block) < _BLOCK or not _is_sum(block, _number(block[148:156])):
        raise Incomplete(_NO_ARCHIVE, _ENDS_HERE)
    name, size = _text(block[:100]), _number(block[124:136])
    # Others have times there, where the prefix of a long path is.
    prefix = block[345:500] if block[257:265] == _USTAR else b""
    if block[508:512] == _STAR:
        prefix = prefix[:131]
    if prefix and prefix[0]:
        name = f"{_text(prefix)}/{name}"
    kind = block[156:157]
    if kind == tarfile.AREGTYPE and name.endswith("/"):
        kind = tarfile.DIRTYPE
    if size < 0:
        raise Incomplete("a file has a size below zero", _ENDS_HERE)
    return Header(
        kind,
        name,
        _text(block[157:257]),
        size,
        size,
        _number(block[100:108]),
        _number(block[108:116]),
        _number(block[116:124]),
    )


def _is_sum(block: bytes, claimed: int) -> bool:
    """Compare the sum of a header, in which the sum itself counts as blanks; some old writers took bytes for signed
    numbers.
    """
    summed = block[:148] + b"        " + block[156:]
    # The lower half of Adler-32 is one more than the sum, modulo 65521 (RFC 1950 section 8.2), and takes a tenth of the
    # time of sum().
    if (zlib.adler32(summed) & 0xFFFF) == (claimed + 1) % 65521:
        return True
    return claimed == sum(summed) - 256 * sum(byte >> 7 for byte in summed)


def _number(field: bytes) -> int:
    """Read a number in octal digits, or, where the first bit is set, in the bytes that follow it (GNU tar); raises
    Incomplete.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.strip(b" \0").partition(b"\0")[0] or b"0"
    try:
        return int(digits, 8)
    except ValueError:
        raise Incomplete(_NO_ARCHIVE, _ENDS_HERE) from None


def _extended_header(archive: Archive, header: Header, meter: Meter) -> dict[str, str]:
    if header.size > _MAX_EXTENDED_HEADER:
        raise Incomplete("a file has a name, or attributes, of extraordinary length")
    content = archive.read(header.size)
    if len(content) < header.size:
        raise Incomplete(_ENDS_EARLY, _ENDS_HERE)
    _skip_padding(archive, header.size)
    if header.type in _LONG_NAMES:
        return {_LONG_NAMES[header.type]: _text(content)}
    return dict(_pax_records(content, meter))


def _pax_records(content: bytes, meter: Meter) -> Iterator[tuple[str, str]]:
    """Read those records of the form `LENGTH NAME=VALUE` and a line feed that are used here; what is none ends them."""
    start = count = 0
    while start < len(content):
        digits, _, _ = content[start : start + 20].partition(b" ")
        if not digits.isdigit() or not len(digits) < int(digits) <= len(content) - start:
            return
        first, end = start + len(digits) + 1, start + int(digits)
        name, equals, _ = content[first : min(end, first + _MAX_PAX_NAME + 1)].partition(b"=")
        if equals and name in _PAX_NAMES:
            yield _PAX_NAMES[name], _decode(content[first + len(name) + 1 : end - 1])
        start = end
        count += 1
        if count % _RECORDS_AT_ONCE == 0:
            meter.look()


def _apply(header: Header, extended: dict[str, str]) -> Header:
    """Have extended headers count; of a sparse file they name it, and say its size, as the header has another name and
    what is stored.
    """
    if extended:
        stored = _decimal(extended, "size", header.stored)
        size = stored
        for field in _SPARSE_SIZES:
            size = _decimal(extended, field, size)
        header = header._replace(
            name=extended.get(_SPARSE_NAME) or extended.get("path") or header.name,
            linkname=extended.get("linkpath") or header.linkname,
            size=size,
            stored=stored,
            uid=_decimal(extended, "uid", header.uid),
            gid=_decimal(extended, "gid", header.gid),
        )
    return header._replace(name=header.name.rstrip("/")) if header.name.endswith("/") else header


def _decimal(extended: dict[str, str], field: str, otherwise: int) -> int:
    text = extended.get(field, "")
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 20 else otherwise


def _entry(header: Header) -> Entry | None:
    directory, slash, name = header.name.rpartition("/")
    if name.startswith(_WHITEOUT):
        if name == _OPAQUE:
            return Entry(OPAQUE, directory or "/", 0, "", "", "")
        # The others with two dots are files that union file systems keep for themselves.
        return (
            None
            if name.startswith(_WHITEOUT + _WHITEOUT)
            else Entry(DELETED, directory + slash + name[len(_WHITEOUT) :], 0, "", "", "")
        )
    kind, file_type = _KINDS.get(header.type, (FILE, stat.S_IFREG))
    path = header.name + ("/" if kind == DIRECTORY else "")
    target = header.linkname if kind in (SYMLINK, LINK) else ""
    mode = stat.filemode(file_type | (header.mode & 0o7777))
    return Entry(kind, path, header.size if kind == FILE else 0, mode, f"{header.uid}:{header.gid}", target)


def _skip_sparse_map(archive: Archive, block: bytes, meter: Meter) -> None:
    """Skip the blocks in which GNU tar goes on with the map of a sparse file; a byte in each says whether another
    follows.
    """
    more = block[482:483]
    while more.strip(b"\0"):
        meter.header()
        more = archive.read(_BLOCK)[504:505]


def _skip(archive: Archive, size: int) -> None:
    if archive.skip(size):
        raise Incomplete(_ENDS_EARLY, _ENDS_HERE)
    _skip_padding(archive, size)


def _skip_padding(archive: Archive, size: int) -> None:
    archive.skip(-size % _BLOCK)


def _text(field: bytes) -> str:
    return _decode(field.partition(b"\0")[0])


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "replace")
