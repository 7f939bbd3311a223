"""What pages tell: times, sizes, digests, commands, and tables of names and values; what pushers wrote is cut."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence

from vex.names import Digest
from vex.web.links import text_or_link
from vex.web.markup import EMPTY, Markup, Templates, escape, join
from vex.web.moment import Moment

_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
# 0001-01-01T00:00:00Z.
_ZERO_TIME = -62135596800.0
# What a page shows of what pushers write: rows of a table, characters of a text, and of all texts of a table.
MOST_ROWS = 200
_MOST_CHARACTERS = 4096
_MOST_IN_TABLE = 128 * 1024
# Layers, children or files that a page shows.
MOST_PARTS = 500
# Characters of a type.
MOST_TYPE = 256
_SHORT_DIGITS = 12
MINUS = "\u2212"
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

_facts = Templates("facts.html")


def when(seconds: float, now: Moment) -> Markup:
    """Show a time as its age, with the exact time on hover."""
    written = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat()
    day, time = written[:10], written[11:19]
    return _facts("time", machine=f"{day}T{time}Z", exact=f"{day} {time} UTC", age=now.age_of(seconds))


def pushed(seconds: float, now: Moment) -> Markup:
    """Say when something was pushed."""
    return join((escape("pushed "), when(seconds, now)))


def when_written(text: str, now: Moment) -> Markup:
    """Show a time that a pusher wrote (RFC 3339); what is none is shown as it is, and Go's zero time, which programs
    write for none, not at all.
    """
    match = _TIMESTAMP.fullmatch(text)
    try:
        zone = match[3].upper().replace("Z", "+00:00") if match else ""
        seconds = datetime.datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}").timestamp() if match else None
        if seconds == _ZERO_TIME:
            return EMPTY
        return escape(shorten(text)) if seconds is None else when(seconds, now)
    except (ValueError, OverflowError):
        return escape(shorten(text))


def size(count: int) -> Markup:
    """Show a size in binary units, with the exact bytes on hover."""
    return _facts("size", bytes=count, exact=f"{count:,} bytes", text=size_text(count))


def size_text(count: int) -> str:
    """Write a size in binary units, with three digits."""
    value, unit = float(abs(count)), 0
    while value >= 1000 and unit + 1 < len(_UNITS):
        value, unit = value / 1024, unit + 1
    digits = f"{value:.0f}" if unit == 0 or value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"{MINUS if count < 0 else ''}{digits} {'byte' if count == 1 else _UNITS[unit]}"


def short_digest(digest: Digest) -> str:
    """Shorten a digest for people."""
    return f"{digest.algorithm}:{digest.encoded[:_SHORT_DIGITS]}"


def copy_digest(digest: Digest) -> Markup:
    """Show a digest at full length."""
    return _facts("copy", text=digest)


def copy_short_digest(digest: Digest) -> Markup:
    """Show a digest shortened; what is copied is all of it."""
    return _facts("copy_other", all=digest, text=short_digest(digest))


def copy_command(text: str) -> Markup:
    """Show a command on a line of its own."""
    return _facts("command", text=text)


def copy_inline(text: str) -> Markup:
    """Show a command within a line."""
    return _facts("copy", text=text)


def facts(rows: Iterable[tuple[str, Markup]]) -> Markup:
    """List names and values; those without a value are left out."""
    made = [_facts("fact", name=name, value=value) for name, value in rows if value]
    return _facts("dl", rows=join(made)) if made else EMPTY


def pairs(name: str, value: str, rows: Sequence[tuple[str, str]], total: int | None = None) -> Markup:
    """Make a table of names and values that a pusher wrote, the first of them; `total` is how many there are, unless
    `rows` are all.
    """
    made, left = [], _MOST_IN_TABLE
    for key, text in ((shorten(key), shorten(text)) for key, text in rows[:MOST_ROWS]):
        left -= len(key) + len(text)
        if left < 0:
            break
        made.append(_facts("pair", name=key, value=text_or_link(text)))
    more = (len(rows) if total is None else total) - len(made)
    return join((_facts("pairs", name=name, value=value, rows=join(made)), and_more(more))) if made or more else EMPTY


def and_more(count: int) -> Markup:
    """Say how many entries of a list are not shown; nothing when all are."""
    return _facts("and_more", count=f"{count:,}") if count else EMPTY


def shorten(text: str, limit: int = _MOST_CHARACTERS) -> str:
    """Cut a text that a pusher wrote, saying how much is left out."""
    return text if len(text) <= limit else f"{text[:limit]}… and {len(text) - limit:,} more characters"


def short_type(media_type: str) -> str:
    """Shorten the media types of layers to what tells them apart."""
    for start in ("application/vnd.oci.image.layer.", "application/vnd.docker.image."):
        if media_type.startswith(start):
            return shorten(media_type[len(start) :], MOST_TYPE)
    return shorten(media_type, MOST_TYPE)
