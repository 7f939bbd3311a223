"""Pushing a manifest on a condition: If-Match and If-None-Match on PUT (RFC 9110 section 13.1), by tag, by digest, and
with tags in the query.
"""

from __future__ import annotations

import json
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor

from tests.support.in_process import InProcessTestCase
from tests.support.server import OCI_MANIFEST, Answer, ServerTestCase, digest_of, image
from vex.errors import RegistryError
from vex.http.fields import Preconditions

FIRST, SECOND = '"sha256:1"', '"sha256:2"'


class Fields(unittest.TestCase):
    """The two fields alone."""

    def test_if_match_holds_where_the_target_is_one_of_a_list_by_strong_comparison(self) -> None:
        for value, target, holds in (
            (FIRST, FIRST, True),
            (FIRST, SECOND, False),
            (FIRST, None, False),
            (f"{SECOND}, {FIRST}", FIRST, True),
            (f"{SECOND},{FIRST} , ", FIRST, True),
            (f"W/{FIRST}", FIRST, False),
            (f"W/{FIRST},{FIRST}", FIRST, True),
            (f'W/{SECOND},"a,b",{FIRST}', FIRST, True),
            ("*", FIRST, True),
            (" * ", FIRST, True),
            ("*", None, False),
            ('"*"', FIRST, False),
        ):
            with self.subTest(value=value, target=target):
                self.assertEqual(Preconditions(value, None).hold(target), holds)

    def test_if_none_match_holds_where_nothing_that_is_replaced_is_one_of_a_list_by_weak_comparison(self) -> None:
        for value, targets, holds in (
            (FIRST, [FIRST], False),
            (f"W/{FIRST}", [FIRST], False),
            (FIRST, [SECOND], True),
            (FIRST, [None], True),
            (f"{SECOND}, {FIRST}", [FIRST], False),
            ("*", [FIRST], False),
            ("*", [None], True),
            ("*", [None, None, SECOND], False),
            (SECOND, [FIRST, SECOND], False),
        ):
            with self.subTest(value=value, targets=targets):
                self.assertEqual(Preconditions(None, value).hold(*targets), holds)

    def test_both_have_to_hold(self) -> None:
        self.assertTrue(Preconditions(FIRST, SECOND).hold(FIRST))
        self.assertFalse(Preconditions(FIRST, FIRST).hold(FIRST))
        self.assertFalse(Preconditions(SECOND, SECOND).hold(FIRST))

    def test_what_cannot_be_read_is_refused_and_not_ignored(self) -> None:
        for value in (
            "",
            ",",
            "sha256:1",
            "'sha256:1'",
            '"sha256:1',
            f"{FIRST} sha256:2",
            "**",
            f"* {FIRST}",
            f"w/{FIRST}",
        ):
            for fields in ((value, None), (None, value)):
                with self.subTest(fields), self.assertRaises(RegistryError) as caught:
                    Preconditions(*fields)
                self.assertEqual(caught.exception.kind.status, 400)


class Pushes(InProcessTestCase):
    """What is pushed, and what stays."""

    def setUp(self) -> None:
        super().setUp()
        pushed = [self.push_image("app", f"n{number}", b"%d" % number) for number in range(3)]
        self.contents = [self.site.request("GET", f"/v2/app/manifests/{manifest.digest}").body for manifest in pushed]
        self.digests = [digest_of(content) for content in self.contents]

    def put(self, reference: str, content: bytes, **fields: str) -> Answer:
        headers = {"Content-Type": OCI_MANIFEST, **{name.replace("_", "-"): value for name, value in fields.items()}}
        return self.site.request("PUT", f"/v2/app/manifests/{reference}", content, headers)

    def tagged(self, tag: str) -> str:
        return digest_of(self.site.request("GET", f"/v2/app/manifests/{tag}").body)

    def assert_failed(self, answer: Answer) -> None:
        self.assertEqual((answer.status, answer.codes), (412, ["PRECONDITION_FAILED"]))

    def test_a_tag_moves_only_from_what_if_match_names(self) -> None:
        first, second, third = self.contents
        self.assertEqual(self.put("latest", first).status, 201)
        etag = self.site.request("HEAD", "/v2/app/manifests/latest").headers["ETag"]
        self.assertEqual(self.put("latest", second, If_Match=etag).status, 201)
        self.assert_failed(self.put("latest", third, If_Match=etag))
        self.assertEqual(self.tagged("latest"), self.digests[1])
        self.assertEqual(self.put("latest", third, If_Match="*").status, 201)
        self.assertEqual(self.tagged("latest"), self.digests[2])

    def test_a_tag_that_is_not_there_matches_nothing(self) -> None:
        self.assert_failed(self.put("new", self.contents[0], If_Match="*"))
        self.assert_failed(self.put("new", self.contents[0], If_Match=f'"{self.digests[0]}"'))
        self.ok(404, "GET", "/v2/app/manifests/new")

    def test_a_tag_is_made_only_where_there_is_none(self) -> None:
        self.assertEqual(self.put("once", self.contents[0], If_None_Match="*").status, 201)
        self.assert_failed(self.put("once", self.contents[1], If_None_Match="*"))
        # The same content again is no exception: it is there.
        self.assert_failed(self.put("once", self.contents[0], If_None_Match="*"))
        self.assertEqual(self.tagged("once"), self.digests[0])
        self.assert_failed(self.put("once", self.contents[1], If_None_Match=f'"{self.digests[0]}"'))
        self.assertEqual(self.put("once", self.contents[1], If_None_Match=f'"{self.digests[2]}"').status, 201)

    def test_by_digest_the_manifest_itself_is_what_counts(self) -> None:
        content, new = self.contents[0], self.contents[0] + b"\n"
        self.assert_failed(self.put(digest_of(content), content, If_None_Match="*"))
        self.assertEqual(self.put(digest_of(content), content, If_Match=f'"{digest_of(content)}"').status, 201)
        self.assert_failed(self.put(digest_of(new), new, If_Match="*"))
        self.ok(404, "GET", f"/v2/app/manifests/{digest_of(new)}")
        self.assertEqual(self.put(digest_of(new), new, If_None_Match="*").status, 201)

    def test_with_tags_in_the_query_none_moves_unless_all_of_it_holds(self) -> None:
        old, new = self.digests[0], self.contents[0] + b"\n"
        self.assertEqual(self.put("taken", self.contents[0]).status, 201)
        self.assert_failed(self.put(f"{old}?tag=free", self.contents[0], If_None_Match="*"))
        self.assert_failed(self.put(f"{digest_of(new)}?tag=free&tag=taken", new, If_None_Match="*"))
        self.assert_failed(self.put(f"{digest_of(new)}?tag=taken", new, If_Match=f'"{old}"'))
        self.ok(404, "GET", "/v2/app/manifests/free")
        self.assertEqual(self.tagged("taken"), old)
        self.assertEqual(self.put(f"{digest_of(new)}?tag=free", new, If_None_Match="*").status, 201)
        self.assertEqual(self.put(f"{old}?tag=free", self.contents[0], If_Match=f'"{old}"').status, 201)
        self.assertEqual(self.tagged("free"), old)

    def test_a_push_that_fails_its_condition_leaves_nothing_behind(self) -> None:
        before = self.site.holdings()
        self.assert_failed(self.put("n0", self.contents[0] + b"\n", If_None_Match="*"))
        self.assert_failed(
            self.site.request(
                "PUT", "/v2/elsewhere/manifests/v1", b'{"schemaVersion":2,"manifests":[]}', {"If-Match": "*"}
            )
        )
        self.assertEqual(self.site.holdings(), before)

    def test_what_is_refused_anyway_is_refused_as_without_a_condition(self) -> None:
        self.assertEqual(self.put("n0", b"{", If_None_Match="*").codes, ["MANIFEST_INVALID"])
        self.assertEqual(
            self.put("n0", json.dumps(image(b"missing")).encode(), If_None_Match="*").codes, ["MANIFEST_BLOB_UNKNOWN"]
        )
        self.assertEqual(self.put("n0", self.contents[0], If_Match="sha256:1").status, 400)


class AtOnce(ServerTestCase):
    """Two who want the same tag."""

    def test_of_many_pushes_with_one_condition_one_moves_the_tag(self) -> None:
        auth = self.server.auth
        contents = []
        for number in range(8):
            auth.push_image("race", f"n{number}", b"%d" % number)
            contents.append(auth.get(f"/v2/race/manifests/n{number}").body)
        start = threading.Barrier(len(contents))

        def push(content: bytes) -> int:
            start.wait()
            return auth.request(
                "PUT", "/v2/race/manifests/latest", content, {"Content-Type": OCI_MANIFEST, "If-None-Match": "*"}
            ).status

        with ThreadPoolExecutor(len(contents)) as pool:
            statuses = list(pool.map(push, contents))
        self.assertEqual(sorted(statuses), [201] + [412] * 7)
        self.assertEqual(auth.get("/v2/race/manifests/latest").body, contents[statuses.index(201)])
