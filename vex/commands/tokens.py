"""`vex token`: what its commands do and print. A token goes to standard output, and nowhere else."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable

from vex.access.bearer import Signer
from vex.access.identity import check_pattern
from vex.access.tokens import Tokens
from vex.access.users import check_user
from vex.storage.directory import open_data, registry_in, registry_made_in
from vex.storage.schema import WITH_RULES, WITH_TOKENS

_HEADINGS = ("NAME", "CREATED", "EXPIRES", "LAST USE", "REPOSITORIES", "RIGHTS")


def run(options: argparse.Namespace, data: Path) -> None:
    """Run one of the commands on a data directory; raises Failure."""
    if options.verb == "add":
        # Whatever is refused is refused before a registry is made for it.
        check_user(options.name)
        check_pattern(options.repository)
        with registry_made_in(data, WITH_RULES if options.not_counted else WITH_TOKENS) as database:
            _add(options, Tokens(database))
        return
    with registry_in(data, WITH_TOKENS) as database, open_data(data):
        if options.verb == "rotate-key":
            Signer(data).rotate()
        else:
            _VERBS[options.verb](options, Tokens(database))


def _add(options: argparse.Namespace, tokens: Tokens) -> None:
    print(
        tokens.add(
            options.name,
            lifetime=options.expires,
            repositories=options.repository,
            read_only=options.read_only,
            counted=not options.not_counted,
        )
    )
    print(f"vex: this is the password of {options.name}; it is not shown again", file=sys.stderr)


def _delete(options: argparse.Namespace, tokens: Tokens) -> None:
    tokens.delete(options.name)


def _list(_options: argparse.Namespace, tokens: Tokens) -> None:
    rows = [_HEADINGS]
    for token in tokens.list():
        rights = ("read" if token.read_only else "read, write") + ("" if token.counted else ", not counted")
        rows.append(
            (token.name, _time(token.created), _time(token.expires), _time(token.used), token.repositories, rights)
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows if len(rows) > 1 else ():
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def _time(seconds: int | None) -> str:
    return "never" if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%MZ")


_VERBS: dict[str, Callable[[argparse.Namespace, Tokens], None]] = {"delete": _delete, "list": _list}
