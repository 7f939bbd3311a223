"""The control socket of a running registry, and the same operations where none runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import stat
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.server import Server, ServerTestCase, running, vex
from vex.commands.acting import act
from vex.errors import Failure, RegistryError
from vex.http.local import connect_in, listening_in
from vex.registry.operations import OPERATIONS, operation
from vex.settings.config import Config
from vex.storage.directory import InUse, locked

SOCKET = "control.sock"


def listed(data: Path, repository: str = "") -> list[dict[str, Any]]:
    """List what is in a registry, as `vex ls` does; waits for one that starts."""
    return list(act(Config(data_dir=data), "ls", repository=repository, last="", limit=100))


def ask(data: Path, method: str, path: str, body: bytes | None = None) -> tuple[int, list[Any]]:
    """Send a request to the control socket; returns the status and the lines of the answer."""
    connected = connect_in(data, SOCKET)
    assert connected
    connection = http.client.HTTPConnection("localhost")
    connection.sock = connected
    with contextlib.closing(connection):
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, [json.loads(line) for line in answer.read().splitlines()]


class Reached(ServerTestCase):
    """A registry that runs."""

    digest: str

    @classmethod
    def setUpClass(cls) -> None:
        """Start it, with an image in it."""
        super().setUpClass()
        cls.digest = cls.server.auth.push_image("team/app", "v1", b"layer")
        listed(cls.server.data)

    def test_its_socket_is_for_its_user_alone(self) -> None:
        status = (self.server.data / SOCKET).lstat()
        self.assertTrue(stat.S_ISSOCK(status.st_mode))
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o600)

    def test_a_command_is_told_what_is_there(self) -> None:
        (found,) = listed(self.server.data)
        self.assertEqual((found["repository"], found["tags"]), ("team/app", 1))
        (tag,) = listed(self.server.data, "team/app")
        self.assertEqual((tag["tag"], tag["digest"], tag["kind"]), ("v1", self.digest, "image"))

    def test_what_is_not_there_is_an_error_of_the_registry(self) -> None:
        for name, code in (("team/none", "NAME_UNKNOWN"), ("Team", "NAME_INVALID")):
            with self.subTest(name), self.assertRaises(RegistryError) as raised:
                listed(self.server.data, name)
            self.assertEqual(raised.exception.kind.code, code)

    def test_what_is_no_operation_is_refused(self) -> None:
        whole = b'{"repository":"","last":"","limit":1}'
        for method, path, body, expected in (
            ("GET", "/ls", None, (405, "UNSUPPORTED")),
            ("POST", "/unknown", b"{}", (404, "NOT_FOUND")),
            ("POST", "/", b"{}", (404, "NOT_FOUND")),
            ("POST", "/ls", None, (400, "BAD_REQUEST")),
            ("POST", "/ls", b"[]", (400, "BAD_REQUEST")),
            ("POST", "/ls", b"{}", (400, "BAD_REQUEST")),
            ("POST", "/ls", whole.replace(b"1", b"true"), (400, "BAD_REQUEST")),
            ("POST", "/ls", whole.replace(b"}", b',"more":1}'), (400, "BAD_REQUEST")),
            ("POST", "/ls", b'{"last":' + b"[" * 100_000, (400, "BAD_REQUEST")),
            ("POST", "/ls", b'{"last":"' + b"x" * 1024 * 1024 + b'"}', (400, "BAD_REQUEST")),
        ):
            with self.subTest((method, path, (body or b"")[:50])):
                status, (document,) = ask(self.server.data, method, path, body)
                self.assertEqual((status, document["errors"][0]["code"]), expected)

    def test_it_counts_among_the_requests(self) -> None:
        labels = '{listener="control",method="POST",op="control",code="200"}'
        deadline = time.monotonic() + 20
        # A moment after the answer is there.
        while not self.server.metric(f"vex_request_duration_seconds_count{labels}"):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_backup_and_check_leave_the_socket_alone(self) -> None:
        copy = self.server.directory / "copy"
        for command in (("backup", str(copy)), ("check",)):
            done = vex(*command, "--data-dir", str(self.server.data))
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse((copy / SOCKET).exists())

    def test_a_link_to_the_data_directory_will_do(self) -> None:
        link = self.server.directory / "link"
        link.symlink_to(self.server.data)
        self.assertEqual(listed(link), listed(self.server.data))

    @unittest.skipIf(os.geteuid(), "only root can become another user")
    def test_other_users_are_refused_even_where_they_reach_it(self) -> None:
        with running() as server:
            listed(server.data)
            for path, mode in ((server.directory, 0o755), (server.data, 0o755), (server.data / SOCKET, 0o666)):
                path.chmod(mode)
            self.assertEqual(self._status_as(65534, server.data), 403)

    def _status_as(self, user: int, data: Path) -> int:
        """Ask as another user, in a process of its own."""
        process = os.fork()
        if not process:
            os.setgid(user)
            os.setuid(user)
            status, _ = ask(data, "POST", "/ls")
            os._exit(status - 400)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) + 400


class Lives(unittest.TestCase):
    """The socket from the start of a registry to its end."""

    def test_it_goes_at_the_end_and_comes_again_after_a_kill(self) -> None:
        with running() as server:
            listed(server.data)
            server.kill()
            self.assertTrue((server.data / SOCKET).exists())
            self.assertEqual(listed(server.data), [])
            server.start()
            listed(server.data)
            self.assertEqual(ask(server.data, "GET", "/ls")[0], 405)
            self.assertEqual(server.stop(), 0)
            self.assertFalse((server.data / SOCKET).exists())

    def test_a_path_that_is_too_long_for_a_socket_will_do(self) -> None:
        with tempfile.TemporaryDirectory(prefix="vex-test-") as directory:
            deep = Path(directory, *["d" * 100] * 3)
            deep.mkdir(parents=True)
            server = Server(deep)
            try:
                server.auth.push_image("app", "v1", b"layer")
                self.assertEqual(len(listed(server.data)), 1)
                self.assertEqual(stat.S_IMODE((server.data / SOCKET).lstat().st_mode), 0o600)
                self.assertEqual(server.stop(), 0)
                self.assertFalse((server.data / SOCKET).exists())
            finally:
                server.kill()

    def test_a_registry_starts_also_where_it_can_have_no_socket(self) -> None:
        # As on a file system that has none.
        def prepare(directory: Path) -> None:
            (directory / "data" / SOCKET).mkdir(parents=True)

        with running(prepare=prepare) as server:
            server.wait_for_housekeeping()
            self.assertRegex(server.log.read_text(), "cannot listen at .*control.sock")
            self.assertEqual(server.public.get("/v2/").status, 200)
            self.assertEqual(server.stop(), 0)
            self.assertTrue((server.data / SOCKET).is_dir())
            self.assertEqual(listed(server.data), [])


class Alone(unittest.TestCase):
    """Where no registry runs."""

    def test_the_same_is_told_as_by_a_registry_that_runs(self) -> None:
        with running() as server:
            server.auth.push_image("app", "v1", b"layer")
            told = listed(server.data), listed(server.data, "app")
            server.stop()
            self.assertEqual((listed(server.data), listed(server.data, "app")), told)

    def test_where_there_is_no_registry_none_is_made(self) -> None:
        with tempfile.TemporaryDirectory(prefix="vex-test-") as directory:
            data = Path(directory, "data")
            with self.assertRaisesRegex(Failure, "there is no registry"):
                listed(data)
            self.assertFalse(data.exists())

    def test_each_operation_checks_what_it_is_given(self) -> None:
        for name, known in OPERATIONS.items():
            with self.subTest(name), self.assertRaises(RegistryError):
                operation(name, {**dict.fromkeys(known.arguments, None), "more": 1})


class Lock(unittest.TestCase):
    """Commands and registries on one data directory."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        self.data = Path(directory.name)

    def test_a_second_registry_is_refused_at_once(self) -> None:
        begun = time.monotonic()
        with locked(self.data), self.assertRaises(InUse), locked(self.data):
            pass
        self.assertLess(time.monotonic() - begun, 5)

    def test_a_command_is_waited_for(self) -> None:
        with contextlib.ExitStack() as command:
            command.enter_context(locked(self.data, briefly=True))
            began, held = threading.Event(), threading.Event()

            def start() -> None:
                began.set()
                with locked(self.data):
                    held.set()

            registry = threading.Thread(target=start)
            registry.start()
            began.wait()
            self.assertFalse(held.is_set())
            command.close()
            registry.join()
            self.assertTrue(held.is_set())


class Cut(unittest.TestCase):
    """An answer that has no end."""

    @contextlib.contextmanager
    def answering(self, answer: bytes) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="vex-test-") as directory:
            (Path(directory) / "vex.db").touch()
            with listening_in(Path(directory), SOCKET, 1) as listening:

                def serve() -> None:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)
                        connection.shutdown(socket.SHUT_WR)

                server = threading.Thread(target=serve)
                server.start()
                yield Path(directory)
                server.join()

    def test_is_an_error_and_no_shorter_list(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        row = b'{"repository":"app"}\n'
        for answer in (b"", head, head + b"%x\r\n%b\r\n" % (len(row), row), head + b"%x\r\n%b" % (len(row), row[:9])):
            with self.subTest(answer), self.answering(answer) as data:
                with self.assertRaises(RegistryError) as raised:
                    listed(data)
                self.assertIn("ended before it had answered", str(raised.exception))
