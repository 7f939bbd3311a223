"""JSON that others wrote, read as the programs read it that do so with Go: a key in any case, null for what is not
there.

Invariants: whatever the document is, what is wrong with it is said in a sentence; its size, its values and its numbers
are limited, so that neither memory nor time grows faster than the document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NoReturn

from vex.errors import VexError

# Each value takes up to 250 bytes of memory, however short it is written.
MAX_VALUES = 250_000
_MAX_DIGITS = 20


class Malformed(VexError):
    """A document is not what it should be; the text says where."""


class Fields:
    """An object of a document; `path` says where it is, for messages."""

    def __init__(self, value: object, path: str) -> None:
        """Take a value for an object; raises Malformed."""
        self._path = path
        if not isinstance(value, dict):
            self._must("", "an object")
        self._fields: Mapping[str, object] = value
        self._folded = {key.casefold(): field for key, field in value.items()}

    def text(self, name: str) -> str:
        """Read a string; "" when it is missing or null. Raises Malformed."""
        value = self._value(name)
        return value if isinstance(value, str) else "" if value is None else self._must(name, "a string")

    def fields(self, name: str) -> Fields:
        """Read an object; an empty one when it is missing or null. Raises Malformed."""
        value = self._value(name)
        return Fields({} if value is None else value, f"{self._path}.{name}")

    def texts(self, name: str) -> list[str]:
        """Read a list of strings; raises Malformed."""
        return [
            value if isinstance(value, str) else self._must(name, "a list of strings") for value in self._list(name)
        ]

    def items(self, name: str) -> Iterator[Fields]:
        """Read a list of objects; raises Malformed."""
        return items_of(self._list(name), f"{self._path}.{name}")

    def _list(self, name: str) -> list[object]:
        value = self._value(name)
        return value if isinstance(value, list) else [] if value is None else self._must(name, "a list")

    def _value(self, name: str) -> object:
        return self._fields[name] if name in self._fields else self._folded.get(name.casefold())

    def _must(self, name: str, accepted: str) -> NoReturn:
        raise Malformed(f"{self._path}{'.' if name else ''}{name} is not {accepted}")


def items_of(value: object, path: str) -> Iterator[Fields]:
    """Take a value for a list of objects; raises Malformed."""
    if not isinstance(value, list):
        raise Malformed(f"{path} is not a list")
    for index, item in enumerate(value):
        yield Fields(item, f"{path}[{index}]")


def load_json(content: bytes, path: str, limit: int = MAX_VALUES) -> object:
    """Parse a document; raises Malformed."""
    check_values(content, path, limit)
    try:
        return json.loads(content, parse_int=_integer)
    except (ValueError, RecursionError):
        raise Malformed(f"{path} is not valid JSON") from None


def check_values(content: bytes, path: str, limit: int = MAX_VALUES) -> None:
    """Count the values of a document before it is parsed; raises Malformed."""
    if sum(map(content.count, (b",", b"[", b"{"))) > limit:
        raise Malformed(f"{path} has more than {limit:,} values")


def _integer(text: str) -> int:
    # Python's conversion takes time that grows with the square of the length.
    if len(text) > _MAX_DIGITS:
        raise ValueError
    return int(text)
