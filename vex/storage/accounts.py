"""Every query of users and of machines' tokens."""

from __future__ import annotations

from typing import NamedTuple

from vex.storage.database import Transaction


class UserRow(NamedTuple):
    """A user; `version` is random and changes with the password."""

    name: str
    salt: bytes
    hash: bytes
    version: int


class TokenRow(NamedTuple):
    """A machine's token, without the token; `expires` and `used` are None for never, `repositories` is a pattern, and
    what it fetches counts as pulled if it is `counted`.
    """

    name: str
    hash: bytes
    created: int
    expires: int | None
    used: int | None
    repositories: str
    read_only: bool
    counted: bool = True


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


def user_versions(tx: Transaction) -> list[tuple[str, int]]:
    """Return name and version of every user."""
    return [(row[0], row[1]) for row in tx.rows("SELECT name, version FROM user")]


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


# Tokens of machines


def find_token(tx: Transaction, name: str) -> TokenRow | None:
    """Find a token."""
    return next(iter(_tokens(tx, "WHERE name = ?", name)), None)


def list_tokens(tx: Transaction) -> list[TokenRow]:
    """Return all tokens, by name."""
    return _tokens(tx, "ORDER BY name")


def add_token(tx: Transaction, token: TokenRow) -> None:
    """Record a new token."""
    tx.execute(
        "INSERT INTO token (name, hash, created, expires, used, repositories, read_only) VALUES (?, ?, ?, ?, ?, ?, ?)",
        token[:7],
    )
    # A database that no newer Vex has served yet has no such column, and needs none for the others.
    if not token.counted:
        tx.execute("UPDATE token SET counted = 0 WHERE name = ?", (token.name,))


def delete_token(tx: Transaction, name: str) -> int:
    """Delete a token; returns 0 if there was none."""
    return tx.execute("DELETE FROM token WHERE name = ?", (name,))


def note_token_use(tx: Transaction, name: str, used: int) -> None:
    """Write down when a token was used last."""
    tx.execute("UPDATE token SET used = ? WHERE name = ?", (used, name))


def _tokens(tx: Transaction, condition: str, *parameters: str) -> list[TokenRow]:
    # All columns, in the order of the fields: that of an older Vex has no last one.
    rows = tx.rows(f"SELECT * FROM token {condition}", parameters)  # noqa: S608 -- only literals
    return [TokenRow(*row[:6], *map(bool, row[6:])) for row in rows]
