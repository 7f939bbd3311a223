"""The first user, whom `vex serve` makes so that a new registry can be pushed to at once, and what to paste then.

On a terminal one is made while nobody can push, and called as the person at the keyboard; elsewhere only when
`--first-user` asks for one, while there is no user. The password is shown once, on standard output, and never in the
log, which goes to standard error: only its hash is stored. A user whose password could not be shown is deleted again.
"""

from __future__ import annotations

import logging
import os
import pwd
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vex.access.tokens import Tokens
from vex.access.users import Users, is_user_name
from vex.errors import Failure
from vex.service.app import AUTH, PUBLIC

_log = logging.getLogger("vex")
# Without those that look alike: some are going to be typed.
_LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_PASSWORD_LENGTH = 20
# For who has no name, or one that no user can have.
_ANYBODY = "admin"
# Here docker takes plain HTTP without being told to.
_NEAR = ("127.", "localhost", "[::1]")


class Places(NamedTuple):
    """Where the registry is reached, as commands and browsers write it: HOST:PORT for pushing and pulling, and a URL;
    "" where it is not.
    """

    push: str
    pull: str
    web: str
    plain: bool


def places(urls: Mapping[str, str], public_url: str, *, one_port: bool) -> Places:
    """Say where the registry is reached; `urls` are those of the public and the auth listener, without Unix sockets."""
    auth = (public_url if one_port else "") or urls.get(AUTH, "")
    public = ("" if one_port else public_url) or urls.get(PUBLIC, "")
    push, pull = (url.partition("://")[2].rstrip("/") for url in (auth, auth if one_port else public or auth))
    return Places(push, pull, f"{public.rstrip('/')}/" if public else "", auth.startswith("http://"))


def wanted_name(users: Users, tokens: Tokens, asked: str, *, can_push: bool) -> str | None:
    """Name the user who is to be made: "" where nobody can push and nobody is made, None where there is nothing to do.

    `asked` is the name of `--first-user`, and `can_push` whether there is a listener to push to. Raises Failure.
    """
    if users.names():
        return None
    if asked:
        if not can_push:
            raise Failure(
                "--first-user adds somebody who pushes, and auth-addr is off; turn it on, or leave out --first-user"
            )
        users.check_new(asked)
        return asked
    if tokens.list() or not can_push:
        return None
    return _person() if sys.stdin.isatty() and sys.stdout.isatty() else ""


def advise(data: Path) -> None:
    """Log how to add a user."""
    command = shlex.join(
        [os.path.basename(sys.executable), sys.argv[0], "user", "add", "NAME", "--data-dir", str(data)]
    )
    _log.warning("no user can push yet; add one with: %s", command)


def make_first_user(users: Users, name: str, where: Places) -> None:
    """Make the first user, and show the password with the commands to paste; nothing happens where there is a user by
    now. Raises Failure.
    """
    password = "".join(secrets.choice(_LETTERS) for _ in range(_PASSWORD_LENGTH))
    if not users.add_first(name, password):
        return
    try:
        print("\n".join(_lines(name, password, where)), flush=True)
    except OSError as error:
        users.delete(name)
        raise Failure(
            f"cannot show the password of the first user: {error.strerror}; let standard output be a terminal or a file"
        ) from error


def _person() -> str:
    """Name the person at the keyboard as a user can be named; behind sudo, that is who called it."""
    name = os.environ.get("SUDO_USER") or os.environ.get("LOGNAME") or os.environ.get("USER") or _account()
    return name if is_user_name(name) else _ANYBODY


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""


def _lines(name: str, password: str, where: Places) -> Sequence[str]:
    shown = [
        "",
        "There was no user yet, so one was made. The password is shown this once; `vex user password` changes it:",
        f"  user      {name}",
        f"  password  {password}",
    ]
    if where.push:
        shown += [
            "",
            "Log in with that password, push a small image, and pull it:",
            f"  docker login --username {name} {where.push}",
            f"  tar -cf - -T /dev/null | docker import - {where.push}/hello",
            f"  docker push {where.push}/hello",
            f"  docker pull {where.pull}/hello",
        ]
    if where.plain and where.push and not where.push.startswith(_NEAR):
        shown += [
            "",
            "This address speaks plain HTTP, which docker refuses unless it is told to: `vex help tls` has what to do.",
        ]
    if where.web:
        shown += ["", "Look at it in a browser:", f"  {where.web}"]
    return [*shown, ""]
