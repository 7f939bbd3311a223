"""The data directory: what lies in it that is not of the registry, and what its file system must be able to do."""

from __future__ import annotations

import unittest

from tests.support import digest_of, running


class Foreign(unittest.TestCase):
    def test_what_is_not_of_the_registry_keeps_it_from_nothing_and_is_left_alone_and_named_once(self) -> None:
        with running() as server:
            location = server.auth.request("POST", "/v2/app/blobs/uploads/").headers["Location"]
            server.stop()
            for name in ("uploads/directory", "uploads/" + "0" * 64, "uploads/removed-directory", "blobs/sha256/directory", "lost+found", "blobs/.Trash"):
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


if __name__ == "__main__":
    unittest.main()
