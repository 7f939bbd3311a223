"""Strict JSON: one object, of which every reader understands the same.

What decoders differ on is refused: duplicate fields, NaN, numbers that are too large, half surrogate pairs, a byte
order mark. The decoder recurses, on the small stack of a connection's thread: whoever calls it counts the levels first.
"""

from __future__ import annotations

import json
import math
from typing import NoReturn

from vex.errors import VexError

# Integers of 64 bits have at most 20 characters; longer ones cost time that grows with their square.
_MAX_INTEGER_LENGTH = 20
_NOT_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


class NotStrict(VexError):
    """A document is not strict JSON; the text says why, and is read behind the name of the document."""


def is_deeper(content: bytes, limit: int) -> bool:
    """Tell whether brackets outside of strings are nested deeper than that many levels."""
    depth = 0
    # Without those that are escaped, every other part between quotation marks is no string. Regular expressions take
    # more time and memory.
    parts = content.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    for byte in b"".join(parts[::2]).translate(None, _NOT_BRACKET):
        depth += 1 if byte in b"[{" else -1
        if depth > limit:
            return True
    return False


def load_object(content: bytes) -> dict[str, object]:
    """Decode one object, which `is_deeper` has been asked about; raises NotStrict."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(f"is not UTF-8, at byte {error.start}")
    if text.startswith("\ufeff"):
        _refuse("begins with a byte order mark; write it as UTF-8 without one")
    try:
        document = _DECODER.decode(text)
        # UTF-8 holds no surrogates, but JSON escapes can; encoding finds those that are not in pairs.
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        _refuse(f"is not valid JSON, at line {error.lineno}, column {error.colno}")
    except UnicodeEncodeError:
        _refuse("has a \\u escape of half a surrogate pair; write the whole character")
    if not isinstance(document, dict):
        _refuse("must be a JSON object")
    return document


def quoted(text: str) -> str:
    """Show what somebody else wrote, at a bounded length and without control characters."""
    return ascii(text if len(text) <= 100 else text[:100] + "...")


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = sorted(name for name, _ in pairs)
        twice = next(name for name, following in zip(names, names[1:]) if name == following)
        _refuse(f"has the field {quoted(twice)} twice in one object")
    return members


def _integer(text: str) -> int:
    if len(text) > _MAX_INTEGER_LENGTH:
        _refuse(f"has an integer of more than {_MAX_INTEGER_LENGTH} digits")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        _refuse("has a number that is too large")
    return number


def _constant(text: str) -> NoReturn:
    _refuse(f"has {text}, which is not JSON")


def _refuse(text: str) -> NoReturn:
    raise NotStrict(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
