"""`vex import` of files that others made: names that lead elsewhere, JSON of any shape, what is not all there, and how it is compressed."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.images import write_layout
from tests.support import digest_of
from tests.tars import archive, member
from tests.test_layouts import LayoutTestCase
from vex.errors import Failure
from vex.layout import LocalImages, open_images
from vex.names import Digest, RepositoryName
from vex.remote import Refused

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
    for child in parsed.get("manifests", []):
        yield from _contents(images, repository, Digest.parse(child["digest"]))
    for blob in [parsed["config"], *parsed["layers"]] if "config" in parsed else []:
        with images.blob(repository, Digest.parse(blob["digest"]), blob["size"], 0) as pieces:
            yield b"".join(pieces)


class Directories(FilesTestCase):
    """What a directory publishes is in it."""

    def test_names_that_lead_out_of_it_are_refused(self) -> None:
        for name in (str(self.top / "secret"), "/etc/hostname", "../secret", "x/../../secret", "./../secret", "x/..", "//etc/hostname", "..", ".", "", "a\0b"):
            for files in (self.saved(name), self.saved(config=name)):
                with self.subTest(name):
                    self.write(**files)
                    self.assert_refused(self.directory, "leads elsewhere|is not the name of a file")

    def test_links_that_lead_out_of_it_are_refused(self) -> None:
        self.write(**self.saved("layer"))
        (self.directory / "inner").mkdir()
        for target in (str(self.top / "secret"), "../secret", "inner/../../secret", "inner/../../outside/file", "/etc/hostname", "..", "layer", "/"):
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
        for path in (layout / "index.json", layout / "oci-layout", layout / "blobs", layout / "blobs/sha256", *(layout / "blobs/sha256").iterdir()):
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
        for name in (".vex-export", "index.json", f"blobs/sha256/{digest_of(b'layer')[7:]}", f"blobs/sha256/{digest_of(b'{}')[7:]}"):
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
        for name, marker in (("blobs", "oci-layout"), ("blobs/sha256", "oci-layout"), ("blobs", "backup"), ("blobs/sha256", "backup"), ("uploads", "backup")):
            with self.subTest(f"{marker} {name}"):
                (self.out / name).parent.mkdir(parents=True)
                (self.out / marker).write_text("")
                (self.out / name).symlink_to(self.elsewhere)
                command = ["export", "prepared/app:1", str(self.out)] if marker == "oci-layout" else ["backup", str(self.out)]
                output = self.vex(*command, "--data-dir", str(self.server.data), code=1)
                self.assertIn(f"{name.rpartition('/')[2]} is a link, or no directory", output)
                self.assert_kept()
                shutil.rmtree(self.out)

    def test_a_backup_writes_through_no_link_to_a_file(self) -> None:
        names = ("backup", "backup.new", "vex.db.new", "vex.db.new-wal", "lock", "uploads/backup-copy", f"blobs/sha256/{digest_of(b'layer')[7:]}")
        for name in names:
            with self.subTest(name):
                (self.out / name).parent.mkdir(parents=True)
                if name != "backup":
                    (self.out / "backup").write_text("")
                (self.out / name).symlink_to(self.victim)
                self.vex("backup", str(self.out), "--data-dir", str(self.server.data), code=int(name in ("backup", "lock")))
                self.assert_kept()
                shutil.rmtree(self.out)
