"""Unpacking what is compressed with gzip or zstd, as a stream, in pieces of bounded size and in bounded memory.

What it is is told by its first bytes, whatever a media type says. Members and frames may stand one behind the other, as
parallel compressors and formats for lazy loading write them; so may frames that are to be skipped (RFC 1952 section
2.2, RFC 8878 section 3.1).
"""

from __future__ import annotations

import importlib
import os
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Callable

from vex.errors import VexError
from vex.formats.compression import GZIP, HEAD_BYTES, ZSTD, compression_of

_PIECE_BYTES = 64 * 1024
# zlib gives back what it has not looked at yet, and is given it again.
_READ_BYTES = 16 * 1024
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# RFC 8878 section 3.1.2: a magic number, and the length.
_SKIPPABLE_HEADER = 8
# RFC 8878 section 3.1.1.1: the longest header of a frame, with its magic number, and the shortest.
_FRAME_HEADER, _SHORTEST_FRAME_HEADER = 18, 6
# zstd takes as much memory as a window has. Encoders use up to 8 MiB unless told otherwise, skopeo at high levels 32
# MiB.
_WINDOW_LOG = 25


class Unreadable(VexError):
    """The rest cannot be unpacked; the text says why, in a sentence."""


class _Source:
    """The compressed bytes of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._data = b""

    def peek(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end, and leave them."""
        while len(self._data) < count and (more := self._file.read(_READ_BYTES)):
            self._data += more
        return self._data[:count]

    def take(self) -> bytes:
        """Return some bytes; none at the end."""
        data, self._data = self._data, b""
        return data or self._file.read(_READ_BYTES)

    def give_back(self, data: bytes) -> None:
        """Put back bytes that were taken."""
        self._data = data + self._data

    def skip(self, count: int) -> None:
        """Skip bytes, without reading those that are not here yet."""
        here = min(count, len(self._data))
        self._data = self._data[here:]
        self._file.seek(count - here, os.SEEK_CUR)


def unpack(file: BinaryIO) -> Iterator[bytes]:
    """Give the bytes of a file, unpacked if it is compressed; some pieces may be empty, when that took time too. Raises
    Unreadable.
    """
    source = _Source(file)
    try:
        yield from _unpacker(source.peek(_FRAME_HEADER))(source)
    except (zlib.error, EOFError, ValueError) as error:
        raise Unreadable("the layer is damaged, its compression is broken here") from error


def _unpacker(head: bytes) -> Callable[[_Source], Iterator[bytes]]:
    return {GZIP: _gunzip, ZSTD: _unzstd}.get(compression_of(head), _plain)


def _plain(source: _Source) -> Iterator[bytes]:
    while data := source.take():
        yield data


def _gunzip(source: _Source) -> Iterator[bytes]:
    while compression_of(source.peek(HEAD_BYTES)) == GZIP:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        data = source.take()
        while not member.eof:
            piece = member.decompress(data, _PIECE_BYTES)
            data = member.unconsumed_tail
            yield piece
            # Less than a piece is all that there is of what was read.
            if not data and len(piece) < _PIECE_BYTES and not member.eof:
                data = source.take()
                if not data:
                    raise EOFError
        source.give_back(member.unused_data)


def _unzstd(source: _Source) -> Iterator[bytes]:
    try:
        zstd: Any = importlib.import_module("compression.zstd")
    except ImportError:
        raise Unreadable(
            "the layer is compressed with zstd, which the Python that runs this registry cannot read; Python 3.14 and"
            " newer can"
        ) from None
    while compression_of(head := source.peek(_FRAME_HEADER)) == ZSTD:
        if head.startswith(_ZSTD_MAGIC):
            _check_window(head)
            yield from _unzstd_frame(zstd, source)
        else:
            source.skip(_SKIPPABLE_HEADER + int.from_bytes(head[4:8], "little"))
            yield b""


def _unzstd_frame(zstd: Any, source: _Source) -> Iterator[bytes]:
    frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    while not frame.eof:
        data = source.take() if frame.needs_input else b""
        if frame.needs_input and not data:
            raise EOFError
        try:
            piece = frame.decompress(data, _PIECE_BYTES)
        except zstd.ZstdError as error:
            raise EOFError from error
        yield piece
    source.give_back(frame.unused_data)


def _check_window(head: bytes) -> None:
    """Refuse a frame whose window takes too much memory (RFC 8878 sections 3.1.1.1.1 to 3.1.1.1.4)."""
    if len(head) < _SHORTEST_FRAME_HEADER:
        raise EOFError
    descriptor = head[4]
    if descriptor & 0x20:
        # A single segment: the content is its own window.
        start = 5 + (0, 1, 2, 4)[descriptor & 3]
        window = int.from_bytes(head[start : start + (1, 2, 4, 8)[descriptor >> 6]], "little")
    else:
        exponent, mantissa = head[5] >> 3, head[5] & 7
        window = (8 + mantissa) << (exponent + 7)
    if window > 1 << _WINDOW_LOG:
        needed, most = -(-window >> 20), 1 << _WINDOW_LOG >> 20
        raise Unreadable(
            f"the layer is compressed with zstd and needs a window of {needed:,} MiB, and this registry looks through"
            f" windows of up to {most} MiB"
        )
