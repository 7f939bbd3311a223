"""Plain HTTP from other machines: docker, podman and containerd with the files that the manual shows, at a name that is
no loopback address.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path

from tests.support.containerd import running_containerd
from tests.support.machine import NAME, Machine, running_machine
from tests.support.manual import PAGES, block_with
from tests.support.programs import require
from tests.support.registries import daemon, dockerd, require_root, run, run_on_terminal, temporary_directory
from tests.support.server import PASSWORD, TOP, USER, vex


def shown(words: str) -> str:
    """Return the file that holds these words, for the name of the machine of the test."""
    return block_with(words, PAGES["tls"]).replace("registry.example", NAME)


class PlainHttpTest(unittest.TestCase):
    alone = True

    def test_clients_push_and_pull_once_they_are_told(self) -> None:
        require_root()
        for program, package in (("docker", "docker.io"), ("podman", "podman"), ("ctr", "containerd")):
            require(program, package)
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(temporary_directory())
            machine = stack.enter_context(running_machine(directory))
            (directory / "daemon.json").write_text(shown("insecure-registries"))
            started = [*dockerd(directory, "unix:///run/docker.sock"), "--config-file", str(directory / "daemon.json")]
            stack.enter_context(daemon(directory, *machine.command(*started)))
            (directory / "etc" / "containers" / "registries.conf.d").mkdir(parents=True, exist_ok=True)
            (directory / "etc" / "containers" / "registries.conf.d" / "vex.conf").write_text(shown("[[registry]]"))
            stack.enter_context(serving(machine, directory))
            self.push_and_pull(machine, directory)
            self.fetch(machine, directory)

    def push_and_pull(self, machine: Machine, directory: Path) -> None:
        """Push with docker, and pull with docker and podman."""
        storage = f'[storage]\ndriver = "vfs"\ngraphroot = "{directory}/graph"\nrunroot = "{directory}/run"\n'
        (directory / "storage.conf").write_text(storage)
        environment = {
            "DOCKER_CONFIG": str(directory / "config"),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
            "HOME": str(directory),
        }
        for line in (
            f"docker login --username {USER} {NAME}:8201",
            f"tar -cC {directory} daemon.json | docker import - {NAME}:8201/hello && docker push {NAME}:8201/hello",
            f"docker pull {NAME}:8200/hello",
            f"podman pull {NAME}:8200/hello",
        ):
            run_on_terminal(*machine.command("sh", "-c", line), environment=environment)

    def fetch(self, machine: Machine, directory: Path) -> None:
        """Pull with containerd, on the network of the machine."""
        hosts = directory / "hosts" / f"{NAME}:8200"
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(shown('server = "http://'))
        with running_containerd() as ctr:
            # ctr itself pulls, with `content fetch`; containerd keeps what it got.
            run(
                *machine.command(
                    *ctr, "content", "fetch", f"--hosts-dir={directory}/hosts", f"{NAME}:8200/hello:latest"
                )
            )


@contextlib.contextmanager
def serving(machine: Machine, directory: Path) -> Iterator[None]:
    """Run a registry with the configuration that the manual shows."""
    home = directory / "registry"
    home.mkdir()
    (home / "vex.conf").write_text(block_with("auth-addr = :8201", PAGES["tls"]))
    added = vex("user", "add", USER, cwd=home, text=PASSWORD + "\n")
    assert added.returncode == 0, added.stderr
    command = machine.command(sys.executable, str(TOP / "vex.py"), "serve", "--config", str(home / "vex.conf"))
    with (
        open(directory / "log", "wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        assert "ready\n" in iter(process.stdout.readline, ""), (directory / "log").read_text()
        yield
        process.terminate()
