"""The log and the access log: what is in them, what is never in them, and that no line can pass for another."""

from __future__ import annotations

import base64
import json
import logging
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

from tests.support.logs import lines_of
from tests.support.raw import basic, connected
from tests.support.server import TOP, USER, Client, ServerTestCase, digest_of, running, vex
from vex.errors import Failure
from vex.logs import AccessLog, _Formatter, _json, _text

EIGHT_KIB = 8 * 1024
NASTY = 'a b="c"\r\n2026-01-01 00:00:00,000 INFO login\x1b[2J\x00\x7f\x85\u2028\u202e\ud800é'


def wait_for(found: Callable[[], Any]) -> Any:
    """Wait until something is there, and return it."""
    deadline = time.monotonic() + 30
    while not (value := found()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return value


class Lines(unittest.TestCase):
    """What becomes of a record."""

    def format(self, render: Any, message: str, *arguments: object, **fields: object) -> str:
        record = logging.LogRecord("vex", logging.INFO, "", 0, message, arguments, None)
        record.fields = fields
        return _Formatter(render).format(record)

    def test_text_is_a_time_a_level_a_message_and_pairs(self) -> None:
        line = self.format(_text, "manifest %s", "pushed", user="alice", tag=None, size=12, name="a b", empty="")
        self.assertRegex(
            line, r'^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO manifest pushed user=alice size=12 name="a b" empty=""$'
        )

    def test_json_is_an_object_with_the_same(self) -> None:
        document = json.loads(self.format(_json, "manifest %s", "pushed", user="alice", tag=None, size=12))
        self.assertRegex(document.pop("time"), r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(document, {"level": "info", "message": "manifest pushed", "user": "alice", "size": 12})

    def test_nothing_in_a_line_can_end_it_or_move_the_cursor(self) -> None:
        for render in (_text, _json):
            line = self.format(render, NASTY, user=NASTY)
            self.assertEqual(re.findall("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", line), [])
            line.encode("utf-8", "backslashreplace")
        self.assertEqual(json.loads(line)["user"], NASTY)
        self.assertNotIn("INFO login", self.format(_text, "x", user=NASTY).partition("user=")[0])

    def test_a_line_has_8_kib_at_most_and_stays_whole(self) -> None:
        for render in (_text, _json):
            for value in ("x" * 100_000, "\x00" * 50_000, "é" * 20_000, "\U0001f600" * 20_000):
                for message, fields in ((value, {}), ("m", {"user": value}), (value, {"user": value, "path": value})):
                    line = self.format(render, "%s", message, **fields, size=5)
                    self.assertLess(len(line.encode()), EIGHT_KIB)
                    self.assertGreater(len(line), 1000)
                    self.assertTrue(line.endswith("size=5") if render is _text else json.loads(line)["size"] == 5)

    def test_a_traceback_is_a_part_of_the_json(self) -> None:
        try:
            raise ValueError(NASTY + "x" * 20_000)
        except ValueError:
            record = logging.LogRecord("vex", logging.ERROR, "", 0, "failed", (), sys.exc_info())
        line = _Formatter(_json).format(record)
        self.assertLess(len(line), EIGHT_KIB)
        self.assertTrue(json.loads(line)["traceback"].startswith("Traceback (most recent call last):"))
        text = _Formatter(_text).format(record)
        self.assertIn("failed\n  Traceback", text)
        self.assertTrue(all(line.startswith("  ") for line in text.split("\n")[1:]), text)
        self.assertNotIn("\x1b", text)


class Events(ServerTestCase):
    """Who did what, in JSON."""

    flags = ("--delete-untags", "yes")

    def events(self, repository: str) -> list[tuple[Any, ...]]:
        """Return what the log tells of a repository; all of it is written before the answer, or a moment after."""
        lines = [line for line in lines_of(self.server.log) if line.get("repository") == repository]
        for line in lines:
            self.assertEqual((line["level"], line["user"], line["address"]), ("info", USER, "127.0.0.1"))
        return [(line["message"], line.get("tag"), line["digest"], line.get("before"), line["size"]) for line in lines]

    def test_pushes_changes_of_tags_and_removals_are_a_line_each(self) -> None:
        one = self.server.auth.push_image("app", "v1", b"first", config=b'{"a":1}')
        two = self.server.auth.push_image("app", "v1", b"other", config=b'{"a":1}')
        self.server.auth.request("DELETE", "/v2/app/manifests/v1")
        size = 414
        config, layers = (digest_of(b'{"a":1}'), 7), [(digest_of(content), 5) for content in (b"first", b"other")]
        expected = [
            ("manifest pushed", "v1", one, None, size),
            ("tag set", "v1", one, None, size),
            ("manifest pushed", "v1", two, None, size),
            ("tag moved", "v1", two, one, size),
            ("manifest removed", None, one, None, size),
            ("blob removed", None, layers[0][0], None, layers[0][1]),
            ("tag deleted", "v1", two, None, size),
            ("manifest removed", None, two, None, size),
            *(("blob removed", None, digest, None, length) for digest, length in (config, layers[1])),
        ]
        self.assertEqual(sorted(self.events("app"), key=str), sorted(expected, key=str))

    def test_a_push_of_the_same_again_is_no_change_of_the_tag(self) -> None:
        for _ in range(2):
            self.server.auth.push_image("again", "v1", b"one")
        self.assertEqual(
            [event[0] for event in self.events("again")], ["manifest pushed", "tag set", "manifest pushed"]
        )

    def test_a_manifest_that_is_deleted_is_removed_once_and_its_tags_before(self) -> None:
        digest = self.server.auth.push_image("untag", "a", b"one", config=b"[]")
        self.server.auth.push_image("untag", "b", b"one", config=b"[]")
        self.server.auth.request("DELETE", f"/v2/untag/manifests/{digest}")
        events = [event[:2] for event in self.events("untag")][4:]
        self.assertEqual(events[:3], [("tag deleted", "a"), ("tag deleted", "b"), ("manifest removed", None)])

    def test_a_blob_that_is_deleted_is_removed_once_also_where_another_repository_has_it(self) -> None:
        for name in ("blobs", "others"):
            digest = self.server.auth.push_blob(name, b"shared")
        for name in ("blobs", "others"):
            self.assertEqual(self.server.auth.request("DELETE", f"/v2/{name}/blobs/{digest}").status, 202)
            self.assertEqual(self.events(name), [("blob removed", None, digest, None, 6)])

    def test_a_login_that_fails_is_a_line_with_the_name_and_without_the_password(self) -> None:
        name = "mallory\n2026-01-01 INFO login\x1b[2J" + "x" * 2000
        self.assertEqual(Client(self.server.addresses["auth"], name, "hunter2hunter2").get("/v2/").status, 401)
        eve = Client(self.server.addresses["auth"], "eve", "hunter2hunter2")
        # At once, since every six seconds one more is allowed.
        with ThreadPoolExecutor(11) as pool:
            statuses = list(pool.map(lambda _: eve.get("/v2/?account=secret").status, range(11)))
        self.assertEqual(sorted(statuses), [401] * 10 + [429])
        # Without credentials nobody has tried to log in.
        self.assertEqual(Client(self.server.addresses["auth"]).get("/v2/").status, 401)
        lines = [line for line in lines_of(self.server.log) if line["message"] == "login failed"]
        self.assertEqual([line["user"] for line in lines], [name] + ["eve"] * 11)
        self.assertEqual({line["address"] for line in lines}, {"127.0.0.1"})
        self.assertEqual(sum("too many" in line["reason"] for line in lines), 1)
        log = self.server.log.read_text()
        for secret in ("hunter2", base64.b64encode(b"eve:hunter2hunter2").decode(), "secret"):
            self.assertNotIn(secret, log)


class Expiry(unittest.TestCase):
    def test_what_is_removed_because_it_was_due_has_no_user(self) -> None:
        with running("--upload-expiry", "1s", "--pull-grace", "0") as server:
            digest = server.auth.push_blob("app", b"unused")
            line = wait_for(lambda: [line for line in lines_of(server.log) if line["message"] == "blob removed"])[0]
            self.assertEqual((line["digest"], line["size"], line.get("user")), (digest, 6, None))


class Formats(unittest.TestCase):
    def test_a_level_hides_what_is_less_important(self) -> None:
        with running("--log-level", "warning") as server:
            server.auth.push_image("app", "v1", b"layer")
            self.assertEqual(server.log.read_text(), "")

    def test_text_can_be_asked_for(self) -> None:
        with running("--log-format", "text") as server:
            digest = server.auth.push_image("app", "v1", b"layer")
            pushed = (
                r"^20\S+ \S+ INFO manifest pushed user=alice address=127\.0\.0\.1 repository=app tag=v1"
                rf" digest={digest} size=\d+\n"
            )
            self.assertRegex(server.log.read_text(), pushed)

    def test_debug_adds_requests(self) -> None:
        with running("--debug") as server:
            server.public.get("/v2/?secret=1")
            line = wait_for(lambda: [line for line in lines_of(server.log) if "GET /v2/ " in line["message"]])[0]
            self.assertEqual(line["level"], "debug")
            self.assertNotIn("secret", server.log.read_text())

    def test_on_a_terminal_the_default_is_text(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            ours, theirs = pty.openpty()
            command = [
                sys.executable,
                f"{TOP}/vex.py",
                "serve",
                "--data-dir",
                f"{directory}/data",
                "--access-log",
                "stderr",
                "--auth-addr",
                "off",
            ]
            command += ["--public-addr", "127.0.0.1:0", "--internal-addr", "off"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True)
            os.close(theirs)
            assert process.stdout is not None
            with process.stdout, open(ours, "rb", buffering=0) as terminal:
                host, port = process.stdout.readline().split("//")[1].strip().split(":")
                process.stdout.readline()
                Client((host, int(port))).get("/")
                self.assertRegex(
                    terminal.read(4096),
                    rb"^20\S+ \S+ INFO request listener=public address=127\.0\.0\.1 method=GET path=/ status=200 ",
                )
                process.terminate()
                self.assertEqual(process.wait(30), 0)


class Access(ServerTestCase):
    flags = ("--access-log", "access.log", "--trusted-proxies", "127.0.0.1")

    @property
    def file(self) -> Path:
        return self.server.directory / "access.log"

    def requests(self, path: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many lines about a path, which may come a moment after the answers, and return them."""

        def found() -> list[dict[str, Any]]:
            lines = [line for line in lines_of(self.file) if line.get("path") == path]
            return lines if len(lines) >= count else []

        lines = wait_for(found)
        self.assertEqual(len(lines), count, lines)
        return list(lines)

    def test_each_request_is_a_line_with_everything_about_it(self) -> None:
        self.server.auth.push_image("app", "v1", b"layer")
        line = self.requests("/v2/app/manifests/v1")[0]
        seconds = line.pop("seconds")
        self.assertTrue(0 < seconds < 60)
        self.assertRegex(line.pop("time"), "Z$")
        size = line.pop("received")
        self.assertGreater(size, 300)
        wanted = {
            "listener": "auth",
            "user": USER,
            "address": "127.0.0.1",
            "method": "PUT",
            "path": "/v2/app/manifests/v1",
            "status": 201,
            "sent": 0,
        }
        self.assertEqual(line, {"level": "info", "message": "request", **wanted})
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o640)

    def test_answers_that_are_given_again_are_lines_too(self) -> None:
        self.server.auth.push_image("repeated", "v1", b"layer")
        for _ in range(3):
            self.server.public.get("/v2/repeated/tags/list")
        lines = self.requests("/v2/repeated/tags/list", 3)
        size = len('{"name":"repeated","tags":["v1"]}\n')
        self.assertEqual(
            {(line["status"], line["sent"], line["listener"], line.get("user")) for line in lines},
            {(200, size, "public", None)},
        )

    def test_behind_a_trusted_proxy_the_address_is_that_of_the_client(self) -> None:
        self.server.auth.push_image("proxied", "v1", b"layer")
        for _ in range(2):
            self.server.public.get("/v2/proxied/tags/list", {"X-Forwarded-For": "192.0.2.7"})
        self.assertEqual([line["address"] for line in self.requests("/v2/proxied/tags/list", 2)], ["192.0.2.7"] * 2)

    def test_queries_and_credentials_are_in_none(self) -> None:
        Client(self.server.addresses["auth"], "mallory", "hunter2hunter2").get("/v2/query/tags/list?token=secret")
        self.assertEqual(self.requests("/v2/query/tags/list")[0]["status"], 401)
        for secret in ("secret", "hunter2", base64.b64encode(b"mallory:hunter2hunter2").decode(), "mallory"):
            self.assertNotIn(secret, self.file.read_text())

    def test_what_is_no_request_at_all_is_a_line_with_its_status(self) -> None:
        with connected(self.server.addresses["public"]) as wire:
            wire.send(b"GET /nonsense\x1b[2J\r\n\r\n")
            wire.rest()
        line = wait_for(lambda: [line for line in lines_of(self.file) if line["status"] == 400])[0]
        self.assertEqual((line["listener"], line.get("method"), line.get("path")), ("public", None, None))

    def test_a_client_that_leaves_before_its_answer_is_a_line_with_499(self) -> None:
        credentials = base64.b64encode(f"{USER}:correct horse battery".encode()).decode()
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(
                f"POST /v2/left/blobs/uploads/?digest={digest_of(b'x')} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic"
                f" {credentials}\r\n".encode()
            )
            wire.send(b"Content-Length: 1000\r\n\r\nfew")
        line = self.requests("/v2/left/blobs/uploads/")[0]
        self.assertEqual((line["status"], line["user"], line["received"], line.get("sent")), (499, USER, 3, None))


class Files(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / "access.log"

    def write(self, log: AccessLog, path: str) -> None:
        log.record("public", "127.0.0.1", "", "GET", path, 200, 0, 0, 0.001)

    def test_it_goes_on_in_a_new_file_where_the_old_one_was_moved_away_and_loses_no_line(self) -> None:
        log = AccessLog(self.path, "json")
        stop, written = threading.Event(), [0, 0]

        def write(writer: int) -> None:
            while not stop.is_set():
                self.write(log, f"/{writer}/{written[writer]}")
                written[writer] += 1

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(2)]
        for thread in threads:
            thread.start()
        for number in range(20):
            wait_for(lambda: self.path.stat().st_size)
            self.path.rename(self.directory / f"access.log.{number}")
            log.reopen()
        stop.set()
        for thread in threads:
            thread.join()
        paths = [line["path"] for file in self.directory.iterdir() for line in lines_of(file)]
        self.assertEqual(
            sorted(paths), sorted(f"/{writer}/{number}" for writer in range(2) for number in range(written[writer]))
        )

    def test_where_none_can_be_opened_it_goes_on_in_the_old_one(self) -> None:
        log = AccessLog(self.path, "json")
        moved = self.directory / "moved"
        self.path.rename(moved)
        self.path.mkdir()
        with self.assertLogs("vex", "ERROR") as said:
            log.reopen()
        self.assertIn("cannot reopen the access log", said.output[0])
        self.write(log, "/")
        self.assertEqual(len(lines_of(moved)), 1)

    def test_a_full_disk_is_said_once_and_keeps_nobody_waiting(self) -> None:
        log = AccessLog(Path("/dev/full"), "json")
        with self.assertLogs("vex", "ERROR") as said:
            for _ in range(3):
                self.write(log, "/")
        self.assertEqual(len(said.output), 1)
        self.assertIn("cannot write the access log: No space left on device", said.output[0])

    def test_a_file_that_cannot_be_opened_is_a_failure_with_a_remedy(self) -> None:
        with self.assertRaisesRegex(
            Failure, "cannot write the access log .*nowhere.*: No such file or directory; .* access-log"
        ):
            AccessLog(self.directory / "nowhere" / "access.log", "json")

    def test_a_server_that_cannot_write_it_does_not_start(self) -> None:
        result = vex(
            "serve", "--data-dir", f"{self.directory}/data", "--access-log", f"{self.directory}/nowhere/access.log"
        )
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertTrue(result.stderr.startswith("vex: cannot write the access log"), result.stderr)


class Debugging(unittest.TestCase):
    """The log of a server that logs every request."""

    def test_long_and_hostile_requests_are_short_lines_without_query_and_credentials(self) -> None:
        with running("--debug") as server:
            Client(server.addresses["auth"]).get(f"/v2/{'a' * 8000}/tags/list?secret={'b' * 100}")
            server.auth.get("/v2/_catalog?n=1&secret=1")
            with connected(server.addresses["public"]) as wire:
                wire.send(f"GET /v2/\x1b[2J?secret HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\n\r\n".encode())
                wire.rest()
            with connected(server.addresses["auth"]) as wire:
                wire.send(
                    "GET /v2/ HTTP/1.1\r\nHost: a\r\nAuthorization:"
                    f" {basic(user='no ' + chr(27) + '[2J body')}\r\n\r\n".encode()
                )
                self.assertEqual(wire.answer().status, 401)
            self.assertEqual(server.stop(), 0)
            text = server.log.read_text(encoding="utf-8")
        self.assertIn("/v2/_catalog ->", text)
        self.assertIn("/v2/aaaa", text)
        for line in text.splitlines():
            self.assertLessEqual(len(line), EIGHT_KIB)
            for hidden in ("secret", "Basic", basic()[6:], "\x1b"):
                self.assertNotIn(hidden, line)
