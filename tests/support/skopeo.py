"""The real skopeo, with settings of its own, beside a server."""

from __future__ import annotations

import subprocess

from tests.support.images import Layout, write_layout
from tests.support.programs import require
from tests.support.registries import ProgramTestCase, hosts, run, temporary_directory
from tests.support.server import PASSWORD, USER


class SkopeoTestCase(ProgramTestCase):
    """A server at 127.0.0.1, an image layout, and skopeo with settings of its own."""

    flags: tuple[str, ...] = ("--pull-grace", "0s")
    layout: Layout
    skopeo_program: str

    @classmethod
    def setUpClass(cls) -> None:
        """Write the layout, and log in."""
        cls.skopeo_program = require("skopeo", "skopeo")
        super().setUpClass()
        cls.layout = write_layout(cls.directory / "layout")
        cls.skopeo("login", cls.tls(), "--username", USER, "--password-stdin", hosts(cls.server)[0], text=PASSWORD)

    @classmethod
    def skopeo(cls, *arguments: str, text: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run skopeo to its end."""
        return run(
            cls.skopeo_program,
            *arguments,
            environment={"REGISTRY_AUTH_FILE": str(cls.directory / "auth.json")},
            text=text,
            code=code,
        )

    def setUp(self) -> None:
        self.auth, self.public = hosts(self.server)

    def push(self, kind: str, name: str, form: str = "oci") -> None:
        """Push an image or the index of the layout."""
        self.skopeo(
            "copy",
            "--all",
            "--format",
            form,
            self.tls("dest-"),
            f"oci:{self.layout.directory}:{kind}",
            f"docker://{self.auth}/{name}",
        )

    def pull(self, name: str) -> set[str]:
        """Pull an image or an index as anyone; returns the digests of its blobs."""
        with temporary_directory() as directory:
            self.skopeo("copy", "--all", self.tls("src-"), f"docker://{self.public}/{name}", f"dir:{directory}")
            return {f"sha256:{path.name}" for path in directory.iterdir() if len(path.name) == 64}

    def delete_tag(self, name: str, tag: str) -> set[str]:
        """Delete a tag, check that the database and the disk agree, and return the digests of the files that stay."""
        self.assertEqual(self.client("auth", USER).request("DELETE", f"/v2/{name}/manifests/{tag}").status, 202)
        self.assertEqual(self.client("public").get(f"/v2/{name}/manifests/{tag}").status, 404)
        self.assertEqual(self.server.metric("vex_blobs"), len(self.server.files()))
        return self.server.lasting_files()
