"""The headers of a tar archive, plain: what each says of its file, with the extended headers that belong to it.

Headers are read here and not by `tarfile`, whose reader keeps names and extended headers of any size in memory, and
recurses into chains of them; each header and record is measured by a `Meter`. Where readers differ this one does as
Go's archive/tar, with which docker, containerd and podman unpack layers. (POSIX.1-2017, pax, "pax Interchange Format"
and "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".)
"""

from __future__ import annotations

import functools
import tarfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from vex.errors import VexError

_BLOCK = 512
# More than extended attributes usually have, and than any path.
_MAX_EXTENDED_HEADER = 256 * 1024
_RECORDS_AT_ONCE = 100
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


class Incomplete(VexError):
    """The list ends before the layer does; the text says why, in a sentence, and `reason` without the words that it
    begins with.
    """

    def __init__(self, reason: str, opening: str = "This list is cut") -> None:
        super().__init__(f"{opening}: {reason}.")
        self.reason = reason


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


class Archive(Protocol):
    """What an archive is read from."""

    def read(self, count: int) -> bytes:
        """Return that many bytes, or fewer at the end."""

    def skip(self, count: int) -> int:
        """Skip that many bytes; returns how many are missing at the end."""


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
        _text(block[157:257]) if block[157] else "",
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


# Modes and owners are the same in most headers.
@functools.lru_cache(maxsize=1024)
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
    archive.skip(-header.size % _BLOCK)
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


def _skip_sparse_map(archive: Archive, block: bytes, meter: Meter) -> None:
    """Skip the blocks in which GNU tar goes on with the map of a sparse file; a byte in each says whether another
    follows.
    """
    more = block[482:483]
    while more.strip(b"\0"):
        meter.header()
        more = archive.read(_BLOCK)[504:505]


def _skip(archive: Archive, size: int) -> None:
    padding = -size % _BLOCK
    if archive.skip(size + padding) > padding:
        raise Incomplete(_ENDS_EARLY, _ENDS_HERE)


def _text(field: bytes) -> str:
    return _decode(field.partition(b"\0")[0])


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "replace")
