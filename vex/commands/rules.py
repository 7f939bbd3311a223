"""`vex rules`: what the rules remove, as a plan with a number, done as it was shown, and explained for one tag."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from vex.commands.acting import act
from vex.commands.tables import SIZE, Column, as_object, counted, local_time, moment, show, size
from vex.logs import escaped
from vex.registry.parts import Row
from vex.settings.config import Config

_PAGE = 2000
_HOUR, _DAY = 3600, 24 * 3600
_PLAN = (
    Column("IMAGE", "image"),
    Column("RULE", "rule"),
    Column("AGE", "age"),
    Column("LAST PULL", "last"),
    Column("COMES FREE", "bytes", SIZE),
)


def plan(config: Config, repositories: Sequence[str], *, as_json: bool) -> int:
    """Make a plan, and print it; returns the exit code. Raises VexError."""
    (made,) = act(config, "rules-plan", repositories=list(repositories))
    for warning in made["warnings"]:
        print(f"vex: {escaped(warning)}", file=sys.stderr)
    rows = _planned(config, made["plan"])
    if as_json:
        _print_document(made, rows)
        return 0
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    show(map(_shown, _summed(rows, counts, sums)), _PLAN, as_json=False)
    for repository in counts if len(counts) > 1 else ():
        print(escaped(f"{repository}: {counted(counts[repository], 'tag')}, {size(sums[repository])}"), file=sys.stderr)
    if made["count"]:
        said = f"{counted(made['count'], 'tag')} would go, and {size(made['bytes'])} come free"
        print(f"{said}: vex rules apply {made['plan']} does that", file=sys.stderr)
    else:
        print("no tag goes now", file=sys.stderr)
    return 0


def apply(config: Config, number: int, *, as_json: bool) -> int:
    """Do what a plan says; returns 1 if anything was left out. Raises VexError."""
    taken = left = 0
    for row in act(config, "rules-apply", plan=number):
        left += "error" in row
        taken += "error" not in row
        if as_json:
            print(json.dumps(_document(row)))
        elif "error" in row:
            print(escaped(f"vex: {_image(row)} stays: {row['error']}"), file=sys.stderr)
    if not as_json:
        rest = f", and left out {left}" if left else ""
        print(f"removed {counted(taken, 'tag')}{rest}" if taken or left else "nothing was left to do", file=sys.stderr)
    return 1 if left else 0


def explain(config: Config, image: str, *, as_json: bool) -> int:
    """Say what the rules make of a tag; returns the exit code. Raises VexError."""
    (row,) = act(config, "rules-explain", image=image)
    if as_json:
        times = {key: moment(row[key]) for key in ("due", "pushed", "pulled", "asked")}
        print(as_object({**row, **times}, ()))
        return 0
    print(escaped(f"{image} {_fate(row)}"))
    for name, key in (("pushed", "pushed"), ("last pulled", "pulled"), ("last asked for", "asked")):
        print(f"{name:<15} {'never' if row[key] is None else local_time(row[key])}")
    if row["pattern"]:
        place = f", where it is number {row['place']} from the newest on" if row["place"] else ""
        print(escaped(f"{'pattern':<15} {row['pattern']}{place}"))
    for setting, place in sorted(row["settings"].items()):
        print(escaped(f"{setting.replace('_', '-'):<21} is from {place}"))
    return 0


def _fate(row: Row) -> str:
    if row["goes"]:
        return f"goes by {row['rule']}"
    if row["due"] is not None:
        return f"stays until {local_time(row['due'])}, unless it is pushed or pulled, and then goes by {row['rule']}"
    return f"stays by {row['rule']}" if row["rule"] else "stays: no rule names it"


def _planned(config: Config, number: int) -> Iterator[Row]:
    last = 0
    while True:
        rows = list(act(config, "rules-planned", plan=number, last=last, limit=_PAGE))
        yield from rows
        if len(rows) < _PAGE:
            return
        last = rows[-1]["number"]


def _print_document(made: Row, rows: Iterator[Row]) -> None:
    print(f'{{"plan": {made["plan"]}, "tags": [', end="")
    for index, row in enumerate(rows):
        print(", " if index else "", json.dumps(_document(row)), sep="", end="")
    print(f'], "bytes": {made["bytes"]}}}')


def _document(row: Row) -> Row:
    rest = {key: value for key, value in row.items() if key != "number"}
    return {**rest, "pushed": moment(row["pushed"]), "pulled": moment(row["pulled"])}


def _summed(rows: Iterator[Row], counts: Counter[str], sums: Counter[str]) -> Iterator[Row]:
    for row in rows:
        counts[row["repository"]] += 1
        sums[row["repository"]] += row["bytes"]
        yield row


def _shown(row: Row) -> Row:
    last = "never" if row["pulled"] is None else _ago(row["pulled"])
    return {**row, "image": _image(row), "age": _ago(row["pushed"]), "last": last}


def _image(row: Row) -> str:
    return f"{row['repository']}:{row['tag']}" if row["tag"] else f"{row['repository']}@{row['digest']}"


def _ago(seconds: int) -> str:
    passed = int(time.time()) - seconds
    return f"{passed // _DAY}d" if passed >= _DAY else f"{max(passed, 0) // _HOUR}h"
