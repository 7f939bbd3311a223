"""How log lines look and where they go: one line each, as text or as JSON, with nothing in them that could pass for
another line.

The log goes to standard error. The access log is apart from it, since many want it in a file, which others move away
(`reopen`), or do not want it at all. Neither is given queries, credentials or bodies to write.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from pathlib import Path
from typing import Callable

from vex.errors import Failure

AUTO, TEXT = "auto", "text"
FORMATS = (AUTO, TEXT, "json")
LEVELS = ("debug", "info", "warning", "error")
STANDARD_ERROR = "stderr"

Render = Callable[[dict[str, object]], str]

_log = logging.getLogger("vex")

_MAX_BYTES = 8 * 1024
_FILE_MODE = 0o640
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# Values that need no quotes behind key=.
_PLAIN = re.compile(r"[!#-<>-~]+")


def event(message: str, **fields: object) -> None:
    """Log something that happened, with fields that programs can read; those that are None are left out."""
    _log.info(message, extra={"fields": fields})


def log_to_standard_error(log_format: str, level: str) -> None:
    """Log from now on what is of this level or more important."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(_rendering(log_format)))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class AccessLog:
    """One line for each request; `target` is a file, or STANDARD_ERROR."""

    def __init__(self, target: Path | str, log_format: str) -> None:
        """Open it; raises Failure."""
        self._path = target if isinstance(target, Path) else None
        self._render = _rendering(log_format)
        self._failing = False
        try:
            self._descriptor = _open(self._path) if self._path else sys.stderr.fileno()
        except OSError as error:
            raise Failure(
                f"cannot write the access log {target}: {error.strerror}; check its path and permissions, or set"
                " access-log to stderr"
            ) from error

    def record(
        self,
        listener: str,
        address: str,
        user: str,
        method: str,
        path: str,
        status: int,
        received: int | None,
        sent: int | None,
        seconds: float | None,
    ) -> None:
        """Write the line of a request; sizes are bytes of bodies, and what is not known is left out."""
        entry = {
            "time": time.time(),
            "level": "info",
            "message": "request",
            "listener": listener,
            "user": user or None,
            "address": address,
            "method": method or None,
            "path": path or None,
            "status": status,
            "received": received,
            "sent": sent,
            "seconds": None if seconds is None else round(seconds, 6),
        }
        try:
            # One write at the end of the file: lines of several threads never mix, and nothing waits in a buffer.
            os.write(self._descriptor, (_line(self._render, entry) + "\n").encode("utf-8", "backslashreplace"))
            self._failing = False
        except OSError as error:
            if not self._failing:
                _log.error(
                    "cannot write the access log: %s; requests are answered, and not recorded until this is mended",
                    error.strerror,
                )
            self._failing = True

    def reopen(self) -> None:
        """Go on in a new file where the old one was moved away; where none can be opened, go on in the old one and log
        that.
        """
        if self._path is None:
            return
        try:
            fresh = _open(self._path)
        except OSError as error:
            _log.error("cannot reopen the access log %s: %s; writing on to the old file", self._path, error.strerror)
            return
        # In one step, since other threads are writing: the number of a closed file could be that of a connection the
        # next moment.
        os.dup2(fresh, self._descriptor, inheritable=False)
        os.close(fresh)
        _log.info("the access log %s was reopened", self._path)


class _Formatter(logging.Formatter):
    """Makes lines of records; in text a traceback keeps its lines, indented, since what a client sent may be in its
    last one.
    """

    def __init__(self, render: Render) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": record.created,
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        traceback = self.formatException(record.exc_info) if record.exc_info else ""
        if traceback and self._render is _text:
            return "\n  ".join([_line(_text, entry), *map(escaped, traceback.splitlines())])
        return _line(self._render, {**entry, "traceback": traceback or None})


def escaped(text: str) -> str:
    """Show control characters, and what changes the order of others, as their numbers."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def utc(seconds: float) -> str:
    """Write a time for programs (RFC 3339), to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)


def _rendering(log_format: str) -> Render:
    return _text if log_format == TEXT or (log_format == AUTO and sys.stderr.isatty()) else _json


def _line(render: Render, entry: dict[str, object]) -> str:
    """Make a line of at most 8 KiB; what is longest in it loses its middle until it fits."""
    entry = {key: value for key, value in entry.items() if value is not None}
    while len(line := render(entry)) * 4 >= _MAX_BYTES and len(line.encode("utf-8", "backslashreplace")) >= _MAX_BYTES:
        key = max(entry, key=lambda key: len(str(entry[key])))
        value = str(entry[key])
        entry[key] = f"{value[: len(value) // 4]}...{value[-(len(value) // 4) :]}"
    return line


def _text(entry: dict[str, object]) -> str:
    moment, level, message, *fields = entry.items()
    seconds = float(str(moment[1]))
    stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))},{int(seconds % 1 * 1000):03}"
    pairs = (f"{key}={value if _PLAIN.fullmatch(str(value)) else json.dumps(str(value))}" for key, value in fields)
    return " ".join((stamp, str(level[1]).upper(), escaped(str(message[1])), *pairs))


def _json(entry: dict[str, object]) -> str:
    seconds = float(str(entry["time"]))
    stamp = f"{utc(seconds)[:-1]}.{int(seconds % 1 * 1000):03}Z"
    # In ASCII, whatever the locale makes of other characters; only DEL is left of the control characters then.
    return json.dumps({**entry, "time": stamp}).replace("\x7f", "\\u007f")
