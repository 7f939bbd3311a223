"""A walk through the OCI distribution specification 1.1: its endpoints end-1 to end-14, the media types, and every
error code.

What needs more than a walk has a module of its own: `test_uploads.py`, `test_discovery.py`, `test_listeners.py`,
`test_framing.py`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.raw import Wire, basic, connected
from tests.support.server import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    USER,
    Answer,
    Client,
    ServerTestCase,
    descriptor,
    digest_of,
    image,
    index,
)

ABSENT = digest_of(b"never pushed")
IMMUTABLE = "public, max-age=31536000, immutable"
ACCEPTS: dict[str, dict[str, str]] = {
    "none": {},
    "anything": {"Accept": "*/*"},
    "another type": {"Accept": "application/vnd.docker.distribution.manifest.v1+json"},
    "one line": {"Accept": f"{DOCKER_MANIFEST}, {OCI_MANIFEST}, {OCI_INDEX}"},
    "text": {"Accept": "text/html;q=0.9"},
}


def encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


class Version(ServerTestCase):
    """end-1."""

    def test_version_is_200_on_public(self) -> None:
        for path in ("/v2/", "/v2"):
            self.assertEqual(self.server.public.get(path).status, 200, path)

    def test_version_asks_for_a_password_on_auth(self) -> None:
        for path in ("/v2/", "/v2"):
            with self.subTest(path):
                answer = Client(self.server.addresses["auth"]).get(path)
                self.assert_error(answer, 401, "UNAUTHORIZED")
                self.assertRegex(answer.headers["WWW-Authenticate"], '^Basic realm="[^"]+"')

    def test_version_is_200_with_the_password(self) -> None:
        for path in ("/v2/", "/v2"):
            self.assertEqual(self.server.auth.get(path).status, 200, path)


class PullBlobs(ServerTestCase):
    """end-2, and RFC 9110 for ranges and conditions."""

    content = bytes(range(256)) * 4
    digest = digest_of(content)
    path = f"/v2/blobs/a/blobs/{digest}"
    image: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server.auth.push_blob("blobs/a", cls.content)
        cls.image = cls.server.auth.push_image("blobs/a", "v1", b"layer")

    def get(self, **headers: str) -> Answer:
        return self.server.public.get(self.path, {name.replace("_", "-"): value for name, value in headers.items()})

    def test_get_returns_the_exact_bytes(self) -> None:
        for client in (self.server.public, self.server.auth):
            answer = client.get(self.path)
            self.assertEqual((answer.status, answer.body), (200, self.content))
            self.assertEqual(answer.headers["Docker-Content-Digest"], self.digest)
            self.assertEqual(answer.headers["Content-Length"], "1024")
            self.assertEqual(answer.headers["ETag"], f'"{self.digest}"')

    def test_blobs_are_never_shown_by_a_browser_nor_encoded(self) -> None:
        answer = self.server.public.request("GET", self.path, headers={"Accept-Encoding": "gzip"})
        self.assertEqual(answer.headers["Content-Type"], "application/octet-stream")
        self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
        self.assertEqual(answer.headers["Content-Disposition"], "attachment")
        self.assertEqual(answer.headers["Content-Security-Policy"], "sandbox")
        self.assertNotIn("Content-Encoding", answer.headers)

    def test_head_has_the_headers_of_get_and_no_body(self) -> None:
        headers = ("Docker-Content-Digest", "Content-Length", "Content-Type", "ETag")
        got, head = self.get(), self.server.public.request("HEAD", self.path)
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual([head.headers[name] for name in headers], [got.headers[name] for name in headers])

    def test_what_is_not_there_is_404(self) -> None:
        self.assert_error(self.server.public.get(f"/v2/blobs/a/blobs/{ABSENT}"), 404, "BLOB_UNKNOWN")
        self.assert_error(self.server.public.get(f"/v2/blobs/nowhere/blobs/{ABSENT}"), 404, "BLOB_UNKNOWN")
        head = self.server.public.request("HEAD", f"/v2/blobs/a/blobs/{ABSENT}")
        self.assertEqual((head.status, head.body), (404, b""))

    def test_a_blob_of_another_repository_is_404(self) -> None:
        self.server.auth.push_blob("blobs/b", b"in b")
        self.assert_error(self.server.public.get(f"/v2/blobs/a/blobs/{digest_of(b'in b')}"), 404, "BLOB_UNKNOWN")
        self.assertEqual(self.server.public.request("HEAD", f"/v2/blobs/a/blobs/{digest_of(b'in b')}").status, 404)

    def test_head_by_one_who_may_push_holds_a_blob_that_a_manifest_elsewhere_references(self) -> None:
        self.server.auth.push_image("blobs/elsewhere", "v1", b"shared layer")
        path = f"/v2/blobs/held/blobs/{digest_of(b'shared layer')}"
        self.assertEqual(self.server.public.request("HEAD", path).status, 404)
        answer = self.server.auth.request("HEAD", path)
        self.assertEqual((answer.status, answer.headers["Content-Length"]), (200, "12"))
        self.assertEqual(self.server.public.get(path).body, b"shared layer")

    def test_head_does_not_hold_a_blob_that_no_manifest_references(self) -> None:
        self.server.auth.push_blob("blobs/unreferenced", b"only uploaded")
        self.assertEqual(
            self.server.auth.request("HEAD", f"/v2/blobs/wanting/blobs/{digest_of(b'only uploaded')}").status, 404
        )

    def test_the_digest_of_a_manifest_is_served_as_a_blob_too(self) -> None:
        manifest = self.server.public.get(f"/v2/blobs/a/manifests/{self.image}")
        blob = self.server.public.get(f"/v2/blobs/a/blobs/{self.image}")
        self.assertEqual((blob.status, blob.body), (200, manifest.body))
        self.assertEqual(blob.headers["Content-Type"], "application/octet-stream")
        self.assertEqual(blob.headers["Docker-Content-Digest"], self.image)

    def test_sha512_is_served_under_its_own_digest(self) -> None:
        digest = self.server.auth.push_blob("blobs/sha512", b"long", "sha512")
        answer = self.server.public.get(f"/v2/blobs/sha512/blobs/{digest}")
        self.assertEqual((answer.status, answer.body, answer.headers["Docker-Content-Digest"]), (200, b"long", digest))

    def test_hex_digits_in_capitals_are_400_wherever_a_digest_is_taken(self) -> None:
        blob, manifest = (f"sha256:{digest[7:].upper()}" for digest in (self.digest, self.image))
        content = self.server.public.get(f"/v2/blobs/a/manifests/{self.image}").body
        location = self.server.auth.request("POST", "/v2/blobs/a/blobs/uploads/").headers["Location"]
        for method, path, body in (
            ("GET", f"blobs/{blob}", b""),
            ("HEAD", f"blobs/{blob}", b""),
            ("DELETE", f"blobs/{blob}", b""),
            ("GET", f"manifests/{manifest}", b""),
            ("HEAD", f"manifests/{manifest}", b""),
            ("DELETE", f"manifests/{manifest}", b""),
            ("PUT", f"manifests/{manifest}", content),
            ("PUT", f"manifests/{manifest}?tag=v1", content),
            ("GET", f"referrers/{manifest}", b""),
            ("POST", f"blobs/uploads/?digest={blob}", b"x"),
            ("POST", f"blobs/uploads/?mount={blob}", b""),
            ("POST", f"blobs/uploads/?mount={blob}&from=blobs/a", b""),
            ("PUT", f"{location[len('/v2/blobs/a/') :].partition('?')[0]}?digest={blob}", b"x"),
        ):
            with self.subTest(f"{method} {path}"):
                answer = self.server.auth.request(method, f"/v2/blobs/a/{path}", body)
                self.assertEqual(answer.status, 400)
                if method != "HEAD":
                    self.assert_error(answer, 400, "DIGEST_INVALID")
        page = self.server.public.get(f"/r/blobs/a/m/{manifest}/")
        self.assertEqual((page.status, page.headers["Content-Type"]), (400, "text/html; charset=utf-8"))

    def test_hex_digits_in_capitals_are_400_in_every_descriptor_of_a_manifest(self) -> None:
        def capitals(listed: dict[str, Any]) -> dict[str, Any]:
            return {**listed, "digest": f"sha256:{listed['digest'][7:].upper()}"}

        pushed = self.server.public.get(f"/v2/blobs/a/manifests/{self.image}").json
        config, layer = pushed["config"], pushed["layers"][0]
        child = {"mediaType": OCI_MANIFEST, "digest": self.image, "size": 1}
        for name, document in (
            ("config", {**pushed, "config": capitals(config)}),
            ("layer", {**pushed, "layers": [capitals(layer)]}),
            ("subject", {**pushed, "subject": capitals(child)}),
            ("child", {**index([]), "manifests": [capitals(child)]}),
        ):
            with self.subTest(name):
                answer = self.server.auth.request(
                    "PUT",
                    "/v2/blobs/a/manifests/capitals",
                    json.dumps(document),
                    {"Content-Type": document["mediaType"]},
                )
                self.assert_error(answer, 400, "MANIFEST_INVALID")

    def test_a_zero_byte_blob_is_served(self) -> None:
        digest = self.server.auth.push_blob("blobs/empty", b"")
        answer = self.server.public.get(f"/v2/blobs/empty/blobs/{digest}")
        self.assertEqual((answer.status, answer.body, answer.headers["Content-Length"]), (200, b"", "0"))

    def test_a_range_is_206(self) -> None:
        for value, first, last in (
            ("bytes=0-0", 0, 0),
            ("bytes=5-9", 5, 9),
            ("bytes=1000-", 1000, 1023),
            ("bytes=0-", 0, 1023),
            ("bytes=-24", 1000, 1023),
            ("bytes=-5000", 0, 1023),
            ("bytes=1023-99999999999999999999999", 1023, 1023),
            ("BYTES=1-2", 1, 2),
        ):
            with self.subTest(value):
                answer = self.get(Range=value)
                self.assertEqual((answer.status, answer.body), (206, self.content[first : last + 1]))
                self.assertEqual(answer.headers["Content-Range"], f"bytes {first}-{last}/1024")
                self.assertEqual(answer.headers["Content-Length"], str(last + 1 - first))
                self.assertEqual(answer.headers["Docker-Content-Digest"], self.digest)

    def test_a_range_that_lies_past_the_end_is_416_with_the_size(self) -> None:
        for value in ("bytes=5-2", "bytes=-0", "bytes=1024-", "bytes=1024-1030", "bytes=99999999999999999999-"):
            with self.subTest(value):
                answer = self.get(Range=value)
                self.assert_error(answer, 416, "RANGE_INVALID")
                self.assertEqual(answer.headers["Content-Range"], "bytes */1024")

    def test_a_range_that_is_not_understood_is_ignored(self) -> None:
        for value in (
            "bytes=0-1,5-2",
            "lines=1-2",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1_0-20",
            "0-5",
        ):
            with self.subTest(value):
                answer = self.get(Range=value)
                self.assertEqual((answer.status, answer.body), (200, self.content))
                self.assertNotIn("Content-Range", answer.headers)

    def test_if_range_decides_whether_the_range_counts(self) -> None:
        for value, status in (
            (f'"{self.digest}"', 206),
            (f'"{ABSENT}"', 200),
            (f'W/"{self.digest}"', 200),
            ("Mon, 23 Nov 2026 10:00:00 GMT", 200),
        ):
            with self.subTest(value):
                self.assertEqual(self.get(Range="bytes=0-9", If_Range=value).status, status)

    def test_if_none_match_is_304_without_a_body(self) -> None:
        for value in (f'"{self.digest}"', f'W/"{self.digest}"', "*", f'"x", "{self.digest}"'):
            with self.subTest(value):
                answer = self.get(If_None_Match=value)
                self.assertEqual((answer.status, answer.body, answer.headers["ETag"]), (304, b"", f'"{self.digest}"'))
        self.assertEqual(self.get(If_None_Match=f'"{ABSENT}"').status, 200)

    def test_if_none_match_of_what_is_not_there_is_404(self) -> None:
        answer = self.server.public.get(f"/v2/blobs/a/blobs/{ABSENT}", {"If-None-Match": f'"{ABSENT}"'})
        self.assert_error(answer, 404, "BLOB_UNKNOWN")

    def test_head_answers_conditions_as_get_does(self) -> None:
        answer = self.server.public.request("HEAD", self.path, headers={"If-None-Match": f'"{self.digest}"'})
        self.assertEqual((answer.status, answer.body), (304, b""))


class PullManifests(ServerTestCase):
    """end-3."""

    manifest = encode(image(b"layer")) + b"\n \n"
    digest = digest_of(manifest)

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        auth = cls.server.auth
        for content in (b"layer", b"{}"):
            auth.push_blob("pull", content)
        auth.push_manifest("pull", "v1", cls.manifest)

    def test_get_returns_the_exact_bytes_whatever_accept_says(self) -> None:
        for reference in ("v1", self.digest):
            for name, headers in ACCEPTS.items():
                with self.subTest(reference=reference, accept=name):
                    answer = self.server.public.get(f"/v2/pull/manifests/{reference}", headers)
                    self.assertEqual((answer.status, answer.body), (200, self.manifest))
                    self.assertEqual(answer.headers["Content-Type"], OCI_MANIFEST)
                    self.assertEqual(answer.headers["Docker-Content-Digest"], self.digest)
                    self.assertEqual(answer.headers["Content-Length"], str(len(self.manifest)))
                    self.assertNotIn("Content-Encoding", answer.headers)

    def test_head_has_the_headers_of_get_and_no_body(self) -> None:
        headers = ("Docker-Content-Digest", "Content-Length", "Content-Type", "ETag", "Cache-Control")
        for reference in ("v1", self.digest):
            got = self.server.public.get(f"/v2/pull/manifests/{reference}")
            head = self.server.public.request("HEAD", f"/v2/pull/manifests/{reference}")
            self.assertEqual((head.status, head.body), (200, b""))
            self.assertEqual([head.headers[name] for name in headers], [got.headers[name] for name in headers])

    def test_what_a_digest_names_may_be_kept_for_ever_and_a_tag_is_asked_for_again(self) -> None:
        self.assertEqual(
            self.server.public.get(f"/v2/pull/manifests/{self.digest}").headers["Cache-Control"], IMMUTABLE
        )
        self.assertEqual(self.server.public.get("/v2/pull/manifests/v1").headers["Cache-Control"], "no-cache")

    def test_if_none_match_is_304(self) -> None:
        for reference in ("v1", self.digest):
            answer = self.server.public.get(f"/v2/pull/manifests/{reference}", {"If-None-Match": f'"{self.digest}"'})
            self.assertEqual((answer.status, answer.body, answer.headers["ETag"]), (304, b"", f'"{self.digest}"'))
            self.assertEqual(
                self.server.public.get(f"/v2/pull/manifests/{reference}", {"If-None-Match": '"other"'}).status, 200
            )

    def test_unknown_query_parameters_are_ignored(self) -> None:
        self.assertEqual(self.server.public.get("/v2/pull/manifests/v1?ns=docker.io").status, 200)
        self.assertEqual(self.server.public.get(f"/v2/pull/blobs/{digest_of(b'layer')}?ns=docker.io").status, 200)

    def test_what_is_not_there_is_404(self) -> None:
        for path in (
            "pull/manifests/v2",
            f"pull/manifests/{ABSENT}",
            "nowhere/manifests/v1",
            f"nowhere/manifests/{self.digest}",
        ):
            with self.subTest(path):
                self.assert_error(self.server.public.get(f"/v2/{path}"), 404, "MANIFEST_UNKNOWN")
                self.assertEqual(self.server.public.request("HEAD", f"/v2/{path}").status, 404)

    def test_the_digest_of_a_layer_is_no_manifest(self) -> None:
        self.assert_error(self.server.public.get(f"/v2/pull/manifests/{digest_of(b'layer')}"), 404, "MANIFEST_UNKNOWN")


class PushManifests(ServerTestCase):
    """end-7a and end-7b."""

    def put(self, path: str, content: bytes, media_type: str = OCI_MANIFEST) -> Answer:
        headers = {"Content-Type": media_type} if media_type else {}
        return self.server.auth.request("PUT", f"/v2/{path}", content, headers)

    def test_put_answers_where_the_manifest_can_be_pulled(self) -> None:
        content = self.push_parts("push/a", image(b"a"))
        answer = self.put("push/a/manifests/v1", content)
        self.assertEqual((answer.status, answer.headers["Docker-Content-Digest"]), (201, digest_of(content)))
        self.assertTrue(answer.headers["Location"].startswith("/v2/push/a/manifests/"))
        self.assertEqual(self.server.public.get(answer.headers["Location"]).body, content)

    def test_put_again_is_201_again(self) -> None:
        content = self.push_parts("push/again", image(b"a"))
        for _ in range(2):
            self.assertEqual(self.put("push/again/manifests/v1", content).status, 201)

    def test_put_by_digest_needs_the_digest_of_the_body(self) -> None:
        content = self.push_parts("push/digest", image(b"a"))
        self.assertEqual(self.put(f"push/digest/manifests/{digest_of(content)}", content).status, 201)
        self.assert_error(self.put(f"push/digest/manifests/{ABSENT}", content), 400, "DIGEST_INVALID")
        self.assertEqual(self.server.public.get(f"/v2/push/digest/manifests/{ABSENT}").status, 404)

    def test_put_by_sha512_is_pulled_by_sha512(self) -> None:
        content = self.push_parts("push/sha512", image(b"a"))
        digest = digest_of(content, "sha512")
        answer = self.put(f"push/sha512/manifests/{digest}?tag=v1", content)
        self.assertEqual((answer.status, answer.headers["Docker-Content-Digest"]), (201, digest))
        for reference in (digest, "v1"):
            pulled = self.server.public.get(f"/v2/push/sha512/manifests/{reference}")
            self.assertEqual(
                (pulled.status, pulled.body, pulled.headers["Docker-Content-Digest"]), (200, content, digest)
            )

    def test_put_by_digest_sets_the_tags_of_the_query(self) -> None:
        content = self.push_parts("push/tags", image(b"a"))
        tags = [f"v{number}" for number in range(12)]
        answer = self.put(f"push/tags/manifests/{digest_of(content)}?{'&'.join(f'tag={tag}' for tag in tags)}", content)
        self.assertEqual(answer.status, 201)
        named = [tag.strip() for value in answer.headers.get_all("OCI-Tag", []) for tag in value.split(",")]
        self.assertEqual(named, tags)
        for tag in tags:
            self.assertEqual(
                self.server.public.get(f"/v2/push/tags/manifests/{tag}").headers["Docker-Content-Digest"],
                digest_of(content),
            )

    def test_a_tag_in_the_query_is_checked(self) -> None:
        content = self.push_parts("push/badtag", image(b"a"))
        self.assert_error(
            self.put(f"push/badtag/manifests/{digest_of(content)}?tag=ok&tag=.no", content), 400, "TAG_INVALID"
        )
        self.assertEqual(self.server.public.get("/v2/push/badtag/manifests/ok").status, 404)

    def test_the_answer_names_the_subject_that_need_not_be_there(self) -> None:
        content = self.push_parts(
            "push/subject", image(subject={"mediaType": OCI_MANIFEST, "digest": ABSENT, "size": 7})
        )
        answer = self.put("push/subject/manifests/v1", content)
        self.assertEqual((answer.status, answer.headers["OCI-Subject"]), (201, ABSENT))
        plain = self.put("push/subject/manifests/v2", self.push_parts("push/subject", image()))
        self.assertNotIn("OCI-Subject", plain.headers)

    def test_references_to_what_is_not_there_are_refused_and_named(self) -> None:
        self.server.auth.push_blob("push/missing", b"{}")
        answer = self.put("push/missing/manifests/v1", encode(image(b"first", b"second")))
        self.assert_error(answer, 404, "MANIFEST_BLOB_UNKNOWN")
        for layer in (b"first", b"second"):
            self.assertIn(digest_of(layer), answer.body.decode())
        child = encode(index([(ABSENT, 10)]))
        self.assert_error(self.put("push/missing/manifests/v1", child, OCI_INDEX), 404, "MANIFEST_BLOB_UNKNOWN")
        self.assertEqual(self.server.public.get("/v2/push/missing/manifests/v1").status, 404)

    def test_a_blob_of_another_repository_counts_as_missing(self) -> None:
        content = self.push_parts("push/here", image(b"a layer elsewhere"))
        self.server.auth.push_blob("push/there", b"{}")
        self.assert_error(self.put("push/there/manifests/v1", content), 404, "MANIFEST_BLOB_UNKNOWN")

    def test_a_manifest_at_the_limit_is_taken(self) -> None:
        content = self.push_parts("push/large", image()).ljust(4 * 1024 * 1024)
        self.assertEqual(self.put("push/large/manifests/v1", content).status, 201)
        self.assertEqual(self.server.public.get("/v2/push/large/manifests/v1").body, content)

    def test_a_manifest_past_the_limit_is_413_before_it_is_sent(self) -> None:
        with self.putting("push/large/manifests/v2", f"Content-Length: {4 * 1024 * 1024 + 1}") as wire:
            self.assert_error(wire.answer(), 413, "MANIFEST_INVALID")

    def test_chunks_without_end_are_413_once_they_are_past_the_limit(self) -> None:
        with self.putting("push/large/manifests/v3", "Transfer-Encoding: chunked") as wire:
            for _ in range(64):
                wire.send(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            wire.send(b"1\r\n \r\n")
            self.assert_error(wire.answer(), 413, "MANIFEST_INVALID")

    def test_parameters_of_content_type_are_dropped(self) -> None:
        content = self.push_parts("push/parameters", image(b"a"))
        self.assertEqual(
            self.put("push/parameters/manifests/v1", content, f"{OCI_MANIFEST}; charset=utf-8").status, 201
        )
        self.assertEqual(
            self.server.public.get("/v2/push/parameters/manifests/v1").headers["Content-Type"], OCI_MANIFEST
        )

    def test_a_missing_content_type_is_inferred_from_media_type(self) -> None:
        content = self.push_parts("push/inferred", {**image(b"a"), "mediaType": DOCKER_MANIFEST})
        self.assertEqual(self.put("push/inferred/manifests/v1", content, "").status, 201)
        self.assertEqual(
            self.server.public.get("/v2/push/inferred/manifests/v1").headers["Content-Type"], DOCKER_MANIFEST
        )

    def test_every_media_type_of_the_specification_is_taken(self) -> None:
        child = self.server.auth.push_image("push/types", "child", b"layer")
        size = len(self.server.public.get("/v2/push/types/manifests/child").body)
        documents = {
            OCI_MANIFEST: image(b"layer"),
            DOCKER_MANIFEST: {**image(b"layer"), "mediaType": DOCKER_MANIFEST},
            OCI_INDEX: index([(child, size)]),
            DOCKER_LIST: {**index([(child, size)]), "mediaType": DOCKER_LIST},
        }
        for media_type, document in documents.items():
            with self.subTest(media_type):
                self.assertEqual(self.put("push/types/manifests/v1", encode(document), media_type).status, 201)
                self.assertEqual(
                    self.server.public.get("/v2/push/types/manifests/v1").headers["Content-Type"], media_type
                )

    def test_every_other_media_type_is_refused_with_those_that_are_taken(self) -> None:
        for media_type in (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "application/vnd.docker.distribution.manifest.v1+json",
            "text/plain",
        ):
            with self.subTest(media_type):
                answer = self.put("push/schema1/manifests/v1", b'{"schemaVersion": 1}', media_type)
                self.assert_error(answer, 400, "MANIFEST_INVALID")
                for accepted in (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST):
                    self.assertIn(accepted, answer.json["errors"][0]["message"])

    def test_what_buildkit_and_others_push_is_taken(self) -> None:
        """What is legal and odd: nested indexes, layers in an index, empty lists, foreign layers, inline data."""
        auth = self.server.auth
        for content in (b"{}", b"layer", b"cache config"):
            auth.push_blob("push/odd", content)
        nested = auth.push_index("push/odd", "nested", [])
        size = len(self.server.public.get("/v2/push/odd/manifests/nested").body)
        cache = [
            descriptor(b"layer", OCI_LAYER),
            descriptor(b"cache config", "application/vnd.buildkit.cacheconfig.v0"),
        ]
        foreign = {
            **descriptor(b"elsewhere", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            "urls": ["https://example.com/layer"],
        }
        documents: dict[str, tuple[str, dict[str, Any]]] = {
            "index without manifests": (OCI_INDEX, index([])),
            "nested index": (
                OCI_INDEX,
                {**index([]), "manifests": [{"mediaType": OCI_INDEX, "digest": nested, "size": size}]},
            ),
            "cache image": (OCI_INDEX, {**index([]), "manifests": cache}),
            "image without layers": (OCI_MANIFEST, image()),
            "empty config": (OCI_MANIFEST, {**image(), "config": {**descriptor(b"{}", OCI_EMPTY), "data": "e30="}}),
            "foreign layer": (OCI_MANIFEST, {**image(), "layers": [foreign]}),
            "zstd layer": (
                OCI_MANIFEST,
                {**image(), "layers": [descriptor(b"layer", "application/vnd.oci.image.layer.v1.tar+zstd")]},
            ),
            "helm": (
                OCI_MANIFEST,
                {**image(), "config": descriptor(b"{}", "application/vnd.cncf.helm.config.v1+json")},
            ),
            "unknown fields": (OCI_MANIFEST, {**image(), "extra": {"a": [1.5, None, True]}}),
            "no mediaType": (OCI_MANIFEST, {"schemaVersion": 2, "config": descriptor(b"{}", OCI_CONFIG), "layers": []}),
        }
        for number, (name, (media_type, document)) in enumerate(documents.items()):
            with self.subTest(name):
                answer = self.put(f"push/odd/manifests/v{number}", encode(document), media_type)
                self.assertEqual(answer.status, 201, answer)

    def test_documents_that_readers_would_understand_differently_are_refused(self) -> None:
        self.push_parts("push/bad", image(b"a"))
        good = encode(image(b"a"))
        documents = {
            "no JSON": b"{",
            "no object": b"[]",
            "empty": b"",
            "nesting": b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
            "deep nesting": b"[" * 100_000,
            "NaN": good[:-1] + b', "x": NaN}',
            "Infinity": good[:-1] + b', "x": -Infinity}',
            "1e999": good[:-1] + b', "x": 1e999}',
            "duplicate key": good[:-1] + b', "schemaVersion": 2}',
            "byte order mark": b"\xef\xbb\xbf" + good,
            "invalid UTF-8": good[:-1] + b', "x": "\xff"}',
            "lone surrogate": good[:-1] + b', "x": "\\ud800"}',
            "5000 digits": good[:-1] + b', "x": ' + b"9" * 5000 + b"}",
            "negative size": encode({**image(), "layers": [{**descriptor(b"a", OCI_LAYER), "size": -1}]}),
            "size past 2^63-1": encode({**image(), "layers": [{**descriptor(b"a", OCI_LAYER), "size": 2**63}]}),
            "layers and manifests": encode({**image(b"a"), "manifests": []}),
            "other mediaType": encode({**image(b"a"), "mediaType": DOCKER_MANIFEST}),
            "size that differs": encode({**image(), "layers": [{**descriptor(b"a", OCI_LAYER), "size": 2}]}),
            "schemaVersion 1": encode({**image(b"a"), "schemaVersion": 1}),
            "20001 descriptors": encode({**image(), "layers": [descriptor(b"a", OCI_LAYER)] * 20_000}),
        }
        for name, content in documents.items():
            with self.subTest(name):
                self.assert_error(self.put("push/bad/manifests/v1", content), 400, "MANIFEST_INVALID")
        self.assertEqual(self.server.public.get("/v2/push/bad/manifests/v1").status, 404)

    @contextlib.contextmanager
    def putting(self, path: str, field: str) -> Iterator[Wire]:
        """Begin to put a manifest; the body is up to the block."""
        with connected(self.server.addresses["auth"]) as wire:
            wire.send(f"PUT /v2/{path} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\n{field}\r\n\r\n".encode())
            yield wire

    def push_parts(self, repository: str, manifest: Mapping[str, Any]) -> bytes:
        """Push the blobs of an image whose layers are single letters or texts known to this module; returns the
        manifest's bytes.
        """
        for content in (b"{}", b"a", b"a layer elsewhere"):
            self.server.auth.push_blob(repository, content)
        return encode(manifest)


class Delete(ServerTestCase):
    """end-9 and end-10; what goes with a manifest is in the tests of the reference rules."""

    def test_a_deleted_tag_is_gone(self) -> None:
        auth = self.server.auth
        auth.push_image("delete/tag", "v1", b"layer")
        self.assertEqual(auth.request("DELETE", "/v2/delete/tag/manifests/v1").status, 202)
        self.assert_error(auth.get("/v2/delete/tag/manifests/v1"), 404, "MANIFEST_UNKNOWN")

    def test_a_deleted_manifest_is_gone(self) -> None:
        auth = self.server.auth
        auth.push_blob("delete/manifest", b"{}")
        digest = auth.push_manifest("delete/manifest", "", image())
        self.assertEqual(auth.request("DELETE", f"/v2/delete/manifest/manifests/{digest}").status, 202)
        self.assert_error(auth.get(f"/v2/delete/manifest/manifests/{digest}"), 404, "MANIFEST_UNKNOWN")

    def test_a_manifest_with_tags_is_refused_and_they_are_named(self) -> None:
        digest = self.server.auth.push_image("delete/tagged", "stable", b"layer")
        answer = self.server.auth.request("DELETE", f"/v2/delete/tagged/manifests/{digest}")
        self.assert_error(answer, 405, "DENIED")
        self.assertIn("stable", answer.json["errors"][0]["message"])
        self.assertEqual(self.server.public.get("/v2/delete/tagged/manifests/stable").status, 200)

    def test_a_manifest_of_an_index_is_refused_and_it_is_named(self) -> None:
        auth = self.server.auth
        auth.push_blob("delete/child", b"{}")
        child = auth.push_manifest("delete/child", "", image())
        parent = auth.push_index("delete/child", "v1", [(child, len(encode(image())))])
        answer = auth.request("DELETE", f"/v2/delete/child/manifests/{child}")
        self.assert_error(answer, 405, "DENIED")
        self.assertIn(parent, answer.json["errors"][0]["message"])

    def test_a_deleted_blob_is_gone(self) -> None:
        digest = self.server.auth.push_blob("delete/blob", b"content")
        self.assertEqual(self.server.auth.request("DELETE", f"/v2/delete/blob/blobs/{digest}").status, 202)
        self.assert_error(self.server.public.get(f"/v2/delete/blob/blobs/{digest}"), 404, "BLOB_UNKNOWN")

    def test_a_blob_of_a_manifest_is_refused_and_it_is_named(self) -> None:
        manifest = self.server.auth.push_image("delete/used", "v1", b"layer")
        answer = self.server.auth.request("DELETE", f"/v2/delete/used/blobs/{digest_of(b'layer')}")
        self.assert_error(answer, 405, "DENIED")
        self.assertIn(manifest, answer.json["errors"][0]["message"])

    def test_what_is_not_there_is_404(self) -> None:
        self.server.auth.push_image("delete/unknown", "v1", b"layer")
        for path, code in (
            ("delete/unknown/manifests/v2", "MANIFEST_UNKNOWN"),
            (f"delete/unknown/manifests/{ABSENT}", "MANIFEST_UNKNOWN"),
            ("delete/nowhere/manifests/v1", "MANIFEST_UNKNOWN"),
            (f"delete/unknown/blobs/{ABSENT}", "BLOB_UNKNOWN"),
            (f"delete/nowhere/blobs/{ABSENT}", "BLOB_UNKNOWN"),
        ):
            with self.subTest(path):
                self.assert_error(self.server.auth.request("DELETE", f"/v2/{path}"), 404, code)


class DeleteUntags(ServerTestCase):
    """end-9 with delete-untags = yes, as skopeo delete expects."""

    flags = ("--delete-untags", "yes")

    def test_the_tags_go_with_the_manifest(self) -> None:
        auth = self.server.auth
        digest = auth.push_image("untag", "v1", b"layer")
        auth.push_manifest("untag", "v2", image(b"layer"))
        self.assertEqual(auth.request("DELETE", f"/v2/untag/manifests/{digest}").status, 202)
        for reference in ("v1", "v2", digest):
            self.assertEqual(auth.get(f"/v2/untag/manifests/{reference}").status, 404)


class Names(ServerTestCase):
    """The grammars of name, tag and digest, as a client meets them."""

    def test_names_of_the_grammar_are_taken(self) -> None:
        for name in (
            "a",
            "a/b/c/d",
            "a.b",
            "a_b",
            "a__b",
            "a---b",
            "0/1",
            "uploads",
            "blobs/uploads",
            "manifests",
            "tags/list",
            "a" * 255,
        ):
            with self.subTest(name):
                self.server.auth.push_image(name, "v1")
                self.assertEqual(self.server.public.get(f"/v2/{name}/manifests/v1").status, 200)
                self.assertEqual(self.server.public.get(f"/v2/{name}/tags/list").json, {"name": name, "tags": ["v1"]})

    def test_other_names_are_refused(self) -> None:
        for name in (
            "A",
            "a/B",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "a//b",
            "a/",
            "a/../b",
            "%2561",
            "a%252fb",
            "a%20b",
            "a" * 256,
            "a@b",
            "~",
        ):
            with self.subTest(name):
                for method, path in (
                    ("GET", f"/v2/{name}/manifests/v1"),
                    ("GET", f"/v2/{name}/tags/list"),
                    ("POST", f"/v2/{name}/blobs/uploads/"),
                ):
                    self.assert_error(self.server.auth.request(method, path), 400, "NAME_INVALID")

    def test_tags_of_the_grammar_are_taken(self) -> None:
        for tag in ("v1", "_", "A.b-C_d", "0", "a" * 128):
            with self.subTest(tag):
                self.server.auth.push_image("tagged", tag)
                self.assertEqual(self.server.public.get(f"/v2/tagged/manifests/{tag}").status, 200)

    def test_other_tags_are_refused(self) -> None:
        for tag in (".a", "-a", "a" * 129, "a%2541", "a+b", "a@b"):
            with self.subTest(tag):
                self.assert_error(self.server.public.get(f"/v2/tagged/manifests/{tag}"), 400, "TAG_INVALID")

    def test_other_digests_are_refused_everywhere(self) -> None:
        wrong_lengths = ("sha256:", f"sha256:{'0' * 63}", f"sha256:{'0' * 65}", f"sha512:{'0' * 64}")
        for digest in ("md5:d41d8cd98f00b204e9800998ecf8427e", *wrong_lengths, f"sha256:{'g' * 64}"):
            for path in (f"manifests/{digest}", f"blobs/{digest}", f"referrers/{digest}"):
                with self.subTest(path):
                    self.assert_error(self.server.public.get(f"/v2/tagged/{path}"), 400, "DIGEST_INVALID")


class ErrorCodes(ServerTestCase):
    """Each code of the specification and of Docker, with a request that brings it about."""

    flags = (
        "--upload-sessions",
        "1",
        "--blob-limit",
        "1KiB",
        "--manifest-limit",
        "1KiB",
        "--failed-logins",
        "2",
        "--request-line-limit",
        "1KiB",
    )

    def test_each_code_comes_with_its_status(self) -> None:
        auth, public, nobody = self.server.auth, self.server.public, Client(self.server.addresses["auth"])
        digest = auth.push_image("codes", "v1", b"layer")
        for status, code, client, method, path, body, headers in (
            (404, "BLOB_UNKNOWN", public, "GET", f"/v2/codes/blobs/{ABSENT}", None, {}),
            (404, "BLOB_UPLOAD_UNKNOWN", auth, "GET", f"/v2/codes/blobs/uploads/{'0' * 64}", None, {}),
            (400, "DIGEST_INVALID", public, "GET", "/v2/codes/blobs/md5:00", None, {}),
            (
                404,
                "MANIFEST_BLOB_UNKNOWN",
                auth,
                "PUT",
                "/v2/codes/manifests/v2",
                encode(image(b"missing")),
                {"Content-Type": OCI_MANIFEST},
            ),
            (400, "MANIFEST_INVALID", auth, "PUT", "/v2/codes/manifests/v2", b"{", {"Content-Type": OCI_MANIFEST}),
            (
                413,
                "MANIFEST_INVALID",
                auth,
                "PUT",
                "/v2/codes/manifests/v2",
                b" " * 1025,
                {"Content-Type": OCI_MANIFEST},
            ),
            (404, "MANIFEST_UNKNOWN", public, "GET", "/v2/codes/manifests/v2", None, {}),
            (400, "NAME_INVALID", public, "GET", "/v2/CODES/manifests/v2", None, {}),
            (404, "NAME_UNKNOWN", public, "GET", "/v2/nowhere/tags/list", None, {}),
            (413, "SIZE_INVALID", auth, "POST", f"/v2/codes/blobs/uploads/?digest={ABSENT}", b" " * 1025, {}),
            (401, "UNAUTHORIZED", nobody, "GET", "/v2/", None, {}),
            (405, "DENIED", auth, "DELETE", f"/v2/codes/manifests/{digest}", None, {}),
            (403, "DENIED", auth, "DELETE", "/v2/codes/manifests/v1", None, {"Origin": "https://evil.example"}),
            (405, "UNSUPPORTED", auth, "DELETE", "/v2/", None, {}),
            (405, "UNSUPPORTED", public, "POST", "/v2/codes/blobs/uploads/", None, {}),
            (501, "UNSUPPORTED", auth, "BREW", "/v2/", None, {}),
            (
                416,
                "RANGE_INVALID",
                public,
                "GET",
                f"/v2/codes/blobs/{digest_of(b'layer')}",
                None,
                {"Range": "bytes=5-"},
            ),
            (400, "TAG_INVALID", public, "GET", "/v2/codes/manifests/.v1", None, {}),
            (400, "PAGINATION_NUMBER_INVALID", public, "GET", "/v2/codes/tags/list?n=x", None, {}),
            (404, "NOT_FOUND", public, "GET", "/v2/codes/nothing", None, {}),
            (414, "URI_TOO_LONG", public, "GET", f"/v2/{'a' * 1024}/tags/list", None, {}),
        ):
            with self.subTest(status=status, code=code):
                answer = client.request(method, path, body, headers)
                self.assert_error(answer, status, code)
                self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
                self.assertRegex(code, r"^[A-Z_]+$")

    def test_too_many_uploads_are_429_with_retry_after(self) -> None:
        first = self.server.auth.request("POST", "/v2/sessions/blobs/uploads/")
        self.assertEqual(first.status, 202)
        answer = self.server.auth.request("POST", "/v2/sessions/blobs/uploads/")
        self.assert_error(answer, 429, "TOOMANYREQUESTS")
        self.assertGreater(int(answer.headers["Retry-After"]), 0)
        self.assertEqual(self.server.auth.request("DELETE", first.headers["Location"]).status, 204)
        again = self.server.auth.request("POST", "/v2/sessions/blobs/uploads/")
        self.assertEqual(again.status, 202)
        self.server.auth.request("DELETE", again.headers["Location"])

    def test_too_many_failed_logins_are_429_with_retry_after_and_others_go_on(self) -> None:
        guesser = Client(self.server.addresses["auth"], USER, "a wrong password")
        self.assertEqual(self.server.auth.get("/v2/").status, 200)
        self.assertEqual([guesser.get("/v2/").status for _ in range(2)], [401, 401])
        answer = guesser.get("/v2/")
        self.assert_error(answer, 429, "TOOMANYREQUESTS")
        self.assertGreater(int(answer.headers["Retry-After"]), 0)
        self.assertEqual(self.server.auth.get("/v2/").status, 200)

    def test_a_failed_upload_in_one_post_leaves_no_session(self) -> None:
        answer = self.server.auth.request("POST", f"/v2/once/blobs/uploads/?digest={ABSENT}", b"other content")
        self.assert_error(answer, 400, "DIGEST_INVALID")
        self.assertEqual(self.server.metric("vex_uploads_open"), 0)
