"""The commands of the README and the manual, run as they stand on a machine of its own; those that cannot run there are
listed with the reason.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Callable

from tests.support.machine import Machine, running_machine
from tests.support.manual import PAGES, README, blocks
from tests.support.programs import require, require_client
from tests.support.registries import daemon, dockerd, require_root, run, run_on_terminal, temporary_directory
from tests.support.server import TOP

# What begins like this is run elsewhere, or nowhere.
ELSEWHERE = {
    "./zipapp.sh": "tests.test_zipapp builds it",
    "python3 vex.py serve": "tests.service.test_first_user does this",
    "python3 vex.pyz serve": "it does not end: the registry that all commands here are for was started like this",
    "python3 vex.pyz quickstart": "tests.commands.test_pasted does this, and what it prints",
    "python3 vex.pyz certificate": "tests.commands.test_certificate does this, where quickstart was",
    "python3 -m ": "these are the tests, and the benchmark",
    "python3 vex.pyz import http": "there is no other registry; tests.transfer.test_importing has some",
    "skopeo copy --all oci:layout:v2 docker://127.0.0.1:5000": "there is no other registry",
    "skopeo sync": "there is no other registry",
    "rclone ": "there is no other machine",
    "docker login --username alice registry.example:8443": "tests.clients.test_proxy does this, behind nginx",
    "tar -c LICENSE | docker import - registry.example:8443": "tests.clients.test_proxy does this, behind nginx",
    "docker pull registry.example/": "tests.clients.test_proxy does this, behind nginx",
    "docker --config pull login": (
        "registry.example is not there; the same login, with another token, is in users-and-tokens"
    ),
    "docker logout registry.example": "registry.example is not there",
    "docker push 127.0.0.1:8201/hello": "tests.clients.test_one_port does this, with anonymous-read",
    "docker logout 127.0.0.1:8201 && docker pull": "tests.clients.test_one_port does this, with anonymous-read",
    "docker build --tag vex .": "tests.commands.test_container does this, without a network to fetch Python from",
    "docker run": "tests.commands.test_container does this, with buildah",
    "curl --unix-socket": "tests.http.test_unix_sockets does this",
    "kill -HUP PID": "tests.service.test_reload does this",
    "sudo systemctl": "no systemd runs there",
    "systemctl": "part of that hook",
    "sudo rm": "it removes what is not there",
    "sudo certbot": "no authority can be reached",
    "acme.sh": "no authority can be reached",
    "kubectl": "there is no cluster; the files for it are checked below",
    "#!/bin/sh": "the hook of an ACME client; tests.service.test_acme_hook runs it",
    "set -eu": "part of that hook",
    "install -m": "part of that hook",
    "mv ": "for a registry that has ended; tests.commands.test_backup restores",
    "cp ": "for a registry that has ended; tests.commands.test_backup restores",
    "python3 vex.pyz.new": "there is no newer Vex",
}
# What is made before a line, so that it has what it is about.
BEFORE = {
    "python3 vex.pyz token add ci --expires 90d --repository 'team/*' > ci.token": "python3 vex.pyz token delete ci",
    "python3 vex.pyz rules apply 3": "python3 vex.pyz rules plan && python3 vex.pyz rules plan",
    "python3 vex.pyz rules explain team/app:dev-17": "python3 vex.pyz tag hello:latest team/app:dev-17",
    "python3 vex.pyz user add bob": (
        "python3 vex.pyz user list | grep -qx bob && python3 vex.pyz user delete bob || true"
    ),
    "python3 vex.pyz import saved.tar --username alice": "docker save --output saved.tar 127.0.0.1:8201/hello",
    "python3 vex.pyz import layout --username alice --repository team/app": (
        "skopeo copy docker-archive:saved.tar oci:layout:v2"
    ),
    "python3 vex.pyz import app.tar.gz --username alice --repository team/app --tag v2": (
        "gzip < saved.tar > app.tar.gz"
    ),
}
# After all others: what it deletes is used by them.
LAST = "curl --user alice --request DELETE"
# Of the pipelines: what is between "run:" or "-" and the end of the line.
_STEP = re.compile(r"^ +(?:- )?(?:run: |- )((?:printf|docker) .+)$", re.MULTILINE)


def commands() -> list[str]:
    """Return the lines of all shell blocks: first those of the README, and then those of the manual in the order in
    which a registry grows.
    """
    pages = {**PAGES, "README": README}
    first = ("README", "users-and-tokens", "moving")
    text = "\n".join(pages[page] for page in (*first, *(page for page in PAGES if page not in first)))
    lines = [line for block in blocks("sh", text) for line in block.splitlines()]
    return sorted(dict.fromkeys(lines), key=lambda line: line.startswith(LAST))


class ManualCommandsTest(unittest.TestCase):
    """One machine, with a dockerd, and a registry at the ports that it has by default."""

    alone = True

    machine: Machine
    directory: Path
    environment: dict[str, str]

    @classmethod
    def setUpClass(cls) -> None:
        """Start them."""
        require_root()
        for program, package in (
            ("docker", "docker.io"),
            ("dockerd", "docker.io"),
            ("skopeo", "skopeo"),
            ("curl", "curl"),
        ):
            require(program, package)
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(temporary_directory())
            cls.directory = directory / "registry"
            cls.directory.mkdir()
            cls.machine = stack.enter_context(running_machine(directory))
            run(*cls.machine.command("sh", "-c", "mount -t tmpfs tmpfs /mnt && mkdir /mnt/backup"))
            stack.enter_context(daemon(directory, *cls.machine.command(*dockerd(directory, "unix:///run/docker.sock"))))
            cls.environment = {
                "DOCKER_CONFIG": str(directory / "config"),
                "HOME": str(directory),
                "DOCKER_BUILDKIT": "0",
            }
            run("sh", str(TOP / "zipapp.sh"), str(cls.directory / "vex.pyz"), environment={"PYTHON": sys.executable})
            (cls.directory / "LICENSE").write_text("text")
            stack.callback(cls.serve())
            cls.addClassCleanup(stack.pop_all().close)

    @classmethod
    def serve(cls) -> Callable[[], None]:
        """Start the registry; returns what ends it."""
        command = cls.machine.command("sh", "-c", f"cd {cls.directory} && exec {sys.executable} vex.pyz serve")
        with open(cls.directory / "log", "wb") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        assert "ready\n" in iter(process.stdout.readline, ""), (cls.directory / "log").read_text()

        def end() -> None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
            assert process.stdout is not None
            process.stdout.close()
            assert "Traceback" not in (cls.directory / "log").read_text()

        return end

    def paste(self, line: str) -> str:
        """Run a line in a shell on a terminal, with the password where it is asked for."""
        script = f'python3() {{ {sys.executable} "$@"; }}\ncd {self.directory} && {line}'
        return run_on_terminal(*self.machine.command("sh", "-c", script), environment=self.environment)

    def test_every_command_runs_as_it_stands(self) -> None:
        found = [line for line in commands() if not line.startswith(tuple(ELSEWHERE))]
        self.assertGreater(len(found), 25, found)
        for line in found:
            with self.subTest(line):
                if line in BEFORE:
                    self.paste(BEFORE[line])
                self.paste(line)
        self.pipelines()

    def pipelines(self) -> None:
        """Run the steps of both pipelines, with the registry at this machine, over plain HTTP."""
        self.paste("python3 vex.pyz token delete ci")
        self.paste("python3 vex.pyz token add ci --repository 'team/*' > ci.token")
        (self.directory / "Dockerfile").write_text("FROM scratch\nCOPY LICENSE /\n")
        settings = (
            'export VEX_TOKEN="$(cat ci.token)" IMAGE=127.0.0.1:8201/team/app GITHUB_SHA=0123abc TAG=main'
            " CI_COMMIT_REF_SLUG=feature"
        )
        for pipeline in blocks("yaml", PAGES["ci"]):
            steps = _STEP.findall(
                pipeline.replace("https://registry.example", "http://127.0.0.1").replace(
                    "registry.example", "127.0.0.1"
                )
            )
            self.assertGreaterEqual(len(steps), 5)
            for step in steps:
                with self.subTest(step):
                    self.paste(f"{settings}; {step}")


class ListedTest(unittest.TestCase):
    def test_nothing_is_left_out_that_is_not_there(self) -> None:
        for beginning in ELSEWHERE:
            with self.subTest(beginning):
                self.assertTrue(any(line.startswith(beginning) for line in commands()))
        self.assertLessEqual(set(BEFORE), set(commands()))


class KubernetesTest(unittest.TestCase):
    def test_the_files_for_a_cluster_fit_the_schemas_of_kubernetes(self) -> None:
        validate = require_client("bin/kubernetes-validate")
        found = blocks("yaml", PAGES["kubernetes"])
        self.assertEqual(len(found), 2)
        with temporary_directory() as directory:
            for number, block in enumerate(found):
                path = directory / f"{number}.yaml"
                path.write_text(block)
                run(validate, "--strict", str(path))
