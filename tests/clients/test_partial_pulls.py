"""The real podman pulls an update of an image whose layers are zstd:chunked: of the layer it fetches the files that
changed, in one request for many ranges.

podman writes such layers and fetches parts of them from version 5 on, in overlay storage: `tests/sid.sh DIRECTORY
tests.clients.test_partial_pulls` has it.
"""

from __future__ import annotations

import os
import re
import unittest

from tests.support.images import tar_of
from tests.support.programs import require
from tests.support.proxied import AcceleratedTestCase
from tests.support.registries import ProgramTestCase, hosts, require_root, run
from tests.support.server import PASSWORD, USER

FILES, CHANGED = 60, 2
FILE_BYTES = 60_000
_FIRST_VERSION = 5
# A line of nginx: the status, and how many bytes of the body were sent.
_SENT = re.compile(r'" [0-9]{3} ([0-9]+) "')


class PartialPulls(ProgramTestCase):
    """A server in the clear, and podman with two storages: one that images are made in, and one that they are pulled
    into.
    """

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server, and set podman up."""
        require_root()
        podman = require("podman", "podman")
        found = re.search(r"([0-9]+)\.", run(podman, "--version").stdout)
        if not found or int(found[1]) < _FIRST_VERSION:
            raise unittest.SkipTest(f"needs podman {_FIRST_VERSION}, which fetches parts of layers: run tests/sid.sh")
        super().setUpClass()
        for storage in ("from", "into"):
            settings = (
                f'[storage]\ndriver = "overlay"\ngraphroot = "{cls.directory}/{storage}/graph"\n'
                f'runroot = "{cls.directory}/{storage}/run"\n'
            )
            (cls.directory / f"{storage}.conf").write_text(
                settings + '[storage.options.pull_options]\nenable_partial_images = "true"\n'
            )
        cls.podman("login", cls.tls(), "--username", USER, "--password-stdin", cls.hosts()[0], text=PASSWORD)

    @classmethod
    def hosts(cls) -> tuple[str, str]:
        """Return HOST:PORT for pushing and for pulling."""
        return hosts(cls.server)

    def sent_bytes(self) -> float:
        """Tell how many bytes of bodies have been sent so far."""
        self.server.wait_until_counted()
        return self.server.metric("vex_sent_bytes_total")

    @classmethod
    def podman(cls, *arguments: str, text: str = "", storage: str = "from") -> str:
        """Run podman to its end; returns its output."""
        environment = {
            "CONTAINERS_STORAGE_CONF": f"{cls.directory}/{storage}.conf",
            "REGISTRY_AUTH_FILE": f"{cls.directory}/auth.json",
        }
        return run(require("podman", "podman"), *arguments, environment=environment, text=text).stdout

    def push(self, tag: str, files: dict[str, bytes]) -> None:
        """Push an image of one layer in zstd:chunked."""
        archive = self.directory / f"{tag}.tar"
        archive.write_bytes(tar_of(files))
        image = self.podman("import", str(archive), f"made:{tag}").strip()
        self.podman(
            "push",
            self.tls(),
            "--compression-format",
            "zstd:chunked",
            image,
            f"docker://{self.hosts()[0]}/updated:{tag}",
        )

    def pull(self, tag: str) -> float:
        """Pull an image; returns how many bytes were sent for it."""
        before = self.sent_bytes()
        self.podman("pull", self.tls(), f"{self.hosts()[1]}/updated:{tag}", storage="into")
        return self.sent_bytes() - before

    def test_an_update_of_2_of_60_files_costs_a_tenth_of_the_layer_at_most(self) -> None:
        files = {f"file{number:02}": os.urandom(FILE_BYTES) for number in range(FILES)}
        self.push("v1", files)
        self.assertGreater(self.pull("v1"), FILES * FILE_BYTES)
        files.update({f"file{number:02}": os.urandom(FILE_BYTES) for number in range(7, 7 + 30 * CHANGED, 30)})
        self.push("v2", files)
        sent = self.pull("v2")
        self.assertGreater(sent, CHANGED * FILE_BYTES)
        self.assertLess(sent, FILES * FILE_BYTES / 10)
        mounted = self.podman("image", "mount", f"{self.hosts()[1]}/updated:v2", storage="into").strip()
        for name, content in files.items():
            with open(os.path.join(mounted, name), "rb") as file:
                self.assertEqual(file.read(), content, name)
        self.podman("image", "unmount", "--all", storage="into")


class PartialPullsThroughNginx(PartialPulls, AcceleratedTestCase):
    """The same through nginx, which sends the parts of blobs itself."""

    @classmethod
    def hosts(cls) -> tuple[str, str]:
        """Return the addresses of nginx."""
        auth, public = ("{}:{}".format(*cls.addresses[name]) for name in ("auth", "public"))
        return auth, public

    def sent_bytes(self) -> float:
        """Tell how many bytes of bodies nginx has sent so far."""
        lines = (self.nginx.directory / "access.log").read_text().splitlines()
        return sum(int(found[1]) for found in map(_SENT.search, lines) if found)

    @classmethod
    def tls(cls, side: str = "") -> str:
        """Return the flag that has podman trust nginx."""
        return f"--{side}cert-dir={cls.directory}/certificates"


if __name__ == "__main__":
    unittest.main()
