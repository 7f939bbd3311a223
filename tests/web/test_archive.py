"""`image.tar`, loaded with the real skopeo, docker and podman, from images in both formats."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.support.images import INDEX, Layout, write_layout
from tests.support.in_process import InProcess, Options
from tests.support.page import PagesTestCase
from tests.support.programs import require
from tests.support.registries import ProgramTestCase, daemon, dockerd, hosts, require_root, run
from tests.support.server import OCI_MANIFEST, PASSWORD, USER, ServerTestCase, descriptor, digest_of, image
from vex.errors import Disconnected, RegistryError
from vex.names import Digest, RepositoryName
from vex.web.archive import ArchiveImage, image_archive

FORMATS = ("oci", "v2s2")


class ArchiveTests(ServerTestCase):
    """What the archive holds, without other programs."""

    def push(self, **fields: object) -> tuple[str, dict[str, bytes]]:
        """Push an image, and return the path of its archive and the members that are blobs."""
        layers, config = (b"first layer", b"second layer" * 1000), b'{"os":"linux"}'
        digest = self.server.auth.push_image("app", "v1", *layers, config=config, **fields)
        manifest = json.dumps(image(*layers, config=config, **fields)).encode()
        return f"/r/app/m/{digest}/image.tar", {
            f"blobs/sha256/{digest_of(blob)[7:]}": blob for blob in (manifest, config, *layers)
        }

    def members(self, path: str) -> dict[str, bytes]:
        answer = self.server.public.get(path)
        self.assertEqual(answer.status, 200, answer.body)
        found = {}
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file:
                    found[member.name] = file.read()
        return found

    def test_it_is_an_image_layout_of_the_stored_bytes(self) -> None:
        path, blobs = self.push()
        members = self.members(path)
        self.assertEqual({name: content for name, content in members.items() if name.startswith("blobs/")}, blobs)
        self.assertEqual(json.loads(members["oci-layout"]), {"imageLayoutVersion": "1.0.0"})
        (entry,) = json.loads(members["index.json"])["manifests"]
        self.assertEqual(
            {name: entry[name] for name in ("mediaType", "digest", "size")},
            descriptor(next(iter(blobs.values())), OCI_MANIFEST),
        )

    def test_its_name_is_that_of_a_tag_that_points_to_it_and_of_no_other(self) -> None:
        path, _ = self.push()
        name = "{}:{}/app:v1".format(*self.server.addresses["public"])
        self.assertEqual(json.loads(self.members(f"{path}?tag=v1")["manifest.json"])[0]["RepoTags"], [name])
        self.server.auth.push_image("app", "other", b"another")
        self.assertEqual(json.loads(self.members(f"{path}?tag=other")["manifest.json"])[0]["RepoTags"], [name])
        self.assertEqual(json.loads(self.members(f"{path}?tag=missing")["manifest.json"])[0]["RepoTags"], [name])

    def test_a_manifest_that_goes_in_that_moment_is_not_found_before_anything_is_sent(self) -> None:
        gone = ArchiveImage(RepositoryName("app"), Digest.of(b"gone"), OCI_MANIFEST, Digest.of(b"{}"), (), "")
        with tempfile.TemporaryDirectory() as directory:
            site = InProcess(Path(directory), Options(), 1_700_000_000)
            with self.assertRaises(RegistryError) as caught:
                image_archive(site.registry, gone)
            site.close()
        self.assertEqual(caught.exception.kind.code, "MANIFEST_UNKNOWN")

    def test_it_says_what_kept_it_from_being_made(self) -> None:
        path, _ = self.push()
        missing = path.replace("/app/", "/none/")
        self.assertEqual(self.server.public.get(missing).status, 404)
        artifact = self.server.auth.push_image("app", "artifact", b"x", artifactType="application/vnd.example")
        answer = self.server.public.get(f"/r/app/m/{artifact}/image.tar")
        self.assertEqual((answer.status, b"not an image" in answer.body), (404, True))
        foreign = {
            **descriptor(b"far away", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            "urls": ["https://example.org/layer"],
        }
        document = image(b"x")
        document["layers"].append(foreign)
        digest = self.server.auth.push_manifest("app", "foreign", document)
        answer = self.server.public.get(f"/r/app/m/{digest}/image.tar")
        self.assertEqual((answer.status, b"fetch it from elsewhere" in answer.body), (404, True))

    def test_a_layer_that_is_listed_twice_is_stored_once(self) -> None:
        digest = self.server.auth.push_image("twice", "v1", b"same", b"same")
        members = self.members(f"/r/twice/m/{digest}/image.tar")
        self.assertEqual(len(json.loads(members["manifest.json"])[0]["Layers"]), 2)
        self.assertEqual(list(members.values()).count(b"same"), 1)


class VanishingTests(PagesTestCase):
    """What goes away while it is sent."""

    options = Options(pull_grace=0)

    def test_an_archive_whose_image_is_deleted_meanwhile_is_cut_off(self) -> None:
        pushed = self.push_image("app", "v1", b"x" * 1000)
        stream = self.respond(f"/r/app/m/{pushed.digest}/image.tar").stream
        assert stream
        self.assertTrue(next(stream))
        self.delete("app", "v1")
        with self.assertRaises(Disconnected):
            list(stream)

    def test_the_page_of_a_layer_that_was_deleted_is_gone_though_its_list_was_made(self) -> None:
        pushed = self.push_image("app", "v1", b"x" * 1000)
        path = f"/r/app/m/{pushed.digest}/layer/{digest_of(b'x' * 1000)}/"
        self.page(path)
        self.delete("app", "v1")
        self.page(path, 404)


class LoadTestCase(ProgramTestCase):
    """A server with an index of two images in both formats."""

    layout: Layout

    @classmethod
    def setUpClass(cls) -> None:
        """Push them with skopeo."""
        require("skopeo", "skopeo")
        super().setUpClass()
        cls.layout = write_layout(cls.directory / "layout")
        credentials = ("--dest-creds", f"{USER}:{PASSWORD}", cls.tls("dest-"))
        for form in FORMATS:
            target = f"docker://{hosts(cls.server)[0]}/{form}:v1"
            run(
                "skopeo", "copy", "--all", "--format", form, *credentials, f"oci:{cls.layout.directory}:{INDEX}", target
            )

    def download(self, form: str, platform: str) -> tuple[str, str, dict[str, Any]]:
        """Download an archive; returns its path, the name that the image in it has, and its manifest."""
        public = self.server.public
        index = public.get(f"/v2/{form}/manifests/v1")
        answer = public.get(
            f"/r/{form}/m/{index.headers['Docker-Content-Digest']}/image.tar?platform={platform}&tag=v1"
        )
        self.assertEqual(answer.status, 200)
        path = self.directory / f"{form}.tar"
        path.write_bytes(answer.body)
        architecture = platform.partition("/")[2]
        child = next(
            entry["digest"] for entry in index.json["manifests"] if entry["platform"]["architecture"] == architecture
        )
        return str(path), f"{hosts(self.server)[1]}/{form}:v1", public.get(f"/v2/{form}/manifests/{child}").json


class SkopeoLoad(LoadTestCase):
    def test_skopeo_copies_it_as_an_image_layout(self) -> None:
        for form in FORMATS:
            with self.subTest(form):
                path, _, manifest = self.download(form, "linux/arm64")
                target = self.directory / f"{form}-copy"
                run("skopeo", "copy", "--preserve-digests", f"oci-archive:{path}", f"dir:{target}")
                self.assertEqual(json.loads((target / "manifest.json").read_text()), manifest)

    def test_skopeo_reads_it_as_an_archive_of_docker(self) -> None:
        for form in FORMATS:
            with self.subTest(form):
                path, name, manifest = self.download(form, "linux/amd64")
                inspected = json.loads(run("skopeo", "inspect", "--config", f"docker-archive:{path}:{name}").stdout)
                config = self.server.public.get(f"/v2/{form}/blobs/{manifest['config']['digest']}")
                self.assertEqual(inspected["rootfs"], config.json["rootfs"])


class DockerLoad(LoadTestCase):
    def test_docker_loads_it_under_its_name(self) -> None:
        require_root()
        docker = require("docker", "docker.io")
        socket = f"unix://{self.directory}/docker.sock"
        with daemon(self.directory, *dockerd(self.directory, socket)):
            for form in FORMATS:
                with self.subTest(form):
                    path, name, manifest = self.download(form, "linux/amd64")
                    self.assertIn(name, run(docker, "-H", socket, "load", "--input", path).stdout)
                    image_id = run(docker, "-H", socket, "image", "inspect", "--format", "{{.Id}}", name).stdout.strip()
                    self.assertEqual(image_id, manifest["config"]["digest"])


class PodmanLoad(LoadTestCase):
    def test_podman_loads_it_under_its_name(self) -> None:
        require_root()
        podman = require("podman", "podman")
        storage = ("--root", f"{self.directory}/graph", "--runroot", f"{self.directory}/run", "--storage-driver", "vfs")
        for form in FORMATS:
            with self.subTest(form):
                path, name, manifest = self.download(form, "linux/amd64")
                run(podman, *storage, "load", "--input", path)
                image_id = run(podman, *storage, "image", "inspect", "--format", "{{.Id}}", name).stdout.strip()
                self.assertEqual(f"sha256:{image_id}", manifest["config"]["digest"])
