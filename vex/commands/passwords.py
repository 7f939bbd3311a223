"""Passwords that commands ask for."""

from __future__ import annotations

import sys

from vex.errors import Failure


def new_password() -> str:
    """Ask for a new password, twice on a terminal."""
    return _password("Password: ", "Again: ")


def known_password(name: str) -> str:
    """Ask for a password that there is already."""
    return _password(f"Password of {name}: ")


def _password(*prompts: str) -> str:
    """Ask for a password on the terminal without echo, or take one line of standard input; never an argument, which
    others can see.
    """
    try:
        # Clients send UTF-8, whatever the locale of this terminal makes of its bytes.
        return _read_password_bytes(*prompts).decode("utf-8")
    except UnicodeDecodeError:
        raise Failure("the password is not UTF-8; set the terminal to UTF-8, or choose another") from None
    except EOFError:
        raise Failure("no password was typed; try again") from None


def _read_password_bytes(*prompts: str) -> bytes:
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline().rstrip(b"\r\n")
    import getpass  # here, since most commands ask for none

    first, *others = map(getpass.getpass, prompts)
    if others and others != [first]:
        raise Failure("the two passwords differ; try again")
    return first.encode("utf-8", "surrogateescape")
