"""A dockerd for a class of tests, beside a server."""

from __future__ import annotations

import subprocess

from tests.support.images import docker_archive
from tests.support.programs import require
from tests.support.registries import ProgramTestCase, daemon, dockerd, require_root, run
from tests.support.server import PASSWORD, USER


class DockerTestCase(ProgramTestCase):
    """One dockerd for a class, and a server at 127.0.0.1; `docker` runs with settings of its own."""

    alone = True
    flags: tuple[str, ...] = ("--pull-grace", "0s")
    socket: str
    docker_program: str

    @classmethod
    def setUpClass(cls) -> None:
        """Start both."""
        require_root()
        cls.docker_program = require("docker", "docker.io")
        require("dockerd", "docker.io")
        super().setUpClass()
        cls.socket = f"unix://{cls.directory}/docker.sock"
        context = daemon(cls.directory, *dockerd(cls.directory, cls.socket))
        context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)

    def docker(
        self, *arguments: str, text: str = "", code: int = 0, config: str = "config"
    ) -> subprocess.CompletedProcess[str]:
        """Run docker to its end."""
        command = (self.docker_program, "--config", str(self.directory / config), "-H", self.socket, *arguments)
        return run(*command, environment={"DOCKER_CLI_EXPERIMENTAL": "enabled"}, text=text, code=code)

    def login(
        self, host: str, password: str = PASSWORD, code: int = 0, user: str = USER, config: str = "config"
    ) -> str:
        """Log in; returns what docker printed."""
        ended = self.docker(
            "login", "--username", user, "--password-stdin", host, text=password, code=code, config=config
        )
        return ended.stdout + ended.stderr

    def load(self, name: str, *layers: bytes) -> str:
        """Give the dockerd an image of these layers; returns its id, which is the digest of its config."""
        content, image_id = docker_archive(name, *layers)
        path = self.directory / "image.tar"
        path.write_bytes(content)
        self.docker("load", "--input", str(path))
        return image_id

    def image_id(self, name: str) -> str:
        """Return the id of an image of the dockerd."""
        return self.docker("image", "inspect", "--format", "{{.Id}}", name).stdout.strip()

    def pull_anew(self, name: str, *others: str) -> str:
        """Take an image away from the dockerd under all its names, and pull it; returns its id."""
        self.docker("image", "rm", "--force", name, *others)
        self.docker("pull", name)
        return self.image_id(name)
