"""`vex backup` copies a registry under load into what `vex serve` starts on, whole and durable; and refuses what would
lose something.

VEX_TEST_BACKUPS is the number of backups that are taken under load and restored.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from tests.support.in_process import InProcessTestCase, directory_in_memory, read_holdings
from tests.support.load import Image, Load
from tests.support.programs import require
from tests.support.registries import require_root
from tests.support.server import TOP, Client, Server, digest_of, running, vex
from vex.commands.backup import backup
from vex.errors import Failure
from vex.progress import Progress
from vex.storage.directory import locked

BACKUPS = int(os.environ.get("VEX_TEST_BACKUPS", "4"))
MIB = 2**20


class BackupTestCase(InProcessTestCase):
    """A registry with an image app:1, its database open in this process as in a server's, and a directory to back it up
    to.
    """

    def setUp(self) -> None:
        super().setUp()
        self.push_image("app", "1", b"layer")
        self.layer = digest_of(b"layer")
        # On the file system of the registry, so that hard links are possible.
        context = directory_in_memory()
        self.addCleanup(context.__exit__, None, None, None)
        self.parent = Path(context.__enter__())
        self.directory = self.parent / "backup"

    def backup(self, directory: Path | None = None, during: Callable[[], object] = lambda: None) -> str:
        """Back it up; `during` is called each time when the database was copied, and the blobs are next."""
        return backup(self.site.directory, directory or self.directory, Progress(_Hook(during)))

    def refused(self, directory: Path) -> str:
        """Fail to back up; returns the reason."""
        with self.assertRaises(Failure) as caught:
            self.backup(directory)
        return str(caught.exception)

    def source(self, digest: str) -> Path:
        return self.site.directory / "blobs" / digest.replace(":", "/")

    def copy(self, digest: str) -> Path:
        return self.directory / "blobs" / digest.replace(":", "/")

    def assert_same(self) -> None:
        """Compare all tables and all files of the registry and of the backup."""
        with contextlib.closing(sqlite3.connect(self.directory / "vex.db")) as connection:
            holdings = read_holdings(connection.execute, self.directory)
        self.assertEqual(holdings, self.site.holdings())
        for digest in holdings.files:
            self.assertEqual(digest_of(self.copy(digest).read_bytes(), digest.partition(":")[0]), digest)


class Copies(BackupTestCase):
    def test_a_backup_holds_all_rows_and_all_files(self) -> None:
        self.push_image("other", "1", b"another layer", b"layer")
        self.push_blob("other", b"waits for its manifest", "sha512")
        self.backup()
        self.assert_same()

    def test_blobs_are_hard_links_where_that_is_possible(self) -> None:
        self.assertIn("2 linked and 0 copied", self.backup())
        self.assertTrue(self.copy(self.layer).samefile(self.source(self.layer)))

    def test_blobs_are_copied_to_another_file_system(self) -> None:
        with tempfile.TemporaryDirectory(dir=TOP) as directory:
            if os.stat(directory).st_dev == os.stat(self.parent).st_dev:
                self.skipTest("needs /dev/shm, as another file system")
            self.directory = Path(directory) / "backup"
            self.assertIn("0 linked and 2 copied", self.backup())
            self.assert_same()
            self.assertEqual(os.listdir(self.directory / "uploads"), [])

    def test_an_empty_directory_is_taken_and_missing_parents_are_made(self) -> None:
        self.directory.mkdir()
        self.backup()
        self.assert_same()
        self.directory = self.parent / "a" / "b"
        self.backup()
        self.assert_same()

    def test_a_file_in_place_of_the_directory_is_called_one(self) -> None:
        file = self.parent / "file"
        file.touch()
        self.assertIn(f"{file} is no directory; choose an empty one", self.refused(file))
        self.assertIn("is no directory; choose an empty one", self.refused(file / "below"))

    def test_files_are_closed_to_others_whatever_the_umask_is(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.backup()
        for path in [self.directory, *self.directory.rglob("*")]:
            self.assertEqual(path.stat().st_mode & 0o027, 0, path)

    def test_the_next_backup_adds_what_is_new_and_removes_what_is_gone(self) -> None:
        self.backup()
        self.push_image("app", "2", b"new layer")
        self.delete("app", "1")
        done = self.backup()
        self.assertIn("2 blobs, of which 1 linked and 0 copied", done)
        self.assertIn("1 old ones removed", done)
        self.assert_same()

    def test_what_an_interrupted_backup_left_does_no_harm(self) -> None:
        self.directory.mkdir()
        for name in ("backup", "lock"):
            (self.directory / name).touch()
        for round_of in range(2):
            with self.subTest(round_of):
                (self.directory / "vex.db.new").write_bytes(b"half a database")
                (self.directory / "vex.db.new-wal").write_bytes(b"half a log")
                for algorithm in ("sha256", "sha512"):
                    (self.directory / "blobs" / algorithm).mkdir(parents=True, exist_ok=True)
                (self.directory / "uploads").mkdir(exist_ok=True)
                (self.directory / "uploads" / "backup-copy").write_bytes(b"half a blob")
                self.copy(self.layer).unlink(missing_ok=True)
                self.copy(self.layer).write_bytes(b"la")
                self.copy(digest_of(b"gone meanwhile")).write_bytes(b"gone meanwhile")
                self.backup()
                self.assert_same()
                self.assertFalse(list(self.directory.glob("vex.db?*")))


class WhileItChanges(BackupTestCase):
    def test_a_removal_in_between_is_followed_by_another_round(self) -> None:
        self.push_image("app", "2", b"second")
        tags = ["1"]

        def remove() -> None:
            while tags:
                self.delete("app", tags.pop())

        self.backup(during=remove)
        self.assert_same()
        self.assertFalse(self.copy(self.layer).exists())

    def test_a_push_in_between_is_left_for_the_next_backup(self) -> None:
        before = self.site.holdings()
        self.backup(during=lambda: self.push_image("app", "2", b"second"))
        with contextlib.closing(sqlite3.connect(self.directory / "vex.db")) as connection:
            self.assertEqual(read_holdings(connection.execute, self.directory), before)
        self.backup()
        self.assert_same()

    def test_blobs_that_are_removed_all_the_while_are_a_failure_and_no_damage(self) -> None:
        self.backup()
        kept = self.site.holdings()
        self.push_blob("app", b"0")
        numbers = iter(range(1000))

        def remove_and_push() -> None:
            number = next(numbers)
            self.ok(202, "DELETE", f"/v2/app/blobs/{digest_of(str(number).encode())}")
            self.push_blob("app", str(number + 1).encode())

        with self.assertRaisesRegex(Failure, "run the backup again"):
            self.backup(during=remove_and_push)
        with contextlib.closing(sqlite3.connect(self.directory / "vex.db")) as connection:
            self.assertEqual(read_holdings(connection.execute, self.directory).manifests, kept.manifests)
        self.assertTrue(self.copy(self.layer).exists())


class Damage(BackupTestCase):
    def test_a_damaged_blob_fails_the_backup_after_all_others_are_copied(self) -> None:
        for content in (b"", b"lay", b"layer and more"):
            with self.subTest(content):
                self.source(self.layer).unlink(missing_ok=True)
                if content:
                    self.source(self.layer).write_bytes(content)
                self.assertIn(
                    "damaged in the registry, and so not copied: 1; see vex check --hash --repair",
                    self.refused(self.directory),
                )
                self.assertEqual(self.copy(digest_of(b"{}")).read_bytes(), b"{}")
                self.assertTrue((self.directory / "vex.db").exists())
                self.assertFalse(self.copy(self.layer).exists())

    def test_a_blob_that_is_marked_as_damaged_is_not_copied(self) -> None:
        content = self.source(self.layer).read_bytes()
        self.source(self.layer).unlink()
        self.site.housekeeping.check_files()
        self.source(self.layer).write_bytes(content[::-1])
        self.assertIn("damaged in the registry, and so not copied: 1", self.refused(self.directory))
        self.assertFalse(self.copy(self.layer).exists())

    def test_a_changed_byte_is_noticed_where_blobs_are_copied(self) -> None:
        self.source(self.layer).write_bytes(b"Layer")
        with tempfile.TemporaryDirectory(dir=TOP) as directory:
            if os.stat(directory).st_dev == os.stat(self.parent).st_dev:
                self.skipTest("needs /dev/shm, as another file system")
            self.assertIn("damaged in the registry, and so not copied: 1", self.refused(Path(directory)))

    def test_what_an_earlier_backup_has_is_not_given_up_for_a_damaged_file(self) -> None:
        self.backup()
        content = self.source(self.layer).read_bytes()
        self.source(self.layer).unlink()
        self.source(self.layer).write_bytes(content[:1])
        self.backup()
        self.assertEqual(self.copy(self.layer).read_bytes(), b"layer")


class Refusals(BackupTestCase):
    def test_a_directory_inside_the_data_directory(self) -> None:
        for directory in (
            self.site.directory,
            self.site.directory / "backup",
            self.site.directory / "blobs" / ".." / "a" / "b",
        ):
            self.assertIn("inside the data directory", self.refused(directory))
        self.assertFalse((self.site.directory / "a").exists())

    def test_a_link_into_the_data_directory(self) -> None:
        link = self.parent / "link"
        link.symlink_to(self.site.directory)
        self.assertIn("inside the data directory", self.refused(link / "backup"))

    def test_a_directory_that_is_neither_empty_nor_a_backup(self) -> None:
        self.directory.mkdir()
        (self.directory / "letter.txt").write_text("Dear")
        self.assertIn("not empty", self.refused(self.directory))
        self.assertEqual(os.listdir(self.directory), ["letter.txt"])
        self.assertIn("not empty", self.refused(self.site.directory.parent))

    def test_a_file(self) -> None:
        self.directory.write_text("Dear")
        self.assertIn(str(self.directory), self.refused(self.directory))

    def test_another_registry(self) -> None:
        other = self.parent / "data"
        added = vex("user", "add", "bob", "--data-dir", str(other), text="a password of bob\n")
        self.assertEqual(added.returncode, 0, added.stderr)
        self.assertIn("no backup", self.refused(other))

    def test_a_backup_that_is_in_use(self) -> None:
        self.backup()
        with locked(self.directory):
            self.assertIn("serves", self.refused(self.directory))

    def test_a_backup_that_was_changed(self) -> None:
        self.backup()
        with contextlib.closing(sqlite3.connect(self.directory / "vex.db")) as connection, connection:
            connection.execute("DELETE FROM tag")
        self.assertIn("was changed after it was made", self.refused(self.directory))

    def test_no_registry(self) -> None:
        with self.assertRaisesRegex(Failure, "there is no registry"):
            backup(self.parent / "nothing", self.directory, Progress(io.StringIO()))
        self.assertEqual(os.listdir(self.parent), [])


class Program(unittest.TestCase):
    """The command, and what it made, with real servers."""

    def test_a_backup_is_served_and_backed_up_to_again_until_something_is_pushed_to_it(self) -> None:
        with running() as server:
            digest = server.auth.push_image("app", "1", b"layer")
            target = server.directory / "restored" / "data"
            for _ in range(2):
                made = vex("backup", str(target), "--data-dir", str(server.data))
                self.assertEqual(made.returncode, 0, made.stderr)
                with serving(target) as restored:
                    self.assertEqual(
                        restored.public.get("/v2/app/manifests/1").headers["Docker-Content-Digest"], digest
                    )
                    self.assertEqual(restored.public.get(f"/v2/app/blobs/{digest_of(b'layer')}").body, b"layer")
                    refused = vex("backup", str(target), "--data-dir", str(server.data))
                    self.assertEqual((refused.returncode, refused.stdout), (1, ""))
            with serving(target) as restored:
                restored.auth.push_image("app", "2", b"pushed to the backup")
                restored.kill()
            refused = vex("backup", str(target), "--data-dir", str(server.data))
            self.assertEqual((refused.returncode, len(refused.stderr.splitlines())), (1, 1), refused.stderr)
            self.assertIn("was changed after it was made", refused.stderr)

    def test_a_full_disk_is_told_and_the_next_run_goes_on(self) -> None:
        require_root()
        with running() as server:
            for number in range(4):
                server.auth.push_image(
                    "app", str(number), random.Random(number).getrandbits(8 * MIB).to_bytes(MIB, "little")
                )
            target = server.directory / "small"
            target.mkdir()
            # Too small for the database, and then for the blobs.
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(target)], check=True)
            try:
                for size in ("64k", "2500k"):
                    subprocess.run(["mount", "-o", f"remount,size={size}", str(target)], check=True)
                    result = vex("backup", str(target), "--data-dir", str(server.data))
                    self.assertEqual(result.returncode, 1)
                    self.assertIn(f"vex: the disk of {target} is full", result.stderr.splitlines()[-1])
                self.assertEqual(vex("check", "--data-dir", str(server.data)).returncode, 0)
                subprocess.run(["mount", "-o", "remount,size=20m", str(target)], check=True)
                result = vex("backup", str(target), "--data-dir", str(server.data))
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertIn("2 copied", result.stdout)
                self.assertEqual(hash_files(target), server.files())
            finally:
                subprocess.run(["umount", str(target)], check=True)

    def test_everything_is_synced_before_it_says_done(self) -> None:
        strace = require("strace", "strace")
        with (
            running() as server,
            tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as other,
        ):
            server.auth.push_blob("app", b"layer")
            log = server.directory / "strace"
            trace = [strace, "-f", "-y", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2,write", "-o", str(log)]
            command = [sys.executable, str(TOP / "vex.py"), "backup", f"{other}/backup", "--data-dir", str(server.data)]
            ended = subprocess.run([*trace, *command], capture_output=True, text=True, timeout=60, check=False)
            if "ptrace" in ended.stderr:
                self.skipTest(f"strace may not trace here: {ended.stderr}")
            self.assertEqual(ended.returncode, 0, ended.stderr)
            calls = log.read_text().splitlines()
        patterns = [
            r"fsync\(\d+<[^>]*/backup>",
            r"fsync\(\d+<[^>]*/vex\.db\.new>",
            r"rename\([^,]*, [^,]*/vex\.db\"",
            r"fsync\(\d+<[^>]*/backup>",
            r"write\(1<",
        ]
        if os.stat(other.rpartition("/")[0]).st_dev != os.stat(tempfile.gettempdir()).st_dev:
            patterns[2:2] = [
                r"fsync\(\d+<[^>]*/uploads/backup-copy>",
                rf"renameat2?\(.*\"{digest_of(b'layer')[7:]}\"",
                r"fsync\(\d+<[^>]*/blobs/sha256>",
            ]
        position = 0
        for pattern in patterns:
            found = next((number for number in range(position, len(calls)) if re.search(pattern, calls[number])), None)
            self.assertIsNotNone(found, f"no {pattern} from call {position} on")
            position = (found or 0) + 1


class UnderLoad(unittest.TestCase):
    def test_backups_taken_under_load_are_whole_when_they_are_restored(self) -> None:
        with running("--pull-grace", "0s") as server, Load(server) as load:
            for number in range(BACKUPS):
                with self.subTest(number):
                    # Every second one brings the one before up to date.
                    target = server.directory / f"restored-{number // 2}" / "data"
                    acknowledged = list(load.kept)
                    made = vex("backup", str(target), "--data-dir", str(server.data))
                    self.assertEqual(made.returncode, 0, made.stderr)
                    hash_files(target)
                    checked = vex("check", "--hash", "--data-dir", str(target))
                    self.assertEqual((checked.returncode, len(checked.stdout.splitlines())), (0, 1), checked.stdout)
                    with serving(target) as restored:
                        found = pull_everything(restored.public)
                    self.assertLessEqual(set(acknowledged), found)
                    if number % 2:
                        shutil.rmtree(target.parent)
            self.assertEqual(load.failures, [])
            self.assertTrue(load.kept)
        self.assertEqual(load.failures, [])


class _Hook(io.StringIO):
    """A stream that calls a function when it is told that the database was copied."""

    def __init__(self, hook: Callable[[], object]) -> None:
        super().__init__()
        self._hook = hook

    def write(self, text: str) -> int:
        if text.startswith("copied the database"):
            self._hook()
        return super().write(text)


@contextlib.contextmanager
def serving(data: Path) -> Iterator[Server]:
    """Serve a data directory, which must be called data, for a block."""
    server = Server(data.parent)
    try:
        yield server
    finally:
        server.kill()
    assert "ERROR" not in server.log.read_text(), server.log.read_text()


def hash_files(data: Path) -> set[str]:
    """Compare each blob file of a data directory with its digest, and the files with the rows; returns their
    digests.
    """
    digests = set()
    for path in (data / "blobs").glob("*/*"):
        digest = f"{path.parent.name}:{path.name}"
        assert hashlib.new(path.parent.name, path.read_bytes()).hexdigest() == path.name, f"{digest} is damaged"
        digests.add(digest)
    with contextlib.closing(sqlite3.connect(data / "vex.db")) as connection:
        rows = {row[0] for row in connection.execute("SELECT digest FROM blob")}
    assert rows == digests, rows ^ digests
    return digests


def pull_everything(client: Client) -> set[Image]:
    """Pull every tag with its blobs, and hash all of it; returns the images."""
    found = set()
    for repository in _json(client, "/v2/_catalog?n=10000")["repositories"]:
        for tag in _json(client, f"/v2/{repository}/tags/list?n=10000")["tags"]:
            answer = client.get(f"/v2/{repository}/manifests/{tag}")
            assert answer.status == 200, answer
            for described in (answer.json["config"], *answer.json["layers"]):
                blob = client.get(f"/v2/{repository}/blobs/{described['digest']}")
                assert blob.status == 200, blob
                assert digest_of(blob.body) == described["digest"], f"{described['digest']} is damaged"
            found.add(Image(repository, tag, digest_of(answer.body)))
    return found


def _json(client: Client, path: str) -> Any:
    answer = client.get(path)
    assert answer.status == 200, answer
    return answer.json


if __name__ == "__main__":
    unittest.main()
