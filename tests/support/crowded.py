"""A registry with very many names, written into its database in one go: pushing them would take an hour."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

from tests.support.server import Server, image, running

REPOSITORIES, TAGS = 100_000, 70_000
# Their names, as SQL makes them of a number; of tags, the longest that there can be.
_REPOSITORY = "printf('team-%03d/a-service-with-a-name-of-some-length-as-they-are-in-large-companies/%06d', i % 500, i)"
_TAG = "printf('v%0127d', i)"
_NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ? - 1)"


def repository_name(number: int) -> str:
    """Return the name of one of REPOSITORIES."""
    return f"team-{number % 500:03}/a-service-with-a-name-of-some-length-as-they-are-in-large-companies/{number:06}"


def tag_name(number: int) -> str:
    """Return the name of one of TAGS, in the repository `tags`."""
    return f"v{number:0127}"


def running_crowded(*flags: str) -> contextlib.AbstractContextManager[Server]:
    """Run a server for a block with REPOSITORIES, and with TAGS in the repository `tags`, all for one manifest, and
    1,500 in the repository `many`.
    """
    return running(*flags, prepare=_prepare)


def _prepare(directory: Path) -> None:
    with running() as empty:
        for name in ("tags", "many"):
            empty.auth.push_blob(name, b"{}")
            empty.auth.push_manifest(name, "", image())
        assert empty.stop() == 0
        shutil.copytree(empty.data, directory / "data")
    _fill(directory / "data" / "vex.db")


def _fill(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        connection.execute("BEGIN")
        # What they count for each row is set once, below.
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE name IN ('tag_insert', 'repository_insert')"
        ).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(
            f"{_NUMBERS} INSERT INTO repository (name, pushed, size) SELECT {_REPOSITORY}, 1700000000 + i, i FROM n",
            (REPOSITORIES,),
        )
        connection.execute("UPDATE total SET repositories = (SELECT count(*) FROM repository)")
        manifest = connection.execute("SELECT id FROM manifest").fetchone()[0]
        for name, count, tag in (("tags", TAGS, _TAG), ("many", 1500, "i")):
            repository = connection.execute("SELECT id FROM repository WHERE name = ?", (name,)).fetchone()[0]
            rows = (
                f"{_NUMBERS} INSERT INTO tag (repository, name, manifest, updated) SELECT ?, {tag}, ?, 1700000000 + i"
                " FROM n"
            )
            connection.execute(rows, (count, repository, manifest))
            connection.execute("UPDATE repository SET tags = ? WHERE id = ?", (count, repository))
            connection.execute("UPDATE repository_manifest SET holders = ? WHERE repository = ?", (count, repository))
        for _, sql in triggers:
            connection.execute(sql)
        connection.execute("COMMIT")
