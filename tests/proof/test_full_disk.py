"""Full disks, for real: a small file system in memory, which the registry or something else fills. Needs root, to mount
it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.raw import basic
from tests.support.registries import require_root
from tests.support.server import OCI_MANIFEST, Answer, Client, Server, digest_of, image
from tests.support.uploads import MIB, UploadTestCase, received


class SmallDiskTestCase(UploadTestCase):
    """A file system in memory, and what it takes to fill it."""

    directory: Path

    def mount(self, mebibytes: int) -> None:
        """Make a new one, which goes away with the test."""
        require_root()
        self.directory = Path(tempfile.mkdtemp(prefix="vex-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        options = f"size={mebibytes}m,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.directory)], check=True)
        self.addCleanup(subprocess.run, ["umount", str(self.directory)], check=True)

    def serve(self, *flags: str) -> Server:
        """Run a server on the small disk."""
        server = Server(self.directory, *flags)
        self.addCleanup(server.kill)
        self.wait_for(
            lambda: server.internal.get("/readyz").status == 200 and self.has_ballast(server), "there is no ballast"
        )
        return server

    def has_ballast(self, server: Server) -> bool:
        """Tell whether space was set aside for deletions."""
        ballast = server.data / "ballast"
        return ballast.exists() and ballast.stat().st_size >= min(16 * MIB, self.free() // 8)

    def free(self) -> int:
        """Return the space that is left, in bytes."""
        status = os.statvfs(self.directory)
        return status.f_bavail * status.f_frsize

    def push_too_much(self, client: Client, location: str, body: bytes | Iterator[bytes]) -> Answer:
        """Send a chunk, with its length or, piece by piece, without; the registry may hang up while it is sent, once it
        has answered.
        """
        headers = {
            "Authorization": basic(),
            **({} if isinstance(body, bytes) else {"Transfer-Encoding": "chunked"}),
        }
        with contextlib.closing(http.client.HTTPConnection(*client.address, timeout=60)) as connection:
            with contextlib.suppress(ConnectionError):
                connection.request("PATCH", location, body, headers, encode_chunked=not isinstance(body, bytes))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def assert_full(self, answer: Answer) -> None:
        """Check for the error of a full disk."""
        self.assertEqual((answer.status, answer.codes), (507, ["INSUFFICIENT_STORAGE"]), answer)


class AnySizeTest(SmallDiskTestCase):
    """The registry fills a disk of each size itself, to the last byte."""

    def test_writes_are_refused_with_507_reads_and_deletions_go_on_and_then_a_push_works(self) -> None:
        for mebibytes in (1, 2, 8, 31, 64):
            with self.subTest(mebibytes=mebibytes):
                self.mount(mebibytes)
                self.fill_and_empty(self.serve("--free-space", "0", "--pull-grace", "0"), mebibytes * MIB // 30)

    def fill_and_empty(self, server: Server, size: int) -> None:
        """Push images until nothing goes any more, not even a small one; read and delete all of them; push again."""
        pushed: dict[str, bytes] = {}
        self.refused = {digest_of(b"{}")}
        for layer_size in (size, size // 8, 1):
            while (layer := self.push_one(server.auth, len(pushed), layer_size)) is not None:
                pushed[str(len(pushed))] = layer
        self.assertGreater(len(pushed), 3)
        for tag, layer in pushed.items():
            self.assertEqual(server.public.get(f"/v2/app/manifests/{tag}").status, 200)
            self.assertTrue(server.public.get(f"/v2/app/blobs/{digest_of(layer)}").body == layer)
        for tag in pushed:
            answer = server.auth.request("DELETE", f"/v2/app/manifests/{tag}")
            self.assertEqual(answer.status, 202, answer)
        self.assertLessEqual(server.files(), self.refused)
        server.auth.push_image("app", "again", bytes(size))
        self.assertEqual(server.stop(), 0)
        self.assertNotIn("Traceback", server.log.read_text())

    def push_one(self, client: Client, number: int, size: int) -> bytes | None:
        """Push an image of a layer of its own; returns that, or None when there is no space for it."""
        layer = random.Random(number).getrandbits(8 * size).to_bytes(size, "little") + b"%d" % number
        requests = [
            ("POST", f"/v2/app/blobs/uploads/?digest={digest_of(content)}", content, "") for content in (b"{}", layer)
        ]
        requests.append(("PUT", f"/v2/app/manifests/{number}", json.dumps(image(layer)).encode(), OCI_MANIFEST))
        for method, path, body, media_type in requests:
            answer = client.request(method, path, body, {"Content-Type": media_type} if media_type else {})
            if answer.status != 201:
                self.assert_full(answer)
                # A blob may have gone in, and its manifest not: it is held for a day.
                self.refused.add(digest_of(layer))
                return None
        return layer


class FullDiskTest(SmallDiskTestCase):
    """No space: refused with 507, nothing half-written stays, and what is there can be read and deleted."""

    def setUp(self) -> None:
        super().setUp()
        self.mount(48)

    def test_the_space_to_keep_is_kept(self) -> None:
        server = self.serve("--free-space", "8MiB")
        stored = server.auth.push_image("app", "1", bytes(4 * MIB))
        location = self.start(server.auth)
        self.assert_full(self.push_too_much(server.auth, location, bytes(26 * MIB)))
        self.assertGreaterEqual(self.free(), 8 * MIB)
        self.assertEqual(received(server.auth, location), 0)
        self.assertEqual(server.public.get(f"/v2/app/manifests/{stored}").status, 200)
        self.assertEqual(server.auth.request("PATCH", location, b"a little").status, 202)

    def test_a_full_disk_refuses_the_chunk_and_the_session_stays_where_it_was(self) -> None:
        server = self.serve("--free-space", "0")
        server.auth.push_image("app", "1", b"layer")
        location = self.start(server.auth)
        self.assertEqual(server.auth.request("PATCH", location, b"first ").status, 202)
        before = self.free()
        self.assert_full(self.push_too_much(server.auth, location, (bytes(MIB) for _ in range(40))))
        self.assertGreaterEqual(self.free(), before - MIB)
        self.assertEqual(server.auth.get(location).headers["Range"], "0-5")
        self.assertEqual(server.public.get(f"/v2/app/blobs/{digest_of(b'layer')}").body, b"layer")
        self.assertEqual(
            server.auth.request("PUT", f"{location}?digest={digest_of(b'first second')}", b"second").status, 201
        )

    def test_a_disk_that_something_else_filled_is_read_and_recovers(self) -> None:
        server = self.serve("--free-space", "0")
        stored = server.auth.push_image("app", "1", b"layer")
        filler = self.directory / "filler"
        _fill(filler)
        self.assert_full(
            server.auth.request("POST", f"/v2/app/blobs/uploads/?digest={digest_of(bytes(MIB))}", bytes(MIB))
        )
        answer = server.auth.request(
            "PUT",
            "/v2/app/manifests/2",
            b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
        )
        self.assertIn(answer.status, (201, 507), answer)
        self.assertEqual(server.public.get(f"/v2/app/manifests/{stored}").status, 200)
        self.assertEqual(server.public.get(f"/v2/app/blobs/{digest_of(b'layer')}").body, b"layer")
        self.assertEqual(server.internal.get("/readyz").status, 200)
        filler.unlink()
        server.auth.push_image("app", "3", bytes(MIB))
        self.assertEqual(server.stop(), 0)

    def test_deletion_works_on_a_full_disk_and_makes_room(self) -> None:
        server = self.serve("--free-space", "0")
        server.auth.push_image("app", "1", bytes(4 * MIB))
        _fill(self.directory / "filler")
        self.assertEqual(server.auth.request("DELETE", "/v2/app/manifests/1").status, 202)
        self.assertGreaterEqual(self.free(), 3 * MIB)
        self.assertEqual(server.files(), set())


def _fill(path: Path) -> None:
    """Write until the disk is full, to the last byte."""
    with open(path, "wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
