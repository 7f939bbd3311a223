"""`vex rm` and `vex tag`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from vex.commands.acting import act
from vex.commands.tables import DIGEST, LIST, NUMBER, SIZE, Column, as_object, counted, show, size
from vex.errors import Failure
from vex.logs import escaped
from vex.registry.parts import Row
from vex.settings.config import Config

# Of so many tags at once it is looked up what comes free.
_AT_ONCE = 500
_PLANNED = (
    Column("IMAGE", "image"),
    Column("DIGEST", "digest", DIGEST),
    Column("OTHER TAGS", "tags", LIST),
    Column("MANIFESTS", "manifests", NUMBER),
    Column("COMES FREE", "bytes", SIZE),
)


def remove(config: Config, images: Sequence[str], *, yes: bool, as_json: bool) -> int:
    """Show what goes with tags, ask, and delete them; returns 1 if one could not be deleted. Raises VexError."""
    if len(images) > _AT_ONCE:
        raise Failure(f"{len(images)} tags are more than the {_AT_ONCE} of one command; give some at a time")
    planned = list(act(config, "rm-plan", images=list(images)))
    if not as_json:
        show([{**row, "image": f"{row['repository']}:{row['tag']}"} for row in planned], _PLANNED, as_json=False)
        print(
            f"{counted(len(planned), 'tag')}; {size(sum(row['bytes'] for row in planned))} come free", file=sys.stderr
        )
    if not yes and not _agreed():
        return 1
    exact = [f"{row['repository']}:{row['tag']}@{row['digest']}" for row in planned]
    failed = 0
    for row in act(config, "rm", images=exact):
        failed += "error" in row
        if as_json:
            print(as_object(row, ()))
        elif "error" in row:
            print(escaped(f"vex: {row['repository']}:{row['tag']} stays: {row['error']}"), file=sys.stderr)
    if not as_json:
        print(f"deleted {counted(len(planned) - failed, 'tag')}", file=sys.stderr)
    return 1 if failed else 0


def _agreed() -> bool:
    """Ask on a terminal; raises Failure where there is none."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Failure("nothing was deleted: without a terminal nobody can be asked; add --yes to delete without asking")
    print("Delete? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("nothing was deleted", file=sys.stderr)
    return False


def tag(config: Config, source: str, target: str, *, as_json: bool) -> int:
    """Point a tag at an image, with what belongs to it; returns the exit code. Raises VexError."""
    for row in act(config, "tag", source=source, target=target):
        if as_json:
            print(as_object(row, ()))
            continue
        print(escaped(f"{row['repository']}:{row['tag']} is {row['digest']}{_besides(row)}"))
        for kept in row["kept"]:
            said = f"vex: {row['repository']}:{kept} was there, and is left as it is"
            print(escaped(f"{said}: it may hold other signatures"), file=sys.stderr)
    return 0


def _besides(row: Row) -> str:
    more: Iterator[str] = (
        text
        for count, text in (
            (row["before"] and row["before"] != row["digest"], f"it was {row['before']}"),
            (row["referrers"], f"copied with {counted(row['referrers'], 'referrer')}"),
            (row["signatures"], f"copied with {', '.join(row['signatures'])}"),
        )
        if count
    )
    return "".join(f"; {text}" for text in more)
