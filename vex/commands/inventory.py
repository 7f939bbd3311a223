"""`vex ls`: what there is, asked for in pages, so that a reader who takes his time holds nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from vex.commands.acting import act
from vex.commands.tables import DIGEST, LIST, NUMBER, SIZE, TIME, Column, show
from vex.registry.parts import Row
from vex.settings.config import Config

_PAGE = 5000
_REPOSITORIES = (
    Column("REPOSITORY", "repository"),
    Column("TAGS", "tags", NUMBER),
    Column("SIZE", "bytes", SIZE),
    Column("PUSHED", "pushed", TIME),
)
_TAGS = (
    Column("TAG", "tag"),
    Column("DIGEST", "digest", DIGEST),
    Column("PLATFORMS", "platforms", LIST),
    Column("SIZE", "bytes", SIZE),
    Column("PUSHED", "pushed", TIME),
)


def ls(config: Config, repository: str, *, as_json: bool) -> int:
    """List repositories, or the tags of one; returns the exit code. Raises VexError."""
    rows = _each(config, repository)
    if not show(rows, _TAGS if repository else _REPOSITORIES, as_json=as_json):
        what = f"the repository {repository} has no tag" if repository else "there is no repository yet"
        print(f"vex: {what}", file=sys.stderr)
    return 0


def _each(config: Config, repository: str) -> Iterator[Row]:
    last, name = "", "tag" if repository else "repository"
    while True:
        rows = list(act(config, "ls", repository=repository, last=last, limit=_PAGE))
        yield from rows
        if len(rows) < _PAGE:
            return
        last = rows[-1][name]
