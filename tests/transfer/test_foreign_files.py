"""`vex import` of files that others made: names that lead elsewhere, JSON of any shape, what is not all there, and how
it is compressed.
"""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import json
import lzma
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.containerd import running_containerd
from tests.support.images import INDEX, SINGLE, docker_archive, tar_of, write_layout
from tests.support.layouts import LayoutTestCase
from tests.support.programs import require, require_client
from tests.support.registries import require_root, run
from tests.support.server import PASSWORD, TOP, USER, Server, digest_of, running, vex
from tests.support.tars import archive, member
from vex.errors import Failure, Refused
from vex.names import Digest, RepositoryName
from vex.transfer.layout import LocalImages, open_images, parse_reference

SECRET = b"what nobody is to see"
CONFIG = b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}'


class FilesTestCase(unittest.TestCase):
    """A directory of an image, and beside it a secret."""

    def setUp(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="vex-test-"))
        self.addCleanup(shutil.rmtree, self.top)
        (self.top / "secret").write_bytes(SECRET)
        (self.top / "outside").mkdir()
        (self.top / "outside/file").write_bytes(SECRET)
        self.directory = self.top / "image"
        self.directory.mkdir()

    def write(self, **files: bytes) -> None:
        for name, content in files.items():
            (self.directory / name).write_bytes(content)

    def saved(self, *layers: str, config: str = "config.json") -> dict[str, bytes]:
        """Return the files of an unpacked archive of docker, whose layers have these names."""
        listed = [{"Config": config, "RepoTags": ["app:1"], "Layers": layers}]
        return {"manifest.json": json.dumps(listed).encode(), "config.json": CONFIG}

    def contents(self, path: Path) -> Iterator[bytes]:
        """Read all that would be published."""
        images = open_images(path, "app", "")
        for repository in images.repositories():
            for root in images.roots(repository):
                assert root.digest
                yield from _contents(images, repository, root.digest)

    def assert_refused(self, path: Path, expected: str) -> None:
        with self.assertRaisesRegex((Failure, Refused), expected):
            for content in self.contents(path):
                self.assertNotIn(SECRET, content)


def _contents(images: LocalImages, repository: RepositoryName, digest: Digest) -> Iterator[bytes]:
    document = images.manifest(repository, digest).content
    yield document
    parsed: dict[str, Any] = json.loads(document)
    for child in parsed.get("manifests") or []:
        yield from _contents(images, repository, Digest.parse(child["digest"]))
    for blob in [parsed["config"], *parsed["layers"]] if "config" in parsed else []:
        with images.blob(repository, Digest.parse(blob["digest"]), blob["size"], 0) as pieces:
            yield b"".join(pieces)


class Directories(FilesTestCase):
    """What a directory publishes is in it."""

    def test_names_that_lead_out_of_it_are_refused(self) -> None:
        for name in (
            str(self.top / "secret"),
            "/etc/hostname",
            "../secret",
            "x/../../secret",
            "./../secret",
            "x/..",
            "//etc/hostname",
            "..",
            ".",
            "",
            "a\0b",
        ):
            for files in (self.saved(name), self.saved(config=name)):
                with self.subTest(name):
                    self.write(**files)
                    self.assert_refused(self.directory, "leads elsewhere|is not the name of a file")

    def test_links_that_lead_out_of_it_are_refused(self) -> None:
        self.write(**self.saved("layer"))
        (self.directory / "inner").mkdir()
        for target in (
            str(self.top / "secret"),
            "../secret",
            "inner/../../secret",
            "inner/../../outside/file",
            "/etc/hostname",
            "..",
            "layer",
            "/",
        ):
            with self.subTest(target):
                (self.directory / "layer").symlink_to(target)
                self.assert_refused(self.directory, "leads elsewhere|is not a file")
                (self.directory / "layer").unlink()

    def test_links_in_the_middle_of_a_name_are_refused_when_they_lead_out(self) -> None:
        self.write(**self.saved("middle/file"))
        for target in ("../outside", str(self.top / "outside"), "../image/../outside"):
            with self.subTest(target):
                (self.directory / "middle").symlink_to(target)
                self.assert_refused(self.directory, "leads elsewhere")
                (self.directory / "middle").unlink()

    def test_what_is_no_file_is_refused_without_waiting_for_it(self) -> None:
        self.write(**self.saved("layer"))
        os.mkfifo(self.directory / "layer")
        self.assert_refused(self.directory, "is not a file")
        (self.directory / "layer").unlink()
        (self.directory / "layer").mkdir()
        self.assert_refused(self.directory, "is not a file")
        (self.directory / "layer").rmdir()
        if os.geteuid() == 0:
            os.mknod(self.directory / "layer", 0o600 | 0o020000, os.makedev(1, 5))
            self.assert_refused(self.directory, "is not a file")

    def test_in_a_layout_too_every_file_is_in_it(self) -> None:
        layout = write_layout(self.directory / "layout").directory
        for path in (
            layout / "index.json",
            layout / "oci-layout",
            layout / "blobs",
            layout / "blobs/sha256",
            *(layout / "blobs/sha256").iterdir(),
        ):
            with self.subTest(path.name):
                moved = self.top / "moved"
                path.rename(moved)
                path.symlink_to(moved)
                self.assert_refused(layout, "leads elsewhere")
                path.unlink()
                moved.rename(path)
        self.assertEqual(len(list(self.contents(layout))), 13)

    def test_links_that_stay_inside_are_followed(self) -> None:
        self.write(**self.saved("x/layer.tar", "y/layer.tar", "z/layer.tar"))
        (self.directory / "x").mkdir()
        (self.directory / "y").mkdir()
        (self.directory / "x/layer.tar").write_bytes(b"layer")
        (self.directory / "y/layer.tar").symlink_to("../x/layer.tar")
        (self.directory / "z").symlink_to("./y")
        self.assertEqual(list(self.contents(self.directory))[1:], [CONFIG, b"layer", b"layer", b"layer"])


class Archives(FilesTestCase):
    """What an archive publishes is in it."""

    def test_names_and_links_that_lead_out_of_it_find_nothing(self) -> None:
        secret = str(self.top / "secret")
        layers = (
            (secret, ()),
            ("../secret", ()),
            ("layer", (member("layer", tarfile.SYMTYPE, linkname=secret),)),
            ("layer", (member("layer", tarfile.SYMTYPE, linkname="../secret"),)),
            ("layer", (member("layer", tarfile.LNKTYPE, linkname=secret),)),
            ("layer", (member("layer", tarfile.LNKTYPE, linkname="../secret"),)),
            ("layer", (member("layer", tarfile.FIFOTYPE),)),
            ("layer", (member("layer", tarfile.CHRTYPE, devmajor=1, devminor=5),)),
            ("middle/secret", (member("middle", tarfile.SYMTYPE, linkname=".."), member("../secret", content=b"x"))),
        )
        for name, members in layers:
            with self.subTest(name):
                files = [member(file, content=content) for file, content in self.saved(name).items()]
                (self.top / "image.tar").write_bytes(archive(*files, *members))
                self.assert_refused(self.top / "image.tar", "leads elsewhere|its file is missing")

    def test_what_is_no_file_is_not_waited_for(self) -> None:
        os.mkfifo(self.top / "fifo")
        self.assert_refused(self.top / "fifo", "is neither a directory nor a file")


class Published(LayoutTestCase):
    """With the command and a registry."""

    def test_no_file_from_outside_a_directory_is_published(self) -> None:
        secret = self.directory / "secret"
        secret.write_bytes(SECRET)
        listed = [{"Config": "config.json", "RepoTags": ["stolen:1"], "Layers": [str(secret)]}]
        prepared = self.directory / "prepared"
        prepared.mkdir()
        (prepared / "config.json").write_bytes(CONFIG)
        for name in (str(secret), "../secret"):
            (prepared / "manifest.json").write_text(json.dumps([{**listed[0], "Layers": [name]}]))
            self.assertIn("leads elsewhere", self.import_files(prepared, code=1))
        self.assertEqual(self.server.public.get("/v2/stolen/tags/list").status, 404)
        self.assertNotIn(digest_of(SECRET)[7:], self.server.files())


class Prepared(LayoutTestCase):
    """`vex export` and `vex backup` into a directory that somebody prepared with links."""

    def setUp(self) -> None:
        super().setUp()
        self.server.auth.push_image("prepared/app", "1", b"layer")
        self.victim = self.directory / "victim"
        self.victim.write_bytes(b"kept")
        self.elsewhere = self.directory / "elsewhere"
        self.elsewhere.mkdir()
        self.out = self.directory / "out"

    def assert_kept(self) -> None:
        self.assertEqual(self.victim.read_bytes(), b"kept")
        self.assertEqual(list(self.elsewhere.iterdir()), [])

    def test_an_export_writes_through_no_link_to_a_file(self) -> None:
        for name in (
            ".vex-export",
            "index.json",
            f"blobs/sha256/{digest_of(b'layer')[7:]}",
            f"blobs/sha256/{digest_of(b'{}')[7:]}",
        ):
            with self.subTest(name):
                (self.out / name).parent.mkdir(parents=True)
                (self.out / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
                (self.out / name).symlink_to(self.victim)
                output = self.export("prepared/app:1", code=1 if name == "index.json" else 0)
                self.assertIn("index.json is not a file" if name == "index.json" else "blobs linked", output)
                self.assert_kept()
                self.assertEqual((self.out / name).is_symlink(), name == "index.json")
                shutil.rmtree(self.out)

    def test_an_export_waits_for_no_fifo(self) -> None:
        (self.out / "blobs/sha256").mkdir(parents=True)
        (self.out / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        os.mkfifo(self.out / ".vex-export")
        os.mkfifo(self.out / f"blobs/sha256/{digest_of(b'layer')[7:]}")
        self.export("prepared/app:1")
        self.assertEqual((self.out / f"blobs/sha256/{digest_of(b'layer')[7:]}").read_bytes(), b"layer")

    def test_an_export_and_a_backup_write_through_no_link_to_a_directory(self) -> None:
        for name, marker in (
            ("blobs", "oci-layout"),
            ("blobs/sha256", "oci-layout"),
            ("blobs", "backup"),
            ("blobs/sha256", "backup"),
            ("uploads", "backup"),
        ):
            with self.subTest(f"{marker} {name}"):
                (self.out / name).parent.mkdir(parents=True)
                (self.out / marker).write_text("")
                (self.out / name).symlink_to(self.elsewhere)
                command = (
                    ["export", "prepared/app:1", str(self.out)] if marker == "oci-layout" else ["backup", str(self.out)]
                )
                output = self.vex(*command, "--data-dir", str(self.server.data), code=1)
                self.assertIn(f"{name.rpartition('/')[2]} is a link, or no directory", output)
                self.assert_kept()
                shutil.rmtree(self.out)

    def test_a_backup_writes_through_no_link_to_a_file(self) -> None:
        names = (
            "backup",
            "backup.new",
            "vex.db.new",
            "vex.db.new-wal",
            "lock",
            "uploads/backup-copy",
            f"blobs/sha256/{digest_of(b'layer')[7:]}",
        )
        for name in names:
            with self.subTest(name):
                (self.out / name).parent.mkdir(parents=True)
                if name != "backup":
                    (self.out / "backup").write_text("")
                (self.out / name).symlink_to(self.victim)
                self.vex(
                    "backup", str(self.out), "--data-dir", str(self.server.data), code=int(name in ("backup", "lock"))
                )
                self.assert_kept()
                shutil.rmtree(self.out)


class Partial(LayoutTestCase):
    """Indexes of which only a part is there."""

    def test_what_containerd_exports_of_one_platform_is_imported_under_its_tag(self) -> None:
        require_root()
        skopeo = require("skopeo", "skopeo")
        layout = write_layout(self.directory / "layout")
        auth, public = (f"127.0.0.1:{self.server.addresses[name][1]}/multi" for name in ("auth", "public"))
        copying = [skopeo, "copy", "--all", "--dest-tls-verify=false", "--dest-creds", f"{USER}:{PASSWORD}"]
        run(*copying, f"oci:{layout.directory}:{INDEX}", f"docker://{auth}:v1")
        exported = self.directory / "exported.tar"
        with running_containerd() as ctr:
            run(*ctr, "content", "fetch", "--plain-http", "--platform", "linux/amd64", f"{public}:v1")
            run(*ctr, "images", "export", "--platform", "linux/amd64", str(exported), f"{public}:v1")
        one, other = self.children(layout.directory)
        with running() as empty:
            output = self.import_to(empty, exported)
            self.assertIn(
                f"Imported: linux/amd64 ({one}); the tag is that of {one}. Not there: linux/arm64 ({other})", output
            )
            answer = empty.public.get("/v2/multi/manifests/v1")
            self.assertEqual(digest_of(answer.body), one)
            self.assertEqual(empty.public.get(f"/v2/multi/manifests/{other}").status, 404)
            run(
                skopeo,
                "copy",
                "--src-tls-verify=false",
                f"docker://127.0.0.1:{empty.addresses['public'][1]}/multi:v1",
                f"dir:{self.directory}/back",
            )

    def children(self, layout: Path) -> list[str]:
        index = self.index(layout)[1]["digest"]
        return [
            child["digest"] for child in json.loads((layout / "blobs/sha256" / index[7:]).read_bytes())["manifests"]
        ]

    def import_to(self, server: Server, path: Path, *arguments: str, code: int = 0) -> str:
        return self.vex("import", str(path), "--username", USER, "--to", server.urls["auth"], *arguments, code=code)

    def layout_without(self, *digests: str) -> Path:
        """Write a layout with an index alone, and take the content of these digests away."""
        layout = write_layout(self.directory / "layout").directory
        document = json.loads((layout / "index.json").read_text())
        (layout / "index.json").write_text(json.dumps({**document, "manifests": document["manifests"][1:]}))
        for digest in digests:
            (layout / "blobs/sha256" / digest[7:]).unlink()
        return layout

    def test_without_a_part_its_blob_or_both_what_is_there_is_imported(self) -> None:
        whole = self.layout_without()
        (index,) = (entry["digest"] for entry in self.index(whole))
        one, other = (
            child["digest"] for child in json.loads((whole / "blobs/sha256" / index[7:]).read_bytes())["manifests"]
        )
        config = json.loads((whole / "blobs/sha256" / other[7:]).read_bytes())["config"]["digest"]
        for name, taken in (("manifest", [other]), ("blob", [config]), ("both", [other, config])):
            with self.subTest(name):
                shutil.rmtree(self.directory / "layout")
                with running() as server:
                    output = self.import_to(server, self.layout_without(*taken), "--repository", "app")
                    self.assertIn(f"Not there: linux/arm64 ({other})", output)
                    self.assertEqual(digest_of(server.public.get(f"/v2/app/manifests/{INDEX}").body), one)
                    self.assertEqual(server.public.get(f"/v2/app/manifests/{other}").status, 404)
                    shutil.rmtree(self.directory / "layout")
                    self.import_to(server, self.layout_without(), "--repository", "app")
                    self.assertEqual(digest_of(server.public.get(f"/v2/app/manifests/{INDEX}").body), index)

    def test_of_several_images_that_are_there_none_gets_the_tag(self) -> None:
        layout = self.layout_without()
        entry = self.index(layout)[0]
        index = json.loads((layout / "blobs/sha256" / entry["digest"][7:]).read_bytes())
        digests = [child["digest"] for child in index["manifests"]]
        third = {
            **index["manifests"][0],
            "digest": digest_of(b"never there"),
            "platform": {"os": "linux", "architecture": "s390x"},
        }
        content = json.dumps({**index, "manifests": [*index["manifests"], third]}).encode()
        (layout / "blobs/sha256" / digest_of(content)[7:]).write_bytes(content)
        listed = {**entry, "digest": digest_of(content), "size": len(content)}
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
        output = self.import_files(layout, "--repository", "partial/several")
        self.assertIn(
            f"each can be pulled by its digest, and none has the tag. Not there: linux/s390x ({third['digest']})",
            output,
        )
        for digest in digests:
            self.assertEqual(digest_of(self.manifest("partial/several", digest)), digest)
        self.assertEqual(self.server.public.get(f"/v2/partial/several/manifests/{INDEX}").status, 404)
        meant = json.loads((layout / "blobs/sha256" / digests[1][7:]).read_bytes())["config"]["digest"]
        (layout / "manifest.json").write_text(
            json.dumps([{"Config": f"blobs/sha256/{meant[7:]}", "RepoTags": None, "Layers": []}])
        )
        self.assertIn(f"the tag is that of {digests[1]}", self.import_files(layout, "--repository", "partial/several"))
        self.assertEqual(digest_of(self.manifest("partial/several", INDEX)), digests[1])

    def test_an_index_of_which_nothing_is_there_and_an_image_without_its_layer_are_not_imported(self) -> None:
        whole = self.layout_without()
        index = json.loads((whole / "blobs/sha256" / self.index(whole)[0]["digest"][7:]).read_bytes())
        shutil.rmtree(whole)
        layout = self.layout_without(*(child["digest"] for child in index["manifests"]))
        self.assertIn("its file is missing", self.import_files(layout, "--repository", "partial/nothing", code=1))
        content, _ = docker_archive("partial/layer:1", tar_of({"a": b"1"}))
        with tarfile.open(fileobj=io.BytesIO(content)) as complete:
            files = {name: complete.extractfile(name) for name in complete.getnames() if name != "0.tar"}
            (self.directory / "image.tar").write_bytes(
                tar_of({name: file.read() for name, file in files.items() if file})
            )
        self.assertIn("'0.tar': its file is missing", self.import_files(self.directory / "image.tar", code=1))
        for name in ("nothing", "layer"):
            self.assertEqual(self.server.public.get(f"/v2/partial/{name}/tags/list").status, 404)


class Shapes(FilesTestCase):
    """JSON of any shape."""

    def test_keys_are_read_in_any_case_and_the_exact_one_first(self) -> None:
        entries: tuple[dict[str, object], ...] = (
            {"config": "config.json", "repoTags": ["app:1"], "layers": ["layer"]},
            {"CONFIG": "config.json", "REPOTAGS": ["app:1"], "LAYERS": ["layer"]},
            {"config": "none", "Config": "config.json", "layers": ["none"], "Layers": ["layer"], "RepoTags": ["app:1"]},
        )
        for entry in entries:
            with self.subTest(str(entry)):
                self.write(**{"manifest.json": json.dumps([entry]).encode(), "config.json": CONFIG, "layer": b"layer"})
                self.assertEqual(list(self.contents(self.directory))[1:], [CONFIG, b"layer"])

    def test_what_is_of_another_type_is_told_in_a_sentence(self) -> None:
        values: tuple[object, ...] = (
            None,
            True,
            0,
            -1,
            1e400,
            10**30,
            "",
            "x",
            [],
            [[]],
            {},
            {"x": 1},
            [None],
            [1],
            ["x"],
            [{}],
        )
        good: dict[str, dict[str, Any]] = {
            "manifest.json": {"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer"]},
            "index.json": {
                "digest": digest_of(b"x"),
                "annotations": {"org.opencontainers.image.ref.name": "1"},
                "mediaType": "x",
                "size": 1,
            },
        }
        for file, entry in good.items():
            shapes: list[object] = [
                *values,
                *([value] for value in values),
                *({"manifests": value} for value in values),
            ]
            shapes += [{"manifests": [value]} for value in values]
            for key in entry:
                changed = [{**entry, key: value} for value in values] + [
                    {other: value for other, value in entry.items() if other != key}
                ]
                shapes += [[value] for value in changed] + [{"manifests": [value]} for value in changed]
            for shape in shapes:
                with self.subTest(f"{file}: {shape}"):
                    self.write(
                        **{
                            file: json.dumps(shape).encode(),
                            "oci-layout": b"{}",
                            "config.json": CONFIG,
                            "layer": b"layer",
                        }
                    )
                    self.assert_told(self.directory)
            (self.directory / file).unlink()

    def test_what_is_no_json_is_told_in_a_sentence(self) -> None:
        broken = (b"", b"\xff\xfe", b"{", b"[" * 100_000, b"[" + b"1" * 100_000 + b"]", b'{"a": NaN}', b"[1," * 200_000)
        for content in (*broken, b'"\\ud800"', b'[{"Config": "\\ud800"}]'):
            for file in ("manifest.json", "index.json"):
                with self.subTest(f"{file}: {content[:20]!r}"):
                    self.write(**{"oci-layout": b"{}", file: content})
                    self.assert_told(self.directory)
                    (self.directory / file).unlink()

    def assert_told(self, path: Path) -> None:
        """Read all; if that fails, then with a sentence, and not with what Python calls it."""
        try:
            list(self.contents(path))
        except (Failure, Refused) as error:
            self.assertRegex(str(error), "[a-z]+ [a-z]+ [a-z]+")
            self.assertNotRegex(
                str(error),
                "Error|NoneType|object is not|must be str|indices|subscriptable|attribute|char 0|codec|'int'|^'",
            )

    def test_what_containerify_writes_is_imported(self) -> None:
        containerify = require_client("node_modules/.bin/containerify")
        layout = write_layout(self.top / "layout").directory
        app = self.top / "app"
        (app / "node_modules/one").mkdir(parents=True)
        (app / "package.json").write_text("{}")
        (app / "node_modules/one/index.js").write_text("")
        (app / "index.js").write_text("console.log(1)\n")
        with running() as server:
            target = f"docker://127.0.0.1:{server.addresses['auth'][1]}/base:1"
            run(
                require("skopeo", "skopeo"),
                "copy",
                "--dest-tls-verify=false",
                "--dest-creds",
                f"{USER}:{PASSWORD}",
                f"oci:{layout}:single",
                target,
            )
            source = (
                "--fromImage",
                "base:1",
                "--fromRegistry",
                f"http://127.0.0.1:{server.addresses['public'][1]}/v2/",
            )
            run(
                containerify,
                *source,
                "--folder",
                str(app),
                "--toImage",
                "made:1",
                "--toTar",
                str(self.top / "made.tar"),
            )
            ended = vex(
                "import",
                str(self.top / "made.tar"),
                "--repository",
                "made",
                "--username",
                USER,
                "--to",
                server.urls["auth"],
                text=f"{PASSWORD}\n",
            )
            self.assertEqual(ended.returncode, 0, ended)
            self.assertEqual(server.public.get("/v2/made/manifests/1").status, 200)


class References(unittest.TestCase):
    """What an image is called here."""

    def test_an_official_image_of_docker_hub_has_its_short_name(self) -> None:
        for name, expected in (
            ("hello:1", "hello"),
            ("library/hello:1", "hello"),
            ("docker.io/library/hello:1", "hello"),
            ("index.docker.io/library/hello:1", "hello"),
            ("docker.io/hello:1", "hello"),
            ("docker.io/team/hello:1", "team/hello"),
            ("docker.io/library/team/hello:1", "library/team/hello"),
            ("registry.example/library/hello:1", "library/hello"),
            ("localhost/library/hello:1", "library/hello"),
            ("127.0.0.1:5000/library/hello:1", "library/hello"),
            ("team/library/hello:1", "team/library/hello"),
            ("library:1", "library"),
        ):
            with self.subTest(name):
                self.assertEqual(parse_reference(name), (expected, "1"))
        self.assertEqual(parse_reference("1"), (None, "1"))


class Compressed(LayoutTestCase):
    """Archives and layers, compressed in any way."""

    def test_archives_compressed_with_what_python_has_are_read(self) -> None:
        content, image_id = docker_archive(
            "packed/app:1", tar_of({"a": b"1"}), tar_of({"b": secrets.token_bytes(100_000)})
        )
        half = len(content) // 2
        packed = {
            "gz": gzip.compress(content),
            "xz": lzma.compress(content),
            "bz2": bz2.compress(content),
            "two.gz": gzip.compress(content[:half]) + gzip.compress(content[half:]),
            "two.xz": lzma.compress(content[:half]) + bytes(8) + lzma.compress(content[half:]),
            "two.bz2": bz2.compress(content[:half]) + bz2.compress(content[half:]),
        }
        for name, data in packed.items():
            with self.subTest(name):
                (self.directory / name).write_bytes(data)
                self.import_files(self.directory / name, "--tag", name)
                self.assertEqual(json.loads(self.manifest("packed/app", name))["config"]["digest"], image_id)
                (self.directory / name).write_bytes(data[:-2000])
                self.assertRegex(
                    self.import_files(self.directory / name, "--tag", "short", code=1),
                    "ends early|damaged|does not hold",
                )

    def test_zstd_is_read_or_told_by_its_name(self) -> None:
        zstd = require("zstd", "zstd")
        content, image_id = docker_archive("packed/zstd:1", tar_of({"a": b"1"}))
        (self.directory / "image.tar").write_bytes(content)
        run(zstd, "-q", str(self.directory / "image.tar"))
        if importlib.util.find_spec("compression.zstd" if sys.version_info >= (3, 14) else "compression"):
            self.import_files(self.directory / "image.tar.zst")
            self.assertEqual(json.loads(self.manifest("packed/zstd", "1"))["config"]["digest"], image_id)
        else:
            output = self.import_files(self.directory / "image.tar.zst", code=1)
            self.assertIn(
                "compressed with zstd, which this Python cannot read; Python 3.14 and newer can; unpack it first, with"
                " zstd -d",
                output,
            )

    def test_xz_that_needs_much_memory_is_told(self) -> None:
        (self.directory / "image.tar.xz").write_bytes(lzma.compress(bytes(100), preset=9))
        self.assertIn(
            "needs more than 24 MiB of memory; unpack it first",
            self.import_files(self.directory / "image.tar.xz", code=1),
        )

    def test_the_media_type_of_a_layer_says_how_it_is_compressed(self) -> None:
        layer = tar_of({"a": b"1"})
        packed = {
            "plain.tar": (layer, "tar"),
            "gzip.tar": (gzip.compress(layer), "tar+gzip"),
            "zstd.tar": (bytes.fromhex("28b52ffd") + b"any", "tar+zstd"),
            "pzstd.tar.gz": (bytes.fromhex("502a4d1804000000") + b"\0\0\0\0" + bytes.fromhex("28b52ffd"), "tar+zstd"),
            "last.tar": (bytes.fromhex("5f2a4d1800000000") + bytes.fromhex("28b52ffd"), "tar+zstd"),
            "empty.tar": (b"", "tar"),
        }
        listed = [{"Config": "config.json", "RepoTags": ["typed:1"], "Layers": list(packed)}]
        files = {
            "manifest.json": json.dumps(listed).encode(),
            "config.json": CONFIG,
            **{name: content for name, (content, _) in packed.items()},
        }
        (self.directory / "image.tar").write_bytes(tar_of(files))
        self.import_files(self.directory / "image.tar")
        layers = json.loads(self.manifest("typed", "1"))["layers"]
        self.assertEqual(
            [entry["mediaType"].rpartition("v1.")[2] for entry in layers], [expected for _, expected in packed.values()]
        )

    def test_layers_of_gzip_and_zstd_are_unpacked_from_what_comes_out(self) -> None:
        require_root()
        layer = self.directory / "layer"
        layer.write_bytes(tar_of({"motd": b"unpacked\n"}))
        config = json.dumps(
            {**json.loads(CONFIG), "rootfs": {"type": "layers", "diff_ids": [digest_of(layer.read_bytes())]}}
        ).encode()
        listed = [{"Config": "config.json", "RepoTags": ["unpacked:1"], "Layers": ["layer.tar.gz"]}]
        with running_containerd() as ctr:
            for program in ("gzip", "zstd", "pzstd"):
                with self.subTest(program):
                    run(require(program, program.lstrip("p")), "-q", "-k", "-f", str(layer))
                    packed = layer.with_suffix(".gz" if program == "gzip" else ".zst").read_bytes()
                    files = {
                        "manifest.json": json.dumps(listed).encode(),
                        "config.json": config,
                        "layer.tar.gz": packed,
                    }
                    (self.directory / "image.tar").write_bytes(tar_of(files))
                    self.import_files(self.directory / "image.tar")
                    digest = digest_of(self.manifest("unpacked", "1"))
                    offered = self.directory / "offered.tar"
                    offered.write_bytes(self.server.public.get(f"/r/unpacked/m/{digest}/image.tar?tag=1").body)
                    self.assertIn(
                        "unpacking", run(*ctr, "images", "import", "--snapshotter", "native", str(offered)).stdout
                    )
                    self.export("unpacked:1")
                    run("tar", "-C", str(self.directory / "out"), "-cf", str(self.directory / "exported.tar"), ".")
                    run(
                        *ctr,
                        "images",
                        "import",
                        "--snapshotter",
                        "native",
                        "--base-name",
                        program,
                        str(self.directory / "exported.tar"),
                    )
            # umoci 0.4.7 reads no zstd, whatever its media type.
            umoci = require("umoci", "umoci")
            run("gzip", "-kf", str(layer))
            (self.directory / "image.tar").write_bytes(
                tar_of({**files, "layer.tar.gz": layer.with_suffix(".gz").read_bytes()})
            )
            self.import_files(self.directory / "image.tar")
            self.export("unpacked:1")
            run(umoci, "unpack", "--image", f"{self.directory}/out:1", str(self.directory / "bundle"))
            self.assertEqual((self.directory / "bundle/rootfs/motd").read_bytes(), b"unpacked\n")


class OfSkopeo(LayoutTestCase):
    """Directories that `skopeo copy` writes to `dir:`."""

    def test_an_image_and_an_index_are_imported_from_a_directory_of_skopeo(self) -> None:
        skopeo = require("skopeo", "skopeo")
        layout = write_layout(self.directory / "layout")
        for kind, options in ((INDEX, ["--all"]), (SINGLE, [])):
            run(skopeo, "copy", *options, f"oci:{layout.directory}:{kind}", f"dir:{self.directory}/{kind}")
            self.import_files(self.directory / kind, "--repository", "skopeo/dir", "--tag", kind)
            self.assertEqual(self.manifest("skopeo/dir", kind), (self.directory / kind / "manifest.json").read_bytes())
        self.assertIn("give it with --repository NAME", self.import_files(self.directory / SINGLE, code=1))


# The peak of resident memory is written by the command itself: that of a child would begin with what its parent has.
_MEASURED = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


class Memory(LayoutTestCase):
    """What an import takes at most, whatever it reads."""

    def peak(self, content: bytes) -> int:
        """Import an archive; returns the most memory that this took, in MiB."""
        path = self.directory / "image.tar"
        path.write_bytes(content)
        command = [
            sys.executable,
            "-c",
            _MEASURED,
            str(TOP / "vex.py"),
            "import",
            str(path),
            "--repository",
            "peak",
            "--username",
            USER,
        ]
        ended = subprocess.run(
            [*command, "--to", self.server.urls["auth"]],
            input=f"{PASSWORD}\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertIn(ended.returncode, (0, 1), ended)
        return int(ended.stdout.split()[-1]) // 1024

    def test_it_stays_below_64_mib(self) -> None:
        saved, _ = docker_archive("peak:1", tar_of({"a": secrets.token_bytes(2**20)}))
        record = b"200000 VEX.%06d=" + b"v" * (200_000 - 19) + b"\n"
        extended = b""
        for number in range(200):
            header = tarfile.TarInfo("x")
            header.type, header.size = tarfile.XHDTYPE, 200_000
            extended += header.tobuf(tarfile.USTAR_FORMAT) + record % number + bytes(-200_000 % 512)
        document = b'{"schemaVersion": 2, "x": [' + b",".join([b"[]"] * 1_300_000) + b"]}"
        listed = json.dumps({"manifests": [{"digest": digest_of(document)}]}).encode()
        layout = {"oci-layout": b"{}", "index.json": listed, f"blobs/sha256/{digest_of(document)[7:]}": document}
        wide = ('{"x": "\\U0001f600' + "y" * 7_000_000 + '", "manifests": []}').encode()
        archives = {
            "records": gzip.compress(extended + saved, 1),
            "values": tar_of(layout),
            "wide characters": tar_of({**layout, "index.json": wide}),
            "objects": tar_of({**layout, "index.json": b'{"manifests": [' + b",".join([b'{"a":1}'] * 120_000) + b"]}"}),
            "xz": lzma.compress(saved, preset=7),
            "names": archive(
                *(member(f"{number:06}{'n' * 90}") for number in range(20_000)), form=tarfile.USTAR_FORMAT
            ),
        }
        for name, content in archives.items():
            with self.subTest(name):
                self.assertLess(self.peak(content), 64)
