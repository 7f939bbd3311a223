"""A Unix socket in a directory, for programs of this machine: those of the same user, and of root.

The file of the socket has the mode 0600, and the system tells who connects, where it does (`user_of`). A path that is
longer than the name of a socket may be goes through /proc/self/fd.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vex.http.server import Listener
from vex.http.sockets import listen_at_path

_MODE = 0o600
_LINUX = sys.platform.startswith("linux")
# unix(7): 108 bytes with the one at the end; 104 on the systems that come from BSD.
_MOST_BYTES = 107 if _LINUX else 103
# unix(7), struct ucred: process, user, group.
_CREDENTIALS = struct.Struct("=iII")


class LocalListener(Listener):
    """A listener whose clients are users of this machine: the address of each is the number of its user, "" where the
    system does not tell.
    """

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and find out whose it is."""
        connection, _ = super().get_request()
        return connection, (user_of(connection),)


@contextlib.contextmanager
def listening_in(directory: Path, name: str, backlog: int) -> Iterator[socket.socket]:
    """Listen at a socket in a directory, and remove it at the end; what a killed process left there is replaced. Raises
    OSError.
    """
    with _address(directory, name) as path, contextlib.closing(listen_at_path(path, backlog, _MODE)) as listening:
        yield listening


def connect_in(directory: Path, name: str) -> socket.socket | None:
    """Connect to who listens at a socket in a directory; returns None where nobody does. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        with _address(directory, name) as path:
            connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError:
        connection.close()
        raise
    return connection


def user_of(connection: socket.socket) -> str:
    """Return the number of the user at the other end; "" where the system does not tell."""
    if not _LINUX:
        return ""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return str(_CREDENTIALS.unpack(found)[1])


@contextlib.contextmanager
def _address(directory: Path, name: str) -> Iterator[Path]:
    """Give a path of a socket that is short enough, for as long as it is used."""
    path = directory / name
    if len(os.fsencode(path)) <= _MOST_BYTES or not _LINUX:
        yield path
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}", name)
    finally:
        os.close(descriptor)
