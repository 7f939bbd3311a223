"""Ranges of bytes: which parts of some content a request asks for, and the answer that holds several of them (RFC 9110
sections 14 and 15.3.7).

What a client may get wrong without harm is ignored, as RFC 9110 demands: then the whole is the answer. Pure functions.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from vex.errors import RANGE_INVALID, RegistryError

# RFC 9110 section 14.1; names of units are case-insensitive. Both offsets may be missing, which is no range.
_UNIT = re.compile(r"(?i:bytes)=(.*)")
_SPEC = re.compile(r"[ \t]*([0-9]*)-([0-9]*)[ \t]*")
_MAX_RANGES = 1000


class Range(NamedTuple):
    """A part of some content: its first offset, and the one past its last."""

    first: int
    end: int


class Part(NamedTuple):
    """A part of an answer: bytes to be sent before it, and which part of the content follows them, perhaps nothing."""

    before: bytes
    range: Range


class Multipart(NamedTuple):
    """An answer in parts: its media type, its length in bytes, and the parts."""

    media_type: str
    length: int
    parts: Sequence[Part]


def parse_ranges(value: str | None, size: int) -> list[Range] | None:
    """Return the parts that are asked for, or None for the whole; those that overlap or touch are one, which comes
    where the first of them stood.

    Raises RANGE_INVALID where all lie past the end, and for a single one that ends before it starts.
    """
    match = _UNIT.fullmatch(value or "")
    if match is None or match[1].count(",") >= _MAX_RANGES:
        return None
    # RFC 9110 section 5.6.1.2: elements of a list may be empty.
    specs = [_SPEC.fullmatch(text) for text in match[1].split(",") if text.strip(" \t")]
    if not specs:
        return None
    ranges = []
    for spec in specs:
        if spec is None or spec.groups() == ("", "") or (len(specs) > 1 and _is_reversed(spec)):
            return None
        if size == 0 and _is_whole_of_nothing(spec):
            return None
        ranges.append(_resolve(spec, size))
    found = _joined([part for part in ranges if part.first < part.end])
    if not found:
        raise RegistryError(
            RANGE_INVALID,
            f"the range is not within the {size} bytes of the content",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return found


def content_range(part: Range, size: int) -> str:
    """Write the value of Content-Range for a part of content of this size."""
    return f"bytes {part.first}-{part.end - 1}/{size}"


def multipart(ranges: Sequence[Range], size: int, media_type: str) -> Multipart | None:
    """Make an answer of several parts (RFC 9110 section 14.6); None if it would be as long as the whole, or longer."""
    # Nobody who chose the content could know it.
    boundary = secrets.token_hex(16)
    start = f"--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: "
    parts = [Part(f"{start}{content_range(part, size)}\r\n\r\n".encode("ascii"), part) for part in ranges]
    parts = [parts[0], *(Part(b"\r\n" + before, part) for before, part in parts[1:])]
    parts.append(Part(f"\r\n--{boundary}--\r\n".encode("ascii"), Range(0, 0)))
    length = sum(len(before) + part.end - part.first for before, part in parts)
    return Multipart(f"multipart/byteranges; boundary={boundary}", length, parts) if length < size else None


def _is_reversed(spec: re.Match[str]) -> bool:
    return bool(spec[1] and spec[2]) and _number(spec[2]) < _number(spec[1])


def _is_whole_of_nothing(spec: re.Match[str]) -> bool:
    # Of no bytes, the first few and the last few are the whole, which no Content-Range can say; caches that fetch in
    # slices ask for the first.
    return not _number(spec[1]) if spec[1] else bool(_number(spec[2]))


def _resolve(spec: re.Match[str], size: int) -> Range:
    """Find what a range selects; nothing if it ends before it starts."""
    if not spec[1]:
        return Range(max(size - _number(spec[2]), 0), size)
    return Range(_number(spec[1]), min(_number(spec[2]) + 1, size) if spec[2] else size)


def _joined(ranges: Sequence[Range]) -> list[Range]:
    """Join what overlaps or touches; each comes where the first of its ranges stood (RFC 9110 section 15.3.7.2)."""
    groups: list[tuple[int, Range]] = []
    for place, part in sorted(enumerate(ranges), key=lambda entry: entry[1]):
        if groups and part.first <= groups[-1][1].end:
            first_place, last = groups[-1]
            groups[-1] = min(first_place, place), Range(last.first, max(last.end, part.end))
        else:
            groups.append((place, part))
    return [part for _, part in sorted(groups)]


def _number(digits: str) -> int:
    # 20 digits are past every size; int() of thousands is slow, or an error.
    return int(digits.lstrip("0")[:20] or "0")
