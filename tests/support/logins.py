"""Machines' tokens for tests, and what the database knows of users."""

from __future__ import annotations

import contextlib
import sqlite3

from tests.support.server import Server, vex


def add_token(server: Server, name: str, *flags: str) -> str:
    """Make a token for a machine; returns it."""
    made = vex("token", "add", name, *flags, "--data-dir", str(server.data))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def user_version(server: Server, name: str) -> int:
    """Look up the version of a user."""
    with contextlib.closing(sqlite3.connect(server.data / "vex.db")) as connection:
        version: int = connection.execute("SELECT version FROM user WHERE name = ?", (name,)).fetchone()[0]
        return version
