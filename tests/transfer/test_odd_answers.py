"""What `vex import` says of answers and archives that no registry and no program should make: addresses that are none,
chunks below zero, huge sizes.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import tarfile
import tempfile
import tracemalloc
import unittest
from pathlib import Path

from tests.support.other_registries import Reply, answering
from tests.support.server import digest_of, vex
from vex.errors import Failure, Refused, RegistryError
from vex.names import Digest, RepositoryName
from vex.progress import Progress
from vex.transfer.endpoints import Endpoints
from vex.transfer.layout import open_images
from vex.transfer.origins import parse_origin
from vex.transfer.remote import Remote
from vex.transfer.replies import Broken

NAME = RepositoryName("app")
BLOB = Digest(digest_of(b"layer"))
NO_ADDRESSES = (
    "http://[",
    "http://127.0.0.1:99999/",
    "http://a..b/",
    f"http://{'a' * 64}/",
    "http://127.0.0.1:1/\xe9",
    "/\xe9",
    "/a b",
    "ftp://a/",
)


def endpoints(address: str) -> Endpoints:
    """Talk with a registry."""
    return Endpoints(Remote(parse_origin(address)), 4096)


def fetch(address: str) -> bytes:
    """Fetch the blob from a registry."""
    with endpoints(address).blob(NAME, BLOB, 5, 0) as pieces:
        return b"".join(pieces)


def fail_on(name: str, error: RegistryError) -> None:
    """Take no name for a bad one."""
    raise AssertionError(name) from error


class Addresses(unittest.TestCase):
    """Addresses that a registry names, and that lead nowhere."""

    def test_of_a_blob(self) -> None:
        for address in NO_ADDRESSES:
            replies: dict[str, Reply] = {
                f"/v2/app/blobs/{BLOB}": (307, {"Location": address, "Connection": "close"}, b"")
            }
            with (
                self.subTest(address),
                answering(replies) as origin,
                self.assertRaisesRegex(Refused, "names an address that is none"),
            ):
                fetch(origin)

    def test_of_a_token_service(self) -> None:
        for address in NO_ADDRESSES:
            challenge = {"WWW-Authenticate": f'Bearer realm="{address}",service="a"', "Connection": "close"}
            with (
                self.subTest(address),
                answering({"/v2/": (401, challenge, b"")}) as origin,
                self.assertRaisesRegex(Refused, "names an address that is none"),
            ):
                endpoints(origin).version()

    def test_of_the_next_page(self) -> None:
        for address in ("http://[?a=1", "/v2/_catalog?last=\xe9"):
            page: Reply = (
                200,
                {"Link": f'<{address}>; rel="next"', "Connection": "close"},
                b'{"repositories": ["app"]}',
            )
            with (
                self.subTest(address),
                answering({"/v2/_catalog": page}) as origin,
                self.assertRaisesRegex(Refused, "names an address that is none"),
            ):
                list(endpoints(origin).repositories(fail_on))


class Chunks(unittest.TestCase):
    def test_a_chunk_of_less_than_no_bytes_ends_the_transfer_in_little_memory(self) -> None:
        for size in (b"-1", b"-5"):

            def send(handler: http.server.BaseHTTPRequestHandler, size: bytes = size) -> None:
                handler.close_connection = True
                with contextlib.suppress(OSError):
                    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\n")
                    for _ in range(20):
                        handler.wfile.write(bytes(1024 * 1024))

            with self.subTest(size), answering({f"/v2/app/blobs/{BLOB}": send}) as origin:
                tracemalloc.start()
                self.addCleanup(tracemalloc.stop)
                with self.assertRaisesRegex(Broken, "chunks that are not well-formed"):
                    fetch(origin)
                self.assertLess(tracemalloc.get_traced_memory()[1], 8 * 1024 * 1024)
                tracemalloc.stop()


class Archives(unittest.TestCase):
    """Archives and layouts in a directory."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def test_a_file_larger_than_any_is_told_as_damage(self) -> None:
        for size in (2**43, 2**62, 2**63 - 1, 2**63, 2**80):
            with self.subTest(size):
                entry = tarfile.TarInfo("manifest.json")
                entry.size = size
                path = self.directory / "image.tar"
                path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
                with self.assertRaisesRegex(Failure, "ends in the middle of a file"):
                    open_images(path, "app", "")

    def test_what_others_wrote_does_not_reach_the_terminal_as_control_characters(self) -> None:
        (self.directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        entries = [
            {"digest": digest_of(name.encode()), "annotations": {"org.opencontainers.image.ref.name": name}}
            for name in ("a\x1b[31m:1", "b\r:2")
        ]
        (self.directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
        with answering({"/v2/": (200, {}, b"{}")}) as origin:
            ended = vex(
                "import", str(self.directory), "--to", origin, "--tag", "v", "--username", "a", text="password\n"
            )
        told = io.StringIO(ended.stderr)
        told.seek(0, io.SEEK_END)
        Progress(told).say("windows\x1b]0;title\x07")
        self.assertTrue(told.getvalue().replace("\n", "").isprintable(), told.getvalue())
        self.assertIn("a\\x1b[31m:1", told.getvalue())
