"""How commands act: through the registry that runs, so that caches, events and locks are those of one process, or on
the data directory, where none runs. Either way it is the same operation (`registry/operations.py`).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

from vex.errors import UNAVAILABLE, Failure, Kind, RegistryError
from vex.http.local import connect_in
from vex.progress import Progress
from vex.registry.parts import SOCKET, Row
from vex.settings.config import Config
from vex.storage.directory import InUse, database_in

# A registry that starts has its lock first, and then its socket; and other commands hold the lock for a moment.
_WAIT_SECONDS = 10.0
_RETRY_SECONDS = 0.05
_READ_BYTES = 64 * 1024


def act(config: Config, name: str, *, patience: float = _WAIT_SECONDS, **arguments: Any) -> Iterator[Row]:
    """Run an operation, and give its rows; shows how far it is on standard error. Raises VexError, also behind rows,
    and InUse where the data directory is in use, and nobody answers for so long.
    """
    with Progress() as progress:
        for row in _rows(config, name, arguments, patience):
            if row.keys() == {"progress"}:
                progress.show(row["progress"])
            else:
                progress.clear()
                yield row


def tell(config: Config, name: str) -> None:
    """Have the registry that runs, if one does, do an operation that has no rows. Raises VexError."""
    connection = _connection(config)
    if connection is not None:
        with contextlib.closing(connection):
            for _ in _asked(connection, name, {}):
                pass


def _rows(config: Config, name: str, arguments: dict[str, Any], patience: float) -> Iterator[Row]:
    deadline = time.monotonic() + patience
    while True:
        connection = _connection(config)
        if connection is not None:
            with contextlib.closing(connection):
                yield from _asked(connection, name, arguments)
            return
        # Imported here, since who asks a running registry needs nothing of it.
        from vex.registry.operations import operation
        from vex.service.alone import alone

        with contextlib.ExitStack() as held:
            try:
                parts = held.enter_context(alone(config))
            except InUse as error:
                if time.monotonic() >= deadline:
                    raise InUse(
                        f"a registry, or a command, uses the data directory {config.data_dir}, and nobody answers at"
                        f" {SOCKET} in it: try again when it has started; an older vex, or one whose log warns of that"
                        " file, has to be stopped first"
                    ) from error
                time.sleep(_RETRY_SECONDS)
                continue
            yield from operation(name, arguments)(parts)
            return


def _connection(config: Config) -> _Connection | None:
    """Connect to the registry that runs, if one does."""
    database_in(config.data_dir)
    try:
        connected = connect_in(config.data_dir, SOCKET)
    except PermissionError as error:
        raise Failure(
            f"the registry in {config.data_dir} is that of another user: run this command as that user, or as root"
        ) from error
    except OSError as error:
        raise Failure(
            f"cannot reach the registry in {config.data_dir}, at {SOCKET}: {error.strerror or error}; if it does not"
            " run, remove that file"
        ) from error
    return _Connection(connected) if connected else None


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket that is connected already."""

    def __init__(self, connected: Any) -> None:
        super().__init__("localhost")
        self.sock = connected


def _asked(connection: _Connection, name: str, arguments: dict[str, Any]) -> Iterator[Row]:
    try:
        connection.request("POST", f"/{name}", json.dumps(arguments).encode(), {"Content-Type": "application/json"})
        yield from map(_row, _lines(connection.getresponse()))
    except (OSError, http.client.HTTPException) as error:
        raise RegistryError(
            UNAVAILABLE, "the registry ended before it had answered: look whether it runs, then try again"
        ) from error


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Give the lines of an answer; raises OSError or HTTPException where it has no end, which reading by line would
    hide.
    """
    rest = b""
    while piece := response.read1(_READ_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def _row(line: bytes) -> Row:
    row: Row = json.loads(line)
    if row.keys() == {"errors"}:
        first = row["errors"][0]
        raise RegistryError(Kind(first["code"], 400, first["message"]), detail=first.get("detail"))
    return row
