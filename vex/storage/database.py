"""The SQLite database: one connection, its lock and transactions; and a few connections for what only looks.

Invariants: every statement of the one connection runs while the lock is held; each write runs in `BEGIN IMMEDIATE` and
is durable when `write` has been left; callbacks given to `Transaction.after_commit` run after that, without the lock. A
commit whose outcome is unknown, or a transaction that cannot be ended, stops the database for good: only a restart can
tell what is on the disk. Lists and pages are read with `browse`, however long that takes: they see what was committed,
and neither pulls nor pushes wait for them.

Writers that wait for each other share a transaction and its commit (`groups.py`). A write sees what was written before
it in the same group, which becomes durable with it or not at all; one that fails takes back its own part alone. Whoever
holds the lock next and is no writer ends the group first: a read sees nothing that is not durable. What a crash can
find: before the commit nothing of the group, after it all of it, and nobody was answered before.

The queries are not here: see `__init__.py`; nor the migrations: see `schema.py`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

from vex.errors import UNAVAILABLE, Failure, RegistryError
from vex.metrics import Buckets
from vex.progress import UNHURRIED, Work
from vex.storage.files import sync
from vex.storage.groups import JOIN_SECONDS, Group, Lock
from vex.storage.log_index import LogIndex
from vex.storage.readers import BUSY_SECONDS, Readers, T, is_full, translated
from vex.storage.schema import settle, version_of

# What queries raise on a file that is damaged, or no database, without a translation.
DatabaseFault = sqlite3.DatabaseError
_FILE_MODE = 0o640
# Past this the write-ahead log is cut back to it at a checkpoint; at most this part of the disk, so that it never keeps
# what a deletion freed.
_WAL_BYTES = 16 * 1024 * 1024
_WAL_PART_OF_DISK = 32
# After so much in the log, SQLite writes it to the database: as many pages as it would by itself.
_CHECKPOINT_BYTES = 1000 * 4096
# Seconds that a transaction waits, or a commit takes.
_DURATIONS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Transaction:
    """What may run while the lock is held; functions that take one do not commit."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.callbacks: list[Callable[[], None]] = []

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run one statement; returns the number of rows that it changed."""
        return self._connection.execute(sql, tuple(parameters)).rowcount

    def insert(self, sql: str, parameters: Sequence[object]) -> int:
        """Run an INSERT; returns the id of the new row."""
        return self._connection.execute(sql, tuple(parameters)).lastrowid or 0

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a query; returns all rows."""
        return self._connection.execute(sql, tuple(parameters)).fetchall()

    def each(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Run a query whose rows are read one by one, as long as the transaction lasts."""
        yield from self._connection.execute(sql, tuple(parameters))

    def row(self, sql: str, parameters: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """Run a query; returns the first row, if there is one."""
        row: tuple[Any, ...] | None = self._connection.execute(sql, tuple(parameters)).fetchone()
        return row

    def value(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        """Run a query; returns the first column of the first row, or None."""
        row = self.row(sql, parameters)
        return None if row is None else row[0]

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call this once the transaction is durable and the lock is released."""
        self.callbacks.append(callback)


class Database:
    """The shared connection; any thread may use it. `waits` and `commits` count how long a transaction waited for those
    before it, and a commit took.
    """

    def __init__(
        self,
        path: Path,
        *,
        oldest: int = 0,
        create: bool = True,
        on_failure: Callable[[str], None] = lambda _reason: None,
        join_seconds: float = JOIN_SECONDS,
    ) -> None:
        """Open the database; create it where there is none, and bring its schema up to date. Raises Failure.

        With `oldest`, the schema stays as it is, and has to be that or a later one: another process may serve the
        database, and know no later one. `on_failure` is called once, when the outcome of a transaction is unknown and
        the process has to stop. No writer joins a transaction that began `join_seconds` ago.
        """
        self._path = path
        self.waits, self.commits = Buckets(_DURATIONS), Buckets(_DURATIONS)
        self._lock = Lock(self.waits)
        self._join_seconds = join_seconds
        self._group: Group | None = None
        # Whether the thread that holds the lock is in a transaction of its own.
        self._busy = False
        self._on_failure = on_failure
        self._failed = ""
        self.created = False
        self._readers = Readers(path)
        self.log_index = LogIndex(path)
        log = Path(f"{path}-wal")
        # What a process wrote that was killed, or another one that has the database open: who closes it last removes
        # the log.
        self.has_log = log.exists() and log.stat().st_size > 0
        try:
            with contextlib.ExitStack() as opened:
                self._connection = opened.enter_context(contextlib.closing(_connect(path, create)))
                _configure(self._connection, path)
                self.created = settle(self._connection, path, oldest, create)
                # What taking back a part of a transaction needs: in memory, since a service may have no place for
                # temporary files. Not before, when a migration may change all that there is.
                self._connection.execute("PRAGMA temp_store = MEMORY")
                opened.pop_all()
        except sqlite3.Error as error:
            raise _cannot_use(path, error) from error

    @property
    def schema(self) -> int:
        """The number of the last migration that the database has seen; 0 where it is empty."""
        return version_of(self._connection)

    def close(self) -> None:
        """Close the connections; what was committed is safe already."""
        # The last one to be closed brings the log back into the file.
        self._readers.close()
        with self._lock:
            self._end_group()
            self._connection.close()
        self.log_index.close()

    def copy_to(self, path: Path) -> None:
        """Copy the database as it is at one moment to a new file, and sync that; what other processes write meanwhile
        waits for nothing.
        """
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
        with (
            self._lock,
            translated(),
            contextlib.closing(sqlite3.connect(os.fspath(path), isolation_level=None)) as copy,
        ):
            self._end_group()
            # Nothing reads the copy before it is complete and synced, so a crash in the middle costs nothing.
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            # All pages in one step, which is one read transaction: in smaller ones, each write of the server would
            # start it again.
            self._connection.backup(copy)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Have the database answer, which it does once the lock is free; raises RegistryError."""
        with self.read() as tx:
            tx.value("PRAGMA schema_version")

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """Hold the lock for queries that see one state, whatever another process writes meanwhile."""
        with self._lock, translated():
            if self._busy:
                # Within one that this thread has begun.
                yield Transaction(self._connection)
                return
            self._end_group()
            self._refuse_after_failure()
            self._connection.execute("BEGIN")
            self._busy = True
            try:
                yield Transaction(self._connection)
            finally:
                self._busy = False
                self._end_read()

    @contextlib.contextmanager
    def browse(self, work: Work = UNHURRIED) -> Iterator[Transaction]:
        """See one state, what was committed last, without the lock; `work` is told of pieces of queries, and ends them.
        Never within another such block.

        Raises UNAVAILABLE past a limit of time, and what the work raises.
        """
        with translated(), self._readers.reading(work) as connection:
            self._refuse_after_failure()
            yield Transaction(connection)

    def glance(self, query: Callable[[Transaction], T]) -> T:
        """Run one query by a key on what was committed last, without the lock: no write keeps it waiting, not even its
        commit.
        """
        self._refuse_after_failure()
        try:
            return self._readers.glance(lambda connection: query(Transaction(connection)))
        except sqlite3.Error:
            with translated():
                raise

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """Run a write transaction; what the block did is taken back when it raises, and durable when it has been left.
        Never within another block.
        """
        with translated():
            self._lock.take_to_write()
            try:
                if self._busy:
                    raise RuntimeError("a write within another transaction")
                self._refuse_after_failure()
                transaction = Transaction(self._connection)
                group = self._join()
                self._busy = True
                try:
                    yield transaction
                    self._add(group)
                except BaseException as error:
                    self._take_back(group, error)
                    raise
                finally:
                    self._busy = False
            finally:
                self._hand_on()
            group.wait()
        for callback in transaction.callbacks:
            callback()

    def _hand_on(self) -> None:
        """Let go of the lock; writers that come next go on with the open transaction, and end it."""
        try:
            if not self._busy and self._group and not (self._lock.writers_wait and self._group.takes_more):
                self._end_group()
        finally:
            self._lock.release()

    def _join(self) -> Group:
        """Begin a part of the open transaction, or a transaction; returns its group."""
        if self._group is None:
            # The first part needs no savepoint: if that fails, there is nothing else.
            group = Group(self._join_seconds)
            self._connection.execute("BEGIN IMMEDIATE")
            self._group = group
        else:
            self._connection.execute("SAVEPOINT part")
        return self._group

    def _add(self, group: Group) -> None:
        """Make what was done since `_join` a part of the transaction."""
        if group.members:
            self._connection.execute("RELEASE part")
        group.members += 1

    def _take_back(self, group: Group, error: BaseException) -> None:
        """Undo a part, or all of the transaction where that is not possible."""
        try:
            # After some errors, SQLite has undone all of it by itself.
            if group.members and self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO part")
                self._connection.execute("RELEASE part")
                return
        except BaseException as failure:
            # Whatever it is: what failed must not become a part of what the others commit.
            error = failure
        self._group = None
        try:
            self._rollback()
        finally:
            group.end(error)

    def _end_group(self) -> None:
        """Commit the open transaction, if there is one, for all who have a part in it; they are told what came of
        it.
        """
        group, self._group = self._group, None
        if group is None:
            return
        try:
            self._commit()
        except (sqlite3.Error, MemoryError) as error:
            group.end(error)
        except BaseException as error:
            group.end(error)
            raise
        else:
            group.end(None)

    def _end_read(self) -> None:
        try:
            self._connection.execute("END")
        except (sqlite3.Error, MemoryError):
            self._rollback()
            raise

    def _commit(self) -> None:
        try:
            started = time.perf_counter()
            self._connection.execute("COMMIT")
        except BaseException as error:
            if is_full(error):
                self._rollback()
                raise
            # The commit record may or may not have reached the disk (measured: it can be there after a restart).
            self._fail(error)
            raise
        self.commits.observe(time.perf_counter() - started)

    def _rollback(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except (sqlite3.Error, MemoryError) as error:
            # The transaction stays open, and what comes after would become a part of it.
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        self._failed = str(error) or type(error).__name__
        self._on_failure(self._failed)

    def _refuse_after_failure(self) -> None:
        if self._failed:
            raise RegistryError(
                UNAVAILABLE, "the registry's storage failed; it has to be restarted", headers={"Retry-After": "5"}
            )


def _cannot_use(path: Path, error: sqlite3.Error) -> Failure:
    if "locked" in str(error):
        return Failure(f"another process is writing to the database {path}; try again")
    if "disk I/O error" in str(error):
        return Failure(
            f"cannot use the database {path}: {error}; the disk fails, or its file system cannot map a file"
            " into memory, as mergerfs with"
            " cache.files=off: use cache.files=auto-full there, or a local file system"
        )
    return Failure(
        f"cannot use the database {path}: {error}; check its permissions and the disk, or restore it from a backup"
    )


def fold_log(path: Path) -> None:
    """Bring what a killed process left in the log beside a database into its file; raises DatabaseFault."""
    with contextlib.closing(sqlite3.connect(os.fspath(path), isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _connect(path: Path, create: bool) -> sqlite3.Connection:
    # SQLite would create the file as the umask allows; it gives the files beside it the mode of this one.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), _FILE_MODE))
    except OSError as error:
        raise Failure(
            f"cannot open the database {path}: {error.strerror}; check the permissions of the data directory"
        ) from error
    return sqlite3.connect(os.fspath(path), timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA synchronous = FULL")
    # As `sync`, for SQLite: only macOS knows of these.
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    disk = os.statvfs(path)
    # No blocks at all: the file system does not tell, as ramfs.
    part = disk.f_blocks * disk.f_frsize // _WAL_PART_OF_DISK or _WAL_BYTES
    connection.execute(f"PRAGMA journal_size_limit = {min(_WAL_BYTES, part)}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {max(1, min(_CHECKPOINT_BYTES, part) // 4096)}")
