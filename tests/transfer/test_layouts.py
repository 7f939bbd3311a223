"""`vex import` of layouts and archives, and `vex export`, with skopeo on the other side; and files that are broken or
hostile.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import threading
import unittest
from pathlib import Path

from tests.support.containerd import running_containerd
from tests.support.debian_registry import push_artifact
from tests.support.images import INDEX, SINGLE, docker_archive, tar_of, write_layout
from tests.support.layouts import LayoutTestCase
from tests.support.programs import require
from tests.support.registries import certificate, require_root, run, running_tls
from tests.support.server import OCI_INDEX, OCI_LAYER, OCI_MANIFEST, PASSWORD, USER, Server, digest_of, image, vex


class Importing(LayoutTestCase):
    def test_a_layout_is_imported_byte_for_byte(self) -> None:
        layout = write_layout(self.directory / "layout")
        self.import_files(layout.directory, "--repository", "layouts/plain")
        for name in (SINGLE, INDEX):
            entry = next(
                entry
                for entry in self.index(layout.directory)
                if entry["annotations"]["org.opencontainers.image.ref.name"] == name
            )
            self.assertEqual(digest_of(self.manifest("layouts/plain", name)), entry["digest"])
        self.assertRegex(
            self.import_files(layout.directory, "--repository", "layouts/plain"), "sent: manifests: 0, blobs: 0"
        )

    def test_what_skopeo_writes_is_imported(self) -> None:
        skopeo = require("skopeo", "skopeo")
        source = f"oci:{write_layout(self.directory / 'layout').directory}"
        for kind, options, target, arguments in (
            (INDEX, ["--all"], f"oci:{self.directory}/copied:v1", ["--repository", "skopeo/oci"]),
            (INDEX, ["--all"], f"oci-archive:{self.directory}/oci.tar:team/named:v2", []),
            (SINGLE, [], f"docker-archive:{self.directory}/docker.tar:127.0.0.1:5000/team/archived:v3", []),
        ):
            run(skopeo, "copy", *options, f"{source}:{kind}", target)
            self.import_files(Path(target.split(":")[1]), *arguments)
        expected = (
            self.directory / "layout/blobs/sha256" / self.index(self.directory / "layout")[1]["digest"][7:]
        ).read_bytes()
        self.assertEqual(self.manifest("skopeo/oci", "v1"), expected)
        self.assertEqual(self.manifest("team/named", "v2"), expected)
        for name, copied in (("team/archived:v3", SINGLE), ("skopeo/oci:v1", INDEX)):
            address = f"docker://127.0.0.1:{self.server.addresses['public'][1]}/{name}"
            run(skopeo, "copy", "--all", "--src-tls-verify=false", address, f"oci:{self.directory}/back:{copied}")

    def test_an_archive_of_docker_becomes_the_same_image_each_time(self) -> None:
        content, image_id = docker_archive("127.0.0.1:5000/team/app:v1", tar_of({"a": b"1"}), tar_of({"b": b"2"}))
        plain, packed = self.directory / "image.tar", self.directory / "image.tar.gz"
        plain.write_bytes(content)
        packed.write_bytes(gzip.compress(content))
        self.import_files(plain)
        manifest = json.loads(self.manifest("team/app", "v1"))
        self.assertEqual(manifest["config"]["digest"], image_id)
        self.assertEqual(
            [layer["digest"] for layer in manifest["layers"]],
            [digest_of(tar_of({"a": b"1"})), digest_of(tar_of({"b": b"2"}))],
        )
        self.import_files(packed, "--repository", "team/again", "--tag", "v2")
        self.assertEqual(self.manifest("team/again", "v2"), self.manifest("team/app", "v1"))

    def test_layers_that_are_links_are_found(self) -> None:
        layer, config = (
            tar_of({"a": b"linked"}),
            b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}',
        )
        listed = [{"Config": "c.json", "RepoTags": ["linked:1"], "Layers": ["x/layer.tar", "y/layer.tar"]}]
        path = self.directory / "links.tar"
        with tarfile.open(path, "w") as archive:
            for name, content in (
                ("manifest.json", json.dumps(listed).encode()),
                ("./c.json", config),
                ("x/layer.tar", layer),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            link = tarfile.TarInfo("y/layer.tar")
            link.type, link.linkname = tarfile.SYMTYPE, "../x/layer.tar"
            archive.addfile(link)
        self.import_files(path)
        self.assertEqual(
            [entry["digest"] for entry in json.loads(self.manifest("linked", "1"))["layers"]], [digest_of(layer)] * 2
        )

    def test_several_images_go_where_their_names_say(self) -> None:
        layer = tar_of({"a": b"several"})
        one = {"Config": "c.json", "RepoTags": ["several/one:1", "several/one:latest"], "Layers": []}
        listed = [one, {"Config": "c.json", "RepoTags": ["several/two:1"], "Layers": ["l"]}]
        path = self.directory / "several.tar"
        path.write_bytes(
            tar_of({"manifest.json": json.dumps(listed).encode(), "c.json": b'{"os": "linux"}', "l": layer})
        )
        self.import_files(path)
        self.assertEqual(self.server.public.get("/v2/several/one/tags/list").json["tags"], ["1", "latest"])
        self.assertEqual(self.server.public.get("/v2/several/two/tags/list").json["tags"], ["1"])
        self.assertIn("--tag can name one only", self.import_files(path, "--tag", "x", code=1))
        path.write_bytes(
            tar_of({"manifest.json": json.dumps(listed[1:]).encode(), "c.json": b'{"os": "linux"}', "l": layer})
        )
        self.assertIn("not a tag", self.import_files(path, "--tag", "no tag", code=1))

    def test_what_the_web_interface_offers_for_download_is_imported(self) -> None:
        self.server.auth.push_image("web/app", "1", tar_of({"a": b"1"}))
        digest = digest_of(self.manifest("web/app", "1"))
        answer = self.server.public.get(f"/r/web/app/m/{digest}/image.tar")
        path = self.directory / "image.tar"
        path.write_bytes(answer.body)
        self.import_files(path, "--repository", "web/again", "--tag", "2")
        self.assertEqual(digest_of(self.manifest("web/again", "2")), digest)

    def test_a_name_that_is_missing_is_asked_for(self) -> None:
        layout = write_layout(self.directory / "layout")
        self.assertIn("give it with --repository NAME", self.import_files(layout.directory, code=1))

    def test_broken_and_hostile_files_are_told_in_a_sentence(self) -> None:
        good = write_layout(self.directory / "layout").directory
        bad = b'{"manifests": [{"digest": "sha256:../../../etc/passwd"}]}'
        loop = io.BytesIO()
        with tarfile.open(fileobj=loop, mode="w") as archive:
            for name, target in (("manifest.json", "other"), ("other", "manifest.json")):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, target
                archive.addfile(member)
        for number, content in enumerate(
            (
                b"",
                b"no archive at all" * 100,
                gzip.compress(b"nothing"),
                gzip.compress(tar_of({"manifest.json": b"[]"}))[:-20],
                loop.getvalue(),
                tar_of({"index.json": bad, "oci-layout": b"{}"}),
                tar_of({"index.json": b"[" * 100_000, "oci-layout": b"{}"}),
                tar_of(
                    {
                        "manifest.json": (
                            b'[{"Config": "/etc/passwd", "Layers": ["../../etc/passwd"], "RepoTags": ["a:b"]}]'
                        )
                    }
                ),
                tar_of({"manifest.json": b'{"Config": 5}'}),
                tar_of({f"{number}": b"" for number in range(20_001)}),
            )
        ):
            with self.subTest(number):
                path = self.directory / "bad.tar"
                path.write_bytes(content)
                complaint = self.import_files(path, "--repository", "bad", code=1)
                self.assertIn(str(path), complaint)
                # That is how pages of layers begin.
                self.assertNotIn("This list", complaint)
        self.assertIn("neither an OCI image layout", self.import_files(self.directory, code=1))
        for path in (good / "blobs/sha256").iterdir():
            path.write_bytes(path.read_bytes()[:-1])
        self.assertIn("could not be imported", self.import_files(good, "--repository", "bad", code=1))
        self.assertEqual(self.server.public.get("/v2/bad/tags/list").status, 404)


class Exporting(LayoutTestCase):
    def test_skopeo_copies_and_inspects_what_is_exported(self) -> None:
        skopeo = require("skopeo", "skopeo")
        layout = write_layout(self.directory / "layout")
        public, auth = (
            f"docker://127.0.0.1:{self.server.addresses[name][1]}/copied/app" for name in ("public", "auth")
        )
        for form in ("oci", "v2s2"):
            options = ["--all", "--format", form, "--dest-tls-verify=false", "--dest-creds", f"{USER}:{PASSWORD}"]
            run(skopeo, "copy", *options, f"oci:{layout.directory}:{INDEX}", f"{auth}:{form}")
        self.export("copied/app")
        # skopeo finds only what has a media type of OCI in a layout.
        raw = run(skopeo, "inspect", "--raw", f"oci:{self.directory}/out:oci").stdout
        self.assertEqual(raw.encode(), self.manifest("copied/app", "oci"))
        for form in ("oci", "v2s2"):
            body = self.manifest("copied/app", form)
            entry = next(
                entry for entry in self.index() if entry["annotations"]["org.opencontainers.image.ref.name"] == form
            )
            self.assertEqual(entry["mediaType"], json.loads(body)["mediaType"])
        run(skopeo, "copy", "--all", f"oci:{self.directory}/out:oci", f"oci:{self.directory}/again:oci")
        run(skopeo, "inspect", "--tls-verify=false", f"{public}:oci")
        self.import_files(self.directory / "out", "--repository", "copied/back")
        self.assertEqual(self.manifest("copied/back", "v2s2"), self.manifest("copied/app", "v2s2"))

    def test_what_refers_to_an_image_goes_with_it(self) -> None:
        self.server.auth.push_image("signed/app", "1", b"layer")
        body = self.manifest("signed/app", "1")
        about = push_artifact(
            self.server.auth,
            "signed/app",
            b"about",
            {"mediaType": OCI_MANIFEST, "digest": digest_of(body), "size": len(body)},
        )
        signed = push_artifact(self.server.auth, "signed/app", b"about that", about)
        self.server.auth.push_image("signed/app", "other", b"another layer")
        self.export("signed/app:1")
        self.assertEqual(
            [entry["digest"] for entry in self.index()], [digest_of(body), about["digest"], signed["digest"]]
        )
        self.assert_whole(self.directory / "out")
        self.import_files(self.directory / "out", "--repository", "signed/back")
        listed = self.server.public.get(f"/v2/signed/back/referrers/{about['digest']}").json["manifests"]
        self.assertEqual([entry["digest"] for entry in listed], [signed["digest"]])
        self.export("signed/app", self.directory / "all")
        self.assertEqual(len(self.index(self.directory / "all")), 4)

    def assert_whole(self, layout: Path) -> None:
        for path in layout.glob("blobs/*/*"):
            self.assertEqual(digest_of(path.read_bytes(), path.parent.name), f"{path.parent.name}:{path.name}")

    def test_a_layout_is_added_to(self) -> None:
        first = self.server.auth.push_image("added/app", "1", b"first")
        self.export("added/app:1")
        second = self.server.auth.push_image("added/app", "2", b"second")
        self.export("added/app:2")
        self.export("added/app:2")
        self.assertEqual([entry["digest"] for entry in self.index()], [first, second])
        third = self.server.auth.push_image("added/app", "2", b"third")
        self.assertIn(f"2: in the layout it was {second}, and is {third} now", self.export("added/app"))
        self.assertEqual([entry["digest"] for entry in self.index()], [first, third])
        self.assert_whole(self.directory / "out")

    def test_what_is_no_manifest_in_an_index_is_exported_as_a_blob(self) -> None:
        layer = {"mediaType": OCI_LAYER, "digest": self.server.auth.push_blob("cached/app", b"cached"), "size": 6}
        self.server.auth.push_manifest(
            "cached/app", "1", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [layer]}, OCI_INDEX
        )
        foreign = {
            "mediaType": OCI_LAYER,
            "digest": digest_of(b"elsewhere"),
            "size": 9,
            "urls": ["http://127.0.0.1:1/never"],
        }
        self.server.auth.push_blob("cached/app", b"{}")
        self.server.auth.push_manifest("cached/app", "2", {**image(config=b"{}"), "layers": [foreign]})
        self.export("cached/app")
        self.assertEqual((self.directory / "out/blobs/sha256" / digest_of(b"cached")[7:]).read_bytes(), b"cached")

    def test_what_is_exported_has_its_whole_name_for_podman_and_containerd(self) -> None:
        require_root()
        podman = require("podman", "podman")
        source = write_layout(self.directory / "layout").directory
        self.import_files(source, "--repository", "team/named")
        for url, host in (
            ("", "localhost"),
            ("https://registry.example", "registry.example"),
            ("http://vex", "vex:80"),
            ("https://vex:8200", "vex:8200"),
        ):
            with self.subTest(url):
                out = self.directory / host
                (self.directory / "vex.conf").write_text(f"data-dir = {self.server.data}\npublic-url = {url}\n")
                ended = vex("export", f"team/named:{SINGLE}", str(out), cwd=self.directory)
                self.assertEqual(ended.returncode, 0, ended)
                name = f"{host}/team/named:{SINGLE}"
                expected = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": SINGLE}
                self.assertEqual([entry["annotations"] for entry in self.index(out)], [expected])
        packed, storage = (
            self.directory / "out.tar",
            ("--root", f"{self.directory}/graph", "--runroot", f"{self.directory}/run", "--storage-driver", "vfs"),
        )
        run("tar", "-C", str(self.directory / "registry.example"), "-cf", str(packed), ".")
        self.assertIn(
            f"registry.example/team/named:{SINGLE}", run(podman, *storage, "load", "--input", str(packed)).stdout
        )
        with running_containerd() as ctr:
            run(*ctr, "images", "import", "--no-unpack", str(packed))
            self.assertIn(f"registry.example/team/named:{SINGLE}", run(*ctr, "images", "ls", "--quiet").stdout.split())
        digest = digest_of(self.manifest("team/named", SINGLE))
        self.import_files(packed, "--tag", "again")
        self.assertEqual(digest_of(self.manifest("team/named", "again")), digest)

    def test_a_layer_that_is_not_what_it_is_called_is_told(self) -> None:
        layer = gzip.compress(b"called plain")
        plain = {
            **image(layer),
            "layers": [{"mediaType": OCI_LAYER.replace("+gzip", ""), "digest": digest_of(layer), "size": len(layer)}],
        }
        for content in (layer, b"{}"):
            self.server.auth.push_blob("called/plain", content)
        self.server.auth.push_manifest("called/plain", "1", plain)
        self.assertIn(
            f"the layer {digest_of(layer)} is compressed with gzip, but called plain", self.export("called/plain")
        )

    def test_damage_does_not_get_into_the_layout(self) -> None:
        self.server.auth.push_image("damaged/app", "1", b"will be damaged")
        self.server.auth.push_image("damaged/app", "2", b"stays sound")
        path = self.server.data / "blobs/sha256" / digest_of(b"will be damaged")[7:]
        path.write_bytes(b"WILL BE DAMAGED")
        output = self.export("damaged/app", code=1)
        self.assertIn(
            f"damaged/app 1: blob {digest_of(b'will be damaged')}: its file does not have the content of this digest;"
            " push the image again",
            output,
        )
        self.assertEqual([entry["annotations"]["org.opencontainers.image.ref.name"] for entry in self.index()], ["2"])
        self.assert_whole(self.directory / "out")

    def test_what_is_copied_over_file_systems_is_compared(self) -> None:
        memory = Path(tempfile.mkdtemp(dir="/dev/shm"))
        self.addCleanup(shutil.rmtree, memory)
        if os.stat(memory).st_dev == os.stat(self.server.data).st_dev:
            self.skipTest("needs a second file system at /dev/shm")
        self.server.auth.push_image("far/app", "1", b"far away")
        self.assertRegex(self.export("far/app", memory / "out"), "blobs linked: 0, copied: 2")
        self.assert_whole(memory / "out")
        self.assertRegex(self.export("far/app", memory / "out"), "copied: 0 .*, there already: 2")

    def test_what_is_not_there_or_in_the_way_is_told(self) -> None:
        self.server.auth.push_image("told/app", "1", b"told")
        self.assertIn("there is no repository nobody", self.export("nobody", code=1))
        self.assertIn("there is no tag 2 in told/app", self.export("told/app:2", code=1))
        self.assertIn("not a repository name", self.export("Told", code=1))
        (self.directory / "full").mkdir()
        (self.directory / "full/file").write_text("")
        self.assertIn("no OCI image layout", self.export("told/app:1", self.directory / "full", code=1))
        self.export("told/app:1")
        (self.directory / "out/index.json").write_text("[]")
        self.assertIn("is not the index of an image layout", self.export("told/app:1", code=1))

    def test_while_tags_move_what_is_exported_is_whole(self) -> None:
        done = threading.Event()

        def push() -> None:
            number = 0
            while not done.is_set():
                number += 1
                self.server.auth.push_image("busy/app", "1", b"layer %d" % number, config=b"{%d}" % number)

        self.server.auth.push_image("busy/app", "1", b"layer")
        pushing = threading.Thread(target=push)
        pushing.start()
        try:
            for number in range(4):
                self.export("busy/app:1", self.directory / str(number))
                entry = self.index(self.directory / str(number))[0]
                manifest = json.loads(
                    (self.directory / str(number) / "blobs/sha256" / entry["digest"][7:]).read_bytes()
                )
                for part in (manifest["config"], *manifest["layers"]):
                    self.assertTrue((self.directory / str(number) / "blobs/sha256" / part["digest"][7:]).exists())
        finally:
            done.set()
            pushing.join()

    def test_a_registry_that_does_not_run_is_exported(self) -> None:
        copy = self.directory / "data"
        self.server.auth.push_image("stopped/app", "1", b"stopped")
        self.vex("backup", str(copy), "--data-dir", str(self.server.data))
        self.vex("export", "stopped/app", str(self.directory / "out"), "--data-dir", str(copy))
        self.assertEqual(len(self.index()), 1)
        with contextlib.closing(sqlite3.connect(copy / "vex.db")) as connection:
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchone(), ("ok",))


class Https(unittest.TestCase):
    def test_the_certificate_of_the_configuration_is_trusted_and_no_other(self) -> None:
        with running_tls() as server, tempfile.TemporaryDirectory() as directory:
            layout = write_layout(Path(directory) / "layout").directory
            command = ["import", str(layout), "--repository", "app", "--username", USER, "--to", server.urls["auth"]]
            refused = vex(*command, cwd=Path(directory), text=PASSWORD + "\n")
            self.assertEqual(refused.returncode, 1)
            self.assertRegex(refused.stderr, "^vex: the certificate of https://127.0.0.1:[0-9]+ is not trusted: ")
            ended = vex(*command, cwd=server.directory, text=PASSWORD + "\n")
            self.assertEqual(ended.returncode, 0, ended)
            self.assertTrue(certificate(server).exists())

    def test_a_certificate_that_another_signed_is_trusted_by_itself(self) -> None:
        openssl = require("openssl", "openssl")
        with tempfile.TemporaryDirectory() as name:
            ca, leaf = (
                ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}/{who}.key"]
                for who in ("ca", "leaf")
            )
            run(openssl, "req", "-x509", *ca, "-subj", "/CN=ca", "-out", f"{name}/ca.pem")
            run(openssl, "req", *leaf, "-subj", "/CN=leaf", "-out", f"{name}/leaf.csr")
            signing = ["-CA", f"{name}/ca.pem", "-CAkey", f"{name}/ca.key", "-CAcreateserial"]
            run(openssl, "x509", "-req", "-in", f"{name}/leaf.csr", *signing, "-out", f"{name}/leaf.pem")
            server = Server(Path(name), "--auth-tls-cert", f"{name}/leaf.pem", "--auth-tls-key", f"{name}/leaf.key")
            try:
                address = f"auth-addr = 127.0.0.1:{server.addresses['auth'][1]}\n"
                (Path(name) / "vex.conf").write_text(f"{address}auth-tls-cert = leaf.pem\nauth-tls-key = leaf.key\n")
                layout = write_layout(Path(name) / "layout").directory
                ended = vex(
                    "import",
                    str(layout),
                    "--repository",
                    "app",
                    "--username",
                    USER,
                    cwd=Path(name),
                    text=PASSWORD + "\n",
                )
                self.assertEqual(ended.returncode, 0, ended)
            finally:
                server.kill()

    def test_the_address_is_that_of_the_configuration(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            server = Server(Path(directory))
            try:
                layout = write_layout(Path(directory) / "layout").directory
                (Path(directory) / "vex.conf").write_text(f"auth-addr = :{server.addresses['auth'][1]}\n")
                ended = vex(
                    "import",
                    str(layout),
                    "--repository",
                    "app",
                    "--username",
                    USER,
                    cwd=Path(directory),
                    text=PASSWORD + "\n",
                )
                self.assertEqual(ended.returncode, 0, ended)
                (Path(directory) / "vex.conf").write_text("auth-addr = off\n")
                refused: subprocess.CompletedProcess[str] = vex(
                    "import", str(layout), "--username", USER, cwd=Path(directory), text=PASSWORD + "\n"
                )
                self.assertIn("give the address of the running registry with --to", refused.stderr)
            finally:
                server.kill()
