"""`vex check`: the database, every row against its file, and every reference; says what is wrong in a sentence each.

It works on a registry that is running, from a process of its own. Invariants: what is wrong is looked at again under
the database's write lock before it is told, since a removal or a push may have come in between; a row is changed in a
transaction, which any process may do at any time; a file is removed only while the data directory's lock is held here,
because what keeps a push of the same blob safe from that (`BlobFiles.publishing`) is known to the process of the server
alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from vex.errors import INTERNAL, Failure, RegistryError
from vex.formats.manifest import parse_stored
from vex.names import Digest
from vex.progress import Progress, mebibytes
from vex.storage import blob_rows, faults, manifest_rows, repository_rows
from vex.storage.blobs import REMOVED_PREFIX, BlobFiles
from vex.storage.database import Database, DatabaseFault, Transaction
from vex.storage.directory import locked, open_data, registry_in
from vex.storage.schema import WITH_TOTALS

_BATCH = 200
_BUFFER_BYTES = 1024 * 1024
# How many repositories or digests a sentence names.
_NAMED = 5
# In the running server, a file waits for its row, or for its removal, at most as long as SQLite waits for another
# process: 5 s.
_PATIENCE_SECONDS = 7.0

_MARKED = "it is marked as damaged, and the next push of it heals it"
_TO_BE_MARKED = "{} marks it as damaged, and the next push of it then heals it"
_UNMARKED = "the mark was removed"
_TO_BE_UNMARKED = "vex check --hash --repair removes the mark"
_HEALED = "the next push of it heals it; if its file was put back, vex check --hash --repair removes the mark"
_LEFT = "the next start of the registry removes it, or sets it aside"
_NOT_REMOVED = "not removed, because the registry is running: stop it, and run this again"
_COUNTED, _TO_BE_COUNTED = "counted again", "vex check --repair counts again"
_FOREIGN = "it is left alone; move it away, if nobody needs it there"
_TO_BE_REMOVED = "vex check --repair removes it, and so does the next start of the registry"


class Options(NamedTuple):
    """What is asked for; `rate` is in bytes per second, 0 for as fast as it goes."""

    repair: bool = False
    hashing: bool = False
    rate: int = 0


class _Identity(NamedTuple):
    """What tells a file from another that took its name."""

    device: int
    inode: int
    size: int
    modified: int


_Found = Optional[_Identity]


class _Litter(NamedTuple):
    path: str
    digest: Digest
    identity: _Found


def each_blob(database: Database) -> Iterator[blob_rows.BlobRow]:
    """Walk over the rows of all blobs, with the lock free in between."""
    last = 0
    while True:
        with database.read() as tx:
            blobs = blob_rows.blobs_after(tx, last, _BATCH)
        if not blobs:
            return
        yield from blobs
        last = blobs[-1].id


def check(
    directory: Path,
    options: Options,
    progress: Progress,
    *,
    say: Callable[[str], None] = print,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Check a registry; says what is wrong, a sentence each, and returns how much that was. Raises Failure."""
    with registry_in(directory) as database, open_data(directory):
        run = _Check(directory, database, options, progress, say, wait)
        try:
            run.everything()
        except (DatabaseFault, RegistryError) as error:
            if isinstance(error, RegistryError) and error.kind != INTERNAL:
                # Another process is writing, or the disk is full: nothing is wrong with the data.
                raise
            run.found(f"the database cannot be read: {error.__cause__ or error}", "restore it from a backup")
        say(run.summary())
    return run.problems


class _Check:
    def __init__(
        self,
        directory: Path,
        database: Database,
        options: Options,
        progress: Progress,
        say: Callable[[str], None],
        wait: Callable[[float], None],
    ) -> None:
        self._directory = directory
        self._database = database
        self._options = options
        self._say = say
        self._wait = wait
        self._files = BlobFiles(directory)
        self._progress = progress
        self._due = time.monotonic()
        self._blobs = self._manifests = self._hashed = 0
        self.problems = 0

    def everything(self) -> None:
        """Check all there is; what needs a sound database only if it is one."""
        if self._check_structure():
            self._check_manifests()
            self._check_unheld()
            self._check_blobs()
            self._check_litter()
            self._check_set_aside()
            self._check_counters()

    def found(self, problem: str, remedy: str) -> None:
        """Say what is wrong, and what was or can be done about it."""
        self.problems += 1
        self._say(f"{problem}; {remedy}")

    @property
    def _repairing(self) -> str:
        return "vex check --hash --repair" if self._options.hashing else "vex check --repair"

    def summary(self) -> str:
        """Tell what was checked."""
        hashed = f" ({mebibytes(self._hashed)} hashed)" if self._options.hashing else ""
        result = f"problems: {self.problems}" if self.problems else "nothing is wrong"
        return f"checked blobs: {self._blobs}{hashed}, manifests: {self._manifests}; {result}"

    # The database by itself

    def _check_structure(self) -> bool:
        with self._database.read() as tx:
            broken = faults.integrity_faults(tx)
            dangling = [] if broken else faults.dangling_rows(tx)
        for fault in broken:
            self.found(f"the database is damaged: {' '.join(fault.split())}", "restore it from a backup")
        for table, parent, count in dangling:
            self.found(
                f"rows of the table {table} that refer to rows of {parent} that are not there: {count}",
                "restore the database from a backup",
            )
        return not broken

    def _check_manifests(self) -> None:
        last = (0, 0)
        while True:
            with self._database.read() as tx:
                batch = faults.held_manifests_after(tx, *last, _BATCH)
            if not batch:
                return
            for held in batch:
                self._check_manifest(held)
            last = (batch[-1].repository, batch[-1].manifest)

    def _check_manifest(self, held: faults.HeldManifest) -> None:
        self._manifests += 1
        self._progress.show(f"{self._manifests} manifests")
        with self._database.read() as tx:
            fault = _manifest_fault(tx, held)
        if fault:
            with self._database.write() as tx:
                fault = _manifest_fault(tx, held)
        if fault:
            self.found(f"manifest {held.digest} in {held.name}: {fault}", "push it again")

    def _check_unheld(self) -> None:
        with self._database.read() as tx:
            blobs, manifests = faults.unheld_blobs(tx), faults.unheld_manifests(tx)
        remedy = "its row was removed" if self._options.repair else "vex check --repair removes its row"
        for row, digest in blobs:
            if self._options.repair:
                with self._database.write() as tx:
                    blob_rows.delete_unheld_blob(tx, row)
            self.found(f"blob {digest} is in no repository", remedy)
        for row, digest in manifests:
            if self._options.repair:
                with self._database.write() as tx:
                    manifest_rows.delete_unheld_manifest(tx, row)
            self.found(f"manifest {digest} is in no repository", remedy)

    # Rows against files

    def _check_blobs(self) -> None:
        if self._options.hashing:
            with self._database.read() as tx:
                self._progress.begin(repository_rows.blob_bytes(tx))
        for blob in each_blob(self._database):
            self._blobs += 1
            self._progress.show(f"{self._blobs} blobs")
            identity = self._identity(blob.digest)
            fault = self._blob_fault(blob, identity)
            if fault or blob.damaged:
                self._confirm(blob, identity, fault)

    def _blob_fault(self, blob: blob_rows.BlobRow, identity: _Found) -> str:
        if identity is None:
            return "its file is missing"
        if identity.size != blob.size:
            return f"its file has {identity.size} bytes instead of {blob.size}"
        return self._hash_fault(blob.digest) if self._options.hashing else ""

    def _hash_fault(self, digest: Digest) -> str:
        content_hash = hashlib.new(digest.algorithm)
        buffer = bytearray(min(_BUFFER_BYTES, self._options.rate or _BUFFER_BYTES))
        try:
            with self._files.open(digest) as file:
                while count := file.readinto(buffer):  # type: ignore[attr-defined]
                    content_hash.update(memoryview(buffer)[:count])
                    self._spend(count)
        except OSError as error:
            return f"its file cannot be read: {error.strerror}"
        return "" if content_hash.hexdigest() == digest.encoded else "its file does not have the content of this digest"

    def _spend(self, count: int) -> None:
        """Count bytes that were read, and wait as long as they must take."""
        self._hashed += count
        self._progress.moved(count)
        if self._options.rate:
            now = time.monotonic()
            self._due = max(self._due, now - 1) + count / self._options.rate
            if self._due > now:
                self._wait(self._due - now)

    def _confirm(self, blob: blob_rows.BlobRow, identity: _Found, fault: str) -> None:
        """Tell about a blob, and repair its row, unless it was removed or pushed again since it was looked at."""
        repaired = self._options.repair
        with self._database.write() as tx:
            if blob_rows.find_blob(tx, blob.digest) != blob or self._identity(blob.digest) != identity:
                return
            repositories = faults.blob_repositories(tx, blob.id, _NAMED)
            if fault and repaired:
                blob_rows.mark_damaged(tx, blob.digest)
            elif repaired and self._options.hashing:
                blob_rows.save_blob(tx, blob.digest, blob.size, int(time.time()))
        name = f"blob {blob.digest}{f' in {_listed(repositories)}' if repositories else ''}"
        if fault:
            self.found(
                f"{name}: {fault}", _MARKED if blob.damaged or repaired else _TO_BE_MARKED.format(self._repairing)
            )
        elif self._options.hashing:
            self.found(
                f"{name}: it is marked as damaged, but its file is sound", _UNMARKED if repaired else _TO_BE_UNMARKED
            )
        else:
            self.found(f"{name}: it is marked as damaged", _HEALED)

    # Files against rows

    def _check_litter(self) -> None:
        for path in self._files.foreign():
            self.found(f"{path} is no file of the registry", _FOREIGN)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._directory))
            except Failure:
                for litter in self._lasting(self._find_litter(self._files_by_digest())):
                    self._found_litter(litter, _NOT_REMOVED if self._options.repair else _LEFT)
                return
            for litter in self._find_litter(itertools.chain(self._files_by_digest(), self._set_aside())):
                if self._options.repair:
                    os.unlink(litter.path)
                self._found_litter(litter, "removed" if self._options.repair else _TO_BE_REMOVED)

    def _check_set_aside(self) -> None:
        """Tell of what a start set aside because the database did not know it; what it knows again, the next start puts
        back.
        """
        walk = iter(self._files.set_aside_files())
        files = size = 0
        while batch := list(itertools.islice(walk, _BATCH)):
            with self._database.read() as tx:
                unknown = [file for file in batch if blob_rows.find_blob(tx, file.digest) is None]
            for file in unknown:
                if self._options.repair:
                    self._files.drop_set_aside(file.digest)
                files, size = files + 1, size + file.size
        if files:
            remedy = (
                "removed"
                if self._options.repair
                else "vex check --repair removes them; with the right database in place, the next start puts them back"
            )
            self.found(
                f"files that a start has set aside, because the database did not know them: {files} ({size} bytes)",
                remedy,
            )

    def _check_counters(self) -> None:
        """Tell of what the lists of the web interface show and sort by, where it is not what it was counted from."""
        if self._database.schema < WITH_TOTALS:
            return
        for counter in faults.COUNTERS:
            with self._database.read() as tx:
                wrong = faults.wrong_counters(tx, counter)
            if wrong and self._options.repair:
                with self._database.write() as tx:
                    faults.recount(tx, counter)
            if wrong:
                self.found(
                    f"{counter.what} in the lists of the web interface, wrong in rows: {wrong}",
                    _COUNTED if self._options.repair else _TO_BE_COUNTED,
                )

    def _found_litter(self, litter: _Litter, remedy: str) -> None:
        size = litter.identity.size if litter.identity else 0
        self.found(f"{os.path.relpath(litter.path, self._directory)} ({size} bytes) belongs to no blob", remedy)

    def _files_by_digest(self) -> Iterator[_Litter]:
        for file in self._files.files():
            yield _Litter(self._files.path(file.digest), file.digest, None)

    def _set_aside(self) -> Iterator[_Litter]:
        for entry in os.scandir(self._files.uploads):
            if entry.name.startswith(REMOVED_PREFIX) and entry.is_file(follow_symlinks=False):
                yield _Litter(entry.path, Digest(), None)

    def _find_litter(self, files: Iterable[_Litter]) -> list[_Litter]:
        walk = iter(files)
        found: list[_Litter] = []
        while batch := list(itertools.islice(walk, _BATCH)):
            with self._database.read() as tx:
                without_row = [file for file in batch if blob_rows.find_blob(tx, file.digest) is None]
            found += [file._replace(identity=_identity(file.path)) for file in without_row]
        return found

    def _lasting(self, litter: list[_Litter]) -> list[_Litter]:
        """Return what is still there after a while: the others were pushed or removed at this moment."""
        if litter:
            self._progress.say(
                f"files that belong to no blob at this moment: {len(litter)}; looking again in {_PATIENCE_SECONDS:.0f}"
                " s"
            )
            self._wait(_PATIENCE_SECONDS)
        before = set(litter)
        return [file for file in self._find_litter(litter) if file in before and file.identity]

    def _identity(self, digest: Digest) -> _Found:
        return _identity(self._files.path(digest))


def _identity(path: str) -> _Found:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    # Not the time of the last change of the inode, which another hard link changes too.
    return _Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _manifest_fault(tx: Transaction, held: faults.HeldManifest) -> str:
    """Compare a manifest with its digest, and what it references with what is recorded; returns "" too when it is gone,
    or about to be.
    """
    if not faults.can_be_fetched(tx, held):
        return ""
    content = manifest_rows.manifest_content(tx, held.manifest)
    if Digest.of(content, held.digest.algorithm) != held.digest:
        return "its bytes do not have this digest"
    try:
        manifest = parse_stored(content, held.media_type)
    except RegistryError as error:
        return f"it cannot be read: {error.message}"
    needed = {descriptor.digest for descriptor in (*manifest.blobs, *manifest.manifests) if descriptor.required}
    missing = sorted(needed - faults.recorded_references(tx, held.repository, held.manifest))
    return f"it references content that it does not hold: {_listed(missing)}" if missing else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" and more" if len(names) > _NAMED else "")
