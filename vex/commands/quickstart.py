"""`vex quickstart`: sets up a registry in the current directory, and prints what to do next.

Nothing is overwritten: if any file that it would write is there, it writes none. Nothing is made before the password is
known, and what was made is taken back when it does not come to its end. Every command that it prints can be pasted.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import pkgutil
import re
import shlex
import shutil
import string
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Callable

from vex.access.users import Users, check_password, check_user
from vex.commands.certificate import create_authority, create_certificate, hosts_of
from vex.commands.certificate_files import AUTHORITY, AUTHORITY_KEY, CERTIFICATE_MODE, KEY_MODE, write_new
from vex.errors import Failure
from vex.storage.blobs import FILE_MODE
from vex.storage.database import Database
from vex.storage.directory import open_data

PUBLIC_PORT, AUTH_PORT, INTERNAL_PORT = 8200, 8201, 8202
# What ProtectHome=yes and PrivateTmp=yes hide: systemd.exec(5)
_HOMES = ("/home/", "/root/", "/run/user/")
_TEMPORARY = ("/tmp/", "/var/tmp/")  # noqa: S108 -- where the registry is, not what is written
# Control characters, of which a line feed would begin another line of the unit, and bytes that are not UTF-8, as Python
# shows them.
_UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Words that systemd takes as they are: systemd.syntax(7), Quoting.
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:@+,=-]+")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def quickstart(username: str, hostname: str, read_password: Callable[[], str]) -> int:
    """Set up a registry in the current directory; returns the exit code. Raises Failure."""
    check_user(username)
    directory, program = Path.cwd(), os.path.abspath(sys.argv[0])
    _check_paths(str(directory), sys.executable, program)
    # What is checked here names files, too: it holds no path separator.
    hosts = hosts_of(hostname)
    # The authority's files have that name.
    stem = hosts[0] if hosts[0] != "ca" else "ca.server"
    certificate, key = f"{stem}.crt.pem", f"{stem}.key.pem"
    _refuse_existing(["vex.conf", "vex.service", AUTHORITY, AUTHORITY_KEY, certificate, key, "data/vex.db"])
    password = read_password()
    check_password(password)
    authority = create_authority(hosts, now=time.time())
    made = create_certificate(hosts, authority, now=time.time())
    values = _values(username, hosts[0], program)
    files = {
        "vex.conf": (_filled("vex.conf", {**values, "certificate": certificate, "key": key}), FILE_MODE),
        "vex.service": (_filled("vex.service", _unit(directory, program)), FILE_MODE),
        AUTHORITY: (authority.certificate_pem, CERTIFICATE_MODE),
        AUTHORITY_KEY: (authority.key_pem, KEY_MODE),
        certificate: (made.certificate_pem, CERTIFICATE_MODE),
        key: (made.key_pem, KEY_MODE),
    }
    _make(directory, files, username, password)
    print(_next_steps(directory, files, values), end="")
    return 0


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Fill in a file of `vex/commands/templates`."""
    content = pkgutil.get_data("vex.commands", f"templates/{template}")
    if content is None:
        raise FileNotFoundError(template)
    return string.Template(content.decode()).substitute(values)


def _check_paths(*paths: str) -> None:
    """Refuse paths that the unit and the commands cannot name; raises Failure."""
    for path in filter(_UNSPEAKABLE.search, paths):
        shown = ascii(path)
        raise Failure(
            f"the path {shown} holds control characters or is not UTF-8, so systemd cannot be told; use a directory"
            " with another name"
        )


def _refuse_existing(names: list[str]) -> None:
    existing = [name for name in names if os.path.lexists(name)]
    if existing:
        raise Failure(
            f"{', '.join(existing)}: already here, and nothing is overwritten; use another directory, or move that away"
        )


def _values(username: str, hostname: str, program: str) -> dict[str, str]:
    name = f"[{hostname}]" if ":" in hostname else hostname
    return {
        "host": name if _is_loopback(hostname) else "",
        "name": name,
        "username": username,
        "vex": _shell(sys.executable, program),
        "public": str(PUBLIC_PORT),
        "auth": str(AUTH_PORT),
        "internal": str(INTERNAL_PORT),
    }


def _make(directory: Path, files: Mapping[str, tuple[str, int]], username: str, password: str) -> None:
    """Make the files and the database with its user; all that was made goes again if anything fails, so that a second
    try finds nothing in its way.
    """
    data = directory / "data"
    with contextlib.ExitStack() as undo:
        undo.callback(_take_back, data, is_new=not data.exists())
        with open_data(data):
            with contextlib.closing(Database(data / "vex.db")) as database:
                Users(database).add(username, password)
            for name, (text, mode) in files.items():
                write_new(directory / name, text, mode)
                undo.callback(os.unlink, directory / name)
        undo.pop_all()


def _take_back(data: Path, *, is_new: bool) -> None:
    if is_new:
        shutil.rmtree(data, ignore_errors=True)
    for path in data.glob("vex.db*"):
        path.unlink()


def _next_steps(directory: Path, files: Mapping[str, object], values: Mapping[str, str]) -> str:
    paths = {
        name: _shell(str(directory / path))
        for name, path in (("config", "vex.conf"), ("service", "vex.service"), ("authority", AUTHORITY))
    }
    written = "  ".join([*files, "data/vex.db"])
    return _filled("next-steps.txt", {**values, **paths, "directory": _shell(str(directory)), "written": written})


def _is_loopback(hostname: str) -> bool:
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname == "localhost"


def _shell(*words: str) -> str:
    return " ".join(map(shlex.quote, words))


# The unit, in which directives differ in how they are read: systemd.syntax(7), and the manual page of each


def _unit(directory: Path, program: str) -> dict[str, str]:
    account = getpass.getuser()
    needed = (str(directory), program, sys.executable, sys.prefix, sys.base_prefix)
    return {
        "user": account if _ACCOUNT.fullmatch(account) else str(os.getuid()),
        "directory": _line(str(directory)),
        "command": _command(sys.executable, program, "serve", "--config", str(directory / "vex.conf")),
        "data": _word(str(directory / "data")),
        # The registry does without it; "-" says that it need not be there.
        "authority_key": _word(f"-{directory / AUTHORITY_KEY}"),
        "home": "read-only" if _is_any_below(_HOMES, needed) else "yes",
        "tmp": "no" if _is_any_below(_TEMPORARY, needed) else "yes",
    }


def _is_any_below(tops: tuple[str, ...], paths: Iterable[str]) -> bool:
    """Tell whether the registry or a part of Python is in one of these directories, which the service would not see
    otherwise.
    """
    return any(f"{os.path.realpath(path)}/".startswith(tops) for path in paths)


def _line(path: str) -> str:
    """Write a path that is the whole of a line: without quotes, and with % doubled. A space or a backslash at the end
    would be lost.
    """
    return path.replace("%", "%%") + ("/" if path.endswith((" ", "\\")) else "")


def _word(text: str) -> str:
    """Quote a word of a list: C escapes in double quotes, and % doubled."""
    if _PLAIN_WORD.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _command(*words: str) -> str:
    """Quote a command, in which $ would begin the name of a variable: ":" in front of it says that there are none, from
    systemd 244 on.
    """
    return (":" if "$" in "".join(words) else "") + " ".join(map(_word, words))
