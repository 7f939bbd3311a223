"""Immutable tags, which are never pointed elsewhere, and protected ones, which nobody deletes: what each refuses and
says, and what it leaves alone.
"""

from __future__ import annotations

import json
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor

from tests.support.in_process import HOUR, InProcessTestCase, Options, section
from tests.support.raw import Wire, basic
from tests.support.server import (
    OCI_INDEX,
    OCI_MANIFEST,
    Answer,
    configured,
    digest_of,
    image,
    running,
)

PLACE = "[repositories app], line 3 of the configuration"


class ProtectionTestCase(InProcessTestCase):
    """Three images in `app`, under the tags n0 to n2."""

    def setUp(self) -> None:
        super().setUp()
        self.pushed = [self.push_image("app", f"n{number}", b"%d" % number) for number in range(3)]
        self.contents = [self.site.request("GET", f"/v2/app/manifests/{pushed.digest}").body for pushed in self.pushed]
        self.digests = [pushed.digest for pushed in self.pushed]
        self.site.advance(HOUR)

    def put(self, reference: str, content: bytes, media_type: str = OCI_MANIFEST, **fields: str) -> Answer:
        """Push a manifest to `app`."""
        headers = {"Content-Type": media_type, **{name.replace("_", "-"): value for name, value in fields.items()}}
        return self.site.request("PUT", f"/v2/app/manifests/{reference}", content, headers)

    def delete_app(self, reference: str) -> Answer:
        """Ask for a deletion in `app`."""
        return self.site.request("DELETE", f"/v2/app/manifests/{reference}")

    def tags(self) -> dict[str, str]:
        """Return the tags of `app` with their digests."""
        return {tag: digest for (name, tag), digest in self.site.holdings().tags.items() if name == "app"}

    def assert_denied(self, answer: Answer, status: int, *words: str) -> None:
        """Check a refusal, and that it says so much."""
        self.assertEqual((answer.status, answer.codes), (status, ["DENIED"]), answer.body)
        for word in words:
            self.assertIn(word, answer.json["errors"][0]["message"])


class Immutable(ProtectionTestCase):
    options = Options(sections=(section("app", 3, immutable="v*, !*-rc*"),))

    def test_it_is_set_once_and_the_same_digest_again_is_no_change(self) -> None:
        for _ in range(3):
            self.assertEqual(self.put("v1", self.contents[0]).status, 201)
        self.assertEqual(self.tags()["v1"], self.digests[0])

    def test_other_content_is_refused_with_tag_digest_and_section(self) -> None:
        self.put("v1", self.contents[0])
        answer = self.put("v1", self.contents[1])
        self.assert_denied(answer, 409, "the tag v1 is immutable", self.digests[0], PLACE)
        self.assertEqual(answer.json["errors"][0]["detail"], {"tag": "v1", "digest": self.digests[0], "section": PLACE})
        self.assertEqual(self.tags()["v1"], self.digests[0])

    def test_a_refused_push_stores_nothing(self) -> None:
        self.put("v1", self.contents[0])
        before = self.site.holdings()
        new = self.contents[1] + b"\n"
        self.assert_denied(self.put("v1", new), 409)
        self.assert_denied(self.put(f"{digest_of(new)}?tag=v1", new), 409)
        self.assertEqual(self.site.holdings(), before)

    def test_it_is_refused_before_anything_else_is_looked_at(self) -> None:
        self.put("v1", self.contents[0])
        self.assert_denied(self.put("v1", b"{"), 409)
        self.assert_denied(self.put("v1", json.dumps(image(b"missing")).encode()), 409)
        self.assert_denied(self.put("v1", self.contents[1], If_None_Match="*"), 409)

    def test_a_push_by_digest_is_refused_before_its_body_is_read(self) -> None:
        self.put("v1", self.contents[0])
        # That this body has another digest is never seen.
        self.assert_denied(self.put(f"{self.digests[1]}?tag=v1", b"anything"), 409, self.digests[0])

    def test_of_several_tags_all_are_set_or_none(self) -> None:
        self.put("v1", self.contents[0])
        before = self.tags()
        query = "tag=v0&tag=latest&tag=v1&tag=v2"
        self.assert_denied(self.put(f"{self.digests[1]}?{query}", self.contents[1]), 409, "the tag v1 is")
        self.assertEqual(self.tags(), before)
        answer = self.put(f"{self.digests[0]}?{query}", self.contents[0])
        self.assertEqual((answer.status, answer.headers.get_all("OCI-Tag")), (201, ["v0", "latest", "v1", "v2"]))
        self.assertEqual({self.tags()[tag] for tag in ("v0", "latest", "v1", "v2")}, {self.digests[0]})

    def test_what_no_pattern_covers_moves_as_ever(self) -> None:
        for tag in ("latest", "v1-rc1", "1"):
            for number in (0, 1):
                self.assertEqual(self.put(tag, self.contents[number]).status, 201)
                self.assertEqual(self.tags()[tag], self.digests[number])

    def test_other_repositories_are_free(self) -> None:
        for number in range(2):
            self.push_image("other", "v1", b"%d" % number)

    def test_it_can_be_deleted_and_is_then_free(self) -> None:
        self.put("v1", self.contents[0])
        self.delete("app", "v1")
        self.assertEqual(self.put("v1", self.contents[1]).status, 201)
        self.assert_denied(self.put("v1", self.contents[0]), 409)

    def test_an_index_is_as_immutable_as_an_image(self) -> None:
        self.push_index("app", "v1", self.pushed[:2])
        other = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        self.assert_denied(self.put("v1", json.dumps(other).encode(), OCI_INDEX), 409)
        self.assert_denied(self.put("v1", self.contents[2]), 409)

    def test_nothing_of_a_refused_push_is_in_the_audit_trail(self) -> None:
        self.put("v1", self.contents[0])
        self.put("v1", self.contents[1])
        with self.site.database.read() as tx:
            self.assertEqual(tx.value("SELECT count(*) FROM tag_change WHERE tag = 'v1'"), 1)

    def test_of_two_pushes_at_once_one_sets_it_and_one_is_refused(self) -> None:
        start = threading.Barrier(2)

        def push(tag: str, number: int) -> int:
            start.wait()
            return self.put(tag, self.contents[number]).status

        with ThreadPoolExecutor(2) as pool:
            for count in range(150):
                tag = f"v{count}"
                statuses = [*pool.map(push, (tag, tag), (0, 1))]
                self.assertEqual(sorted(statuses), [201, 409])
                self.assertEqual(self.tags()[tag], self.digests[statuses.index(201)])


class ImmutableOverHttp(unittest.TestCase):
    def test_the_body_of_a_push_by_digest_is_not_even_asked_for(self) -> None:
        with running(prepare=configured("[repositories app]\nimmutable = v*\n")) as server:
            digest = server.auth.push_image("app", "v1", b"1")
            wire = Wire(server.addresses["auth"])
            self.addCleanup(wire.close)
            wire.send(
                f"PUT /v2/app/manifests/{digest_of(b'other')}?tag=v1 HTTP/1.1\r\nHost: app\r\n"
                f"Authorization: {basic()}\r\nContent-Type: {OCI_MANIFEST}\r\nContent-Length: 1000\r\n"
                "Expect: 100-continue\r\n\r\n".encode()
            )
            answer = wire.answer("PUT")
            self.assertEqual((answer.status, answer.codes), (409, ["DENIED"]))
            self.assertIn(digest, answer.json["errors"][0]["message"])


class Protected(ProtectionTestCase):
    options = Options(sections=(section("app", 3, protected="v*, n0"),))

    def test_its_deletion_is_refused_with_tag_digest_and_section(self) -> None:
        before = self.site.holdings()
        answer = self.delete_app("n0")
        self.assert_denied(answer, 405, "the tag n0", self.digests[0], "is protected", PLACE)
        self.assertEqual(answer.json["errors"][0]["detail"], {"tag": "n0", "digest": self.digests[0], "section": PLACE})
        self.assertEqual(self.site.holdings(), before)

    def test_a_tag_that_is_not_there_is_unknown(self) -> None:
        self.assertEqual(self.delete_app("v1").status, 404)

    def test_others_are_deleted_as_ever(self) -> None:
        self.delete("app", "n1")
        self.assertNotIn("n1", self.tags())

    def test_it_can_be_moved(self) -> None:
        self.assertEqual(self.put("n0", self.contents[1]).status, 201)
        self.assertEqual(self.tags()["n0"], self.digests[1])
        self.assertEqual(self.site.request("GET", f"/v2/app/manifests/{self.digests[0]}").status, 404)

    def test_its_manifest_is_not_deleted_by_digest(self) -> None:
        self.assert_denied(self.delete_app(self.digests[0]), 405, "the tag n0", "is protected", PLACE)
        self.assert_denied(self.delete_app(self.digests[1]), 405, "still has the tag n1")

    def test_a_tag_on_the_same_manifest_goes_alone(self) -> None:
        self.put("latest", self.contents[0])
        self.delete("app", "latest")
        self.assertEqual(self.tags()["n0"], self.digests[0])

    def test_an_image_of_an_index_that_goes_keeps_its_protected_tag(self) -> None:
        made = self.push_index("app", "all", self.pushed)
        self.delete("app", "all")
        self.site.advance(HOUR)
        self.assertFalse(("app", made.digest) in self.site.holdings().manifests)
        self.assertEqual(self.tags()["n0"], self.digests[0])


class DeletionWithTags(ProtectionTestCase):
    options = Options(sections=(section("app", 3, protected="v*"),), delete_untags="yes")

    def test_a_manifest_is_not_deleted_with_a_protected_tag_and_none_of_its_tags_goes(self) -> None:
        for tag in ("a", "v1", "z"):
            self.put(tag, self.contents[0])
        before = self.site.holdings()
        self.assert_denied(self.delete_app(self.digests[0]), 405, "the tag v1", "is protected", PLACE)
        self.assertEqual(self.site.holdings(), before)

    def test_without_one_it_goes_with_all_its_tags(self) -> None:
        self.put("a", self.contents[0])
        self.delete("app", self.digests[0])
        self.assertEqual([*self.tags()], ["n1", "n2"])


class DeletionWithOneTag(ProtectionTestCase):
    options = Options(sections=(section("app", 3, protected="n0"),), delete_untags="one")

    def test_a_manifest_is_not_deleted_with_its_protected_tag(self) -> None:
        self.assert_denied(self.delete_app(self.digests[0]), 405, "the tag n0", "is protected", PLACE)
        self.delete("app", self.digests[1])
        self.assertEqual([*self.tags()], ["n0", "n2"])


class Signatures(ProtectionTestCase):
    options = Options(sections=(section("app", 3, protected="*.sig"),))

    def test_a_protected_tag_of_cosign_stays_when_its_subject_goes(self) -> None:
        name = self.digests[0].replace(":", "-")
        for kind in ("sig", "att"):
            self.push_image("app", f"{name}.{kind}", kind.encode())
        self.delete("app", "n0")
        self.site.advance(HOUR)
        self.assertEqual([*self.tags()], ["n1", "n2", f"{name}.sig"])
        self.assert_denied(self.delete_app(f"{name}.sig"), 405, "is protected")


class KeptReplaced(ProtectionTestCase):
    options = Options(sections=(section("app", 3, immutable="v*", protected="n0"),), keep_replaced=HOUR)

    def test_what_a_protected_tag_was_moved_from_is_kept_and_then_goes(self) -> None:
        self.put("n0", self.contents[1])
        self.assertEqual(self.site.request("HEAD", f"/v2/app/manifests/{self.digests[0]}").status, 200)
        self.site.advance(2 * HOUR)
        self.assertEqual(self.site.request("HEAD", f"/v2/app/manifests/{self.digests[0]}").status, 404)
        self.assertEqual(self.tags()["n0"], self.digests[1])

    def test_a_refused_move_of_an_immutable_tag_has_nothing_expire(self) -> None:
        self.put("v1", self.contents[0])
        self.delete("app", "n1")
        self.assert_denied(self.put("v1", self.contents[2]), 409)
        self.site.advance(2 * HOUR)
        self.assertEqual(self.tags()["v1"], self.digests[0])
        self.assertEqual(self.site.holdings().states["app", self.digests[0]], "live")


class Both(ProtectionTestCase):
    options = Options(sections=(section("app", 3, immutable="n*"), section("a*", 6, immutable="v*", protected="*")))

    def test_each_setting_names_the_section_that_it_is_from(self) -> None:
        self.assert_denied(self.put("n0", self.contents[1]), 409, PLACE)
        self.assert_denied(self.delete_app("n0"), 405, "[repositories a*], line 6 of the configuration")
        self.assertEqual(self.put("v1", self.contents[0]).status, 201)
        self.assertEqual(self.put("v1", self.contents[1]).status, 201)
