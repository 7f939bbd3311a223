"""What was acknowledged survives, and what was not leaves nothing behind: crashes, races and broken storage, with the
real program.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.proof.crash.points import SKIP, Trap
from tests.proof.crash.server import TrapServer
from tests.support.in_process import InProcess, Options, directory_in_memory
from tests.support.programs import require
from tests.support.raw import basic
from tests.support.server import Client, Server, ServerTestCase, digest_of, image, running, vex
from tests.support.uploads import MIB, UploadTestCase, received

_CALL = re.compile(r"^(\d+) +(?:(\w+)\((.*)|<\.\.\. (\w+) resumed>(.*))$")


class UploadOrderTest(UploadTestCase):
    """The order of system calls, without which a power cut loses what was acknowledged."""

    def test_an_upload_is_synced_named_and_committed_before_it_is_acknowledged(self) -> None:
        strace = require("strace", "strace")
        with running() as server:
            with traced(strace, server) as calls:
                blob = server.auth.push_blob("app", b"content")
            self.assert_order(
                calls,
                r"fsync\(\d+<[^>]*/uploads/\w+>",
                rf'rename\("[^"]*/uploads/\w+", "[^"]*/blobs/sha256/{blob[7:]}"',
                r"fsync\(\d+<[^>]*/blobs/sha256>",
                r"(fsync|fdatasync)\(\d+<[^>]*/vex\.db-wal>",
                r'sendto\(\d+<[^>]*>, "HTTP/1\.1 201 ',
            )

    def test_a_manifest_is_committed_before_it_is_acknowledged(self) -> None:
        strace = require("strace", "strace")
        with running() as server:
            server.auth.push_blob("app", b"{}")
            with traced(strace, server) as calls:
                server.auth.push_manifest("app", "1", image())
            self.assert_order(
                calls, r"(fsync|fdatasync)\(\d+<[^>]*/vex\.db-wal>", r'sendto\(\d+<[^>]*>, "HTTP/1\.1 201 '
            )

    def test_a_chunk_is_synced_before_it_is_acknowledged(self) -> None:
        strace = require("strace", "strace")
        with running() as server:
            location = self.start(server.auth)
            with traced(strace, server) as calls:
                self.assertEqual(server.auth.request("PATCH", location, b"chunk").status, 202)
            self.assert_order(calls, r"fsync\(\d+<[^>]*/uploads/\w+>", r'sendto\(\d+<[^>]*>, "HTTP/1\.1 202 ')

    def assert_order(self, calls: list[str], *patterns: str) -> None:
        """Find a call for each pattern, each behind the one before."""
        position = 0
        for pattern in patterns:
            found = next((number for number in range(position, len(calls)) if re.match(pattern, calls[number])), None)
            self.assertIsNotNone(found, f"no {pattern} from call {position} on: {calls}")
            position = (found or 0) + 1
        self.assertFalse([call for call in calls[position:] if re.match(patterns[0], call)], calls)


class SyncTest(UploadTestCase):
    """Syncs of uploads, counted: what is published, and each offset that a client is told, was synced as it is."""

    server: TrapServer

    def setUp(self) -> None:
        context = directory_in_memory()
        self.addCleanup(context.__exit__, None, None, None)
        self.server = TrapServer(Path(context.__enter__()))
        self.addCleanup(self.server.kill)

    def count(self) -> None:
        self.server.points.arm(Trap("fsync uploads", SKIP, forever=True))

    def test_what_is_left_of_a_chunk_that_contradicts_its_range_is_synced_before_it_is_published(self) -> None:
        location = self.start(self.server.auth)
        self.assertEqual(self.server.auth.request("PATCH", location, b"first").status, 202)
        answer = self.server.auth.request("PATCH", location, iter([b"more"]), {"Content-Range": "5-20"})
        self.assertEqual((answer.status, answer.codes), (400, ["SIZE_INVALID"]))
        self.count()
        self.assertEqual(self.server.auth.request("PUT", f"{location}&digest={digest_of(b'first')}").status, 201)
        self.assertEqual(self.server.points.sprung, 1)

    def test_what_a_client_that_vanished_left_is_synced_before_anybody_is_told(self) -> None:
        for method, headers, status in (
            ("GET", {}, 204),
            ("PATCH", {"Content-Range": "7-8"}, 416),
            ("PUT", {"Content-Range": "7-8"}, 416),
        ):
            with self.subTest(method):
                location = self.start(self.server.auth)
                with half_sent(self.server.auth, location, bytes(1000), 600):
                    pass
                self.server.wait_until_counted()
                self.count()
                answer = self.server.auth.request(
                    method, f"{location}&digest={digest_of(b'')}", None if method == "GET" else b"xx", headers
                )
                self.assertEqual((answer.status, answer.headers["Range"]), (status, "0-599"))
                self.assertEqual(self.server.points.sprung, 1)
                self.server.points.disarm()

    def test_what_has_arrived_of_a_body_is_synced_before_anybody_is_told(self) -> None:
        location = self.start(self.server.auth)
        self.count()
        with half_sent(self.server.auth, location, bytes(2 * MIB), 1_300_000):
            self.wait_for(lambda: received(self.server.auth, location) > 1_000_000, "nothing arrives")
            self.assertGreaterEqual(self.server.points.sprung, 1)
            synced = self.server.points.sprung
            self.assertEqual(self.server.auth.request("PATCH", location, b"x").status, 416)
            self.assertEqual(self.server.points.sprung, synced, "nothing new has arrived")

    def test_what_a_process_left_that_was_killed_is_synced_before_anybody_is_told(self) -> None:
        location = self.start(self.server.auth)
        with half_sent(self.server.auth, location, bytes(1000), 600):
            pass
        self.server.wait_until_counted()
        self.server.kill()
        self.server.start()
        self.count()
        self.assertEqual(received(self.server.auth, location), 600)
        self.assertEqual(self.server.points.sprung, 1)


class FilesTest(UploadTestCase):
    """The data directory: modes, the lock, and what a start makes of what it finds."""

    def test_files_are_closed_to_others_whatever_the_umask_is(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        with running() as server:
            server.auth.push_image("app", "1", b"layer")
            self.start(server.auth)
            for path in [server.data, *server.data.rglob("*")]:
                mode = stat.S_IMODE(path.stat().st_mode)
                self.assertIn(mode, (0o700, 0o750) if path.is_dir() else (0o600, 0o640), f"{path}: {mode:o}")

    def test_a_second_server_on_the_same_data_says_so_and_ends(self) -> None:
        with running() as server:
            flags = [flag for name in ("public", "auth", "internal") for flag in (f"--{name}-addr", "127.0.0.1:0")]
            ended = vex("serve", "--data-dir", str(server.data), *flags)
            self.assertEqual((ended.returncode, ended.stdout), (1, ""))
            self.assertIn(str(server.data), ended.stderr)
            self.assertEqual(len(ended.stderr.splitlines()), 1, ended.stderr)
            self.assertEqual(server.public.get("/v2/").status, 200)

    def test_a_start_removes_files_without_a_row(self) -> None:
        with running() as server:
            kept = server.auth.push_blob("app", b"kept")
            server.kill()
            (server.data / "blobs/sha256" / digest_of(b"litter")[7:]).write_bytes(b"litter")
            (server.data / "uploads/removed-0123").write_bytes(b"set aside")
            server.start()
            self.wait_for(
                lambda: server.files() == {kept} and not any((server.data / "uploads").iterdir()), "litter stays"
            )

    def test_a_session_goes_on_after_a_restart(self) -> None:
        with running() as server:
            location = self.start(server.auth)
            self.assertEqual(server.auth.request("PATCH", location, b"first ").headers["Range"], "0-5")
            server.restart()
            self.assertEqual(server.auth.get(location).headers["Range"], "0-5")
            answer = server.auth.request("PATCH", location, b"second", {"Content-Range": "6-11"})
            self.assertEqual((answer.status, answer.headers["Range"]), (202, "0-11"))
            self.assertEqual(server.auth.request("PUT", f"{location}?digest={digest_of(b'first second')}").status, 201)

    @unittest.skipUnless(sys.platform == "linux", "needs extended attributes of files")
    def test_a_session_goes_on_with_the_bytes_that_a_power_cut_left_of_a_longer_file(self) -> None:
        with running() as server:
            location = self.start(server.auth)
            for chunk in (b"first ", b"second ", b"third"):
                self.assertEqual(server.auth.request("PATCH", location, chunk).status, 202)
            server.kill()
            (file,) = (server.data / "uploads").iterdir()
            self.assertEqual(file.read_bytes(), b"first second third")
            for left, offset in (
                (b"first second third\0\0\0", 18),
                (b"first second \0\0\0\0\0\0", 13),
                (b"first second thi", 13),
            ):
                with self.subTest(left):
                    file.write_bytes(left)
                    server.start()
                    self.assertEqual(received(server.auth, location), offset)
                    server.kill()
                    self.assertEqual(file.read_bytes(), b"first second third"[:offset])
            server.start()
            self.assertEqual(server.auth.request("PATCH", location, b"last", {"Content-Range": "13-16"}).status, 202)
            self.assertEqual(
                server.auth.request("PUT", f"{location}?digest={digest_of(b'first second last')}").status, 201
            )

    @unittest.skipUnless(sys.platform == "linux", "needs extended attributes of files")
    def test_without_attributes_the_size_of_a_file_is_believed(self) -> None:
        with running() as server:
            location = self.start(server.auth)
            self.assertEqual(server.auth.request("PATCH", location, b"first ").status, 202)
            server.kill()
            (file,) = (server.data / "uploads").iterdir()
            os.removexattr(file, "user.vex.received")
            server.start()
            self.assertEqual(received(server.auth, location), 6)
            self.assertEqual(
                server.auth.request("PUT", f"{location}?digest={digest_of(b'first second')}", b"second").status, 201
            )

    @unittest.skipUnless(sys.platform == "linux", "needs extended attributes of files")
    def test_uploads_work_where_files_cannot_have_attributes(self) -> None:
        with directory_in_memory() as name, contextlib.ExitStack() as ending:
            server = TrapServer(Path(name))
            ending.callback(server.kill)
            for error in ("ENOTSUP", "EPERM", "ENOSYS"):
                with self.subTest(error):
                    server.points.arm(Trap("setxattr uploads", error, forever=True))
                    location = self.start(server.auth)
                    self.assertEqual(server.auth.request("PATCH", location, b"first ").status, 202)
                    self.assertGreater(server.points.sprung, 1)
                    content = f"first {error}".encode()
                    self.assertEqual(
                        server.auth.request("PUT", f"{location}?digest={digest_of(content)}", content[6:]).status, 201
                    )

    def test_a_session_goes_on_where_get_says_after_a_kill_in_the_middle_of_a_chunk(self) -> None:
        content = random.Random(3).getrandbits(8 * 24 * MIB).to_bytes(24 * MIB, "little")
        with running() as server:
            location = self.start(server.auth)
            with half_sent(server.auth, location, content, 20 * MIB):
                self.wait_for(lambda: received(server.auth, location) > 17 * MIB, "nothing arrives")
                server.kill()
            server.start()
            offset = received(server.auth, location)
            self.assertGreaterEqual(offset, 16 * MIB)
            self.assertLessEqual(offset, 20 * MIB)
            answer = server.auth.request(
                "PATCH", location, content[offset:], {"Content-Range": f"{offset}-{len(content) - 1}"}
            )
            self.assertEqual(answer.status, 202, answer)
            blob = digest_of(content)
            self.assertEqual(server.auth.request("PUT", f"{location}?digest={blob}").status, 201)
            self.assertEqual(server.public.get(f"/v2/app/blobs/{blob}").body, content)

    def test_a_vanished_client_leaves_the_session_at_what_arrived(self) -> None:
        content = random.Random(4).getrandbits(8 * 2 * MIB).to_bytes(2 * MIB, "little")
        with running() as server:
            location = self.start(server.auth)
            with half_sent(server.auth, location, content, 1_300_000):
                self.wait_for(lambda: received(server.auth, location) > 1_000_000, "nothing arrives")
            blob = digest_of(content)
            statuses: list[int] = []

            def finished() -> bool:
                offset = received(server.auth, location)
                body, fields = content[offset:], {"Content-Range": f"{offset}-{len(content) - 1}"}
                statuses.append(server.auth.request("PUT", f"{location}?digest={blob}", body, fields).status)
                return statuses[-1] != 416

            # Until the server has noticed that the first client is gone, its request holds the session.
            self.wait_for(finished, "the session stays busy")
            self.assertEqual(statuses[-1], 201)
            self.assertEqual(server.public.get(f"/v2/app/blobs/{blob}").body, content)

    def test_a_start_ends_sessions_that_were_idle_for_too_long(self) -> None:
        with running() as server:
            old, young = self.start(server.auth), self.start(server.auth)
            server.stop()
            aged = server.data / "uploads" / old.partition("?")[0].rpartition("/")[2]
            os.utime(aged, (time.time() - 25 * 3600,) * 2)
            server.start()
            # Asked for before the first sweep, it would go on.
            self.wait_for(lambda: not aged.exists(), "the old session stays")
            self.assertEqual(server.auth.get(old).status, 404)
            self.assertEqual(server.auth.get(young).status, 204)


class DamageTest(ServerTestCase):
    """A blob whose file is missing or short."""

    def test_a_start_reports_it_and_a_push_heals_it(self) -> None:
        server = self.server
        server.auth.push_image("app", "1", b"missing", b"short", b"sound")
        missing, short, sound = (digest_of(content) for content in (b"missing", b"short", b"sound"))
        server.stop()
        (server.data / "blobs/sha256" / missing[7:]).unlink()
        os.truncate(server.data / "blobs/sha256" / short[7:], 2)
        server.start()
        deadline = time.monotonic() + 20
        while server.metric("vex_damaged_blobs") != 2:
            self.assertLess(time.monotonic(), deadline, "the damage is not noticed")
        self.assertEqual(server.internal.get("/readyz").status, 200)
        for blob, content in ((missing, b"missing"), (short, b"short")):
            self.assertIn(blob, server.log.read_text())
            self.assert_error(server.public.get(f"/v2/app/blobs/{blob}"), 404, "BLOB_UNKNOWN")
            self.assertEqual(server.auth.request("HEAD", f"/v2/app/blobs/{blob}").status, 404)
            server.auth.push_blob("app", content)
            self.assertEqual(server.public.get(f"/v2/app/blobs/{blob}").body, content)
        self.assertEqual(server.public.get(f"/v2/app/blobs/{sound}").body, b"sound")
        self.assertEqual(server.metric("vex_damaged_blobs"), 0)

    def test_it_is_noticed_when_it_is_read_too(self) -> None:
        server = self.server
        for repository, change in (("gone", Path.unlink), ("cut", lambda path: os.truncate(path, 1))):
            content = repository.encode()
            blob = server.auth.push_blob(repository, content)
            change(server.data / "blobs/sha256" / blob[7:])
            self.assert_error(server.public.get(f"/v2/{repository}/blobs/{blob}"), 404, "BLOB_UNKNOWN")
            self.assertEqual(server.metric("vex_damaged_blobs"), 1)
            answer = server.auth.request("POST", f"/v2/{repository}/blobs/uploads/?mount={blob}")
            self.assertEqual(answer.status, 202, "a damaged blob cannot be mounted")
            server.auth.push_blob(repository, content)
            self.assertEqual(server.metric("vex_damaged_blobs"), 0)
            self.assertEqual(server.public.get(f"/v2/{repository}/blobs/{blob}").body, content)


class RaceTest(UploadTestCase):
    """Two at once."""

    def test_two_pushes_of_one_blob_are_both_created_and_one_file(self) -> None:
        with running() as server, ThreadPoolExecutor(4) as pool:
            for number in range(20):
                content = b"%d " % number * 50_000
                digests = list(
                    pool.map(lambda name, body=content: server.auth.push_blob(name, body), ("one", "two", "one", "two"))
                )
                self.assertEqual(set(digests), {digest_of(content)})
                for name in ("one", "two"):
                    self.assertEqual(server.public.get(f"/v2/{name}/blobs/{digests[0]}").body, content)
            self.assertEqual(len(server.files()), 20)
            self.assertEqual(list((server.data / "uploads").iterdir()), [])

    def test_of_two_chunks_at_once_one_works_and_the_other_is_told_where_the_session_is(self) -> None:
        with running() as server:
            location = self.start(server.auth)
            with half_sent(server.auth, location, bytes(MIB), MIB // 4 * 3) as first:
                self.wait_for(lambda: received(server.auth, location) > 0, "nothing arrives")
                refused = server.auth.request("PATCH", location, b"second")
                self.assertEqual(
                    (refused.status, refused.codes, refused.headers["Location"]), (416, ["RANGE_INVALID"], location)
                )
                self.assertRegex(refused.headers["Range"], r"^0-[1-9][0-9]*$")
                first.sendall(bytes(MIB // 4))
                self.assertTrue(first.recv(4096).startswith(b"HTTP/1.1 202 "))
            self.assertEqual(server.auth.get(location).headers["Range"], f"0-{MIB - 1}")
            self.assertEqual(server.auth.request("PUT", f"{location}?digest={digest_of(bytes(MIB))}").status, 201)

    def test_a_push_during_the_removal_of_the_same_blob_never_loses_it(self) -> None:
        with (
            directory_in_memory() as directory,
            contextlib.closing(InProcess(Path(directory), Options(), 1_700_000_000)) as site,
        ):
            blob = digest_of(b"layer")
            for number in range(300):
                site.request("POST", f"/v2/one/blobs/uploads/?digest={blob}", b"layer")
                statuses: list[int] = []
                barrier = threading.Barrier(2)

                def run(
                    method: str,
                    path: str,
                    body: bytes,
                    barrier: threading.Barrier = barrier,
                    statuses: list[int] = statuses,
                ) -> None:
                    barrier.wait()
                    statuses.append(site.request(method, path, body).status)

                threads = [
                    threading.Thread(target=run, args=("DELETE", f"/v2/one/blobs/{blob}", b"")),
                    threading.Thread(target=run, args=("POST", f"/v2/two/blobs/uploads/?digest={blob}", b"layer")),
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                self.assertEqual(sorted(statuses), [201, 202], f"round {number}")
                answer = site.request("GET", f"/v2/two/blobs/{blob}")
                self.assertEqual((answer.status, answer.body), (200, b"layer"), f"round {number}")
                self.assertEqual(site.request("DELETE", f"/v2/two/blobs/{blob}").status, 202)
                self.assertEqual(site.holdings().files, set(), f"round {number}")


@unittest.skipUnless(hasattr(resource, "prlimit"), "needs prlimit, which Linux has")
class CommitFailureTest(UploadTestCase):
    """A commit whose outcome is unknown."""

    def test_the_server_stops_with_a_message_and_starts_again_with_all_that_was_acknowledged(self) -> None:
        with running() as server:
            stored = server.auth.push_image("app", "1", b"layer")
            # Writing past this fails with EFBIG, which SQLite reports as an I/O error.
            written = (server.data / "vex.db-wal").stat().st_size
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (written, written))
            answer = server.auth.request("POST", f"/v2/app/blobs/uploads/?digest={digest_of(b'lost')}", b"lost")
            self.assertEqual((answer.status, answer.codes), (500, ["INTERNAL_ERROR"]))
            self.assertEqual(server.process.wait(timeout=60), 1)
            last = server.log.read_text().splitlines()[-1]
            self.assertRegex(last, "storage failed .* check the disk, then start again")
            server.kill()
            server.start()
            self.assertEqual(server.public.get("/v2/app/manifests/1").headers["Docker-Content-Digest"], stored)
            self.assertEqual(server.public.get(f"/v2/app/blobs/{digest_of(b'layer')}").body, b"layer")
            server.auth.push_blob("app", b"lost")
            self.assertEqual(server.public.get(f"/v2/app/blobs/{digest_of(b'lost')}").body, b"lost")


@contextlib.contextmanager
def traced(strace: str, server: Server) -> Iterator[list[str]]:
    """Record the server's calls that sync, rename and send, in the order in which they ended; sends in which they
    began.
    """
    log = server.directory / "strace"
    names = "trace=fsync,fdatasync,rename,renameat,renameat2,sendto"
    command = [
        strace,
        "-f",
        "-y",
        "-s",
        "32",
        "-e",
        names,
        "-e",
        "signal=none",
        "-o",
        str(log),
        "-p",
        str(server.process.pid),
    ]
    calls: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        attached = process.stderr.readline()
        if "attached" not in attached:
            raise unittest.SkipTest(f"strace may not trace here: {attached.strip()}")
        try:
            yield calls
        finally:
            process.terminate()
    calls += _calls(log.read_text())


def _calls(log: str) -> list[str]:
    begun: dict[str, str] = {}
    calls = []
    for line in log.splitlines():
        match = _CALL.match(line)
        if not match:
            continue
        thread, name, arguments, _, rest = match.groups()
        if name and arguments.endswith("<unfinished ...>") and name != "sendto":
            begun[thread] = f"{name}({arguments}"
        elif name:
            calls.append(f"{name}({arguments}")
        elif thread in begun:
            calls.append(begun.pop(thread).replace("<unfinished ...>", "") + rest)
    return calls


@contextlib.contextmanager
def half_sent(client: Client, location: str, content: bytes, sent: int) -> Iterator[socket.socket]:
    """Send a chunk up to `sent` bytes, and hang up at the end of the block."""
    with contextlib.closing(http.client.HTTPConnection(*client.address, timeout=60)) as connection:
        connection.putrequest("PATCH", location)
        for name, value in {"Authorization": basic(), "Content-Length": str(len(content))}.items():
            connection.putheader(name, value)
        connection.endheaders(content[:sent])
        assert isinstance(connection.sock, socket.socket)
        yield connection.sock
