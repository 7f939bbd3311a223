"""`vex df` and `vex status`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from vex import VERSION
from vex.commands.acting import act
from vex.commands.tables import NUMBER, SIZE, Column, counted, local_time, moment, show, size
from vex.errors import Failure
from vex.http.certificates import Certificates
from vex.logs import escaped
from vex.settings.config import Config
from vex.storage.directory import InUse

_USAGE = (
    Column("REPOSITORY", "repository"),
    Column("TAGS", "tags", NUMBER),
    Column("SIZE", "bytes", SIZE),
    Column("SHARED", "shared", SIZE),
    Column("COMES FREE", "own", SIZE),
    Column("QUOTA", "quota", SIZE),
)
_DAY = 24 * 3600
_PATIENCE_SECONDS = 3.0


def df(config: Config, *, as_json: bool) -> int:
    """Show what takes the space, the most first; returns the exit code. Raises VexError."""
    *rows, last = act(config, "df")
    total = last["total"]
    rows.sort(key=lambda row: (-row["own"], -row["bytes"], row["repository"]))
    if as_json:
        print(json.dumps({"repositories": rows, **total}))
        return 0
    show(rows, _USAGE, as_json=False)
    print(f"{size(total['bytes'])} are stored, for images of {size(total['images'])}", file=sys.stderr)
    if total["unreferenced"]:
        print(
            f"{size(total['unreferenced'])} of them are in no image: pushes under way, or about to go", file=sys.stderr
        )
    print(f"{size(total['database'])} in the database; {_disk(total)}", file=sys.stderr)
    return 0


def status(config: Config, *, as_json: bool) -> int:
    """Tell how the registry is; returns 0 if it runs. Raises VexError."""
    try:
        (found,) = act(config, "status", patience=_PATIENCE_SECONDS)
    except InUse as error:
        # It runs, and cannot be asked.
        found = {"running": True, "unreachable": str(error)}
    if not found["running"]:
        found["certificates"] = _certificates(config)
    found["data"] = str(config.data_dir.resolve())
    if as_json:
        print(json.dumps(_document(found)))
    else:
        for name, text in _lines(found):
            print(escaped(f"{name:<13} {text}"))
    return 0 if found["running"] and "unreachable" not in found else 1


def _certificates(config: Config) -> dict[str, int | None]:
    try:
        return Certificates(config.certificates()).dates()
    except Failure as failure:
        print(f"vex: {escaped(str(failure))}", file=sys.stderr)
        return {}


def _document(found: dict[str, Any]) -> dict[str, Any]:
    times = {"since": moment(found["since"])} if "since" in found else {}
    until = {name: moment(seconds) for name, seconds in found.get("certificates", {}).items()}
    return {**found, **times, "certificates": until}


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "unreachable" in found:
        yield "registry", "cannot be asked"
        yield "why", found["unreachable"]
    elif found["running"]:
        yield "registry", f"runs since {local_time(found['since'])}, as process {found['pid']}"
        other = "" if found["version"] == VERSION else f"; this is {VERSION}: restart it to have that"
        yield "version", f"{found['version']}{other}"
    else:
        yield "registry", "does not run; start it with vex serve"
    for name, url in found.get("listeners", {}).items():
        yield name, url
    for name, seconds in found.get("certificates", {}).items():
        yield f"certificate of {name}", "until an unknown day" if seconds is None else _until(seconds)
    yield "data", found["data"]
    if "bytes" in found:
        counts = counted(found["repositories"], "repository", "repositories"), counted(found["tags"], "tag")
        yield "holds", ", ".join((*counts, size(found["bytes"])))
        yield "disk", _disk(found)
    if found.get("damaged"):
        yield "damaged", f"{counted(found['damaged'], 'blob')}; see vex check"


def _until(seconds: int) -> str:
    days = int((seconds - time.time()) // _DAY)
    left = "expired" if days < 0 else f"{days} days"
    return f"until {local_time(seconds)} ({left})"


def _disk(found: dict[str, Any]) -> str:
    if found["free"] is None:
        return "the disk does not tell what is free"
    full = "; pushes are refused" if found["free"] < found["kept"] else ""
    return f"{size(found['free'])} are free on the disk{full}"
