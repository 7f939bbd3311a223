"""Pushing blobs: end-4 to end-6, end-11, end-13 and end-14 of the OCI distribution specification, and what clients make
of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from tests.support.raw import basic, connected
from tests.support.server import Answer, ServerTestCase, digest_of, image

ABSENT = digest_of(b"never pushed")


class UploadCase(ServerTestCase):
    """Requests of an upload."""

    def post(
        self, repository: str, query: str = "", body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return self.server.auth.request("POST", f"/v2/{repository}/blobs/uploads/{query}", body, headers)

    def patch(self, location: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        return self.server.auth.request("PATCH", location, body, headers)

    def put(self, location: str, digest: str, body: Any = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Add `digest=` to the location as a client does that knows nothing of its form."""
        return self.server.auth.request(
            "PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", body, headers
        )

    def begin(self, repository: str) -> str:
        answer = self.post(repository)
        self.assertEqual(answer.status, 202)
        return str(answer.headers["Location"])

    def assert_session(self, answer: Answer, status: int, received: str) -> None:
        self.assertEqual((answer.status, answer.body, answer.headers["Range"]), (status, b"", received))
        self.assertTrue(answer.headers["Location"].startswith("/v2/"), "relative, with one slash")
        self.assertTrue(answer.headers["Docker-Upload-UUID"])

    def assert_created(self, answer: Answer, repository: str, content: bytes, algorithm: str = "sha256") -> None:
        digest = digest_of(content, algorithm)
        self.assertEqual((answer.status, answer.headers["Docker-Content-Digest"]), (201, digest), answer)
        self.assertEqual(answer.headers["Location"], f"/v2/{repository}/blobs/{digest}")
        self.assertEqual(self.server.public.get(answer.headers["Location"]).body, content)

    def assert_out_of_order(self, answer: Answer, location: str, received: str) -> None:
        self.assert_error(answer, 416, "RANGE_INVALID")
        self.assertEqual((answer.headers["Location"], answer.headers["Range"]), (location, received))


class Styles(UploadCase):
    """The orders of requests that clients use."""

    def test_post_answers_where_the_session_is(self) -> None:
        for path in ("/v2/post/blobs/uploads/", "/v2/post/blobs/uploads"):
            with self.subTest(path):
                answer = self.server.auth.request(
                    "POST", path, headers={"Content-Type": "application/json", "Content-Length": "0"}
                )
                self.assert_session(answer, 202, "0-0")
                self.assertTrue(answer.headers["Location"].startswith("/v2/post/blobs/uploads/"))

    def test_the_location_has_a_query_and_a_digest_is_appended_with_and_without_looking(self) -> None:
        for number, separator in enumerate("&?"):
            with self.subTest(separator):
                location = self.begin(f"query{number}")
                self.assertRegex(location, r"^/v2/query\d/blobs/uploads/[0-9a-f]{32,}\?[^?]+$")
                location = str(self.patch(location, b"con").headers["Location"])
                answer = self.server.auth.request(
                    "PUT", f"{location}{separator}digest={digest_of(b'content')}", b"tent"
                )
                self.assert_created(answer, f"query{number}", b"content")

    def test_a_session_is_found_without_the_query_of_its_location(self) -> None:
        path = self.begin("path").partition("?")[0]
        self.assert_session(self.patch(path, b"content"), 202, "0-6")
        self.assert_created(self.put(path, digest_of(b"content")), "path", b"content")

    def test_sessions_cannot_be_guessed(self) -> None:
        first, second = (self.begin("guess").partition("?")[0].rpartition("/")[2] for _ in range(2))
        self.assertNotEqual(first, second)
        self.assertGreaterEqual(len(first), 32)

    def test_post_then_put_of_the_whole_body(self) -> None:
        """As containerd and oras do."""
        self.assert_created(self.put(self.begin("whole"), digest_of(b"content"), b"content"), "whole", b"content")

    def test_post_then_patch_of_a_stream_then_an_empty_put(self) -> None:
        """As docker, podman and crane do."""
        location = self.begin("stream")
        answer = self.patch(location, iter([b"con", b"tent"]))
        self.assert_session(answer, 202, "0-6")
        self.assert_created(self.put(answer.headers["Location"], digest_of(b"content")), "stream", b"content")

    def test_one_post_with_the_whole_body(self) -> None:
        answer = self.post(
            "single", f"?digest={digest_of(b'content')}", b"content", {"Content-Type": "application/octet-stream"}
        )
        self.assert_created(answer, "single", b"content")

    def test_one_post_with_a_digest_and_no_body_goes_on_with_a_put(self) -> None:
        answer = self.post("later", f"?digest={digest_of(b'content')}")
        self.assert_session(answer, 202, "0-0")
        self.assert_created(
            self.put(answer.headers["Location"], digest_of(b"content"), b"content"), "later", b"content"
        )

    def test_chunks_in_order_and_the_last_one_by_put(self) -> None:
        location = self.begin("chunks")
        first = self.patch(location, b"01234", {"Content-Range": "0-4", "Content-Type": "application/octet-stream"})
        self.assert_session(first, 202, "0-4")
        second = self.patch(first.headers["Location"], b"56789", {"Content-Range": "5-9"})
        self.assert_session(second, 202, "0-9")
        last = self.put(second.headers["Location"], digest_of(b"0123456789abc"), b"abc", {"Content-Range": "10-12"})
        self.assert_created(last, "chunks", b"0123456789abc")

    def test_chunks_in_order_and_an_empty_put(self) -> None:
        location = self.begin("chunks2")
        self.patch(location, b"01234", {"Content-Range": "0-4"})
        self.assert_created(self.put(location, digest_of(b"01234")), "chunks2", b"01234")

    def test_a_zero_byte_blob_is_pushed_in_every_style(self) -> None:
        empty = digest_of(b"")
        self.assert_created(self.put(self.begin("zero/put"), empty), "zero/put", b"")
        self.assert_created(self.post("zero/post", f"?digest={empty}", b""), "zero/post", b"")
        location = self.begin("zero/patch")
        answer = self.patch(location, b"")
        self.assert_session(answer, 202, "0-0")
        self.assert_created(self.put(location, empty), "zero/patch", b"")

    def test_a_blob_is_pushed_again_with_201(self) -> None:
        for _ in range(2):
            self.assert_created(self.put(self.begin("twice"), digest_of(b"content"), b"content"), "twice", b"content")

    def test_a_put_that_is_repeated_because_its_answer_was_lost_is_201_again(self) -> None:
        location = self.begin("lost")
        for _ in range(2):
            self.assert_created(self.put(location, digest_of(b"content"), b"content"), "lost", b"content")

    def test_sha512_is_taken_in_every_style(self) -> None:
        digest = digest_of(b"content", "sha512")
        self.assert_created(self.put(self.begin("sha512/put"), digest, b"content"), "sha512/put", b"content", "sha512")
        self.assert_created(
            self.post("sha512/post", f"?digest={digest}", b"content"), "sha512/post", b"content", "sha512"
        )
        answer = self.post("sha512/announced", "?digest-algorithm=sha512")
        self.assert_session(answer, 202, "0-0")
        self.patch(answer.headers["Location"], b"content")
        self.assert_created(self.put(answer.headers["Location"], digest), "sha512/announced", b"content", "sha512")

    def test_an_algorithm_that_is_not_known_is_400(self) -> None:
        self.assert_error(self.post("md5", "?digest-algorithm=md5"), 400, "DIGEST_INVALID")
        self.assert_error(
            self.post("md5", "?digest=md5:9a0364b9e99bb480dd25e1f0284c8555", b"content"), 400, "DIGEST_INVALID"
        )

    def test_the_status_of_a_session_says_how_far_it_is(self) -> None:
        location = self.begin("status")
        self.assert_session(self.server.auth.get(location), 204, "0-0")
        self.patch(location, b"01234")
        answer = self.server.auth.get(location)
        self.assert_session(answer, 204, "0-4")
        self.assertEqual(answer.headers["Location"], location)

    def test_push_permission_is_checked_with_a_post_and_a_delete_that_leave_nothing_behind(self) -> None:
        """As kaniko and crane do."""
        location = self.begin("check/permission")
        answer = self.server.auth.request("DELETE", location)
        self.assertEqual((answer.status, answer.body), (204, b""))
        self.assert_error(self.server.auth.get(location), 404, "BLOB_UPLOAD_UNKNOWN")
        self.assertNotIn("check/permission", self.server.public.get("/v2/_catalog").json["repositories"])
        self.assert_error(self.server.public.get("/v2/check/permission/tags/list"), 404, "NAME_UNKNOWN")


class Refusals(UploadCase):
    """What is refused, and what the session is afterwards."""

    def test_a_digest_that_is_not_that_of_the_content_is_400_and_nothing_is_stored(self) -> None:
        for name, answer in (
            ("put", self.put(self.begin("wrong"), ABSENT, b"content")),
            ("post", self.post("wrong", f"?digest={ABSENT}", b"content")),
        ):
            with self.subTest(name):
                self.assert_error(answer, 400, "DIGEST_INVALID")
                for digest in (ABSENT, digest_of(b"content")):
                    self.assertEqual(self.server.public.get(f"/v2/wrong/blobs/{digest}").status, 404)

    def test_the_digest_is_of_the_whole_blob(self) -> None:
        location = self.begin("whole")
        self.patch(location, b"first ")
        self.assert_error(self.put(location, digest_of(b"second"), b"second"), 400, "DIGEST_INVALID")

    def test_a_put_without_a_valid_digest_is_400_and_the_session_goes_on(self) -> None:
        location = self.begin("nodigest")
        self.patch(location, b"content")
        for query in ("", "?digest=", "?digest=sha256:00", "?digest=md5:9a0364b9e99bb480dd25e1f0284c8555"):
            with self.subTest(query):
                self.assert_error(self.server.auth.request("PUT", location + query, b""), 400, "DIGEST_INVALID")
        self.assert_created(self.put(location, digest_of(b"content")), "nodigest", b"content")

    def test_a_chunk_out_of_order_is_416_and_the_session_goes_on_unharmed(self) -> None:
        location = self.begin("order")
        self.assert_out_of_order(self.patch(location, b"01234", {"Content-Range": "5-9"}), location, "0-0")
        self.patch(location, b"01234", {"Content-Range": "0-4"})
        for content_range in ("0-4", "4-8", "6-10", "10-14"):
            with self.subTest(content_range):
                self.assert_out_of_order(
                    self.patch(location, b"xxxxx", {"Content-Range": content_range}), location, "0-4"
                )
                put = self.put(location, digest_of(b"0123456789"), b"xxxxx", {"Content-Range": content_range})
                self.assert_out_of_order(put, location, "0-4")
        self.assert_session(self.server.auth.get(location), 204, "0-4")
        self.assert_created(
            self.put(location, digest_of(b"0123456789"), b"56789", {"Content-Range": "5-9"}), "order", b"0123456789"
        )

    def test_a_content_range_that_cannot_be_read_is_400_and_the_session_goes_on(self) -> None:
        location = self.begin("grammar")
        for value in (
            "bytes 0-4/5",
            "bytes=0-4",
            "0-",
            "-4",
            "4-0",
            "0 - 4",
            "0-4/",
            "0-4/x",
            "+0-4",
            "0-4-5",
            "",
            "\u0660-4",
            "0" * 30 + "-4",
        ):
            with self.subTest(value):
                sent = {"Content-Range": value.encode().decode("latin-1")}
                self.assert_error(self.patch(location, b"01234", sent), 400, "BLOB_UPLOAD_INVALID")
                self.assert_error(self.put(location, digest_of(b"01234"), b"01234", sent), 400, "BLOB_UPLOAD_INVALID")
        self.assert_session(self.server.auth.get(location), 204, "0-0")

    def test_a_content_range_with_a_size_is_one_without(self) -> None:
        for number, size in enumerate(("", "/*", "/10", "/5")):
            with self.subTest(size):
                location = self.begin(f"size{number}")
                self.assert_session(self.patch(location, b"01234", {"Content-Range": f"0-4{size}"}), 202, "0-4")
                self.assert_out_of_order(
                    self.patch(location, b"01234", {"Content-Range": f"0-4{size}"}), location, "0-4"
                )
                put = self.put(location, digest_of(b"0123456789"), b"56789", {"Content-Range": f"5-9{size}"})
                self.assert_created(put, f"size{number}", b"0123456789")

    def test_of_the_last_chunk_the_first_offset_is_checked_and_the_digest_decides_the_rest(self) -> None:
        content = b"0123456789"
        for number, last in enumerate((9, 10, 8, 99)):
            with self.subTest(last):
                location = self.begin(f"last{number}")
                self.patch(location, content[:5])
                self.assert_out_of_order(
                    self.put(location, digest_of(content), content[5:], {"Content-Range": f"4-{last}"}), location, "0-4"
                )
                answer = self.put(location, digest_of(content), content[5:], {"Content-Range": f"5-{last}"})
                self.assert_created(answer, f"last{number}", content)
        location = self.begin("last/short")
        self.assert_error(
            self.put(location, digest_of(content), content[:9], {"Content-Range": "0-10"}), 400, "DIGEST_INVALID"
        )

    def test_a_length_that_differs_from_content_range_is_refused_and_nothing_of_it_stays(self) -> None:
        location = self.begin("length")
        self.assert_error(self.patch(location, b"0123", {"Content-Range": "0-4"}), 400, "SIZE_INVALID")
        answer = self.patch(location, iter([b"0123"]), {"Content-Range": "0-4"})
        self.assert_error(answer, 400, "SIZE_INVALID")
        self.assert_session(self.server.auth.get(location), 204, "0-0")
        self.assert_created(self.put(location, digest_of(b"01234"), b"01234"), "length", b"01234")

    def test_a_session_belongs_to_its_repository(self) -> None:
        token = self.begin("mine").rpartition("/")[2]
        for method in ("GET", "PATCH", "PUT", "DELETE"):
            with self.subTest(method):
                answer = self.server.auth.request(
                    method, f"/v2/yours/blobs/uploads/{token}?digest={digest_of(b'x')}", b"x"
                )
                self.assert_error(answer, 404, "BLOB_UPLOAD_UNKNOWN")
        self.assertEqual(self.server.auth.get(f"/v2/mine/blobs/uploads/{token}").status, 204)

    def test_a_session_that_is_not_there_is_404(self) -> None:
        for token in ("0" * 64, "x", "..%2f..%2fvex.db", "0" * 32):
            for method in ("GET", "PATCH", "PUT", "DELETE"):
                with self.subTest(token=token, method=method):
                    answer = self.server.auth.request(method, f"/v2/a/blobs/uploads/{token}?digest={ABSENT}", b"x")
                    self.assert_error(answer, 404, "BLOB_UPLOAD_UNKNOWN")

    def test_two_requests_on_one_session_at_once_one_works_and_the_other_is_416(self) -> None:
        location = self.begin("both")
        with connected(self.server.addresses["auth"]) as first:
            # 100 Continue tells that the first one has the session.
            first.send(
                f"PATCH {location} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\nContent-Length: 5\r\nExpect:"
                " 100-continue\r\n\r\n".encode()
            )
            self.assertEqual(first.answer().status, 100)
            self.assert_out_of_order(self.patch(location, b"other"), location, "0-0")
            first.send(b"01234")
            self.assert_session(first.answer(), 202, "0-4")
        self.assert_created(self.put(location, digest_of(b"01234")), "both", b"01234")

    def test_a_client_that_vanishes_leaves_the_session_at_what_arrived(self) -> None:
        location = self.begin("vanish")
        with connected(self.server.addresses["auth"]) as wire:
            head = f"PATCH {location} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\nContent-Length: 10\r\n\r\n"
            wire.send(head.encode() + b"01234")
            wire.end()
            # The server closes once it has seen the end.
            self.assertEqual(wire.rest(), b"")
        self.assert_session(self.server.auth.get(location), 204, "0-4")
        self.assert_created(
            self.put(location, digest_of(b"0123456789"), b"56789", {"Content-Range": "5-9"}), "vanish", b"0123456789"
        )

    def test_what_arrived_and_was_told_of_stays_when_the_connection_is_reset(self) -> None:
        location = self.begin("reset")
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(
                f"PATCH {location} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\nContent-Length:"
                " 9000000\r\n\r\n".encode()
                + bytes(2_000_000)
            )
            while (told := self.server.auth.get(location).headers["Range"]) == "0-0":
                pass
            wire.reset()
        self.server.wait_until_counted()
        answer = self.server.auth.get(location)
        self.assertGreaterEqual(int(answer.headers["Range"].partition("-")[2]), int(told.partition("-")[2]))
        self.assertEqual(self.server.metric("vex_panic_total"), 0)


class Mounts(UploadCase):
    """end-11."""

    digest = digest_of(b"layer")

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server.auth.push_image("source", "v1", b"layer")

    def test_a_mount_is_201_with_the_blob(self) -> None:
        for number, query in enumerate(
            (
                f"?mount={self.digest}&from=source",
                f"?from=source&mount={self.digest}&origin=docker.io",
                f"?mount={self.digest}",
            )
        ):
            with self.subTest(query):
                self.assert_created(self.post(f"target/{number}", query), f"target/{number}", b"layer")

    def test_what_was_mounted_can_be_referenced(self) -> None:
        auth = self.server.auth
        for content in (b"layer", b"{}"):
            self.assertEqual(self.post("target/used", f"?mount={digest_of(content)}&from=source").status, 201)
        auth.push_manifest("target/used", "v1", image(b"layer"))

    def test_a_mount_that_is_not_possible_is_a_fresh_upload(self) -> None:
        for query in (
            f"?mount={ABSENT}&from=source",
            f"?mount={ABSENT}",
            "?mount=md5:00&from=source",
            "?mount=&from=",
            f"?mount={ABSENT}&from=NOT%20A%20NAME",
        ):
            with self.subTest(query):
                answer = self.post("target/fresh", query)
                self.assert_session(answer, 202, "0-0")
                self.assertEqual(self.put(answer.headers["Location"], digest_of(b"own"), b"own").status, 201)

    def test_a_mount_from_a_repository_of_another_registry_is_never_refused(self) -> None:
        answer = self.post("target/foreign", f"?mount={self.digest}&from=library/debian&origin=docker.io")
        self.assertIn(answer.status, (201, 202))


class Limits(UploadCase):
    """The largest blob."""

    flags = ("--blob-limit", "8")

    def test_a_blob_past_the_limit_is_413_before_the_body_is_sent(self) -> None:
        location = self.begin("limit")
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(
                f"PATCH {location} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\nContent-Length:"
                " 9\r\n\r\n".encode()
            )
            self.assert_error(wire.answer(), 413, "SIZE_INVALID")

    def test_a_blob_at_the_limit_is_taken_and_what_grows_past_it_is_413(self) -> None:
        self.assertEqual(self.put(self.begin("fits"), digest_of(b"12345678"), b"12345678").status, 201)
        location = self.begin("grows")
        self.patch(location, b"12345")
        bodies: dict[str, bytes | Iterable[bytes]] = {"sized": b"6789", "chunked": iter([b"67", b"89"])}
        for name, body in bodies.items():
            with self.subTest(name):
                self.assert_error(self.patch(location, body), 413, "SIZE_INVALID")
        self.assert_session(self.server.auth.get(location), 204, "0-4")
        self.assertEqual(self.put(location, digest_of(b"12345678"), b"678").status, 201)


class Expiry(UploadCase):
    """Sessions time out at last."""

    flags = ("--upload-expiry", "1s")

    def test_an_idle_session_ends(self) -> None:
        location = self.begin("idle")
        self.assertEqual(self.server.metric("vex_uploads_open"), 1)
        until = time.monotonic() + 20
        while self.server.auth.get(location).status == 204 and time.monotonic() < until:
            time.sleep(0.1)
        self.assert_error(self.server.auth.get(location), 404, "BLOB_UPLOAD_UNKNOWN")
        self.assert_error(self.patch(location, b"late"), 404, "BLOB_UPLOAD_UNKNOWN")
        self.assertEqual(self.server.metric("vex_uploads_open"), 0)


class NoSpace(UploadCase):
    """A disk without the space that is to be kept free."""

    flags = ("--free-space", "1024TiB")

    def test_an_upload_is_507_before_the_body_is_sent_and_reads_go_on(self) -> None:
        location = self.begin("full")
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(
                f"PATCH {location} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\nContent-Length: 9\r\nExpect:"
                " 100-continue\r\n\r\n".encode()
            )
            self.assertEqual(wire.answer().status, 507)
        self.assert_session(self.server.auth.get(location), 204, "0-0")
        self.assertEqual(self.server.public.get("/v2/").status, 200)


class Restarts(UploadCase):
    """A session outlives the server."""

    def test_an_upload_goes_on_after_a_restart(self) -> None:
        location = self.begin("restart")
        self.patch(location, b"01234", {"Content-Range": "0-4"})
        self.server.restart()
        self.assert_session(self.server.auth.get(location), 204, "0-4")
        self.assert_session(self.patch(location, b"56789", {"Content-Range": "5-9"}), 202, "0-9")
        self.assert_created(self.put(location, digest_of(b"0123456789")), "restart", b"0123456789")

    def test_an_upload_of_sha512_goes_on_after_a_restart(self) -> None:
        location = str(self.post("restart512", "?digest-algorithm=sha512").headers["Location"])
        self.patch(location, b"01234")
        self.server.restart()
        self.assert_created(
            self.put(location, digest_of(b"0123456789", "sha512"), b"56789"), "restart512", b"0123456789", "sha512"
        )
