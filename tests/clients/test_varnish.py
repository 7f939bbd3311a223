"""Vex behind a real Varnish without any configuration: what is missing is asked for again, and lists are as they
are.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
import unittest
from collections.abc import Iterator

from tests.support.programs import require
from tests.support.server import Client, ServerTestCase, digest_of, free_port, image


@contextlib.contextmanager
def varnish(behind: tuple[str, int]) -> Iterator[Client]:
    """Run a Varnish in front of a listener for a block; gives a client of it."""
    with tempfile.TemporaryDirectory(prefix="vex-varnish-") as directory:
        address = ("127.0.0.1", free_port())
        at, origin = "{}:{}".format(*address), "{}:{}".format(*behind)
        process = subprocess.Popen(
            [
                require("varnishd", "varnish"),
                "-F",
                "-j",
                "none",
                "-n",
                directory,
                "-a",
                at,
                "-b",
                origin,
                "-s",
                "malloc,16m",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 30
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address):
                    break
                time.sleep(0.02)
            yield Client(address)
        finally:
            process.terminate()
            process.wait(timeout=30)


class Cached(ServerTestCase):
    """One Varnish for all tests."""

    cache: Client

    @classmethod
    def setUpClass(cls) -> None:
        require("varnishd", "varnish")
        super().setUpClass()
        context = varnish(cls.server.addresses["public"])
        cls.cache = context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)

    def test_an_image_is_there_as_soon_as_it_is_pushed(self) -> None:
        layer, manifest = digest_of(b"layer"), "/v2/waited/for/manifests/v1"
        paths = (manifest, f"/v2/waited/for/blobs/{layer}", "/v2/waited/for/tags/list")
        for path in paths:
            for method in ("GET", "HEAD"):
                self.assertEqual(self.cache.request(method, path).status, 404, path)
        self.server.auth.push_image("waited/for", "v1", b"layer")
        for path in paths:
            for method in ("GET", "HEAD"):
                self.assertEqual(self.cache.request(method, path).status, 200, path)

    def test_lists_and_tags_are_as_they_are(self) -> None:
        subject = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.server.auth.push_image("lists", "v1", b"layer"),
            "size": 1,
        }
        lists = {
            "/v2/lists/tags/list": "tags",
            "/v2/_catalog": "repositories",
            f"/v2/lists/referrers/{subject['digest']}": "manifests",
        }
        before = {path: self.cache.get(path).json[key] for path, key in lists.items()}
        moved = self.cache.get("/v2/lists/manifests/v1").headers["Docker-Content-Digest"]
        self.server.auth.push_image("lists", "v2", b"another")
        self.server.auth.push_image("lists", "v1", b"moved")
        self.server.auth.push_image("lists-again", "v1", b"layer")
        self.server.auth.push_manifest("lists", "", {**image(b"layer"), "subject": subject})
        for path, key in lists.items():
            self.assertEqual(len(self.cache.get(path).json[key]), len(before[path]) + 1, path)
        self.assertNotEqual(self.cache.get("/v2/lists/manifests/v1").headers["Docker-Content-Digest"], moved)

    def test_what_has_a_digest_is_kept(self) -> None:
        digest = self.server.auth.push_image("kept", "v1", b"layer")
        for path in (f"/v2/kept/manifests/{digest}", f"/v2/kept/blobs/{digest_of(b'layer')}"):
            identifiers = [self.cache.get(path).headers["X-Varnish"].split() for _ in range(2)]
            self.assertEqual([len(of_one) for of_one in identifiers], [1, 2], "the second is no hit")


if __name__ == "__main__":
    unittest.main()
