"""The real containerd with ctr: pushes and pulls images and indexes, over plain HTTP and HTTPS."""

from __future__ import annotations

from tests.support.containerd import running_containerd, write_hosts
from tests.support.images import INDEX, SINGLE, Layout, write_layout
from tests.support.programs import require
from tests.support.registries import ProgramTestCase, hosts, require_root, run, run_on_terminal
from tests.support.server import OCI_INDEX, OCI_MANIFEST, USER, digest_of

MEDIA_TYPES = {SINGLE: OCI_MANIFEST, INDEX: OCI_INDEX}


class ContainerdTests(ProgramTestCase):
    """A server at 127.0.0.1, and for each side of a transfer a containerd of its own."""

    alone = True

    flags = ("--pull-grace", "0s")
    layout: Layout
    hosts: str

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server, and pack a layout for import."""
        require_root()
        require("containerd", "containerd")
        super().setUpClass()
        cls.layout = write_layout(cls.directory / "layout")
        run("tar", "-C", str(cls.layout.directory), "-cf", f"{cls.directory}/layout.tar", ".")
        cls.hosts = write_hosts(cls.directory, *hosts(cls.server), https=cls.https)

    def test_push_and_pull_of_images_and_indexes(self) -> None:
        auth, public = hosts(self.server)
        with running_containerd() as ctr:
            run(
                *ctr,
                "images",
                "import",
                "--all-platforms",
                "--no-unpack",
                "--base-name",
                "layout",
                f"{self.directory}/layout.tar",
            )
            for kind, media_type in MEDIA_TYPES.items():
                with self.subTest(kind=kind):
                    run_on_terminal(
                        *ctr, "images", "push", self.hosts, "--user", USER, f"{auth}/{kind}:v1", f"layout:{kind}"
                    )
                    answer = self.client("public").get(f"/v2/{kind}/manifests/v1")
                    self.assertEqual(answer.headers["Content-Type"], media_type)
                    expected = {
                        digest_of(answer.body),
                        *(child["digest"] for child in answer.json.get("manifests", [])),
                    } | self.layout.blobs[kind]
                    for reference in (":v1", f"@{digest_of(answer.body)}"):
                        with running_containerd() as other:
                            run(
                                *other, "content", "fetch", "--all-platforms", self.hosts, f"{public}/{kind}{reference}"
                            )
                            self.assertEqual(set(run(*other, "content", "ls", "--quiet").stdout.split()), expected)
                    self.assertEqual(
                        self.client("auth", USER).request("DELETE", f"/v2/{kind}/manifests/v1").status, 202
                    )
                    self.assertEqual(
                        (self.server.lasting_files(), self.server.metric("vex_blobs")),
                        (set(), len(self.server.files())),
                    )


class HttpsTests(ContainerdTests):
    """With the certificate of `vex quickstart`, verified."""

    https = True
