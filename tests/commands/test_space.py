"""`vex df` and `vex status`."""

from __future__ import annotations

import json
import os
import time
import unittest
from pathlib import Path
from typing import Any

from tests.support.server import ServerTestCase, running, tls_flags, vex, write_certificate
from tests.support.terminal import on_terminal
from vex import VERSION
from vex.storage.directory import locked


class Usage(ServerTestCase):
    """Two repositories that share a layer, and an upload in neither."""

    @classmethod
    def setUpClass(cls) -> None:
        """Push them."""
        super().setUpClass()
        for name, layers in (("one", [b"s" * 1000, b"1" * 10]), ("two", [b"s" * 1000, b"2" * 500, b"3" * 20])):
            cls.server.auth.push_image(name, "v1", *layers)
        cls.server.auth.push_blob("three", b"u" * 300)

    def test_own_and_shared_bytes_add_up(self) -> None:
        done = vex("df", "--json", "--data-dir", str(self.server.data))
        found = json.loads(done.stdout)
        sizes = {row["repository"]: (row["own"], row["shared"], row["bytes"]) for row in found["repositories"]}
        self.assertEqual(sizes, {"one": (10, 1002, 1012), "two": (520, 1002, 1522), "three": (0, 0, 0)})
        self.assertEqual([row["repository"] for row in found["repositories"]], ["two", "one", "three"])
        self.assertEqual((found["bytes"], found["images"], found["unreferenced"]), (1832, 2534, 300))
        own = sum(row["own"] for row in found["repositories"])
        self.assertEqual(own + 1002 + found["unreferenced"], found["bytes"])
        self.assertGreater(found["free"], 0)

    def test_a_person_sees_a_table(self) -> None:
        code, shown = on_terminal("df", "--data-dir", str(self.server.data))
        self.assertEqual(code, 0, shown)
        self.assertRegex(shown, r"REPOSITORY +TAGS +SIZE +SHARED +COMES FREE +QUOTA\n")
        self.assertRegex(shown, r"two +1 +1.5 KiB +1002 B +520 B +-\n")
        self.assertIn("1.8 KiB are stored, for images of 2.5 KiB\n300 B of them are in no image", shown)


class Status(unittest.TestCase):
    def status(self, data: Path, code: int, *flags: str) -> dict[str, Any]:
        done = vex("status", "--json", "--data-dir", str(data), *flags)
        self.assertEqual(done.returncode, code, done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def test_one_that_runs_and_one_that_does_not(self) -> None:
        begun = time.time()
        with running(*self.flags(), prepare=self.prepare) as server:
            found = self.status(server.data, 0)
            self.assertEqual((found["running"], found["version"], found["pid"]), (True, VERSION, server.process.pid))
            self.assertEqual(found["listeners"], server.urls)
            self.assertEqual(found["data"], str(server.data.resolve()))
            self.assertLessEqual(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun - 1)), found["since"])
            self.assertRegex(found["certificates"]["public"], r"\d{4}-\d\d-\d\dT")
            code, shown = on_terminal("status", "--data-dir", str(server.data))
            self.assertEqual(code, 0)
            self.assertRegex(shown, r"holds +0 repositories, 0 tags, 0 B\n")
            server.auth.push_image("app", "1", b"layer")
            shown = on_terminal("status", "--data-dir", str(server.data))[1]
            self.assertRegex(shown, r"holds +1 repository, 1 tag, \d+ B\n")
            self.assertRegex(shown, r"registry +runs since .*, as process \d+\n")
            self.assertRegex(shown, r"certificate of public until .* \(\d+ days\)\n")
            server.stop()
            found = self.status(server.data, 1)
            self.assertFalse(found["running"])
            self.assertGreater(found["free"], 0)
            self.assertIn("does not run; start it with vex serve", vex("status", "--data-dir", str(server.data)).stdout)

    def prepare(self, directory: Path) -> None:
        write_certificate(directory)

    def flags(self) -> tuple[str, ...]:
        return tls_flags("crt.pem", "key.pem", "public")

    def test_one_that_cannot_be_asked_is_said_to_run(self) -> None:
        with running() as server:
            server.stop()
            with locked(server.data):
                # The wait for a registry that starts.
                found = self.status(server.data, 1)
            self.assertEqual(found["running"], True)
            self.assertIn("nobody answers at control.sock", found["unreachable"])

    @unittest.skipIf(os.geteuid() == 0, "root reaches everything")
    def test_one_of_another_user_is_an_error(self) -> None:
        with running() as server:
            server.data.chmod(0)
            done = vex("status", "--data-dir", str(server.data))
            server.data.chmod(0o750)
            self.assertEqual(done.returncode, 1)
