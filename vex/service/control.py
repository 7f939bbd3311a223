"""The control socket: what commands of this machine ask the running registry to do (`registry/operations.py`).

It is `control.sock` in the data directory, for the user of the registry and for root, as that directory is: no password
and no configuration. A request is `POST /OPERATION` with the arguments as a JSON object. Its answer is a JSON object a
line; what went wrong is the last line, with the `errors` of the OCI specification. Where the file system has no
sockets, the registry runs without one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable

from vex.errors import (
    BAD_REQUEST,
    DENIED,
    FAILED,
    INTERNAL,
    METHOD_NOT_ALLOWED,
    Disconnected,
    RegistryError,
    VexError,
)
from vex.http.local import LocalListener, listening_in
from vex.http.message import Request, Response, error_document, error_response
from vex.http.observer import Observer
from vex.http.server import ListenerLimits, Server
from vex.http.turns import Turns
from vex.registry.operations import operation, read_arguments
from vex.registry.parts import SOCKET, Parts, Row, actor_of
from vex.service.measures import CONTROL

_log = logging.getLogger("vex")

_CONNECTIONS = _BACKLOG = 16
_ARGUMENTS_BYTES = 1024 * 1024
# Rows go out together, but none waits longer than this for the next.
_PIECE_BYTES = 32 * 1024
_PIECE_SECONDS = 0.2
# Work under way ends with its next small piece.
_END_SECONDS = 3.0
# Long work may be long between two rows, and whoever reads them in a pager takes his time.
_PATIENCE_SECONDS = 3600.0
_HEADERS = (("Content-Type", "application/x-ndjson"), ("Cache-Control", "no-store"))


class Control:
    """Answers commands; `parts` are those of the registry, and `running` has it tell of itself."""

    def __init__(
        self, parts: Parts, running: Callable[[], Mapping[str, Any]], turns: Turns, observer: Observer
    ) -> None:
        self._parts = parts
        self._running = running
        self._turns = turns
        self._observer = observer
        self._held = contextlib.ExitStack()

    def start(self, directory: Path, limits: ListenerLimits) -> None:
        """Listen in a data directory, or log that this does not work there; the limits but for numbers are those of
        another listener.
        """
        try:
            listening = self._held.enter_context(listening_in(directory, SOCKET, _BACKLOG))
        except OSError as error:
            _log.warning(
                "cannot listen at %s: %s; commands such as vex rm do not reach this registry, and work while it is"
                " stopped",
                directory / SOCKET,
                error.strerror or error,
            )
            return
        patient = limits.timeouts._replace(stall=_PATIENCE_SECONDS, rate=0)
        listener = LocalListener(
            CONTROL,
            listening,
            self.answer,
            self.answer,
            ListenerLimits(limits.heads, patient, _CONNECTIONS, _BACKLOG),
            self._observer,
            tls_context=lambda: None,
            answers=None,
        )
        server = Server([listener], _END_SECONDS)
        server.start()
        self._held.callback(server.stop)

    def stop(self) -> None:
        """End in order, and remove the socket."""
        self._held.close()

    def answer(self, request: Request) -> Response:
        """Answer a request; every failure but Disconnected becomes an answer."""
        try:
            return self._respond(request)
        except RegistryError as error:
            return error_response(error)
        except Disconnected:
            raise
        except Exception as error:  # the last resort; it is logged and answered
            return error_response(_told(error, request.path))

    def _respond(self, request: Request) -> Response:
        request.op = CONTROL
        _refuse_others(request.client)
        if request.method != "POST":
            raise RegistryError(METHOD_NOT_ALLOWED, headers={"Allow": "POST"})
        name = request.path[1:]
        work = operation(name, _arguments(request))
        actor = actor_of(int(request.client) if request.client else os.geteuid())

        def rows() -> Iterator[Row]:
            try:
                with self._turns.take(request.left) as turn:
                    yield from work(self._parts._replace(actor=actor, work=turn, running=self._running()))
            except Disconnected:
                raise
            except Exception as error:
                yield error_document(_told(error, name))

        return Response(200, _HEADERS, stream=_pieces(rows()))


def _refuse_others(user: str) -> None:
    """Let nobody in but the user of this process, and root; raises DENIED."""
    # Where the system does not tell, the mode of the socket does it alone.
    if user and int(user) not in (0, os.geteuid()):
        raise RegistryError(DENIED, "the registry runs as another user: run this command as that user, or as root")


def _arguments(request: Request) -> dict[str, object]:
    content = bytearray()
    view = memoryview(bytearray(_PIECE_BYTES))
    while count := request.body.read_into(view):
        content += view[:count]
        if len(content) > _ARGUMENTS_BYTES:
            raise RegistryError(BAD_REQUEST, f"the arguments are larger than {_ARGUMENTS_BYTES} bytes")
    return read_arguments(bytes(content))


def _told(error: Exception, what: str) -> RegistryError:
    """Say what went wrong as an answer does; what nobody foresaw is logged."""
    if isinstance(error, RegistryError):
        return error
    if isinstance(error, VexError):
        return RegistryError(FAILED, str(error))
    _log.exception("the command %s failed", what)
    return RegistryError(INTERNAL)


def _pieces(rows: Iterator[Row]) -> Iterator[bytes]:
    piece, due = bytearray(), time.monotonic() + _PIECE_SECONDS
    for row in rows:
        piece += json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        if len(piece) >= _PIECE_BYTES or time.monotonic() >= due:
            yield bytes(piece)
            piece, due = bytearray(), time.monotonic() + _PIECE_SECONDS
    yield bytes(piece)
