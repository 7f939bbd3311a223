"""Listening sockets: bound to an address or to a path, or passed by a service manager (sd_listen_fds(3)); and what is
asked of those that they accept.

The file of a socket that a killed process left is replaced; one that somebody listens at, or that is no socket, is left
alone. A file that was made here goes when the socket is closed; one that was passed belongs to the manager.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vex.errors import Failure
from vex.http.forwarded import UNIX
from vex.settings.values import Address, Listening, UnixAddress

# The owner and the group connect: connecting is writing, see unix(7).
_SOCKET_MODE = 0o660
_FIRST_PASSED = 3
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
# How long one send may block before the reaper can see what it has done so far.
_SEND_SLICE_SECONDS = 5
# The peer has closed its side; where that cannot be told from having sent nothing, that all of the connection has
# ended.
_LEFT = getattr(select, "POLLRDHUP", select.POLLHUP)

# What listens, by the listeners' names.
Sockets = Mapping[str, socket.socket]


def listen(name: str, address: Listening, backlog: int) -> socket.socket:
    """Bind and listen for a listener; raises Failure with a sentence about the address."""
    if isinstance(address, UnixAddress):
        return _listen_at_path(name, address, backlog)
    family, sockaddr = _resolve(name, address)
    try:
        listening = socket.socket(family)
        with _closed_on_error(listening):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # "All interfaces" means those of IPv4 as well.
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address.host == "" else 1)
            listening.bind(sockaddr[:2])
            listening.listen(backlog)
    except OSError as error:
        raise Failure(
            f"cannot listen on {address.host or '*'}:{address.port} for {name}: {error.strerror};"
            f" {_advice(name, error)}"
        ) from error
    return listening


def passed(environment: Mapping[str, str], wanted: Sequence[str]) -> dict[str, socket.socket]:
    """Take the sockets that a service manager passed, by the listeners' names; raises Failure.

    Sockets that have names of listeners are theirs; others are those of the listeners `wanted`, in order.
    """
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return {}
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    names = names if {"public", "auth", "internal"}.intersection(names) else list(wanted[: int(count)])
    if len(names) != int(count) or len(set(names)) != len(names) or not set(names).issubset(wanted):
        advice = "pass one socket for each, or name them so with FileDescriptorName="
        raise Failure(
            f"{count} sockets were passed ({environment.get('LISTEN_FDNAMES')}), and the listeners are"
            f" {', '.join(wanted)}; {advice}"
        )
    return {name: _passed(name, _FIRST_PASSED + number) for number, name in enumerate(names)}


def port_of(address: object) -> int | None:
    """Return the port of an address, as `getsockname` gives it; None for a Unix socket."""
    return int(address[1]) if isinstance(address, tuple) else None


def peer_of(address: object) -> str:
    """Return the address of a peer, as `accept` gives it, in its usual form."""
    host = str(address[0]) if isinstance(address, tuple) else UNIX
    return host[7:] if host.startswith("::ffff:") else host


def prepare(accepted: socket.socket) -> None:
    """Have an accepted socket send at once, and give up its thread now and then while it cannot."""
    if accepted.family != socket.AF_UNIX:
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SLICE_SECONDS, 0))


def has_left(accepted: socket.socket) -> bool:
    """Tell whether the peer has closed its side, or this one was cut."""
    poll = select.poll()
    poll.register(accepted, _LEFT)
    return bool(poll.poll(0))


def _passed(name: str, descriptor: int) -> socket.socket:
    try:
        listening = socket.socket(fileno=descriptor)
        usable = listening.family in _FAMILIES and listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        usable = False
    if not usable:
        raise Failure(
            f"descriptor {descriptor}, passed for {name}, is no listening stream socket; use ListenStream= and"
            " Accept=no"
        )
    listening.set_inheritable(False)
    listening.setblocking(True)
    return listening


class _FileSocket(socket.socket):
    """A socket bound to a path, whose file goes when it is closed, unless another took its place."""

    made: os.stat_result | None = None

    def close(self) -> None:
        """Remove the file, and close the socket."""
        if self.made and self.fileno() >= 0:
            path = self.getsockname()
            with contextlib.suppress(OSError):
                if os.path.samestat(self.made, os.lstat(path)):
                    os.unlink(path)
        super().close()


def _listen_at_path(name: str, address: UnixAddress, backlog: int) -> socket.socket:
    try:
        return listen_at_path(address.path, backlog, _SOCKET_MODE)
    except OSError as error:
        raise Failure(
            f"cannot listen on {address} for {name}: {error.strerror or error}; {_path_advice(name, error)}"
        ) from error


def listen_at_path(path: Path, backlog: int, mode: int) -> socket.socket:
    """Bind and listen at a path, with this mode of its file; raises OSError."""
    listening = _FileSocket(socket.AF_UNIX)
    with _closed_on_error(listening):
        with contextlib.suppress(OSError):
            # The file has the right mode from the beginning where the system takes it from the socket, as Linux does.
            os.fchmod(listening.fileno(), mode)
        _bind_to_path(listening, path)
        listening.made = os.lstat(path)
        # Nobody connects before the mode is right: that is refused until it listens.
        os.chmod(path, mode)
        listening.listen(backlog)
    return listening


def _bind_to_path(listening: socket.socket, path: Path) -> None:
    try:
        listening.bind(str(path))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _is_left_over(path):
            raise
        os.unlink(path)
        listening.bind(str(path))


def _is_left_over(path: Path) -> bool:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


@contextlib.contextmanager
def _closed_on_error(listening: socket.socket) -> Any:
    try:
        yield
    except OSError:
        listening.close()
        raise


def _resolve(name: str, address: Address) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    host, port = address
    if host == "":
        return (socket.AF_INET6, ("::", port)) if socket.has_dualstack_ipv6() else (socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 -- asked for
    try:
        # As bytes: for text, Python loads what encodes international names.
        found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        message = (
            f"cannot listen on {host}:{port} for {name}: the host name is not known here; use an address of this"
            f" machine, or :{port} for all"
        )
        raise Failure(message) from error
    # localhost may be both; clients that are told 127.0.0.1 must find us there.
    family, _, _, _, sockaddr = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, sockaddr


def _advice(name: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "ports below 1024 need privileges: choose a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"that is not an address of this machine: use one that is, or :PORT for all, in {name}-addr"
    return f"end what uses it, or choose another with {name}-addr"


def _path_advice(name: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"end what listens there, move away what is no socket, or choose another with {name}-addr"
    if error.errno is None:
        return f"the system allows 107 bytes: choose a shorter path with {name}-addr"
    return "its directory must be there, and this user must be able to write to it"
