"""`vex backup`: a copy of a registry, running or not, that is a data directory itself.

Invariants: the backup is complete at every moment after the first one ended. Blobs are added and synced first, then the
new database takes the place of the old one, and only then go the blobs that it does not know. A file gets its name in
the backup when it is whole and synced. The database is copied before the blobs, so a blob that was removed in between
is missing; then the database is copied again.

What the backup holds of its own: `lock`, held while it is made, and `backup`, which tells a backup from a registry: it
holds the digests of the databases that were written here, so that a backup which somebody served and pushed to is never
overwritten. Uploads in progress are not part of a backup.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vex.commands.check import each_blob
from vex.errors import DISK_FULL, INTERNAL, Failure, RegistryError
from vex.names import ALGORITHMS, Digest
from vex.progress import Progress, mebibytes
from vex.storage import blob_rows, repository_rows
from vex.storage.blobs import COPY, BlobFiles, make_directory
from vex.storage.copying import Copier, DamagedFile, Removed, blob_folders, hash_of_file, put_file
from vex.storage.database import Database, DatabaseFault, fold_log
from vex.storage.directory import locked, registry_in
from vex.storage.disk import FULL
from vex.storage.files import sync_directory
from vex.storage.folders import Draft, Folder, Unsafe

MARKER = "backup"
_NEW_MARKER = "backup.new"
_DATABASE, _NEW_DATABASE = "vex.db", "vex.db.new"
# Each round copies only what came since the one before, so a round that finds nothing removed comes soon.
_ROUNDS = 20


def backup(data: Path, directory: Path, progress: Progress) -> str:
    """Copy a registry into a directory that is new, empty, or an earlier backup of it; returns what was done. Raises
    Failure.

    Everything is synced when it returns. A blob that is damaged is left out, and so is a Failure once the rest is done.
    """
    with registry_in(data) as database, _explained(directory):
        _refuse_unsuitable(data, directory)
        make_directory(directory)
        _append_marker(directory, "")
        with _held(directory), _opened(directory) as target:
            _refuse_changed(directory)
            return _Backup(database, BlobFiles(data), directory, target, progress).run()


class _Target(NamedTuple):
    """Where files go: the folder of each algorithm, none of which is found through a link, and where they are until
    they are whole.
    """

    folders: dict[str, Folder]
    draft: Draft


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[_Target]:
    with (
        contextlib.closing(Folder.open(directory)) as top,
        contextlib.closing(top.folder("uploads")) as uploads,
        blob_folders(top) as folders,
    ):
        yield _Target(folders, Draft(uploads, COPY))


class _Backup:
    def __init__(
        self, database: Database, source: BlobFiles, directory: Path, target: _Target, progress: Progress
    ) -> None:
        self._database = database
        self._copier = Copier(database, source, progress.moved)
        self._directory = directory
        self._target = BlobFiles(directory)
        self._folders, self._draft = target
        self._new = directory / _NEW_DATABASE
        self._progress = progress
        self._dropped = 0
        self._damaged: dict[Digest, str] = {}

    def run(self) -> str:
        """Copy everything, and put it in place; returns what was done. Raises Failure."""
        try:
            blobs = self._copy_all()
            self._publish()
        finally:
            _remove_database(self._new)
        done = f"{self._directory}: {blobs} blobs, of which {self._news()}; {self._dropped} old ones removed"
        if self._damaged:
            for digest, reason in self._damaged.items():
                self._progress.say(f"blob {digest}: {reason}")
            raise Failure(
                f"the backup in {done}; damaged in the registry, and so not copied: {len(self._damaged)}; see vex check"
                " --hash --repair"
            )
        return done

    def _news(self) -> str:
        return f"{self._copier.linked} linked and {self._copier.copied} copied ({mebibytes(self._copier.bytes)})"

    def _copy_all(self) -> int:
        for _ in range(_ROUNDS):
            _remove_database(self._new)
            self._database.copy_to(self._new)
            self._progress.say(f"copied the database, {mebibytes(self._new.stat().st_size)}")
            with contextlib.closing(Database(self._new, oldest=1)) as copy:
                blobs, removed = self._copy_blobs(copy)
            if not removed:
                return blobs
            self._progress.say(f"blobs that were removed meanwhile: {removed}; copying the database again")
        raise Failure(
            "blobs were removed from the registry all the while; what was copied stays, so run the backup again when"
            " less is deleted"
        )

    def _copy_blobs(self, copy: Database) -> tuple[int, int]:
        """Copy what is not in the backup yet; returns how many blobs there are, and how many of them were removed
        meanwhile.
        """
        blobs = removed = 0
        self._damaged.clear()
        with copy.read() as tx:
            self._progress.begin(repository_rows.blob_bytes(tx))
        for blob in each_blob(copy):
            blobs += 1
            if self._target.size(blob.digest) == blob.size:
                self._progress.left_out(blob.size)
            else:
                linked = self._copier.linked
                try:
                    self._copier.copy(blob, self._draft, self._folders[blob.digest.algorithm], compared=False)
                except Removed:
                    removed += 1
                except DamagedFile as damaged:
                    self._damaged[blob.digest] = str(damaged)
                if self._copier.linked > linked:
                    self._progress.left_out(blob.size)
            self._progress.show(f"{blobs} blobs, of which {self._news()}")
        return blobs, removed

    def _publish(self) -> None:
        """Make the blobs durable, then the database that knows them; then remove the blobs that it does not know."""
        for algorithm in ALGORITHMS:
            sync_directory(self._directory / "blobs" / algorithm)
        _append_marker(self._directory, hash_of_file(self._new))
        os.rename(self._new, self._directory / _DATABASE)
        sync_directory(self._directory)
        with contextlib.closing(Database(self._directory / _DATABASE, oldest=1)) as database, database.read() as tx:
            for file in self._target.files():
                if blob_rows.find_blob(tx, file.digest) is None:
                    os.unlink(self._target.path(file.digest))
                    self._dropped += 1


def _refuse_unsuitable(data: Path, directory: Path) -> None:
    own, other = data.resolve(), directory.resolve()
    if own == other or own in other.parents:
        raise Failure(
            f"{directory} is inside the data directory {data}; choose a directory outside it, best on another disk"
        )
    if directory.is_dir() and not (directory / MARKER).exists() and any(directory.iterdir()):
        raise Failure(f"{directory} is not empty, and no backup made by vex; choose an empty directory or a new one")


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Hold the lock of the backup, so that nobody serves it and no second backup goes there."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(directory))
        except Failure:
            raise Failure(
                f"another vex serves {directory}, or backs up to it; end it first, or choose another directory"
            ) from None
        yield


def _refuse_changed(directory: Path) -> None:
    """Make sure that the database of an earlier backup is what was written there; raises Failure."""
    path = directory / _DATABASE
    if not path.exists():
        return
    if Path(f"{path}-wal").exists():
        # Left by a killed process that served or checked the backup; it must not lie beside another database.
        fold_log(path)
    if hash_of_file(path) not in (directory / MARKER).read_text(encoding="ascii").splitlines():
        raise Failure(
            f"the backup in {directory} was changed after it was made: it was served, perhaps; choose an empty"
            " directory or a new one"
        )


def _append_marker(directory: Path, digest: str) -> None:
    """Add a digest to the marker, durably; before the database takes its place, since a crash may come in between."""
    with contextlib.closing(Folder.open(directory)) as folder:
        old = None
        with contextlib.suppress(FileNotFoundError), folder.open_file(MARKER) as file:
            old = file.read()
        if old is not None and not digest:
            return
        put_file(
            Draft(folder, _NEW_MARKER), folder, MARKER, (old or b"") + (f"{digest}\n" if digest else "").encode("ascii")
        )
        folder.sync()


def _remove_database(path: Path) -> None:
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with contextlib.suppress(FileNotFoundError):
            name.unlink()


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    full = (
        f"the disk of {directory} is full; free space there, or choose another; what was copied stays, and the next run"
        " goes on from it"
    )
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Failure(full) from error
        if isinstance(error, NotADirectoryError):
            raise Failure(
                f"cannot back up to {directory}: {error.filename or directory} is no directory; choose an empty one or"
                " a new one"
            ) from error
        raise Failure(
            f"cannot back up to {directory}: {error.filename or directory}: {error.strerror}; check its permissions and"
            " the disk"
        ) from error
    except Unsafe as error:
        raise Failure(f"cannot back up to {directory}: {error}") from error
    except (RegistryError, DatabaseFault) as error:
        kind = error.kind if isinstance(error, RegistryError) else INTERNAL
        unreadable = f"cannot copy the database: {error.__cause__ or error}; see vex check"
        raise Failure({DISK_FULL: full, INTERNAL: unreadable}.get(kind, str(error))) from error
