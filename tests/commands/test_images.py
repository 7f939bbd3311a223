"""`vex rm` and `vex tag`: on a registry that runs, and on one that does not."""

from __future__ import annotations

import getpass
import json
import subprocess
from typing import Any

from tests.support.server import ServerTestCase, vex
from tests.support.terminal import on_terminal


class Commands(ServerTestCase):
    """A registry that is stopped by some tests, and runs again after them."""

    flags = ("--pull-grace", "0s")

    def vex(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return vex(*arguments, "--data-dir", str(self.server.data))

    def lines(self, *arguments: str, code: int = 0) -> list[Any]:
        """Run a command that prints JSON."""
        done = self.vex(*arguments, "--json")
        self.assertEqual(done.returncode, code, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def status(self, name: str, reference: str) -> int:
        return self.server.public.get(f"/v2/{name}/manifests/{reference}").status

    def while_stopped(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.assertEqual(self.server.stop(), 0)
        try:
            return self.vex(*arguments)
        finally:
            self.server.start()

    def test_a_tag_is_deleted_at_once_also_where_its_answer_is_remembered(self) -> None:
        self.server.auth.push_image("rm/running", "v1", b"layer of it")
        self.assertEqual([self.status("rm/running", "v1") for _ in range(3)], [200] * 3)
        (row,) = self.lines("rm", "rm/running:v1", "--yes")
        self.assertEqual((row["repository"], row["tag"]), ("rm/running", "v1"))
        self.assertEqual(self.status("rm/running", "v1"), 404)
        (change,) = self.lines("log", "rm/running:v1", code=0)[1:]
        self.assertEqual((change["change"], change["user"], change["address"]), ("deleted", getpass.getuser(), "local"))
        self.assertIn('"message": "tag deleted"', self.server.log.read_text())

    def test_where_none_runs_it_is_the_same(self) -> None:
        self.server.auth.push_image("rm/stopped", "v1", b"layer of that")
        files = self.server.files()
        done = self.while_stopped("rm", "rm/stopped:v1", "--yes")
        self.assertEqual((done.returncode, done.stderr.splitlines()[-1]), (0, "deleted 1 tag"))
        self.assertEqual(self.status("rm/stopped", "v1"), 404)
        self.assertEqual(len(files - self.server.files()), 1)
        (change,) = self.lines("log", "rm/stopped:v1")[1:]
        self.assertEqual((change["change"], change["user"], change["address"]), ("deleted", getpass.getuser(), "local"))

    def test_without_a_terminal_it_shows_and_refuses(self) -> None:
        digest = self.server.auth.push_image("rm/shown", "v1", b"shown layer")
        done = self.vex("rm", "rm/shown:v1")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout.split("\t")[:2], ["rm/shown:v1", digest])
        self.assertIn("nothing was deleted: without a terminal", done.stderr)
        self.assertEqual(self.status("rm/shown", "v1"), 200)

    def test_on_a_terminal_it_asks(self) -> None:
        self.server.auth.push_image("rm/asked", "v1", b"asked layer" * 1000)
        for text, code, status in (("\n", 1, 200), ("n\n", 1, 200), ("y\n", 0, 404)):
            with self.subTest(text):
                found = on_terminal("rm", "rm/asked:v1", "--data-dir", str(self.server.data), text=text)
                self.assertEqual((found[0], self.status("rm/asked", "v1")), (code, status), found[1])
                self.assertIn("rm/asked:v1", found[1])
                self.assertIn("1 tag; 10.7 KiB come free", found[1])
                self.assertIn("Delete? [y/N]", found[1])

    def test_what_is_wrong_with_one_is_said_before_any_is_deleted(self) -> None:
        self.server.auth.push_image("rm/wrong", "v1", b"layer")
        for image, text in (("rm/wrong:v2", "there is no rm/wrong:v2"), ("rm/wrong", "names no tag")):
            done = self.vex("rm", "rm/wrong:v1", image, "--yes")
            self.assertEqual(done.returncode, 1)
            self.assertIn(text, done.stderr)
        self.assertEqual(self.status("rm/wrong", "v1"), 200)

    def test_a_tag_is_set_by_one_that_runs_and_by_one_that_does_not(self) -> None:
        digest = self.server.auth.push_image("tag/from", "v1", b"tagged layer")
        self.assertEqual(self.status("tag/to", "v1"), 404)
        (row,) = self.lines("tag", "tag/from:v1", "tag/to:v1")
        self.assertEqual(row["digest"], digest)
        self.assertEqual(self.status("tag/to", "v1"), 200)
        done = self.while_stopped("tag", "tag/from:v1", "tag/to:v2")
        self.assertEqual(done.stdout, f"tag/to:v2 is {digest}\n", done.stderr)
        self.assertEqual(self.status("tag/to", "v2"), 200)
