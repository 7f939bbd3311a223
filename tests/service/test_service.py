"""The service: what `vex.service` allows is enough to work, and what a service manager is told and passes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.manual import block_with
from tests.support.programs import require
from tests.support.registries import require_root, run, temporary_directory
from tests.support.server import PASSWORD, TOP, USER, Client, digest_of, vex
from vex.service.notify import Notifier
from vex.storage.database import Database

MOST_EXPOSURE = 1.5
# Moves descriptors to where a service manager passes them, and becomes the server.
_PASS = """
import os, sys
count = int(sys.argv[1])
for number in range(count):
    os.dup2(int(sys.argv[2 + number]), 3 + number, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
os.execv(sys.executable, [sys.executable, *sys.argv[2 + count:]])
"""
# Forbids what the unit forbids: system calls, memory that is writable and executable, other families of sockets, and
# the privileges of root.
_CONFINE = """
import ctypes, json, os, sys
class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]
seccomp = ctypes.CDLL("libseccomp.so.2")
seccomp.seccomp_init.restype = ctypes.c_void_p
ALLOW, EPERM, EQUAL, MASKED = 0x7FFF0000, 0x00050001, 4, 7
context = ctypes.c_void_p(seccomp.seccomp_init(EPERM))
def allow(name, *arguments):
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    array = (Comparison * len(arguments))(*arguments)
    assert number < 0 or seccomp.seccomp_rule_add_array(context, ALLOW, number, len(arguments), array) == 0, name
WRITE, EXECUTE = 2, 4
special = {
    "mmap": [Comparison(2, MASKED, WRITE | EXECUTE, bits) for bits in (0, WRITE, EXECUTE)],
    "mprotect": [Comparison(2, MASKED, EXECUTE, 0)],
    "pkey_mprotect": [],
    "socket": [Comparison(0, EQUAL, family, 0) for family in (1, 2, 10)],
}
for name in json.loads(sys.argv[1]):
    for arguments in [[comparison] for comparison in special[name]] if name in special else [[]]:
        allow(name, *arguments)
assert seccomp.seccomp_load(context) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""
# Everything is read-only but the data directory, as with ProtectSystem=strict, and /proc has processes only, as with
# ProcSubset=pid.
_MOUNTS = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro /
mount -t proc -o subset=pid proc /proc
shift
exec "$@"
"""


def quickstart(directory: Path) -> dict[str, list[str]]:
    """Set up a registry as a user of its own; returns the unit's settings."""
    command = [sys.executable, str(TOP / "vex.py"), "quickstart", USER]
    environment = {**os.environ, "LOGNAME": "registry"}
    subprocess.run(
        command, cwd=directory, env=environment, input=PASSWORD + "\n", capture_output=True, text=True, check=True
    )
    settings: dict[str, list[str]] = {}
    for line in (directory / "vex.service").read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator:
            settings.setdefault(name, []).append(value)
    return settings


class UnitTest(unittest.TestCase):
    def setUp(self) -> None:
        self.analyze = require("systemd-analyze", "systemd")
        context = temporary_directory()
        self.addCleanup(context.__exit__, None, None, None)
        self.directory = context.__enter__()
        self.unit = quickstart(self.directory)

    def test_systemd_finds_no_fault_with_it(self) -> None:
        result = subprocess.run(
            [self.analyze, "verify", str(self.directory / "vex.service")], capture_output=True, text=True, check=False
        )
        self.assertEqual((result.returncode, result.stdout + result.stderr), (0, ""))

    def test_the_socket_unit_of_the_manual_fits_it(self) -> None:
        (self.directory / "vex.socket").write_text(block_with("[Socket]"))
        result = subprocess.run(
            [self.analyze, "verify", str(self.directory / "vex.socket")], capture_output=True, text=True, check=False
        )
        self.assertEqual((result.returncode, result.stdout + result.stderr), (0, ""))

    def test_its_exposure_is_low(self) -> None:
        shown = run(self.analyze, "security", "--offline=true", str(self.directory / "vex.service"))
        exposure = re.search(r"Overall exposure level for vex\.service: ([0-9.]+) ", shown.stdout)
        assert exposure, shown.stdout
        self.assertLess(float(exposure[1]), MOST_EXPOSURE, shown.stdout)

    def test_home_directories_are_hidden_unless_the_registry_is_in_one(self) -> None:
        in_home = any(
            os.path.realpath(path).startswith(("/root/", "/home/"))
            for path in (TOP, sys.executable, sys.prefix, sys.base_prefix)
        )
        self.assertEqual(self.unit["ProtectHome"], ["read-only" if in_home else "yes"])

    def test_the_registry_works_with_what_it_allows(self) -> None:
        require_root()
        command = [
            *(require("unshare", "util-linux"), "--mount", "sh", "-c", _MOUNTS, "sh", str(self.directory / "data")),
            *(require("setpriv", "util-linux"), "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
            *(sys.executable, "-c", _CONFINE, json.dumps(sorted(self.allowed_calls()))),
            *(sys.executable, str(TOP / "vex.py"), "serve", "--config", str(self.directory / "vex.conf")),
        ]
        addresses = [f"--{name}-addr=127.0.0.1:0" for name in ("public", "auth", "internal")]
        plain = [f"--{name}-tls-{kind}=" for name in ("public", "auth") for kind in ("cert", "key")]
        with Manager(self.directory, [*command, *addresses, *plain]) as manager:
            ports = manager.start()
            status = (Path("/proc") / str(manager.process.pid) / "status").read_text()
            self.assertRegex(status, r"CapEff:\t0+\n")
            self.assertRegex(status, r"Seccomp:\t2\n")
            auth, public, internal = (
                Client(("127.0.0.1", ports[name]), user)
                for name, user in (("auth", USER), ("public", ""), ("internal", ""))
            )
            self.assertIn(b"process_start_time_seconds", internal.get("/metrics").body)
            digest = auth.push_image("hello", "v1", b"layer" * 10_000)
            self.assertEqual(public.get(f"/v2/hello/manifests/{digest}").status, 200)
            self.assertEqual(public.get(f"/v2/hello/blobs/{digest_of(b'layer' * 10_000)}").body, b"layer" * 10_000)
            self.assertEqual(
                (public.get("/").status, internal.get("/metrics").status, internal.get("/readyz").status),
                (200, 200, 200),
            )
            self.assertEqual(auth.request("DELETE", "/v2/hello/manifests/v1").status, 202)
            manager.process.send_signal(signal.SIGHUP)
            manager.await_message("RELOADING=1")
            manager.await_message("READY=1")
            self.assertEqual(manager.end(), 0)

    def allowed_calls(self) -> set[str]:
        allow, deny = self.unit["SystemCallFilter"]
        self.assertEqual(deny[0], "~")
        # systemd.exec(5): these are always allowed, to start a process.
        return self.calls(*allow.split(), "@default") - self.calls(*deny[1:].split())

    def calls(self, *groups: str) -> set[str]:
        """Return the system calls of groups, and of the groups in them."""
        if not groups:
            return set()
        lines = run(self.analyze, "syscall-filter", *groups).stdout.splitlines()
        names = {line.strip() for line in lines if line.startswith("    ") and "#" not in line}
        return {name for name in names if name[0] != "@"} | self.calls(*(name for name in names if name[0] == "@"))


class Manager:
    """Acts as the service manager of one process."""

    def __init__(self, directory: Path, command: Sequence[str], *, abstract: bool = False, **environment: str) -> None:
        self.directory = directory
        name = f"vex-test-{os.getpid()}-{time.monotonic_ns()}"
        address = f"@{name}" if abstract else str(directory / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name if abstract else address)
        self.socket.settimeout(20)
        self.environment = {**os.environ, "NOTIFY_SOCKET": address, **environment}
        self.command = command
        self.log = directory / "log"

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.socket.close()
        (self.directory / "notify").unlink(missing_ok=True)

    def launch(self, *descriptors: int) -> None:
        """Start the process."""
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment, pass_fds=descriptors
            )

    def start(self, *descriptors: int) -> dict[str, int]:
        """Start the process, and wait until it says that it is ready; returns the ports of the listeners."""
        self.launch(*descriptors)
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line == "ready\n":
                break
        else:
            raise AssertionError(self.log.read_text())
        self.await_message("READY=1")
        return {line.split()[0]: int(line.rpartition(":")[2]) for line in lines if "//" in line}

    def message(self) -> list[str]:
        """Receive what the process says next."""
        return self.socket.recv(4096).decode().split("\n")

    def await_message(self, assignment: str) -> list[str]:
        """Receive until a message begins so."""
        while (message := self.message())[0] != assignment:
            pass
        return message

    def end(self) -> int:
        """End the process; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        assert "Traceback" not in self.log.read_text(), self.log.read_text()
        return code


class ManagedTest(unittest.TestCase):
    def setUp(self) -> None:
        context = temporary_directory()
        self.addCleanup(context.__exit__, None, None, None)
        self.directory = context.__enter__()
        added = vex("user", "add", USER, "--data-dir", str(self.directory / "data"), text=PASSWORD + "\n")
        self.assertEqual(added.returncode, 0, added.stderr)

    @contextlib.contextmanager
    def manager(
        self, *flags: str, sockets: Sequence[socket.socket] = (), abstract: bool = False, **environment: str
    ) -> Iterator[Manager]:
        """Manage a server that gets these sockets."""
        moved = [str(one.fileno()) for one in sockets]
        serve = [str(TOP / "vex.py"), "serve", "--data-dir", str(self.directory / "data"), *flags]
        start = ["-c", _PASS, str(len(moved)), *moved, *serve] if sockets else serve
        with Manager(self.directory, [sys.executable, *start], abstract=abstract, **environment) as manager:
            yield manager

    def listening(self, count: int) -> list[socket.socket]:
        made = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        for one in made:
            self.addCleanup(one.close)
        return made


ANYWHERE = tuple(f"--{name}-addr=127.0.0.1:0" for name in ("public", "auth", "internal"))


class NotifyTest(ManagedTest):
    def test_the_manager_is_told_of_start_reload_and_end(self) -> None:
        for abstract in (False, True):
            with self.subTest(abstract=abstract), self.manager(*ANYWHERE, abstract=abstract) as manager:
                manager.launch()
                ready, status = manager.message()
                self.assertEqual(ready, "READY=1")
                self.assertRegex(
                    status, r"\ASTATUS=Serving public http://127\.0\.0\.1:\d+, auth http://.*, internal http://"
                )
                before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                manager.process.send_signal(signal.SIGHUP)
                reloading, moment = manager.message()
                self.assertEqual((reloading, moment.partition("=")[0]), ("RELOADING=1", "MONOTONIC_USEC"))
                self.assertTrue(
                    before <= int(moment.partition("=")[2]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                )
                self.assertEqual(manager.message()[0], "READY=1")
                self.assertEqual(manager.end(), 0)
                self.assertEqual(manager.message()[0::2], ["STOPPING=1", "EXTEND_TIMEOUT_USEC=45000000"])

    def test_the_watchdog_is_fed_when_it_is_meant_for_this_process(self) -> None:
        with self.manager(*ANYWHERE, WATCHDOG_USEC="200000") as manager:
            manager.start()
            for _ in range(3):
                self.assertEqual(manager.message(), ["WATCHDOG=1"])
            self.assertEqual(manager.end(), 0)
        self.assertNotIn("watchdog", manager.log.read_text())

    def test_a_watchdog_of_another_process_is_left_alone(self) -> None:
        with self.manager(*ANYWHERE, WATCHDOG_USEC="100000", WATCHDOG_PID="1") as manager:
            manager.start()
            manager.socket.settimeout(0.5)
            with self.assertRaises(TimeoutError if sys.version_info >= (3, 10) else socket.timeout):
                manager.message()

    def test_a_manager_that_is_gone_does_no_harm(self) -> None:
        with self.manager(*ANYWHERE) as manager:
            manager.start()
            (self.directory / "notify").unlink()
            self.assertEqual(manager.end(), 0)
            self.assertIn("cannot tell the service manager STOPPING=1", manager.log.read_text())


class WatchdogTest(unittest.TestCase):
    def setUp(self) -> None:
        context = temporary_directory()
        self.addCleanup(context.__exit__, None, None, None)
        self.directory = context.__enter__()
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(str(self.directory / "notify"))
        self.notifier = Notifier({"NOTIFY_SOCKET": str(self.directory / "notify"), "WATCHDOG_USEC": "40000"})
        self.addCleanup(self.notifier.stopping, 0)

    def fed(self, seconds: float) -> bool:
        """Tell whether the watchdog is fed after what was fed before."""
        self.manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self.manager.recv(100):
                pass
        self.manager.settimeout(seconds)
        try:
            return self.manager.recv(100) == b"WATCHDOG=1"
        except (TimeoutError, socket.timeout):
            return False

    def test_it_is_not_fed_while_the_database_does_not_answer(self) -> None:
        database = Database(self.directory / "vex.db")
        self.addCleanup(database.close)
        self.notifier.watch(database.check)
        self.assertTrue(self.fed(20))
        with database.read():
            # One more may have been on its way when the lock was taken.
            self.fed(0.2)
            self.assertFalse(self.fed(0.3))
        self.assertTrue(self.fed(20))
        self.notifier.stopping(0)

    def test_it_is_not_fed_while_a_check_fails(self) -> None:
        failing = threading.Event()

        def check() -> None:
            if failing.is_set():
                raise RuntimeError("a thread is gone")

        self.notifier.watch(check)
        self.assertTrue(self.fed(20))
        with self.assertLogs("vex", "ERROR") as logged:
            failing.set()
            self.fed(0.1)
            self.assertFalse(self.fed(0.2))
            failing.clear()
        self.assertIn("the watchdog is not fed: a thread is gone", logged.output[0])
        self.assertTrue(self.fed(20))

    def test_without_a_manager_nothing_is_done(self) -> None:
        notifier = Notifier({"WATCHDOG_USEC": "1"})
        before = threading.active_count()
        notifier.watch(lambda: None)
        notifier.send("READY=1")
        notifier.stopping(0)
        self.assertEqual(threading.active_count(), before)


class PassedSocketsTest(ManagedTest):
    def check_roles(self, public: socket.socket, auth: socket.socket, internal: socket.socket) -> None:
        clients = [Client(one.getsockname()) for one in (public, auth, internal)]
        self.assertEqual([client.get("/v2/").status for client in clients], [200, 401, 404])

    def test_clients_connect_through_them_in_the_order_of_the_listeners(self) -> None:
        for names in ("", "vex.socket:vex.socket:vex.socket"):
            sockets = self.listening(3)
            with self.subTest(names), self.manager(sockets=sockets, LISTEN_FDNAMES=names) as manager:
                with socket.create_connection(sockets[0].getsockname(), timeout=20) as early:
                    manager.start(*(one.fileno() for one in sockets))
                    early.sendall(b"GET /v2/ HTTP/1.0\r\nHost: a\r\n\r\n")
                    self.assertEqual(
                        early.recv(15), b"HTTP/1.1 200 OK", "who came before the server was there is served"
                    )
                self.check_roles(*sockets)
                digest = Client(sockets[1].getsockname(), USER).push_image("passed", "v1", b"layer")
                self.assertEqual(Client(sockets[0].getsockname()).get(f"/v2/passed/manifests/{digest}").status, 200)
                self.assertEqual(manager.end(), 0)

    def test_their_names_say_which_is_which(self) -> None:
        internal, public, auth = sockets = self.listening(3)
        with self.manager(sockets=sockets, LISTEN_FDNAMES="internal:public:auth") as manager:
            manager.start(*(one.fileno() for one in sockets))
            self.check_roles(public, auth, internal)

    def test_one_that_is_passed_takes_the_place_of_one_address(self) -> None:
        (auth,) = sockets = self.listening(1)
        with self.manager(*ANYWHERE, sockets=sockets, LISTEN_FDNAMES="auth") as manager:
            ports = manager.start(auth.fileno())
            self.assertEqual(ports["auth"], auth.getsockname()[1])
            self.assertEqual(Client(("127.0.0.1", ports["public"])).get("/v2/").status, 200)

    def test_a_unix_socket_that_is_passed_stays(self) -> None:
        path = str(self.directory / "public.sock")
        with socket.socket(socket.AF_UNIX) as public:
            public.bind(path)
            public.listen()
            with self.manager(*ANYWHERE, sockets=[public], LISTEN_FDNAMES="public") as manager:
                manager.start(public.fileno())
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(20)
                    client.connect(path)
                    client.sendall(b"GET /v2/ HTTP/1.0\r\nHost: a\r\n\r\n")
                    self.assertEqual(client.recv(15), b"HTTP/1.1 200 OK")
                self.assertEqual(manager.end(), 0)
        self.assertTrue(os.path.exists(path))

    def test_sockets_that_do_not_fit_are_refused_with_advice(self) -> None:
        with socket.socket(socket.AF_INET) as idle:
            for sockets, names, flags, words in (
                (self.listening(4), "", (), ("4 sockets were passed", "public, auth, internal")),
                (self.listening(2), "public:nonsense", (), ("public:nonsense", "FileDescriptorName=")),
                (self.listening(2), "public:public", (), ("public:public",)),
                (self.listening(1), "public", ("--public-addr=off",), ("the listeners are auth, internal",)),
                ([idle], "auth", (), ("descriptor 3", "auth", "ListenStream=")),
            ):
                with self.subTest(names), self.manager(*flags, sockets=sockets, LISTEN_FDNAMES=names) as manager:
                    manager.launch(*(one.fileno() for one in sockets))
                    self.assertEqual(manager.process.wait(timeout=60), 1)
                    log = manager.log.read_text()
                    self.assertEqual((log.count("\n"), log[:5]), (1, "vex: "), log)
                    for word in words:
                        self.assertIn(word, log)

    def test_sockets_of_another_process_are_left_alone(self) -> None:
        with self.manager(*ANYWHERE, LISTEN_PID="1", LISTEN_FDS="3") as manager:
            self.assertEqual(set(manager.start()), {"public", "auth", "internal"})


if __name__ == "__main__":
    unittest.main()
