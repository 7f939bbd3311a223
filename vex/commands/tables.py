"""Tables: for people on a terminal, for programs elsewhere, and as JSON.

On a terminal the columns are aligned and have headings, digests are cut to 12 digits, sizes and times are those of a
person, and what is too wide for the terminal is cut. Elsewhere everything is whole: a row a line, its columns between
tabs, sizes in bytes, times as RFC 3339 has them. As JSON, a row is an object with all that is known of it.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Callable, NamedTuple

from vex.logs import escaped, utc

TEXT, NUMBER, SIZE, TIME, DIGEST, LIST = "text", "number", "size", "time", "digest", "list"
_GAP = "  "
_DIGITS = 12
# A name is still one when it is cut to this.
_LEAST_WIDTH = 12
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class Column(NamedTuple):
    """A column: its heading, the field of a row that it shows, and what that is."""

    heading: str
    field: str
    kind: str = TEXT


def show(rows: Iterable[dict[str, Any]], columns: Sequence[Column], *, as_json: bool) -> int:
    """Print rows, which may be long in coming where they go to a program; returns how many."""
    if as_json or not sys.stdout.isatty():
        count = 0
        for row in rows:
            print(as_object(row, columns) if as_json else "\t".join(_whole(row, column) for column in columns))
            count += 1
        return count
    shown = [tuple(_short(row, column) for column in columns) for row in rows]
    if shown:
        print(aligned(columns, shown, shutil.get_terminal_size().columns))
    return len(shown)


def as_object(row: dict[str, Any], columns: Sequence[Column]) -> str:
    """Write a row as JSON."""
    return json.dumps(document(row, columns)).replace("\x7f", "\\u007f")


def document(row: dict[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """Return what JSON has of a row: its times as RFC 3339 has them."""
    times = {column.field for column in columns if column.kind == TIME}
    return {name: moment(value) if name in times else value for name, value in row.items()}


def moment(seconds: int | None) -> str | None:
    """Write a time for programs; None for none."""
    return None if seconds is None else utc(seconds)


def aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> str:
    """Lay out a table with headings in so many characters a line, if it can be."""
    lines = [tuple(column.heading for column in columns), *rows]
    widths = _fitting([max(map(len, texts)) for texts in zip(*lines)], width)
    return "\n".join(
        _GAP.join(
            _cut(text, most).rjust(most) if column.kind in (NUMBER, SIZE) else _cut(text, most).ljust(most)
            for text, most, column in zip(line, widths, columns)
        ).rstrip()
        for line in lines
    )


def _fitting(widths: list[int], width: int) -> list[int]:
    """Take what is too much from the widest columns."""
    surplus = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    while surplus > 0 and max(widths) > _LEAST_WIDTH:
        widest = widths.index(max(widths))
        second = max([_LEAST_WIDTH, *(other for other in widths if other < widths[widest])])
        taken = max(1, min(surplus, widths[widest] - second))
        widths[widest] -= taken
        surplus -= taken
    return widths


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def size(count: int) -> str:
    """Write a number of bytes for a person."""
    amount, unit = float(count), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit else f"{count} B"


def counted(number: int, one: str, several: str = "") -> str:
    """Write how many there are for a person; several are `one` with an s, or `several`."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def local_time(seconds: int) -> str:
    """Write a time for a person, to the minute, as the clock of this machine has it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


_FOR_PEOPLE: dict[str, Callable[[Any], str]] = {
    TEXT: str,
    NUMBER: "{:,}".format,
    SIZE: size,
    TIME: local_time,
    DIGEST: lambda digest: str(digest).partition(":")[2][:_DIGITS],
    LIST: ", ".join,
}
_WHOLE: dict[str, Callable[[Any], str]] = {**dict.fromkeys(_FOR_PEOPLE, str), TIME: utc, LIST: ",".join}


def _short(row: dict[str, Any], column: Column) -> str:
    return _text(row[column.field], _FOR_PEOPLE[column.kind])


def _whole(row: dict[str, Any], column: Column) -> str:
    return _text(row[column.field], _WHOLE[column.kind])


def _text(value: Any, written: Callable[[Any], str]) -> str:
    return "-" if value in (None, "", []) else escaped(written(value))
