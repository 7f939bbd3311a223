"""`vex check` finds each kind of damage, says it in a sentence, and repairs what can be repaired; with and without a
running server.
"""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import tempfile
import unittest
from pathlib import Path
from typing import Callable

from tests.support.in_process import HOUR, InProcessTestCase, directory_in_memory
from tests.support.load import Load
from tests.support.server import ServerTestCase, digest_of, running, vex
from vex.commands.check import Options, check
from vex.errors import Failure
from vex.progress import Progress
from vex.storage.directory import locked

SHOW, HASH, REPAIR, REPAIR_HASH = (
    Options(),
    Options(hashing=True),
    Options(repair=True),
    Options(repair=True, hashing=True),
)
SLOWLY = Options(repair=True, hashing=True, rate=1)


class CheckTestCase(InProcessTestCase):
    """A registry with an image app:1 of the layer b"layer", its database open in this process as in a server's, and
    damage to it.
    """

    def setUp(self) -> None:
        super().setUp()
        self.manifest = self.push_image("app", "1", b"layer")
        self.layer = digest_of(b"layer")

    def file(self, digest: str) -> Path:
        return self.site.directory / "blobs" / digest.replace(":", "/")

    def check(self, options: Options = SHOW, *, wait: Callable[[float], None] = lambda _seconds: None) -> list[str]:
        """Check it; returns what was said, without the summary."""
        said: list[str] = []
        problems = check(self.site.directory, options, Progress(io.StringIO()), say=said.append, wait=wait)
        self.assertEqual(len(said), problems + 1)
        self.assertTrue(said[-1].startswith("checked "), said)
        return said[:-1]

    def assert_one(self, said: list[str], *parts: str) -> None:
        self.assertEqual(len(said), 1, said)
        for part in parts:
            self.assertIn(part, said[0])

    def execute(self, sql: str) -> None:
        """Change the tables as no part of Vex would."""
        with contextlib.closing(sqlite3.connect(self.site.directory / "vex.db")) as connection, connection:
            connection.execute(sql)

    def flip(self, digest: str) -> None:
        """Change one bit of a file."""
        content = bytearray(self.file(digest).read_bytes())
        content[0] ^= 1
        self.file(digest).write_bytes(content)

    def assert_missing(self, digest: str) -> None:
        self.assertEqual(self.site.request("HEAD", f"/v2/app/blobs/{digest}").status, 404)


class Sound(CheckTestCase):
    def test_nothing_is_wrong_with_a_sound_registry(self) -> None:
        child = self.push_image(
            "app", "2", b"layer", b"foreign", subject={"mediaType": "a/b", "digest": digest_of(b"nothing"), "size": 1}
        )
        self.push_index("app", "all", [(child.digest, child.size)])
        self.push_blob("other", b"waits for its manifest", "sha512")
        before = self.site.holdings()
        for options in (SHOW, HASH, REPAIR, REPAIR_HASH):
            self.assertEqual(self.check(options), [])
        self.assertEqual(self.site.holdings(), before)

    def test_nothing_is_wrong_with_an_empty_registry(self) -> None:
        self.delete("app", "1")
        self.site.advance(48 * HOUR)
        self.assertEqual(self.check(HASH), [])

    def test_the_summary_counts_what_was_checked(self) -> None:
        said: list[str] = []
        check(self.site.directory, HASH, Progress(io.StringIO()), say=said.append)
        self.assertEqual(said, ["checked blobs: 2 (0.0 MiB hashed), manifests: 1; nothing is wrong"])

    def test_hashing_keeps_to_its_rate(self) -> None:
        waits: list[float] = []
        self.push_blob("app", bytes(10_000))
        self.check(Options(hashing=True, rate=1000), wait=waits.append)
        # The last bytes are due ten seconds after the first, and no time passes here.
        self.assertGreater(max(waits), 8)
        self.assertLess(max(waits), 11)


class Blobs(CheckTestCase):
    def test_a_missing_file_is_found(self) -> None:
        self.file(self.layer).unlink()
        self.assert_one(self.check(), self.layer, "in app", "its file is missing", "--repair")

    def test_a_short_and_a_long_file_are_found(self) -> None:
        for content in (b"lay", b"layer and more"):
            self.file(self.layer).write_bytes(content)
            self.assert_one(self.check(), self.layer, f"{len(content)} bytes instead of 5")

    def test_a_changed_byte_is_found_by_hashing_only(self) -> None:
        self.flip(self.layer)
        self.assertEqual(self.check(), [])
        self.assert_one(
            self.check(HASH),
            self.layer,
            "does not have the content of this digest",
            "; vex check --hash --repair marks it",
        )
        # The command that is named does what is said of it, and a shorter one would not.
        self.assertEqual(self.check(REPAIR), [])
        self.assert_one(self.check(REPAIR_HASH), "it is marked as damaged")
        self.assert_missing(self.layer)

    def test_a_file_that_cannot_be_read_is_found(self) -> None:
        directory = self.site.directory / "unreadable"
        directory.mkdir()
        # A directory has a size, but cannot be read, not even by root.
        blob = self.push_blob("app", bytes(directory.stat().st_size))
        self.file(blob).unlink()
        directory.rename(self.file(blob))
        self.assert_one(self.check(HASH), blob, "its file cannot be read: Is a directory")

    def test_without_repair_nothing_is_changed(self) -> None:
        self.flip(self.layer)
        self.file(digest_of(b"{}")).unlink()
        before = self.site.holdings()
        self.check(HASH)
        self.assertEqual(self.site.holdings(), before)
        self.assertEqual(self.site.request("HEAD", f"/v2/app/blobs/{self.layer}").status, 200)

    def test_repair_marks_so_that_the_next_push_heals(self) -> None:
        self.flip(self.layer)
        self.assert_one(self.check(REPAIR_HASH), "it is marked as damaged, and the next push of it heals it")
        self.assert_missing(self.layer)
        self.assert_one(self.check(), "it is marked as damaged")
        self.push_blob("app", b"layer")
        self.assertEqual(self.check(HASH), [])
        self.assertEqual(self.ok(200, "GET", f"/v2/app/blobs/{self.layer}").body, b"layer")

    def test_repair_removes_the_mark_from_a_file_that_was_put_back(self) -> None:
        self.file(self.layer).unlink()
        self.check(REPAIR)
        self.file(self.layer).write_bytes(b"layer")
        self.assert_one(self.check(REPAIR), "marked as damaged")
        self.assert_missing(self.layer)
        self.assert_one(self.check(HASH), "its file is sound")
        self.assert_missing(self.layer)
        self.assert_one(self.check(REPAIR_HASH), "the mark was removed")
        self.assertEqual(self.check(HASH), [])
        self.ok(200, "HEAD", f"/v2/app/blobs/{self.layer}")

    def test_a_blob_pushed_again_while_it_was_hashed_is_not_marked(self) -> None:
        self.delete("app", "1")
        blob = self.push_blob("app", b"pushed alone")
        self.flip(blob)

        def push_again(_seconds: float) -> None:
            upload = self.site.directory / "uploads" / "again"
            upload.write_bytes(b"pushed alone")
            os.rename(upload, self.file(blob))

        self.assertEqual(self.check(SLOWLY, wait=push_again), [])
        self.assertEqual(self.check(HASH), [])

    def test_a_blob_removed_while_another_was_hashed_is_not_missing(self) -> None:
        other = self.push_blob("app", b"removed in time")
        self.assertEqual(self.check(SLOWLY, wait=lambda _seconds: self.remove(other)), [])

    def remove(self, blob: str) -> None:
        """Delete a blob that no manifest references, unless it is deleted already."""
        self.assertIn(self.site.request("DELETE", f"/v2/app/blobs/{blob}").status, (202, 404))


class Litter(CheckTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.digest = digest_of(b"litter")
        self.file(self.digest).write_bytes(b"litter")

    def test_a_file_without_a_row_is_found(self) -> None:
        self.assert_one(self.check(), f"blobs/sha256/{self.digest[7:]} (6 bytes)", "--repair removes it")
        self.assertTrue(self.file(self.digest).exists())

    def test_what_only_looks_like_a_file_of_the_registry_is_left_alone(self) -> None:
        self.push_image("app", "2", b"litter")
        litter = self.file(digest_of(b"litter"))
        self.site.close()
        for place in ("uploads/removed-directory", f"set-aside/sha256/{'0' * 64}", "set-aside/notes"):
            (self.site.directory / place).mkdir(parents=True)
        for place in ("set-aside/sha256/notes.txt", "set-aside/notes.txt"):
            (self.site.directory / place).write_text("nobody else has this")
        (self.site.directory / "uploads/removed-link").symlink_to(litter)
        self.assertEqual(self.check(REPAIR), [])
        for place in (
            "uploads/removed-directory",
            "uploads/removed-link",
            "set-aside/sha256/notes.txt",
            "set-aside/notes.txt",
            f"set-aside/sha256/{'0' * 64}",
        ):
            self.assertTrue((self.site.directory / place).exists(), place)
        self.site.open()

    def test_repair_removes_it(self) -> None:
        aside = self.site.directory / "uploads" / "removed-0123"
        aside.write_bytes(b"set aside")
        self.assertEqual(len(self.check(REPAIR)), 2)
        self.assertFalse(self.file(self.digest).exists() or aside.exists())
        self.assertEqual(self.check(HASH), [])

    def test_what_is_no_file_of_the_registry_is_named_and_left_alone(self) -> None:
        self.file(self.digest).unlink()
        foreign = self.site.directory / "blobs" / "sha512" / "notes.txt"
        foreign.write_bytes(b"")
        self.assert_one(self.check(REPAIR), "blobs/sha512/notes.txt is no file of the registry", "left alone")
        self.assertTrue(foreign.exists())

    def test_an_upload_in_progress_stays(self) -> None:
        self.ok(202, "POST", "/v2/app/blobs/uploads/")
        self.assertEqual(len(self.check(REPAIR)), 1)
        self.assertEqual(len(list((self.site.directory / "uploads").iterdir())), 1)

    def test_while_the_server_runs_it_is_left_with_the_reason(self) -> None:
        with locked(self.site.directory):
            self.assert_one(self.check(REPAIR), self.digest[7:], "not removed, because the registry is running")
        self.assertTrue(self.file(self.digest).exists())

    def test_while_the_server_runs_what_gets_its_row_a_moment_later_is_no_litter(self) -> None:
        def push(_seconds: float) -> None:
            self.push_blob("app", b"litter")

        with locked(self.site.directory):
            self.assertEqual(self.check(REPAIR, wait=push), [])

    def test_while_the_server_runs_what_is_removed_a_moment_later_is_no_litter(self) -> None:
        with locked(self.site.directory):
            self.assertEqual(self.check(REPAIR, wait=lambda _seconds: self.file(self.digest).unlink()), [])


class References(CheckTestCase):
    def test_a_manifest_that_lost_a_reference_is_found(self) -> None:
        self.execute(f"DELETE FROM manifest_blob WHERE blob = (SELECT id FROM blob WHERE digest = '{self.layer}')")
        said = self.check()
        self.assertEqual(len(said), 2, said)
        self.assertIn(
            f"manifest {self.manifest.digest} in app: it references content that it does not hold: {self.layer}; push"
            " it again",
            said[0],
        )
        self.assertIn(f"blob {self.layer} is in no repository", said[1])

    def test_pushing_again_what_lost_a_reference_heals_it(self) -> None:
        self.execute("DELETE FROM manifest_blob")
        self.check(REPAIR)
        self.push_image("app", "1", b"layer")
        self.assertEqual(self.check(HASH), [])

    def test_an_index_that_lost_a_child_is_found(self) -> None:
        index = self.push_index("app", "all", [self.manifest])
        self.execute("DELETE FROM manifest_child")
        self.assert_one(self.check(), index.digest, f"does not hold: {self.manifest.digest}")

    def test_a_layer_elsewhere_and_a_subject_that_is_not_there_are_no_damage(self) -> None:
        away = {
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "digest": digest_of(b"away"),
            "size": 4,
            "urls": ["https://a.test/"],
        }
        self.push_manifest(
            "app",
            "2",
            {"schemaVersion": 2, "config": _described(b"{}"), "layers": [away], "subject": _described(b"nothing")},
        )
        self.assertEqual(self.check(), [])

    def test_a_manifest_with_other_bytes_is_found(self) -> None:
        self.execute("UPDATE manifest SET content = x'7b7d'")
        self.assert_one(self.check(), self.manifest.digest, "its bytes do not have this digest")

    def test_rows_that_refer_to_nothing_are_found(self) -> None:
        self.execute("DELETE FROM repository")
        said = self.check()
        self.assertTrue(
            any(
                "rows of the table repository_manifest that refer to rows of repository" in line and "backup" in line
                for line in said
            ),
            said,
        )

    def test_rows_that_nothing_holds_are_found_and_repaired(self) -> None:
        self.execute(
            "INSERT INTO manifest (digest, size, artifact_type, annotations, content) VALUES ('sha256:00', 2, '', '{}',"
            " x'7b7d')"
        )
        self.push_blob("app", b"held by a lease")
        self.execute("DELETE FROM lease")
        blob = digest_of(b"held by a lease")
        found = [line.partition(";")[0] for line in self.check()]
        self.assertEqual(found, [f"blob {blob} is in no repository", "manifest sha256:00 is in no repository"])
        self.check(REPAIR)
        self.assertEqual(self.check(HASH), [])
        self.assertFalse(self.file(blob).exists())


class Counters(CheckTestCase):
    """What the lists of the web interface show and sort by, which triggers keep."""

    WRONG = (
        "UPDATE repository SET tags = 7",
        "UPDATE repository SET size = size + 1",
        "UPDATE repository SET pushed = 1",
        "UPDATE tag SET size = 3",
        "UPDATE repository_manifest SET holders = 0",
        "UPDATE total SET repositories = 12",
    )

    def test_a_counter_that_is_wrong_is_found_and_counted_again(self) -> None:
        index = self.push_index("app", "all", [self.manifest])
        self.push_image("other", "1", b"layer", b"more")
        right = self.counters()
        for sql in self.WRONG:
            with self.subTest(sql):
                self.execute(sql)
                self.assert_one(self.check(), "in the lists of the web interface", "--repair counts again")
                self.assertNotEqual(self.counters(), right)
                self.assert_one(self.check(REPAIR), "counted again")
                self.assertEqual(self.counters(), right)
                self.assertEqual(self.check(), [])
        self.delete("app", "all")
        self.assertEqual(self.site.request("HEAD", f"/v2/app/manifests/{index.digest}").status, 404)
        self.assertEqual(self.check(), [])

    def test_the_newest_push_stays_that_of_a_manifest_that_is_gone(self) -> None:
        self.site.advance(HOUR)
        self.push_image("app", "2", b"newer")
        self.delete("app", "2")
        self.assertEqual(self.check(), [])

    def counters(self) -> list[object]:
        queries = (
            "SELECT name, tags, size, pushed FROM repository ORDER BY name",
            "SELECT repository, name, size FROM tag ORDER BY 1, 2",
            "SELECT repository, manifest, holders FROM repository_manifest ORDER BY 1, 2",
            "SELECT repositories FROM total",
        )
        with self.site.database.read() as tx:
            return [tx.rows(query) for query in queries]


class DamagedDatabase(CheckTestCase):
    def test_each_damaged_page_is_told(self) -> None:
        with directory_in_memory() as name:
            copy = Path(name) / "vex.db"
            self.site.database.copy_to(copy)
            sound = copy.read_bytes()
            for start in range(4096, len(sound), 4096):
                with self.subTest(page=start // 4096 + 1):
                    copy.write_bytes(sound[:start] + b"\xff" * 4096 + sound[start + 4096 :])
                    self.assertIn("backup", "".join(self.said(copy.parent)))

    def said(self, directory: Path) -> list[str]:
        """Check a registry whose database is damaged; returns what was said, or why it could not even be opened."""
        said: list[str] = []
        try:
            self.assertGreater(check(directory, SHOW, Progress(io.StringIO()), say=said.append), 0)
        except Failure as failure:
            said.append(str(failure))
        return said

    def test_a_damaged_page_exits_1(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            copy = Path(directory) / "vex.db"
            self.site.database.copy_to(copy)
            content = copy.read_bytes()
            copy.write_bytes(content[:40960] + b"\xff" * 4096 + content[45056:])
            result = vex("check", "--data-dir", directory)
        self.assertEqual((result.returncode, result.stderr), (1, ""))
        self.assertIn("restore it from a backup", result.stdout)

    def test_a_file_that_is_no_database_is_a_failure(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "vex.db").write_bytes(b"no database" * 1000)
            result = vex("check", "--data-dir", directory)
        self.assertEqual((result.returncode, result.stdout, len(result.stderr.splitlines())), (1, "", 1))
        self.assertIn("restore it from a backup", result.stderr)


class Program(ServerTestCase):
    """The command, while the server runs."""

    def check(self, *flags: str) -> tuple[int, list[str]]:
        result = vex("check", "--data-dir", str(self.server.data), *flags)
        self.assertEqual(result.stderr, "")
        return result.returncode, result.stdout.splitlines()

    def test_it_exits_0_when_nothing_is_wrong(self) -> None:
        self.server.auth.push_image("sound", "1", b"sound")
        code, said = self.check("--hash-rate", "100MiB")
        self.assertEqual((code, len(said)), (0, 1))

    def test_a_damaged_blob_exits_1_is_marked_and_healed_by_a_push(self) -> None:
        blob = self.server.auth.push_blob("damaged", b"damaged layer")
        self.server.auth.push_image("damaged", "1", b"damaged layer")
        path = self.server.data / "blobs/sha256" / blob[7:]
        path.write_bytes(b"Damaged layer")
        # The second answer is the first one, kept.
        for listener in (self.server.auth, self.server.public, self.server.public):
            self.assertEqual(listener.request("HEAD", f"/v2/damaged/blobs/{blob}").status, 200)
        code, said = self.check("--hash", "--repair")
        self.assertEqual((code, len(said)), (1, 2))
        self.assertIn(blob, said[0])
        for listener in (self.server.auth, self.server.public):
            self.assertEqual(listener.request("HEAD", f"/v2/damaged/blobs/{blob}").status, 404)
        self.server.auth.push_image("damaged", "1", b"damaged layer")
        self.assertEqual(self.server.public.get(f"/v2/damaged/blobs/{blob}").body, b"damaged layer")
        self.assertEqual(self.check("--hash")[0], 0)

    def test_a_directory_without_a_registry_is_left_as_it_is(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            for name in (directory, f"{directory}/missing"):
                result = vex("check", "--data-dir", name)
                self.assertEqual((result.returncode, result.stdout, len(result.stderr.splitlines())), (1, "", 1))
                self.assertIn("there is no registry", result.stderr)
            self.assertEqual(os.listdir(directory), [])

    def test_a_rate_that_is_none_is_an_error_of_the_command_line(self) -> None:
        for rate in ("0", "-1", "fast", ""):
            result = vex("check", "--data-dir", str(self.server.data), f"--hash-rate={rate}")
            self.assertEqual(result.returncode, 2)
            self.assertIn("--hash-rate", result.stderr)


class UnderLoad(unittest.TestCase):
    def test_pushes_and_removals_under_way_are_never_taken_for_damage(self) -> None:
        with running("--pull-grace", "0s") as server, Load(server) as load:
            for _ in range(3):
                load.wait_for_rounds()
                said: list[str] = []
                check(
                    server.data,
                    REPAIR_HASH,
                    Progress(io.StringIO()),
                    say=said.append,
                    wait=lambda _seconds: load.wait_for_rounds(),
                )
                self.assertEqual(len(said), 1, said)
        self.assertEqual(load.failures, [])


def _described(content: bytes) -> dict[str, object]:
    return {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(content), "size": len(content)}


if __name__ == "__main__":
    unittest.main()
