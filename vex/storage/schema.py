"""The schema of the database: its numbered migrations, and what is refused to be opened.

A database is brought up to date in one transaction, with the number of the last migration, or left as it is.
"""

from __future__ import annotations

import pkgutil
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from vex.errors import Failure
from vex.storage.readers import BUSY_SECONDS

MIGRATIONS = (
    "001-registry.sql",
    "002-web.sql",
    "003-totals.sql",
    "004-token.sql",
    "005-audit.sql",
    "006-removal.sql",
    "007-rules.sql",
)
LATEST = len(MIGRATIONS)
# The schemas from which on there is all that the lists of the web interface show, tokens, the audit trail, states of
# manifests, and what the rules go by.
WITH_TOTALS, WITH_TOKENS, WITH_TRAIL, WITH_STATES, WITH_RULES = 3, 4, 5, 6, 7
_RETRY_SECONDS = 0.01
_BLOB = re.compile("[0-9a-f]{64,128}")


def version_of(connection: sqlite3.Connection) -> int:
    """Return the number of the last migration that a database has seen; 0 where it is empty."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def settle(connection: sqlite3.Connection, path: Path, oldest: int, create: bool) -> bool:
    """Bring the schema up to date, or with `oldest` see that it is that or a later one; returns whether the database is
    new. Raises Failure.
    """
    version, created = version_of(connection), False
    if version == 0:
        _refuse_blobs_without_rows(path)
    if not oldest or (version == 0 and create):
        _turn_on_log(connection)
        if version < LATEST:
            created = _migrate(connection, oldest)
            version = version_of(connection)
    if version > LATEST:
        raise Failure(
            f"{path} was written by a newer Vex (schema {version}, this one knows {LATEST}); use that version"
            " or a newer one"
        )
    if version == 0:
        raise Failure(
            f"there is no registry in {path.parent.resolve()}: its vex.db is empty; name its data directory"
            " with --data-dir"
        )
    if version < oldest:
        raise Failure(
            f"the database {path} is that of an older Vex (schema {version}, and this needs {oldest}): start"
            " this Vex on it with vex serve,"
            " which brings it up to date, or use the older one"
        )
    return created


def _refuse_blobs_without_rows(path: Path) -> None:
    blobs = path.parent / "blobs"
    if any(_BLOB.fullmatch(file.name) for file in blobs.glob("*/*")):
        # Files without a row are litter, which a start removes.
        raise Failure(
            f"the database {path} is gone or empty, and {blobs} has files: restore it from a backup, or move"
            f" {blobs} away to begin anew"
        )


def _migrate(connection: sqlite3.Connection, oldest: int) -> bool:
    """Run the migrations that are missing; another process may have done it a moment ago. Returns whether the database
    was empty.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(connection)
        due = version < LATEST and not (oldest and version)
        if due:
            for name in MIGRATIONS[version:]:
                for statement in _statements(_script(name)):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {LATEST}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return due and version == 0


def _turn_on_log(connection: sqlite3.Connection) -> None:
    """Have a new database use a write-ahead log; where several processes do so at once, SQLite lets none of them
    wait.
    """
    for left in reversed(range(int(BUSY_SECONDS / _RETRY_SECONDS))):
        try:
            # To its end: what fails behind its first row would only be found, and told, by who throws it away.
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or not left:
                raise
            time.sleep(_RETRY_SECONDS)


def _script(name: str) -> str:
    # pkgutil reads from the zipapp too.
    content = pkgutil.get_data("vex.storage", f"sql/{name}")
    if content is None:
        raise Failure(f"vex/storage/sql/{name} is missing; install Vex again")
    return content.decode()


def _statements(script: str) -> Iterator[str]:
    # Not executescript: it commits the open transaction first.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
