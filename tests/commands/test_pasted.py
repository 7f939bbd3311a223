"""What `vex quickstart` prints, pasted: every command runs as it stands, on a machine of its own, with docker, podman
and curl.

Left out are the lines with systemctl, since no systemd runs there.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import unittest
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.machine import NAME, Machine, running_machine
from tests.support.programs import require
from tests.support.registries import daemon, dockerd, require_root, run, run_on_terminal, temporary_directory
from tests.support.server import PASSWORD, USER, vex

# Who pastes as root on a machine without sudo needs none.
_SUDO = 'sudo() { "$@"; }\n'
_STORAGE = '[storage]\ndriver = "vfs"\ngraphroot = "{0}/graph"\nrunroot = "{0}/run"\n'


class PastedTests(unittest.TestCase):
    """One machine with one dockerd for the class."""

    alone = True

    machine: Machine
    environment: dict[str, str]

    @classmethod
    def setUpClass(cls) -> None:
        """Start both."""
        require_root()
        for program, package in (
            ("docker", "docker.io"),
            ("dockerd", "docker.io"),
            ("podman", "podman"),
            ("skopeo", "skopeo"),
            ("curl", "curl"),
        ):
            require(program, package)
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(temporary_directory())
            cls.machine = stack.enter_context(running_machine(directory))
            stack.enter_context(daemon(directory, *cls.machine.command(*dockerd(directory, "unix:///run/docker.sock"))))
            (directory / "storage.conf").write_text(_STORAGE.format(directory))
            cls.environment = {
                "DOCKER_CONFIG": str(directory / "config"),
                "REGISTRY_AUTH_FILE": str(directory / "auth.json"),
                "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
                "HOME": str(directory),
            }
            cls.addClassCleanup(stack.pop_all().close)

    def paste(self, line: str, *codes: int) -> str:
        """Run a line in a shell on a terminal, with the password where it is asked for; check its exit code, 0 unless
        given, and return what came out.
        """
        return run_on_terminal(
            *self.machine.command("sh", "-c", _SUDO + line), environment=self.environment, codes=codes or (0,)
        )

    @contextlib.contextmanager
    def set_up(self, *hostname: str) -> Iterator[dict[str, list[str]]]:
        """Run `vex quickstart`, start the registry with the command that it printed, and give all commands by the text
        above them.
        """
        with temporary_directory() as top:
            directory = top / "it's here"
            directory.mkdir()
            made = vex("quickstart", USER, *hostname, cwd=directory, text=PASSWORD + "\n")
            self.assertEqual(made.returncode, 0, made.stderr)
            commands = _commands(made.stdout)
            [start] = commands.pop("Start the registry")
            with self.serving(directory, start):
                yield commands

    @contextlib.contextmanager
    def serving(self, directory: Path, start: str) -> Iterator[None]:
        """Run the registry for a block, and end it in order."""
        with open(directory / "log", "wb") as log:
            command = self.machine.command("sh", "-c", f"exec {start}")
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            self.assertIn("ready\n", iter(process.stdout.readline, ""), (directory / "log").read_text())
            yield
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(timeout=60), 0, (directory / "log").read_text())
            self.assertNotIn("Traceback", (directory / "log").read_text())
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def paste_all(self, lines: Sequence[str]) -> str:
        """Paste lines one after the other, but not those for systemd."""
        return "".join(self.paste(line) for line in lines if "systemctl" not in line)

    def test_every_command_works_as_pasted(self) -> None:
        for hostname in ((), ("localhost",), ("127.0.0.1",), (NAME,)):
            with self.subTest(hostname=hostname), self.set_up(*hostname) as commands:
                output = [self.paste_all(lines) for lines in commands.values()]
                self.assertIn('{"repositories":["hello"]}', output[-1])

    def test_pull_by_digest_with_the_certificate_verified(self) -> None:
        with self.set_up(NAME) as commands:
            self.paste_all(commands["Make docker trust the certificate"] + commands["Make podman"] + commands["Log in"])
            inspected = json.loads(
                run(*self.machine.command("skopeo", "inspect", f"docker://{NAME}:8200/hello:v1")).stdout
            )
            self.paste(f"docker image rm {NAME}:8200/hello:v1 {NAME}:8201/hello:v1")
            self.assertIn(
                f"Digest: {inspected['Digest']}", self.paste(f"docker pull {NAME}:8200/hello@{inspected['Digest']}")
            )

    def test_an_ipv6_address_works_where_clients_take_one(self) -> None:
        # In the name of an image, docker and podman of today's Debian take none.
        with self.set_up("::1") as commands:
            lines = [line for listed in commands.values() for line in listed if "hello" not in line]
            self.assertIn('{"repositories":[]}', self.paste_all(lines))

    def test_clients_refuse_the_certificate_until_they_are_told_to_trust_it(self) -> None:
        run(*self.machine.command("sh", "-c", "rm -rf /etc/docker/certs.d /etc/containers/certs.d"))
        with self.set_up(NAME) as commands:
            for login in (commands["Log in"][0], commands["The same with podman"][0]):
                self.assertIn("x509: certificate signed by unknown authority", self.paste(login, 1, 125))
            self.assertIn("self-signed certificate", self.paste(f"curl https://{NAME}:8200/v2/", 60))


def _commands(output: str) -> dict[str, list[str]]:
    """Return the indented lines, by what is above them up to its first punctuation."""
    commands: dict[str, list[str]] = {}
    for paragraph in output.split("\n\n")[1:]:
        above, *lines = paragraph.splitlines()
        assert all(line.startswith("  ") for line in lines), paragraph
        commands[above.replace(",", ":").replace(".", ":").partition(":")[0]] = [line.strip() for line in lines]
    return commands
