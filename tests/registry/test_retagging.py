"""`vex tag`: one more tag for an image, with all that belongs to it."""

from __future__ import annotations

import json

from tests.support.in_process import InProcessTestCase, Options, Pushed, section
from vex.errors import RegistryError
from vex.progress import Work
from vex.registry.operations import operation
from vex.registry.parts import Parts, Row
from vex.storage.audit import Actor

_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Interruption(Exception):
    """The process ends."""


class Interrupted(Work):
    """Ends the work at one of its steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def step(self) -> None:
        """Count a step."""
        self._steps -= 1
        if not self._steps:
            raise Interruption


class Tagging(InProcessTestCase):
    """A registry where nothing is held for those who pull."""

    options = Options(pull_grace=0)

    def tag(self, source: str, target: str) -> Row:
        parts = Parts(self.site.storage, self.site.registry, Actor("root", "local"))
        (row,) = operation("tag", {"source": source, "target": target})(parts)
        return row

    def refer(self, name: str, subject: Pushed, layer: bytes) -> Pushed:
        fields = {"mediaType": _TYPE, "digest": subject.digest, "size": subject.size}
        return self.push_image(name, "", layer, subject=fields, artifactType="application/example")

    def referrers(self, name: str, digest: str) -> set[str]:
        found = self.ok(200, "GET", f"/v2/{name}/referrers/{digest}").json["manifests"]
        return {one["digest"] for one in found}

    def assert_whole(self, name: str, reference: str) -> None:
        """Pull an image with all that it lists."""
        document = self.ok(200, "GET", f"/v2/{name}/manifests/{reference}").json
        for child in document.get("manifests", []):
            self.assert_whole(name, child["digest"])
        for blob in [*document.get("layers", []), *([document["config"]] if "config" in document else [])]:
            self.ok(200, "GET", f"/v2/{name}/blobs/{blob['digest']}")

    def test_in_one_repository_it_is_one_more_name(self) -> None:
        pushed = self.push_image("a", "v1", b"layer")
        row = self.tag("a:v1", "a:stable")
        self.assertEqual((row["digest"], row["before"], row["referrers"]), (pushed.digest, None, 0))
        self.delete("a", "v1")
        self.assert_whole("a", "stable")

    def test_to_another_repository_come_children_referrers_and_signatures(self) -> None:
        images = [self.push_image("a", "", b"layer", config=b"[%d]" % number) for number in range(3)]
        top = self.push_index("a", "v1", [*images])
        about = [self.refer("a", subject, b"about " + subject.digest.encode()) for subject in (top, *images)]
        about.append(self.refer("a", about[0], b"about that"))
        signatures = [f"{one.digest.replace(':', '-')}.sig" for one in (top, images[1])]
        for signature in signatures:
            self.push_image("a", signature, signature.encode())
        row = self.tag("a:v1", "b/c:v2")
        self.assertEqual((row["digest"], row["referrers"], set(row["signatures"])), (top.digest, 5, set(signatures)))
        before = self.site.holdings()
        # What was copied stands on its own, and does not go as what waits for its subject would.
        self.delete("a", "v1")
        self.site.advance(3 * 24 * 3600)
        self.assert_whole("b/c", "v2")
        for subject, referrer in zip((top, *images, about[0]), about):
            self.assertEqual(self.referrers("b/c", subject.digest), {referrer.digest})
            self.assert_whole("b/c", referrer.digest)
        for signature in signatures:
            self.assert_whole("b/c", signature)
        self.assertEqual(self.site.holdings().files, before.files)
        # And goes as a whole.
        self.delete("b/c", "v2")
        self.site.advance(3 * 24 * 3600)
        self.assertEqual((self.site.holdings().tags, self.site.holdings().files), ({}, set()))

    def test_a_digest_can_be_tagged_too(self) -> None:
        pushed = self.push_image("a", "", b"layer")
        self.assertEqual(self.tag(f"a@{pushed.digest}", "b:v1")["digest"], pushed.digest)
        self.assert_whole("b", "v1")

    def test_a_tag_that_is_there_is_moved_and_told(self) -> None:
        old, new = self.push_image("b", "v1", b"old"), self.push_image("a", "v1", b"new")
        row = self.tag("a:v1", "b:v1")
        self.assertEqual((row["digest"], row["before"]), (new.digest, old.digest))
        with self.site.database.read() as tx:
            trail = tx.rows("SELECT user, address, repository, tag, before, after FROM tag_change ORDER BY id")
        self.assertEqual(trail[-1], ("root", "local", "b", "v1", old.digest, new.digest))
        self.site.advance(3 * 24 * 3600)
        self.ok(404, "GET", f"/v2/b/manifests/{old.digest}")

    def test_signatures_that_are_there_are_left_as_they_are(self) -> None:
        for name, layer in (("a", b"one"), ("b", b"another")):
            pushed = self.push_image(name, "v1", b"layer")
            self.push_image(name, f"{pushed.digest.replace(':', '-')}.sig", layer)
        signature = f"{pushed.digest.replace(':', '-')}.sig"
        there = self.ok(200, "GET", f"/v2/b/manifests/{signature}").body
        row = self.tag("a:v1", "b:v2")
        self.assertEqual((row["signatures"], row["kept"]), ([], [signature]))
        self.assertEqual(self.ok(200, "GET", f"/v2/b/manifests/{signature}").body, there)

    def test_a_name_can_be_the_same_twice(self) -> None:
        self.push_image("a", "v1", b"layer")
        self.tag("a:v1", "b:v1")
        before = self.site.holdings()
        self.tag("a:v1", "b:v1")
        self.tag("a:v1", "a:v1")
        self.assertEqual(self.site.holdings(), before)

    def test_what_is_replaced_and_still_kept_can_be_tagged_again(self) -> None:
        self.site.options = Options(keep_replaced=3600)
        self.site.restart()
        old = self.push_image("a", "v1", b"old")
        self.push_image("a", "v1", b"new")
        self.tag(f"a@{old.digest}", "a:old")
        self.site.advance(2 * 24 * 3600)
        self.assert_whole("a", "old")

    def test_what_the_configuration_forbids_is_refused_and_nothing_is_copied(self) -> None:
        self.site.options = Options(
            pull_grace=0, sections=(section("b", 3, immutable="v*"), section("c", 5, quota="100"))
        )
        self.site.restart()
        there = self.push_image("b", "v1", b"there")
        pushed = self.push_image("a", "v1", b"layer" * 20)
        self.refer("a", pushed, b"about")
        for target, code, message in (("b:v1", "DENIED", there.digest), ("c:v1", "DENIED", "its quota is 100 bytes")):
            with self.subTest(target), self.assertRaises(RegistryError) as raised:
                self.tag("a:v1", target)
            self.assertEqual(raised.exception.kind.code, code)
            self.assertIn(message, raised.exception.message)
        self.site.advance(3 * 24 * 3600)
        self.assertEqual({name for name, _ in self.site.holdings().manifests}, {"a", "b"})
        self.assertEqual(self.tag("a:v1", "b:new")["referrers"], 1)

    def test_a_copy_that_was_interrupted_leaves_nothing_and_can_be_made_again(self) -> None:
        top = self.push_image("a", "v1", b"layer")
        for number in range(130):
            self.refer("a", top, b"about %d" % number)
        whole = self.tag("a:v1", "whole:v1")
        before = self.site.holdings()
        copied = set()
        # A step is looking at one manifest, or goes before each transaction with referrers.
        for steps in (1, *range(130, 200)):
            parts = Parts(self.site.storage, self.site.registry, work=Interrupted(steps))
            try:
                (row,) = operation("tag", {"source": "a:v1", "target": "b:v1"})(parts)
            except Interruption:
                self.site.restart()
                copied.add(len([name for name, _ in self.site.holdings().manifests if name == "b"]))
                self.assertEqual([tag for tag in self.site.holdings().tags if tag[0] == "b"], [])
                if steps % 2:
                    self.site.advance(2 * 24 * 3600)
                    self.assertEqual([name for name, _ in self.site.holdings().manifests if name == "b"], [])
            else:
                break
        self.assertEqual((copied, row["referrers"]), ({0, 64, 128}, whole["referrers"]))
        self.delete("b", "v1")
        self.site.advance(3 * 24 * 3600)
        self.assertEqual(self.site.holdings()._replace(repositories=before.repositories), before)

    def test_what_is_not_there_is_said(self) -> None:
        pushed = self.push_image("a", "v1", b"layer")
        for source, target, code in (
            ("a:v2", "b:v1", "MANIFEST_UNKNOWN"),
            ("c:v1", "b:v1", "MANIFEST_UNKNOWN"),
            (f"b@{pushed.digest}", "b:v1", "MANIFEST_UNKNOWN"),
            ("a", "b:v1", "TAG_INVALID"),
            ("a:v1", "b", "TAG_INVALID"),
            ("a:v1", "B:v1", "NAME_INVALID"),
            ("a@sha256:1", "b:v1", "DIGEST_INVALID"),
        ):
            with self.subTest((source, target)), self.assertRaises(RegistryError) as raised:
                self.tag(source, target)
            self.assertEqual(raised.exception.kind.code, code)
        self.assertEqual({name for name, _ in self.site.holdings().manifests}, {"a"})
        self.assertEqual(json.loads(self.ok(200, "GET", "/v2/_catalog").body)["repositories"], ["a"])
