"""Runs the command line of Vex on a layer of files, sockets and database that springs traps (`points.py`).

    python tests/proof/crash/runner.py POINTS-FILE ARGUMENTS-OF-VEX

The layer lies between Vex and the functions of the standard library that it calls. SQLite's own calls are below it: for
those, statements fail as SQLite reports the same error, and the sync of its log is taken out by its own setting.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
import pathlib  # noqa: F401 -- before the layer is put in: in Python 3.9 it keeps functions of os as methods
import signal
import socket
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any, Callable

sys.path[0] = str(Path(__file__).resolve().parent.parent.parent.parent)

from tests.proof.crash.points import HOLD, KILL, SKIP, Points, Trap  # noqa: E402 -- the path of the checkout comes first

_PLACES = ("uploads", "blobs")
_LOOK_SECONDS = 0.001
# As SQLite, through the sqlite3 module, reports these: SQLITE_FULL, SQLITE_IOERR, SQLITE_CANTOPEN.
_SQLITE_SAYS = {
    "ENOSPC": sqlite3.OperationalError("database or disk is full"),
    "EIO": sqlite3.OperationalError("disk I/O error"),
    "EMFILE": sqlite3.OperationalError("unable to open database file"),
    "ENOMEM": MemoryError(),
}


class Layer:
    """The functions that take the place of others."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def install(self) -> None:
        """Take their place."""
        for name in ("open", "write", "fsync", "unlink", "truncate", "mkdir", "setxattr"):
            self._wrap(os, name, lambda first, *_: first)
        for name in ("rename", "link", "sendfile"):
            self._wrap(os, name, lambda _, second, *__: second)
        self._wrap(socket.socket, "accept", lambda *_: "")
        self._wrap_open()
        self._wrap_connect()

    def _wrap(self, owner: Any, name: str, what: Callable[..., Any]) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if not self._points.armed:
                return function(*arguments, **options)
            point = f"{name} {_place(what(*arguments))}".strip()
            return self.pass_point(point, lambda: function(*arguments, **options), _os_error)

        setattr(owner, name, call)

    def _wrap_open(self) -> None:
        function = builtins.open

        def call(file: Any, *arguments: Any, **options: Any) -> Any:
            place = _place(file) if self._points.armed else ""
            if place not in _PLACES:
                return function(file, *arguments, **options)
            return self.pass_point(f"open {place}", lambda: function(file, *arguments, **options), _os_error)

        builtins.open = call

    def _wrap_connect(self) -> None:
        function, layer = sqlite3.connect, self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> Any:
                if not layer._points.armed:
                    return super().execute(sql, *parameters)
                if sql.startswith("PRAGMA synchronous"):
                    # Without this the log is not synced at a commit; sqlite.org/pragma.html#pragma_synchronous
                    return layer.pass_point(
                        "synchronous",
                        lambda: sqlite3.Connection.execute(self, sql),
                        _sqlite_error,
                        lambda: _less_synchronous(self),
                    )
                return layer.pass_point(
                    _statement(sql), lambda: sqlite3.Connection.execute(self, sql, *parameters), _sqlite_error
                )

        def connect(*arguments: Any, **options: Any) -> Any:
            return function(*arguments, factory=Connection, **options)

        sqlite3.connect = connect

    def pass_point(
        self,
        point: str,
        call: Callable[[], Any],
        failure: Callable[[str], Exception],
        instead: Callable[[], Any] = lambda: None,
    ) -> Any:
        """Do a call, or what a trap has put in its place."""
        trap = self._points.sprung_at(point)
        if trap is None:
            return call()
        if trap.action == SKIP:
            return instead()
        if trap.action == HOLD:
            while self._points.holds(trap):
                time.sleep(_LOOK_SECONDS)
            return call()
        if trap.after:
            # That it failed by itself, as the removal of a file that is gone does, changes nothing.
            with contextlib.suppress(Exception):
                call()
        _spring(trap, failure)
        raise AssertionError("the process goes on after its end")


def _spring(trap: Trap, failure: Callable[[str], Exception]) -> None:
    if trap.action == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    raise failure(trap.action)


def _os_error(name: str) -> Exception:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


def _sqlite_error(name: str) -> Exception:
    return _SQLITE_SAYS[name]


def _less_synchronous(connection: sqlite3.Connection) -> Any:
    return sqlite3.Connection.execute(connection, "PRAGMA synchronous = NORMAL")


def _statement(sql: str) -> str:
    word = sql.split(None, 1)[0].lower()
    return f"database {word}"


def _place(file: Any) -> str:
    """Name the directory or the file that a path or a descriptor is about."""
    path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.fsdecode(file)
    parts = path.split("/")
    found = [part for part in parts if part in _PLACES]
    return found[-1] if found else parts[-1]


if __name__ == "__main__":
    Layer(Points(Path(sys.argv.pop(1)))).install()
    from vex.commands import cli

    sys.exit(cli.main())
