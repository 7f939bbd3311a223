"""What tests with real container programs share: a registry with the certificate of `vex quickstart`, running a
program, and starting a daemon.
"""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import unittest
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.programs import require
from tests.support.server import PASSWORD, USER, Client, Server, ServerTestCase, configured, running, vex

HOST = "127.0.0.1"
# Of Vex, docker and podman, and of curl.
_PROMPTS = (b"Password: ", b"Again: ", b"Password of alice: ", b"Enter host password for user 'alice':")


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """Make a directory for a block; short, because paths of Unix sockets are limited to 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="vex-", dir="/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def running_tls(*flags: str) -> Iterator[Server]:
    """Run a server set up by `vex quickstart` for a block, with HTTPS on the public and the auth listener."""
    with temporary_directory() as directory:
        made = vex("quickstart", USER, HOST, cwd=directory, text=PASSWORD + "\n")
        assert made.returncode == 0, made.stderr
        server = Server(directory, *flags)
        try:
            yield server
        finally:
            server.kill()


def certificate(server: Server) -> Path:
    """Return the path of the certificate of the authority of a server of `running_tls`, which clients trust."""
    return server.directory / "ca.crt.pem"


def hosts(server: Server) -> tuple[str, str]:
    """Return HOST:PORT of the auth and of the public listener, as names of images begin."""
    auth, public = (f"{HOST}:{server.addresses[name][1]}" for name in ("auth", "public"))
    return auth, public


def require_root() -> None:
    """Skip a test that only root can run; fail it where VEX_TEST_REQUIRE=all says that everything is there."""
    if os.geteuid() == 0:
        return
    if os.environ.get("VEX_TEST_REQUIRE") == "all":
        raise AssertionError("needs root")
    raise unittest.SkipTest("needs root")


def run(
    *command: str, environment: Mapping[str, str] | None = None, text: str = "", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and check its exit code; `environment` is added to that of the tests."""
    ended = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert ended.returncode == code, (
        f"{' '.join(command)}: exit code {ended.returncode}, not {code}\n{ended.stdout}{ended.stderr}"
    )
    return ended


def run_on_terminal(
    *command: str, environment: Mapping[str, str] | None = None, codes: Sequence[int] = (0,), password: str = PASSWORD
) -> str:
    """Run a program on a terminal, type the password where it asks for it, check its exit code, and return what it
    printed.
    """
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env={**os.environ, **(environment or {})}
    )
    os.close(terminal)
    output = b""
    # Linux reports that nobody has the other side of a terminal open any more as an I/O error.
    with contextlib.suppress(OSError):
        while True:
            output += os.read(ours, 4096)
            if output.endswith(_PROMPTS):
                os.write(ours, password.encode() + b"\n")
                output += b"\n"
    os.close(ours)
    text = output.decode(errors="replace")
    assert process.wait(timeout=60) in codes, f"{' '.join(command)}\n{text}"
    return text


@contextlib.contextmanager
def daemon(directory: Path, *command: str) -> Iterator[None]:
    """Run a daemon for a block, which begins when the daemon has told that it is ready, as daemons tell systemd:
    sd_notify(3).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, open(directory / "daemon.log", "wb") as log:
        notices.bind(str(directory / "notify"))
        notices.settimeout(1)
        environment = {**os.environ, "NOTIFY_SOCKET": str(directory / "notify")}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            assert _told_ready(notices, process), (directory / "daemon.log").read_text()
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def _told_ready(notices: socket.socket, process: subprocess.Popen[bytes]) -> bool:
    """Wait for the message, for up to a minute while the daemon lives."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(socket.timeout):
            if b"READY=1" in notices.recv(4096).split(b"\n"):
                return True
    return False


def dockerd(directory: Path, address: str) -> list[str]:
    """Return the command of a dockerd with its files in a directory, which leaves the machine's network alone."""
    options = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]
    files = ["--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec", "-p", f"{directory}/pid"]
    return [require("dockerd", "docker.io"), *options, *files, "-H", address]


class ProgramTestCase(ServerTestCase):
    """Tests that share a server, and a directory for the settings and files of programs."""

    https = False
    configuration = ""
    directory: Path

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server: with `https`, one set up by `vex quickstart`."""
        with contextlib.ExitStack() as stack:
            cls.directory = stack.enter_context(temporary_directory())
            cls.server = stack.enter_context(
                running_tls(*cls.flags) if cls.https else running(*cls.flags, prepare=configured(cls.configuration))
            )
            stack.callback(cls._check_log)
            cls.addClassCleanup(stack.pop_all().close)
            (cls.directory / "certificates").mkdir()
            if cls.https:
                shutil.copy(certificate(cls.server), cls.directory / "certificates" / "ca.crt")

    @classmethod
    def client(cls, listener: str, user: str = "") -> Client:
        """Return a client that trusts nothing but the certificate of the server."""
        context = ssl.create_default_context(cafile=str(certificate(cls.server))) if cls.https else None
        return Client(cls.server.addresses[listener], user, context=context)

    @classmethod
    def tls(cls, side: str = "") -> str:
        """Return the flag that has skopeo, podman or buildah trust the server; `side` is "src-" or "dest-" for `skopeo
        copy`.
        """
        return f"--{side}cert-dir={cls.directory}/certificates" if cls.https else f"--{side}tls-verify=false"
