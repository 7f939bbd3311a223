"""The data directory: what lies in it that is not of the registry, and what its file system must be able to do."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from tests.support.programs import require
from tests.support.registries import require_root
from tests.support.server import Server, digest_of, running, vex


class Foreign(unittest.TestCase):
    def test_what_is_not_of_the_registry_keeps_it_from_nothing_and_is_left_alone_and_named_once(self) -> None:
        with running() as server:
            location = server.auth.request("POST", "/v2/app/blobs/uploads/").headers["Location"]
            server.stop()
            for name in (
                "uploads/directory",
                "uploads/" + "0" * 64,
                "uploads/removed-directory",
                "blobs/sha256/directory",
                "lost+found",
                "blobs/.Trash",
            ):
                (server.data / name).mkdir()
            for name in ("uploads/notes.txt", "blobs/sha256/notes.txt", "blobs/.DS_Store", "notes.txt"):
                (server.data / name).write_text("mine")
            (server.data / "uploads" / ("1" * 64)).symlink_to(server.data / "notes.txt")
            (server.data / "uploads/removed-link").symlink_to(server.data / "notes.txt")
            before = {path for path in server.data.rglob("*") if "vex.db" not in path.name and path.name != "ballast"}
            server.start()
            server.auth.push_image("app", "1", b"layer")
            self.assertEqual(server.auth.request("PATCH", location, b"goes on").status, 202)
            server.wait_for_housekeeping()
            self.assertEqual(server.auth.request("DELETE", "/v2/app/manifests/1").status, 202)
            self.assertLessEqual(before, set(server.data.rglob("*")))
            log = server.log.read_text()
            for name in ("directory", "0" * 64, "removed-directory", "notes.txt", "1" * 64, "removed-link"):
                self.assertEqual(log.count(f"uploads/{name} is no upload"), 1, log)
            for name in ("blobs/sha256/directory", "blobs/sha256/notes.txt"):
                self.assertEqual(log.count(name), 1, log)

    def test_a_registry_begins_where_odd_files_are(self) -> None:
        with running() as server:
            server.stop()
            for path in server.data.glob("vex.db*"):
                path.unlink()
            (server.data / "blobs/sha256/.keep").write_text("")
            (server.data / "blobs/lost+found").mkdir()
            (server.data / "blobs/lost+found/x").write_text("")
            server.start()
            self.assertEqual(server.public.get("/v2/").status, 200)
            server.stop()
            # A blob without a database is another matter.
            for path in server.data.glob("vex.db*"):
                path.unlink()
            (server.data / "blobs/sha256" / digest_of(b"blob")[7:]).write_text("blob")
            with self.assertRaisesRegex(AssertionError, "restore it from a backup"):
                server.start()


class FileSystem(unittest.TestCase):
    """What a start says of a data directory that would fail each push later."""

    def setUp(self) -> None:
        require_root()
        self.directory = Path(tempfile.mkdtemp(prefix="vex-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.place = self.directory / "mounted"
        self.place.mkdir()

    def mount(self, *command: str) -> None:
        """Mount a file system at `place`, which goes away with the test."""
        subprocess.run([*command, str(self.place)], check=True, capture_output=True, timeout=30)
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(self.place)], check=True)

    def refusal(self, data: Path) -> str:
        """Start a registry that must not start; returns the line that says why."""
        ran = vex(
            "serve",
            "--data-dir",
            str(data),
            *[flag for name in ("public", "auth", "internal") for flag in (f"--{name}-addr", "127.0.0.1:0")],
        )
        self.assertEqual((ran.returncode, ran.stdout, len(ran.stderr.splitlines())), (1, "", 1), ran)
        return ran.stderr

    def test_blobs_on_another_file_system_than_uploads_are_refused_with_what_to_do(self) -> None:
        self.mount("mount", "-t", "tmpfs", "tmpfs")
        for part in ("blobs", "blobs/sha512", "uploads"):
            with self.subTest(part):
                data = self.directory / part.replace("/", "-")
                (data / part).parent.mkdir(parents=True)
                (data / part).symlink_to(self.place)
                said = self.refusal(data)
                self.assertIn("have to be on one file system", said)
                self.assertIn("data-dir", said)
                self.assertEqual([path for path in data.rglob("*") if "trial" in path.name], [])

    def test_a_file_system_that_does_not_tell_how_much_is_free_is_not_full(self) -> None:
        self.mount("mount", "-t", "ramfs", "ramfs")
        server = Server(self.place)
        self.addCleanup(server.kill)
        server.auth.push_image("app", "1", b"layer")
        self.assertEqual(server.internal.get("/readyz").status, 200)
        self.assertNotIn("vex_disk_free_bytes", server.internal.get("/metrics").body.decode())

    def test_mergerfs_that_maps_no_files_is_named(self) -> None:
        (self.directory / "branch").mkdir()
        self.mount(require("mergerfs", "mergerfs"), "-o", "cache.files=off", str(self.directory / "branch"))
        self.assertIn("cache.files=auto-full", self.refusal(self.place / "data"))
        added = vex("user", "add", "alice", "--data-dir", str(self.place / "other"), text="a long password\n")
        self.assertEqual(added.returncode, 1)
        self.assertIn("cache.files=auto-full", added.stderr)

    def test_a_mount_of_rclone_is_refused_with_what_to_do(self) -> None:
        (self.directory / "remote").mkdir()
        self.mount(
            require("rclone", "rclone"),
            "mount",
            "--daemon",
            "--vfs-cache-mode",
            "writes",
            str(self.directory / "remote"),
        )
        self.assertIn("local file system", self.refusal(self.place / "data"))


class OlderDatabase(unittest.TestCase):
    """A copy of the data directory whose database is older than its files."""

    def setUp(self) -> None:
        context = running("--pull-grace", "0s")
        self.server = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.layers = [f"layer {number}".encode() for number in range(5)]
        self.server.auth.push_image("app", "1", *self.layers)
        self.digests = {digest_of(content) for content in (b"{}", *self.layers)}
        self.bytes = sum(map(len, (b"{}", *self.layers)))

    def copy_without_log(self) -> Path:
        """Copy the data directory of the running server, but not what is in the log beside its database; returns that
        log's copy.
        """
        copy = self.server.directory / "copy"
        shutil.copytree(self.server.data, copy, ignore=shutil.ignore_patterns("control.sock"))
        self.server.kill()
        shutil.rmtree(self.server.data)
        copy.rename(self.server.data)
        log = self.server.directory / "kept-log"
        (self.server.data / "vex.db-wal").rename(log)
        (self.server.data / "vex.db-shm").unlink()
        return log

    def start(self) -> str:
        """Start it; returns what it logged until its files were checked."""
        before = len(self.server.log.read_text())
        self.server.start()
        deadline = time.monotonic() + 20
        while not self.server.metric('vex_housekeeping_success_timestamp_seconds{step="files"}'):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        return self.server.log.read_text()[before:]

    def set_aside(self) -> set[str]:
        return {f"{path.parent.name}:{path.name}" for path in (self.server.data / "set-aside").glob("*/*")}

    def check(self, *flags: str) -> str:
        return vex("check", "--data-dir", str(self.server.data), *flags).stdout

    def test_files_that_it_does_not_know_are_set_aside_with_a_warning_and_come_back_with_the_right_one(self) -> None:
        log = self.copy_without_log()
        said = self.start()
        self.assertIn('"warning"', said)
        self.assertIn(f"{len(self.digests)} files of {self.bytes} bytes", said)
        self.assertEqual((self.server.files(), self.set_aside()), (set(), self.digests))
        # Neither a second start nor one after a crash removes them.
        self.server.kill()
        self.start()
        self.assertEqual(self.set_aside(), self.digests)
        self.assertIn(f"{len(self.digests)} ({self.bytes} bytes); vex check --repair removes them", self.check())
        # In the place of what was written since.
        self.server.kill()
        for name in ("vex.db-wal", "vex.db-shm"):
            (self.server.data / name).unlink(missing_ok=True)
        log.rename(self.server.data / "vex.db-wal")
        self.start()
        self.assertEqual((self.server.files(), self.set_aside()), (self.digests, set()))
        for content in self.layers:
            self.assertEqual(self.server.public.get(f"/v2/app/blobs/{digest_of(content)}").body, content)

    def test_check_repair_removes_what_was_set_aside_while_the_registry_runs(self) -> None:
        self.copy_without_log()
        self.start()
        self.assertIn("removed", self.check("--repair"))
        self.assertEqual(self.set_aside(), set())
        self.assertIn("nothing is wrong", self.check())

    def test_a_few_files_of_many_are_removed_with_a_warning(self) -> None:
        self.server.auth.push_image("app", "2", *(b"more %d" % number for number in range(20)))
        self.server.stop()
        (self.server.data / "blobs/sha256" / digest_of(b"litter")[7:]).write_bytes(b"litter")
        said = self.start()
        self.assertIn('"warning"', said)
        self.assertIn("removed 1 files of 6 bytes", said)
        self.assertEqual(len(self.server.files()), 26)
        self.assertEqual(self.set_aside(), set())

    def test_what_a_crash_leaves_is_removed_with_a_warning_however_much_that_is(self) -> None:
        self.server.kill()
        for number in range(10):
            content = b"litter %d" % number
            (self.server.data / "blobs/sha256" / digest_of(content)[7:]).write_bytes(content)
        self.assertIn("removed 10 files of 80 bytes", self.start())
        self.assertEqual((self.server.files(), self.set_aside()), (self.digests, set()))


if __name__ == "__main__":
    unittest.main()
