"""Every query of users; as in `store.py`, which has those of the registry's contents."""

from __future__ import annotations

from typing import NamedTuple

from vex.database import Transaction


class UserRow(NamedTuple):
    """A user; `version` is random and changes with the password."""

    name: str
    salt: bytes
    hash: bytes
    version: int


# Users


def find_user(tx: Transaction, name: str) -> UserRow | None:
    """Find a user."""
    row = tx.row("SELECT name, salt, hash, version FROM user WHERE name = ?", (name,))
    return None if row is None else UserRow(*row)


def user_version(tx: Transaction, name: str) -> int | None:
    """Return the version of a user, which changes when the password does."""
    version: int | None = tx.value("SELECT version FROM user WHERE name = ?", (name,))
    return version


def list_users(tx: Transaction) -> list[tuple[str, int]]:
    """Return name and time of creation of every user, by name."""
    return [(row[0], row[1]) for row in tx.rows("SELECT name, created FROM user ORDER BY name")]


def save_user(tx: Transaction, user: UserRow, now: int) -> None:
    """Create a user, or give one a new password."""
    tx.execute(
        "INSERT INTO user (name, salt, hash, version, created) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET salt = excluded.salt, hash = excluded.hash, version = excluded.version",
        (*user, now),
    )


def delete_user(tx: Transaction, name: str) -> int:
    """Delete a user; returns 0 if there was none."""
    return tx.execute("DELETE FROM user WHERE name = ?", (name,))
