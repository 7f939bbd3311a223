"""Vex in a container, as `vex describe --dockerfile` describes it, built and run with buildah.

The base image is made from scratch of the Python that runs the tests, since nothing may be fetched; and the container
has a network of its own, so that the ports are those of the image, whatever else this machine runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.programs import require
from tests.support.registries import require_root, run, temporary_directory
from tests.support.server import PASSWORD, TOP, USER, vex

_LEFT_OUT = (
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "config-*",
    "idlelib",
    "tkinter",
    "ensurepip",
    "lib2to3",
    "*.a",
)
# Switches the loopback interface of a new network on (netdevice(7): SIOCSIFFLAGS, IFF_UP), and becomes the program that
# follows.
_WITH_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))
os.execvp(sys.argv[1], sys.argv[1:])
"""
# Less than any system allows, and enough.
_FILES, _PROCESSES = 1024, 4096
# Asks for an address, with credentials perhaps, and prints the status and the body.
_ASK = """
import base64, sys, urllib.request
method, url, credentials = sys.argv[1:]
headers = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()} if credentials else {}
with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=headers), timeout=20) as answer:
    print(answer.status, answer.read().decode().strip())
"""


class ContainerTest(unittest.TestCase):
    program: str
    container: str
    directory: Path
    image: dict[str, Any]

    @classmethod
    def setUpClass(cls) -> None:
        cls.program = require("buildah", "buildah")
        require_root()
        with contextlib.ExitStack() as stack:
            cls.directory = stack.enter_context(temporary_directory())
            _make_base(cls.directory / "base")
            base = cls.buildah("from", "scratch")
            cls.buildah("copy", "--quiet", base, str(cls.directory / "base"), "/")
            cls.buildah("config", "--env", "PATH=/usr/local/bin", base)
            cls.buildah("commit", "--quiet", base, "localhost/python:3-slim")
            context = cls.directory / "context"
            context.mkdir()
            run("sh", str(TOP / "zipapp.sh"), str(context / "vex.pyz"), environment={"PYTHON": sys.executable})
            (context / "Dockerfile").write_text(vex("describe", "--dockerfile").stdout)
            cls.buildah(
                "build",
                *_limits(),
                "--isolation",
                "chroot",
                "--pull-never",
                "--format",
                "docker",
                "--tag",
                "localhost/vex",
                str(context),
            )
            cls.container = cls.buildah("from", *_limits(), "--pull-never", "localhost/vex")
            cls.image = json.loads(cls.buildah("inspect", cls.container))["Docker"]["config"]
            cls.addClassCleanup(stack.pop_all().close)

    @classmethod
    def buildah(cls, *arguments: str, text: str = "") -> str:
        """Run buildah to its end; returns what it printed."""
        return run(*cls.command(*arguments), text=text).stdout.strip()

    @classmethod
    def command(cls, *arguments: str) -> list[str]:
        """Return a command of buildah, with its files in the directory of these tests."""
        return [
            cls.program,
            "--root",
            f"{cls.directory}/root",
            "--runroot",
            f"{cls.directory}/run",
            "--storage-driver",
            "vfs",
            *arguments,
        ]

    @classmethod
    def inside(cls, *arguments: str) -> list[str]:
        """Return the command that runs a program in the container, in the network of whoever runs it."""
        return cls.command("run", "--isolation", "chroot", "--network", "host", cls.container, "--", *arguments)

    def test_it_serves_as_a_user_without_rights_and_the_health_check_succeeds(self) -> None:
        added = run(*self.inside(*self.image["Entrypoint"], "user", "add", USER), text=PASSWORD + "\n")
        self.assertEqual(added.stderr, "vex: there was no registry in /data: a new one is there now\n")
        kind, *check = self.image["Healthcheck"]["Test"]
        self.assertEqual(kind, "CMD")
        with self.serving() as process:
            joined = [require("nsenter", "util-linux"), "--net", "--target", str(process.pid)]
            ended = subprocess.run(
                [*joined, *self.inside(*check)], capture_output=True, text=True, timeout=60, check=False
            )
            self.assertEqual(ended.returncode, 0, ended.stderr)
            self.assertEqual(self.ask(joined, "GET", "http://127.0.0.1:8202/readyz"), "200 ready")
            self.assertEqual(self.ask(joined, "GET", "http://127.0.0.1:8200/v2/_catalog"), '200 {"repositories":[]}')
            self.assertEqual(
                self.ask(joined, "POST", "http://127.0.0.1:8201/v2/app/blobs/uploads/", f"{USER}:{PASSWORD}"), "202"
            )
            # A user without a name reaches the running registry too.
            self.assertIn("runs since", run(*self.inside(*self.image["Entrypoint"], "status")).stdout)
            numbers = run(
                *self.inside(
                    "python3",
                    "-c",
                    "import os; d = os.stat('/data/vex.db'); print(os.getuid(), os.getgid(), d.st_uid, d.st_gid)",
                )
            ).stdout
            self.assertEqual(numbers.split(), ["8200"] * 4)
        failed = subprocess.run(
            self.in_new_network(*self.inside(*check)), capture_output=True, text=True, timeout=60, check=False
        )
        self.assertNotEqual(failed.returncode, 0, "the health check fails where nothing serves")

    def test_the_image_says_what_it_needs(self) -> None:
        self.assertEqual(self.image["User"], "8200:8200")
        self.assertEqual(self.image["Volumes"], {"/data": {}})
        self.assertEqual(set(self.image["ExposedPorts"]), {"8200/tcp", "8201/tcp", "8202/tcp"})

    def ask(self, joined: list[str], method: str, url: str, credentials: str = "") -> str:
        """Send a request within the container's network."""
        return run(*joined, sys.executable, "-c", _ASK, method, url, credentials).stdout.strip()

    def in_new_network(self, *command: str) -> list[str]:
        """Return the command that runs another in a network that has nothing but itself."""
        return [require("unshare", "util-linux"), "--net", sys.executable, "-c", _WITH_LOOPBACK, *command]

    @contextlib.contextmanager
    def serving(self) -> Iterator[subprocess.Popen[str]]:
        """Run what the image runs, until it is ready, and end it."""
        command = self.in_new_network(*self.inside(*self.image["Entrypoint"], *self.image["Cmd"]))
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        assert process.stdout is not None
        with process.stdout:
            try:
                lines = []
                for line in process.stdout:
                    lines.append(line)
                    if line == "ready\n":
                        break
                self.assertEqual(lines[-1:], ["ready\n"], "".join(lines))
                everywhere = r" \(and all other addresses of this machine\)"
                self.assertRegex(
                    "".join(lines),
                    f"public +http://localhost:8200{everywhere}\nauth +http://localhost:8201{everywhere}\ninternal +http://localhost:8202{everywhere}\n",
                )
                yield process
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(timeout=60)
                # buildah does not wait for what it ran.
                process.stdout.read()


def _limits() -> list[str]:
    """Return the flags that have buildah raise no limit, which root may not do where it lacks CAP_SYS_RESOURCE."""
    return [f"--ulimit=nofile={_FILES}:{_FILES}", f"--ulimit=nproc={_PROCESSES}:{_PROCESSES}"]


def _make_base(root: Path) -> None:
    """Copy the interpreter, its library, and the shared libraries of both; `python3` is in the same place as in the
    image that this stands for.
    """
    interpreter, library = Path(os.path.realpath(sys.executable)), Path(sysconfig.get_paths()["stdlib"])
    shutil.copytree(library, _below(root, library), ignore=shutil.ignore_patterns(*_LEFT_OUT))
    binaries = [interpreter, *library.glob("lib-dynload/*.so")]
    listed = subprocess.run(
        [require("ldd", "libc-bin"), *map(str, binaries)], capture_output=True, text=True, check=True
    ).stdout
    for file in {str(interpreter), *re.findall(r"(/\S+) \(0x", listed)}:
        target = _below(root, Path(file))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o755)
    program = root / "usr/local/bin/python3"
    program.parent.mkdir(parents=True)
    program.symlink_to(interpreter)
    for directory in [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]:
        directory.chmod(0o755)


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


if __name__ == "__main__":
    unittest.main()
