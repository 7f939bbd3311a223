"""Real clients that pull while the tag that they asked for is moved and deleted: between its first answer and whatever
they ask for next.
"""

from __future__ import annotations

import functools
import itertools
import json
from typing import Any, Callable

from tests.support.between import Between, between
from tests.support.containerd import running_containerd
from tests.support.images import INDEX, SINGLE, Layout, write_layout
from tests.support.programs import require
from tests.support.registries import ProgramTestCase, daemon, dockerd, require_root, run, temporary_directory
from tests.support.server import digest_of


class InterruptedPulls(ProgramTestCase):
    """Each pulls an image and an index, whose tag is first pushed anew, or deleted, once the client was told of it."""

    alone = True

    layout: Layout

    @classmethod
    def setUpClass(cls) -> None:
        """Write the layout."""
        super().setUpClass()
        cls.layout = write_layout(cls.directory / "layout")

    def test_containerd(self) -> None:
        require_root()
        require("containerd", "containerd")

        def pull(name: str) -> set[str]:
            with running_containerd() as ctr:
                run(*ctr, "content", "fetch", "--all-platforms", "--plain-http", name)
                return set(run(*ctr, "content", "ls", "--quiet").stdout.split())

        self.check_pulls("containerd", pull)

    def test_skopeo(self) -> None:
        skopeo = require("skopeo", "skopeo")

        def pull(name: str) -> set[str]:
            with temporary_directory() as directory:
                run(skopeo, "copy", "--all", "--src-tls-verify=false", f"docker://{name}", f"dir:{directory}")
                return {f"sha256:{path.name}" for path in directory.iterdir()}

        self.check_pulls("skopeo", pull)

    def test_docker(self) -> None:
        require_root()
        docker = require("docker", "docker.io")
        require("dockerd", "docker.io")
        with (
            temporary_directory() as directory,
            daemon(directory, *dockerd(directory, f"unix://{directory}/docker.sock")),
        ):

            def pull(name: str) -> set[str]:
                run(docker, "-H", f"unix://{directory}/docker.sock", "pull", name)
                image = run(
                    docker, "-H", f"unix://{directory}/docker.sock", "image", "inspect", "--format", "{{.Id}}", name
                )
                return {image.stdout.strip()}

            self.check_pulls("docker", pull, everything=False)

    def check_pulls(self, client: str, pull: Callable[[str], set[str]], *, everything: bool = True) -> None:
        """Pull what is interrupted; `pull` returns what came, which is everything, or the digest of the config
        alone.
        """
        for kind, how in itertools.product((SINGLE, INDEX), ("moved", "deleted")):
            with self.subTest(kind=kind, how=how):
                name = f"{client}/{kind}-{how}"
                self.push(name, kind)
                with between(self.server.public, functools.partial(self.interrupt, name, how)) as server:
                    pulled = pull(f"{server.host}/{name}:v1")
                self.assertTrue(
                    self.layout.blobs[kind] <= pulled if everything else pulled <= self.layout.blobs[kind], pulled
                )
                self.check(name, how, server)

    def interrupt(self, name: str, how: str) -> None:
        """Move or delete the tag."""
        if how == "moved":
            self.server.auth.push_image(name, "v1", b"another")
        else:
            self.assertEqual(self.server.auth.request("DELETE", f"/v2/{name}/manifests/v1").status, 202)

    def check(self, name: str, how: str, server: Between) -> None:
        """See that the pull was interrupted, and what the tag points to now."""
        self.assertIn(server.interrupted, ("GET", "HEAD"))
        answer = self.server.public.get(f"/v2/{name}/manifests/v1")
        if how == "moved":
            self.assertEqual(answer.json["layers"][0]["digest"], digest_of(b"another"))
        else:
            self.assertEqual(answer.status, 404)

    def push(self, name: str, kind: str) -> None:
        """Push an image or the index of the layout, without any client that would ask first."""
        for described in json.loads((self.layout.directory / "index.json").read_text())["manifests"]:
            if described["annotations"]["org.opencontainers.image.ref.name"] == kind:
                self.push_manifest(name, "v1", described)

    def push_manifest(self, name: str, tag: str, described: dict[str, Any]) -> None:
        content = self.content(described)
        document = json.loads(content)
        for child in document.get("manifests", []):
            self.push_manifest(name, "", child)
        for part in (*document.get("layers", []), *filter(None, [document.get("config")])):
            self.server.auth.push_blob(name, self.content(part))
        self.server.auth.push_manifest(name, tag, content, described["mediaType"])

    def content(self, described: dict[str, Any]) -> bytes:
        path = str(described["digest"]).replace(":", "/")
        return (self.layout.directory / "blobs" / path).read_bytes()
