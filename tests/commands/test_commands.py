"""The command line: what each command prints, what each mistake is answered with, and how a server starts and ends."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from tests.support.raw import basic, connected
from tests.support.server import TOP, Client, Server, digest_of, make_certificate, running, vex
from vex.commands.arguments import ROWS
from vex.commands.cli import COMMANDS as FUNCTIONS
from vex.commands.cli import main

COMMANDS = (
    "serve",
    "quickstart",
    "user",
    "certificate",
    "import",
    "export",
    "describe",
    "testconfig",
    "version",
    "help",
)
DEFAULT_PORTS = (8200, 8201, 8202)
ADDRESSES = ("--public-addr", "127.0.0.1:0", "--auth-addr", "127.0.0.1:0", "--internal-addr", "127.0.0.1:0")


class CommandCase(unittest.TestCase):
    """Commands in a directory of their own."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="vex-test-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def run_vex(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return vex(*arguments, cwd=self.directory, timeout=20)

    def serve(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a server that is expected not to start."""
        return self.run_vex("serve", *(ADDRESSES if "--public-addr" not in arguments else ()), *arguments)

    def write(self, name: str, content: str | bytes) -> str:
        path = self.directory / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def assert_failed(self, result: subprocess.CompletedProcess[str], *words: str) -> None:
        """Check for exit code 1, and one line that says what and what to do."""
        self.assertEqual((result.returncode, result.stdout), (1, ""), result)
        self.assertEqual((result.stderr.count("\n"), result.stderr[:5]), (1, "vex: "), result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def assert_wrong_command_line(self, result: subprocess.CompletedProcess[str]) -> None:
        self.assertEqual((result.returncode, result.stdout), (2, ""), result)
        self.assertIn("usage:", result.stderr)
        self.assertRegex(result.stderr, r"; see 'vex.* --help'\n$")
        self.assertNotIn("Traceback", result.stderr)


class CommandLines(CommandCase):
    """Commands that do not serve; they run in this process, which is quicker."""

    def run_vex(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
            try:
                code = main(list(arguments))
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())

    def test_wrong_command_lines_exit_with_2(self) -> None:
        for arguments in (
            ("nonsense",),
            ("--nonsense",),
            ("serve", "--nonsense", "1"),
            ("serve", "extra"),
            ("serve", "--public-addr"),
            ("quickstart",),
            ("quickstart", "alice", "localhost", "extra"),
            ("user",),
            ("user", "nonsense"),
            ("user", "add"),
            ("user", "list", "extra"),
            ("testconfig",),
            ("version", "extra"),
            ("describe", "--nonsense"),
        ):
            with self.subTest(arguments):
                self.assert_wrong_command_line(self.run_vex(*arguments))

    def test_without_a_command_it_says_what_it_is_and_the_three_commands_that_most_want(self) -> None:
        result = vex()
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertIn("a container registry", result.stderr.splitlines()[0])
        commands = re.findall(r"^  (.*)$", result.stderr, re.MULTILINE)
        program = f"{Path(sys.executable).name} {TOP / 'vex.py'}"
        self.assertEqual(
            commands, [f"{program} {command}" for command in ("serve", "quickstart USERNAME HOSTNAME", "help")]
        )
        self.assertNotIn("usage:", result.stderr)

    def test_the_program_ends_with_the_exit_code_of_the_command(self) -> None:
        self.assertEqual(vex("version").returncode, 0)
        self.assert_failed(vex("testconfig", str(self.directory / "nowhere.conf")), "nowhere.conf")
        self.assert_wrong_command_line(vex("nonsense"))

    def test_help_names_every_command(self) -> None:
        result = self.run_vex("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for command in COMMANDS:
            self.assertIn(command, result.stdout)

    def test_serve_has_a_flag_for_every_key_that_describe_shows(self) -> None:
        keys = {
            line.lstrip("#").partition(" =")[0]
            for line in self.run_vex("describe").stdout.partition("\n#[")[0].splitlines()
            if " =" in line and not line.startswith("# ")
        }
        self.assertGreater(len(keys), 20)
        usage = self.run_vex("serve", "--help").stdout
        for key in keys:
            self.assertIn(f"--{key} ", usage)

    def test_version_is_one_line(self) -> None:
        result = self.run_vex("version")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertRegex(result.stdout, r"\Avex [0-9]+\.[0-9]+[^\n]*\n\Z")

    def test_what_describe_prints_is_a_valid_configuration(self) -> None:
        described = self.run_vex("describe")
        self.assertEqual((described.returncode, described.stderr), (0, ""))
        self.assert_ok(self.run_vex("testconfig", self.write("described.conf", described.stdout)))

    def test_testconfig_says_that_a_file_is_right(self) -> None:
        self.assert_ok(
            self.run_vex(
                "testconfig",
                self.write("a.conf", "# a comment\npublic-addr = :8200\n\npull-grace = 90s\nblob-limit=4MiB\n"),
            )
        )
        self.assert_ok(self.run_vex("testconfig", self.write("empty.conf", "")))

    def test_testconfig_names_file_line_and_key_of_what_is_wrong(self) -> None:
        for content, words in (
            ("\nnonsense = 1\n", ("line 2", "nonsense")),
            ("public-addr = localhost\n", ("line 1", "public-addr")),
            ("# x\n\npull-grace = 90\n", ("line 3", "pull-grace")),
            ("delete-untags = maybe\n", ("line 1", "delete-untags")),
            ("blob-limit = 4 MB\n", ("line 1", "blob-limit")),
            ("pull-grace = 1s\npull-grace = 2s\n", ("line 2", "pull-grace")),
            ("[section]\n", ("line 1",)),
            ("no value\n", ("line 1",)),
            ("public-addr = off\nauth-addr = off\ninternal-addr = off\n", ("public-addr",)),
            ("public-tls-cert = a\n", ("public-tls-cert", "public-tls-key")),
        ):
            with self.subTest(content):
                self.assert_failed(self.run_vex("testconfig", self.write("wrong.conf", content)), *words)

    def test_testconfig_lists_every_mistake_a_line_each(self) -> None:
        content = "nonsense = 1\n[repositories team/*]\nimutable = v*\nquota = \x1b[2J\n"
        result = self.run_vex("testconfig", self.write("wrong.conf", content))
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 3, lines)
        for line, words in zip(lines, ("line 1: nonsense", "line 3: imutable", "line 4: quota")):
            self.assertRegex(line, rf"\Avex: .*wrong\.conf, {words}: ")
            self.assertNotIn("\x1b", line)

    def test_testconfig_of_what_is_no_file_fails(self) -> None:
        self.assert_failed(self.run_vex("testconfig", "nowhere.conf"), "nowhere.conf")
        self.assert_failed(self.run_vex("testconfig", str(self.directory)), str(self.directory))
        self.assert_failed(self.run_vex("testconfig", self.write("binary.conf", b"\xff\xfe\0")), "binary.conf")

    def assert_ok(self, result: subprocess.CompletedProcess[str]) -> None:
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("OK", result.stdout)


class FailedStarts(CommandCase):
    """Servers that do not start."""

    def test_a_wrong_value_names_its_flag(self) -> None:
        wrong = {
            "--pull-grace": "10",
            "--blob-limit": "big",
            "--delete-untags": "true",
            "--public-addr": "localhost:99999",
            "--page-size": "0",
        }
        for flag, value in wrong.items():
            with self.subTest(flag):
                result = self.serve(flag, value)
                self.assert_wrong_command_line(result)
                self.assertIn(f"{flag}: {value!r} is not ", result.stderr)

    def test_a_wrong_configuration_file_is_found_by_every_command(self) -> None:
        self.write("vex.conf", "nonsense = 1\n")
        for arguments in (("serve",), ("user", "list"), ("user", "delete", "bob")):
            self.assert_failed(self.run_vex(*arguments), "vex.conf", "line 1", "nonsense")

    def test_a_configuration_file_that_is_not_there_is_a_failure(self) -> None:
        self.assert_failed(self.serve("--config", "nowhere.conf"), "nowhere.conf")

    def test_a_port_in_use_is_named_with_the_key_to_change(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for listener in ("public", "auth", "internal"):
                others = [f"--{name}-addr=127.0.0.1:0" for name in ("public", "auth", "internal") if name != listener]
                result = self.run_vex("serve", *others, f"--{listener}-addr", f"127.0.0.1:{port}")
                self.assert_failed(result, str(port), f"{listener}-addr")

    def test_a_start_that_fails_closes_what_it_has_opened(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            addresses = (
                "--public-addr",
                f"unix:{self.directory}/public.sock",
                "--auth-addr",
                f"127.0.0.1:{taken.getsockname()[1]}",
            )
            command = [
                sys.executable,
                "-W",
                "always::ResourceWarning",
                str(TOP / "vex.py"),
                "serve",
                *addresses,
                "--internal-addr",
                "off",
            ]
            ended = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, timeout=20, check=False)
        self.assert_failed(ended, "auth-addr")
        self.assertFalse((self.directory / "public.sock").exists())
        self.assertFalse((self.directory / "data/vex.db-wal").exists())

    def test_an_address_that_is_not_of_this_machine_is_a_failure(self) -> None:
        self.assert_failed(
            self.serve("--public-addr", "192.0.2.1:0", "--auth-addr", "off", "--internal-addr", "off"), "192.0.2.1"
        )
        self.assert_failed(
            self.serve("--public-addr", "nowhere.invalid:0", "--auth-addr", "off", "--internal-addr", "off"),
            "nowhere.invalid",
        )

    def test_a_certificate_or_key_that_cannot_be_used_is_named(self) -> None:
        certificate, key = self.write_certificate("one")
        _, other_key = self.write_certificate("two")
        for name, cert_path, key_path, words in (
            ("no key file", certificate, "nowhere.pem", ("nowhere.pem", "public-tls-key")),
            ("no certificate file", "nowhere.pem", key, ("nowhere.pem", "public-tls-cert")),
            ("a directory", certificate, str(self.directory), (str(self.directory), "public-tls-key")),
            ("no PEM", certificate, self.write("text.pem", "no key"), ("text.pem",)),
            ("empty", self.write("empty.pem", ""), key, ("empty.pem",)),
            ("of another certificate", certificate, other_key, (certificate, other_key)),
            ("swapped", key, certificate, (key,)),
        ):
            with self.subTest(name):
                self.assert_failed(self.serve("--public-tls-cert", cert_path, "--public-tls-key", key_path), *words)

    def test_a_certificate_without_a_key_is_a_failure(self) -> None:
        self.assert_failed(self.serve("--auth-tls-cert", "a.pem"), "auth-tls-cert", "auth-tls-key")
        self.assert_failed(self.serve("--auth-tls-key", "a.pem"), "auth-tls-cert", "auth-tls-key")

    def test_a_database_of_a_newer_version_is_left_alone(self) -> None:
        self.run_vex("token", "add", "ci")
        database = self.directory / "data" / "vex.db"
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA user_version = 999")
        for arguments in (("serve", *ADDRESSES), ("user", "list")):
            self.assert_failed(self.run_vex(*arguments), "newer", "vex.db")
        with contextlib.closing(sqlite3.connect(database)) as connection:
            self.assertEqual(connection.execute("PRAGMA user_version").fetchone(), (999,))

    def test_a_file_that_is_no_database_is_left_alone(self) -> None:
        (self.directory / "data").mkdir()
        path = self.write("data/vex.db", b"this is no database, but has more bytes than the header of one" * 100)
        before = Path(path).read_bytes()
        for arguments in (("serve", *ADDRESSES), ("user", "list")):
            self.assert_failed(self.run_vex(*arguments), "vex.db")
        self.assertEqual(Path(path).read_bytes(), before)

    def test_blobs_without_their_database_are_left_alone(self) -> None:
        self.run_vex("token", "add", "ci")
        blob = self.directory / "data/blobs/sha256" / ("0" * 64)
        blob.parent.mkdir(parents=True)
        blob.write_bytes(b"x")
        database = self.directory / "data/vex.db"
        database.unlink()
        for arguments in (("serve", *ADDRESSES), ("user", "list"), ("serve", *ADDRESSES)):
            self.assert_failed(self.run_vex(*arguments), "vex.db is gone or empty", "restore it from a backup")
        self.assertTrue(blob.exists())

    def test_a_directory_instead_of_a_database_is_a_failure(self) -> None:
        (self.directory / "data" / "vex.db").mkdir(parents=True)
        self.assert_failed(self.serve(), "vex.db")

    def test_a_data_directory_that_cannot_be_written_to_is_named(self) -> None:
        # root may write everywhere but where there is nothing to write to.
        for path in (self.write("file", ""), "/proc/vex-data", "/dev/null/data"):
            with self.subTest(path):
                for arguments in (("serve", *ADDRESSES), ("user", "list")):
                    self.assert_failed(self.run_vex(*arguments, "--data-dir", path), path)

    def test_a_second_server_on_the_same_data_is_refused_and_the_first_goes_on(self) -> None:
        with running() as server:
            result = self.serve("--data-dir", str(server.data))
            self.assert_failed(result, str(server.data), "another")
            self.assertEqual(server.public.get("/v2/").status, 200)

    def write_certificate(self, name: str) -> tuple[str, str]:
        made = make_certificate("localhost", now=time.time())
        return self.write(f"{name}.crt.pem", made.certificate_pem), self.write(f"{name}.key.pem", made.key_pem)


class Starts(CommandCase):
    """Servers that start."""

    def start(self, *flags: str) -> subprocess.Popen[str]:
        """Start a server in the directory of the test, and do not wait."""
        command = [sys.executable, str(TOP / "vex.py"), "serve", *flags]
        with open(self.directory / "log", "wb") as log:
            process = subprocess.Popen(command, cwd=self.directory, stdout=subprocess.PIPE, stderr=log, text=True)
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def lines(self, process: subprocess.Popen[str]) -> list[str]:
        """Read what a server prints until it is ready."""
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "ready\n":
                return lines
        raise AssertionError((self.directory / "log").read_text())

    def test_it_prints_a_line_for_each_listener_and_then_ready(self) -> None:
        process = self.start(*ADDRESSES)
        lines = self.lines(process)
        self.assertEqual(len(lines), 4)
        for line, listener in zip(lines, ("public", "auth", "internal")):
            self.assertRegex(line, rf"\A{listener} +http://127\.0\.0\.1:[1-9][0-9]*\n\Z")
            port = int(line.rpartition(":")[2])
            self.assertIn(
                Client(("127.0.0.1", port)).get("/healthz" if listener == "internal" else "/v2/").status, (200, 401)
            )
        process.terminate()
        assert process.stdout is not None
        self.assertEqual((process.stdout.read(), process.wait(timeout=60)), ("", 0))

    def test_a_listener_at_all_addresses_shows_one_that_can_be_asked(self) -> None:
        for address in (":0", "0.0.0.0:0"):
            lines = self.lines(
                self.start(
                    "--public-addr",
                    address,
                    "--auth-addr",
                    "off",
                    "--internal-addr",
                    "off",
                    "--data-dir",
                    f"data{address}",
                )
            )
            self.assertRegex(
                lines[0], r"\Apublic +http://localhost:[1-9][0-9]* \(and all other addresses of this machine\)\n\Z"
            )
            self.assertEqual(Client(("localhost", int(lines[0].split()[1].rpartition(":")[2]))).get("/v2/").status, 200)

    def test_it_starts_without_anything_on_the_default_ports(self) -> None:
        for port in DEFAULT_PORTS:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    self.skipTest(f"port {port} is in use")
        process = self.start()
        lines = [line.split() for line in self.lines(process)]
        self.assertEqual(
            [(name, url.rpartition(":")[2]) for name, url in lines[:3]],
            [("public", "8200"), ("auth", "8201"), ("internal", "8202")],
        )
        self.assertEqual(Client(("127.0.0.1", 8200)).get("/v2/").status, 200)
        self.assertTrue((self.directory / "data" / "vex.db").is_file())

    def test_a_listener_that_is_off_is_not_there(self) -> None:
        lines = self.lines(self.start("--public-addr", "off", "--auth-addr", "off", "--internal-addr", "127.0.0.1:0"))
        self.assertEqual([line.split()[0] for line in lines], ["internal", "ready"])

    def test_paths_of_the_file_are_relative_to_the_file_and_flags_beat_it(self) -> None:
        (self.directory / "etc").mkdir()
        self.write("etc/my.conf", "data-dir = store\npublic-addr = off\nauth-addr = off\ninternal-addr = localhost:1\n")
        lines = self.lines(self.start("--config", "etc/my.conf", "--internal-addr", "127.0.0.1:0"))
        self.assertEqual([line.split()[0] for line in lines], ["internal", "ready"])
        self.assertTrue((self.directory / "etc" / "store" / "vex.db").is_file())
        self.assertFalse((self.directory / "data").exists())

    def test_vex_conf_of_the_current_directory_is_read(self) -> None:
        self.write("vex.conf", "data-dir = here\npublic-addr = off\nauth-addr = off\ninternal-addr = 127.0.0.1:0\n")
        self.lines(self.start())
        self.assertTrue((self.directory / "here" / "vex.db").is_file())

    def test_ipv6_and_tls_are_shown_in_the_url(self) -> None:
        if not socket.has_dualstack_ipv6():
            self.skipTest("needs IPv6")
        made = make_certificate("localhost", now=time.time())
        self.write("crt.pem", made.certificate_pem)
        self.write("key.pem", made.key_pem)
        process = self.start(
            "--public-addr",
            "[::1]:0",
            "--auth-addr",
            "127.0.0.1:0",
            "--internal-addr",
            "off",
            "--auth-tls-cert",
            "crt.pem",
            "--auth-tls-key",
            "key.pem",
        )
        public, auth, _ = self.lines(process)
        self.assertRegex(public, r"\Apublic +http://\[::1\]:[0-9]+\n\Z")
        self.assertRegex(auth, r"\Aauth +https://127\.0\.0\.1:[0-9]+\n\Z")

    def test_data_is_closed_to_others(self) -> None:
        self.lines(self.start(*ADDRESSES))
        data = self.directory / "data"
        for path in (data, *data.rglob("*")):
            with self.subTest(path.name):
                allowed = 0o750 if path.is_dir() else 0o640
                self.assertEqual(stat.S_IMODE(path.stat().st_mode) & ~allowed, 0)


class Rows(unittest.TestCase):
    def test_every_command_that_the_help_shows_does_something(self) -> None:
        self.assertEqual(list(ROWS), list(FUNCTIONS))


class Ends(unittest.TestCase):
    """SIGTERM and SIGINT."""

    def test_it_ends_with_0_at_either_signal(self) -> None:
        with running() as server:
            for number in (signal.SIGTERM, signal.SIGINT):
                server.process.send_signal(number)
                self.assertEqual(server.process.wait(timeout=60), 0)
                assert server.process.stdout is not None
                server.process.stdout.close()
                self.assertNotIn("Traceback", server.log.read_text())
                server.start()

    def test_it_ends_when_it_cannot_say_that_it_is_ready(self) -> None:
        with tempfile.TemporaryDirectory() as directory, open("/dev/full", "wb") as full:
            command = [sys.executable, f"{TOP}/vex.py", "serve", "--data-dir", f"{directory}/data"]
            command += [
                flag for listener in ("public", "auth", "internal") for flag in (f"--{listener}-addr", "127.0.0.1:0")
            ]
            ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(
            ended.stderr.splitlines()[0],
            "vex: cannot write to standard output: No space left on device; send it to a file, or to /dev/null",
        )

    def test_a_request_under_way_ends_in_order_and_no_other_begins(self) -> None:
        with running() as server:
            digest = digest_of(b"0123456789")
            with connected(server.addresses["auth"]) as wire, connected(server.addresses["public"]) as idle:
                wire.send(self.upload(digest))
                self.assertEqual(wire.answer().status, 100)
                wire.send(b"01234")
                idle.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
                self.assertEqual(idle.answer().status, 200)
                server.process.send_signal(signal.SIGTERM)
                self.assertEqual(idle.rest(), b"", "an idle connection is closed")
                self.await_refusal(server)
                wire.send(b"56789")
                answer = wire.answer()
                self.assertEqual((answer.status, answer.headers["Connection"]), (201, "close"))
                self.assertEqual(wire.rest(), b"")
            self.assertEqual(server.stop(), 0)
            server.start()
            self.assertEqual(server.public.get(f"/v2/end/blobs/{digest}").body, b"0123456789")
            self.assertNotIn("Traceback", server.log.read_text())

    def test_a_request_that_does_not_end_is_cut_after_the_shutdown_timeout(self) -> None:
        with running("--shutdown-timeout", "0.3s") as server, connected(server.addresses["auth"]) as wire:
            wire.send(self.upload(digest_of(b"0123456789")))
            self.assertEqual(wire.answer().status, 100)
            self.assertEqual(server.stop(), 0)
            self.assertEqual(wire.rest(), b"")

    def test_a_killed_server_starts_again(self) -> None:
        with running() as server:
            digest = server.auth.push_image("killed", "v1", b"layer")
            server.kill()
            server.start()
            self.assertEqual(server.public.get("/v2/killed/manifests/v1").headers["Docker-Content-Digest"], digest)

    def upload(self, digest: str) -> bytes:
        return (
            f"POST /v2/end/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\n"
            "Content-Length: 10\r\nExpect: 100-continue\r\n\r\n"
        ).encode()

    def await_refusal(self, server: Server) -> None:
        """Wait until no listener accepts connections but the internal one, which tells until the end that the registry
        shuts down.
        """
        until = time.monotonic() + 20
        for address in (server.addresses["public"], server.addresses["auth"]):
            while time.monotonic() < until:
                try:
                    socket.create_connection(address).close()
                except ConnectionRefusedError:
                    break
                time.sleep(0.02)
            else:
                self.fail("connections are still accepted")
