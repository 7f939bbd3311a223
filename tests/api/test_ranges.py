"""Several ranges of a blob in one request, as podman sends them for the files of a layer that it does not have: RFC
9110 sections 14 and 15.3.7.
"""

from __future__ import annotations

import os
import ssl
import tempfile

from tests.support.multipart import read_parts
from tests.support.raw import connected
from tests.support.server import USER, Answer, Client, ServerTestCase, digest_of, tls_flags, trusting, write_certificate

SIZE = 3 * 2**20 + 17
CONTENT = os.urandom(SIZE)


def spec(*parts: tuple[int, int]) -> str:
    """Write a Range field of parts, each a first offset and one past the last."""
    return "bytes=" + ",".join(f"{first}-{end - 1}" for first, end in parts)


class Ranges(ServerTestCase):
    """In the clear, with sendfile where the system has it."""

    context: ssl.SSLContext | None = None
    path: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.path = f"/v2/parts/blobs/{cls.client('auth').push_blob('parts', CONTENT)}"

    @classmethod
    def client(cls, listener: str) -> Client:
        """Return a client of a listener, logged in at auth."""
        return Client(cls.server.addresses[listener], USER if listener == "auth" else "", context=cls.context)

    def assert_parts(self, answer: Answer, *parts: tuple[int, int], content: bytes = CONTENT) -> None:
        """Check for exactly these parts."""
        self.assertEqual(answer.status, 206, answer.headers)
        self.assertEqual(answer.headers["Content-Length"], str(len(answer.body)))
        self.assertNotIn("Content-Range", answer.headers)
        expected = [(f"bytes {first}-{end - 1}/{len(content)}", content[first:end]) for first, end in parts]
        self.assertEqual(read_parts(answer.headers["Content-Type"], answer.body), expected)
        self.assertEqual(answer.headers["Docker-Content-Digest"], digest_of(content))

    def test_parts_come_as_they_were_asked_for_at_both_listeners(self) -> None:
        wanted = ((2_000_000, 3_000_000), (0, 1), (5, 500), (SIZE - 1, SIZE))
        for listener in ("public", "auth"):
            answer = self.client(listener).get(self.path, {"Range": spec(*wanted)})
            self.assert_parts(answer, *wanted)
            self.assertEqual(
                (answer.headers["ETag"], answer.headers["Accept-Ranges"]), (f'"{digest_of(CONTENT)}"', "bytes")
            )
            for name in ("X-Content-Type-Options", "Content-Security-Policy", "Cache-Control", "Content-Disposition"):
                self.assertEqual(
                    answer.headers[name], self.client(listener).get(self.path, {"Range": "bytes=0-0"}).headers[name]
                )

    def test_a_thousand_parts_are_one_answer_and_one_more_is_the_whole(self) -> None:
        wanted = [(first, first + 300) for first in range(0, 1001 * 3000, 3000)]
        client = self.client("public")
        self.assert_parts(client.get(self.path, {"Range": spec(*wanted[:1000])}), *wanted[:1000])
        answer = client.get(self.path, {"Range": spec(*wanted)})
        self.assertEqual((answer.status, digest_of(answer.body)), (200, digest_of(CONTENT)))
        self.assertEqual(answer.headers["Content-Type"], "application/octet-stream")

    def test_a_range_field_of_32_kib_is_taken_beside_32_kib_of_others(self) -> None:
        wanted = [(first, first + 1) for first in range(0, 999 * 3000, 3000)]
        value = spec(*wanted)
        value += "," + "0" * (32 * 1024 - len(value) - 9) + f"{SIZE - 1}-"
        self.assertEqual(len(value), 32 * 1024)
        others = {f"X{number}": "a" * 3000 for number in range(10)}
        client = self.client("public")
        self.assert_parts(client.get(self.path, {"Range": value, **others}), *wanted, (SIZE - 1, SIZE))
        for fields in (
            {"Range": value, **others, "Y": "a" * 3000},
            {"Range": value + "0" * 3000, **others},
            {"X": value + value},
        ):
            self.assert_error(client.get(self.path, fields), 431, "HEADERS_TOO_LARGE")

    def test_what_touches_is_joined_and_one_that_is_left_is_a_single_part(self) -> None:
        client = self.client("public")
        self.assert_parts(client.get(self.path, {"Range": "bytes=9-9,100-199,0-4,200-250,3-8"}), (0, 10), (100, 251))
        answer = client.get(self.path, {"Range": f"bytes=0-4,5-9,{SIZE}-"})
        self.assertEqual(
            (answer.status, answer.body, answer.headers["Content-Range"]), (206, CONTENT[:10], f"bytes 0-9/{SIZE}")
        )
        self.assertEqual(answer.headers["Content-Type"], "application/octet-stream")

    def test_the_whole_is_sent_where_the_parts_cost_more(self) -> None:
        digest = self.client("auth").push_blob("parts", b"0123456789")
        for path, value in (
            (f"/v2/parts/blobs/{digest}", "bytes=0-1,4-5"),
            (self.path, f"bytes=0-{SIZE - 100},{SIZE - 50}-{SIZE}"),
        ):
            answer = self.client("public").get(path, {"Range": value})
            self.assertEqual((answer.status, digest_of(answer.body)), (200, path.rpartition("/")[2]))

    def test_if_range_decides_and_head_has_no_parts(self) -> None:
        client, fields = self.client("public"), {"Range": "bytes=0-1,4-5"}
        self.assert_parts(client.get(self.path, {**fields, "If-Range": f'"{digest_of(CONTENT)}"'}), (0, 2), (4, 6))
        self.assertEqual(client.get(self.path, {**fields, "If-Range": '"another"'}).status, 200)
        self.assertEqual(client.get(self.path, {**fields, "If-None-Match": f'"{digest_of(CONTENT)}"'}).status, 304)
        head = client.request("HEAD", self.path, headers=fields)
        self.assertEqual(
            (head.status, head.headers["Content-Length"], head.headers["Content-Type"]),
            (200, str(SIZE), "application/octet-stream"),
        )

    def test_ranges_that_all_lie_outside_are_416_and_one_that_is_not_well_formed_is_ignored(self) -> None:
        client = self.client("public")
        answer = client.get(self.path, {"Range": f"bytes={SIZE}-,-0"})
        self.assert_error(answer, 416, "RANGE_INVALID")
        self.assertEqual(answer.headers["Content-Range"], f"bytes */{SIZE}")
        self.assertEqual(client.get(self.path, {"Range": "bytes=0-1,5-2"}).status, 200)

    def test_a_manifest_that_is_asked_for_as_a_blob_comes_in_parts_too(self) -> None:
        client = self.client("auth")
        digest = client.push_image("parts", "v1", b"layer", annotations={"a": "b" * 5000})
        content = client.get(f"/v2/parts/manifests/{digest}").body
        self.assert_parts(
            client.get(f"/v2/parts/blobs/{digest}", {"Range": "bytes=0-9,20-29"}), (0, 10), (20, 30), content=content
        )


class RangesOverTls(Ranges):
    """Over TLS, without sendfile."""

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        cls.addClassCleanup(directory.cleanup)
        certificate, key = write_certificate(directory.name)
        cls.flags = tls_flags(certificate, key, "public", "auth")
        cls.context = trusting(certificate)
        super().setUpClass()


class Connections(ServerTestCase):
    def test_the_next_request_on_the_connection_is_answered(self) -> None:
        digest = self.server.auth.push_blob("parts", CONTENT)
        with connected(self.server.addresses["public"]) as wire:
            for _ in range(2):
                wire.send(
                    f"GET /v2/parts/blobs/{digest} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-9,100-199\r\n\r\n".encode()
                )
                self.assertEqual(wire.answer().status, 206)
            wire.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertEqual(wire.answer().status, 200)
