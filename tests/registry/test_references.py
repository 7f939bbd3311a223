"""The reference rules and the leases, rule by rule: what stays, what goes, and when.

Each test says what must be held in the end; rows and files must then be exactly that. Expectations are the design's,
not the code's.
"""

from __future__ import annotations

import json

from tests.support.in_process import DAY, HOUR, MINUTE, InProcessTestCase, Options
from tests.support.server import (
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    descriptor,
    digest_of,
    image,
    index,
)

CONFIG = digest_of(b"{}")
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


class ReferencesTestCase(InProcessTestCase):
    """Compares what is held."""

    def assert_held(self, manifests: dict[str, list[str]], blobs: list[str]) -> None:
        """Compare rows and files with the manifests that are held, by repository, and the blobs."""
        held = self.site.holdings()
        expected = {(name, digest) for name, digests in manifests.items() for digest in digests}
        self.assertEqual(held.manifests, expected)
        self.assertEqual(held.contents, {digest for _, digest in expected})
        self.assertEqual(held.blobs, set(blobs))
        self.assertEqual(held.files, set(blobs))

    def assert_nothing_held(self) -> None:
        """Check that all is gone but the names of repositories."""
        self.assert_held({}, [])
        held = self.site.holdings()
        self.assertEqual((held.tags, held.leases), ({}, {}))

    def blob_status(self, repository: str, digest: str) -> int:
        """Ask for a blob as one who only reads."""
        return self.site.request("GET", f"/v2/{repository}/blobs/{digest}", user="").status

    def manifest_status(self, repository: str, reference: str) -> int:
        """Fetch a manifest, as a pull does."""
        return self.site.request("GET", f"/v2/{repository}/manifests/{reference}", user="").status

    def refusal(self, path: str) -> str:
        """Delete what may not be deleted; returns the message."""
        answer = self.ok(405, "DELETE", path)
        self.assertEqual(answer.codes, ["DENIED"])
        return str(answer.json["errors"][0]["message"])


class RemovalTest(ReferencesTestCase):
    """Removal of tags and manifests, and of what they alone kept."""

    def test_deleting_the_last_tag_removes_the_manifest_and_its_blobs(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.assert_held({"app": [pushed.digest]}, [CONFIG, digest_of(b"layer")])
        self.delete("app", "1")
        self.assert_nothing_held()
        self.assertEqual(self.manifest_status("app", pushed.digest), 404)
        self.assertEqual(self.blob_status("app", CONFIG), 404)

    def test_deleting_one_of_two_tags_keeps_the_manifest(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.push_image("app", "2", b"layer")
        self.delete("app", "1")
        self.assert_held({"app": [pushed.digest]}, [CONFIG, digest_of(b"layer")])
        self.assertEqual(self.manifest_status("app", "1"), 404)
        self.assertEqual(self.manifest_status("app", "2"), 200)

    def test_a_layer_shared_by_two_images_goes_with_the_second(self) -> None:
        self.push_image("app", "1", b"shared", b"one")
        second = self.push_image("app", "2", b"shared", b"two")
        self.delete("app", "1")
        self.assert_held({"app": [second.digest]}, [CONFIG, digest_of(b"shared"), digest_of(b"two")])
        self.delete("app", "2")
        self.assert_nothing_held()

    def test_a_manifest_in_two_repositories_is_removed_in_each_for_itself(self) -> None:
        pushed = self.push_image("one", "1", b"layer")
        self.push_image("two", "1", b"layer")
        self.delete("one", "1")
        self.assert_held({"two": [pushed.digest]}, [CONFIG, digest_of(b"layer")])
        self.assertEqual(self.manifest_status("one", pushed.digest), 404)
        self.assertEqual(self.blob_status("one", CONFIG), 404)
        self.assertEqual(self.blob_status("two", CONFIG), 200)
        self.delete("two", "1")
        self.assert_nothing_held()

    def test_an_index_takes_its_children_with_it(self) -> None:
        children = [self.push_image("app", "", layer) for layer in (b"amd64", b"arm64")]
        self.push_index("app", "1", children)
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_an_index_leaves_the_children_that_have_tags_or_another_index(self) -> None:
        tagged, shared, alone = (self.push_image("app", "", layer) for layer in (b"tagged", b"shared", b"alone"))
        self.push_image("app", "amd64", b"tagged")
        self.push_index("app", "1", [tagged, shared, alone])
        other = self.push_index("app", "2", [shared])
        self.delete("app", "1")
        self.assert_held(
            {"app": [tagged.digest, shared.digest, other.digest]}, [CONFIG, digest_of(b"tagged"), digest_of(b"shared")]
        )

    def test_deleting_the_tag_of_a_child_keeps_it_for_its_index(self) -> None:
        child = self.push_image("app", "amd64", b"layer")
        parent = self.push_index("app", "1", [child])
        self.delete("app", "amd64")
        self.assert_held({"app": [child.digest, parent.digest]}, [CONFIG, digest_of(b"layer")])

    def test_nested_indexes_go_with_the_outermost(self) -> None:
        inner = self.push_index("app", "", [self.push_image("app", "", b"layer")])
        middle = self.push_index("app", "", [inner], annotations={"level": "middle"})
        self.push_index("app", "1", [middle])
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_a_manifest_pushed_by_digest_stays_until_it_is_deleted(self) -> None:
        pushed = self.push_image("app", "", b"layer")
        self.site.advance(30 * DAY)
        self.assert_held({"app": [pushed.digest]}, [CONFIG, digest_of(b"layer")])
        self.delete("app", pushed.digest)
        self.assert_nothing_held()

    def test_a_manifest_whose_config_is_also_its_layer_is_removed(self) -> None:
        self.push_blob("app", b"{}")
        self.push_manifest("app", "1", image(b"{}"))
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_sha512_is_held_and_removed_like_sha256(self) -> None:
        layer, config = self.push_blob("app", b"layer", "sha512"), self.push_blob("app", b"{}")
        document = image()
        document["layers"] = [{"mediaType": OCI_LAYER, "digest": layer, "size": 5}]
        content = json.dumps(document).encode()
        digest = digest_of(content, "sha512")
        self.ok(201, "PUT", f"/v2/app/manifests/{digest}?tag=1", content)
        self.assert_held({"app": [digest]}, [layer, config])
        self.assertEqual(self.site.holdings().tags, {("app", "1"): digest})
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_a_buildkit_cache_holds_the_blobs_that_its_index_lists(self) -> None:
        layer, config = self.push_blob("app", b"layer"), self.push_blob("app", b"{}")
        listed = [descriptor(b"layer", OCI_LAYER), descriptor(b"{}", "application/vnd.buildkit.cacheconfig.v0")]
        pushed = self.push_manifest(
            "app", "cache", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}, OCI_INDEX
        )
        self.site.advance(2 * DAY)
        self.assert_held({"app": [pushed.digest]}, [layer, config])
        self.assertEqual(self.blob_status("app", layer), 200)
        self.delete("app", "cache")
        self.assert_nothing_held()

    def test_a_foreign_layer_need_not_be_there(self) -> None:
        config = self.push_blob("app", b"{}")
        document = image(config=b"{}", mediaType=DOCKER_MANIFEST)
        document["layers"] = [{**descriptor(b"elsewhere", FOREIGN), "urls": ["https://layers.example/1"]}]
        pushed = self.push_manifest("app", "1", document, DOCKER_MANIFEST)
        self.assert_held({"app": [pushed.digest]}, [config])
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_a_foreign_layer_that_is_there_is_held(self) -> None:
        layer, config = self.push_blob("app", b"windows"), self.push_blob("app", b"{}")
        document = image()
        document["layers"] = [{**descriptor(b"windows", OCI_LAYER), "urls": ["https://layers.example/1"]}]
        pushed = self.push_manifest("app", "1", document)
        self.site.advance(2 * DAY)
        self.assert_held({"app": [pushed.digest]}, [layer, config])
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_a_refused_manifest_leaves_nothing_behind(self) -> None:
        config = self.push_blob("app", b"{}")
        answer = self.site.request("PUT", "/v2/app/manifests/1", json.dumps(image(b"missing")).encode())
        self.assertEqual((answer.status, answer.codes), (404, ["MANIFEST_BLOB_UNKNOWN"]))
        self.assertIn(digest_of(b"missing"), answer.json["errors"][0]["message"])
        self.assert_held({}, [config])
        self.assertEqual(set(self.site.holdings().leases), {("app", config)})

    def test_content_of_another_repository_does_not_count(self) -> None:
        pushed = self.push_image("one", "1", b"layer")
        for body in (
            image(b"layer"),
            {
                "schemaVersion": 2,
                "mediaType": OCI_INDEX,
                "manifests": [descriptor(json.dumps(image(b"layer")).encode(), OCI_INDEX)],
            },
        ):
            answer = self.site.request("PUT", "/v2/two/manifests/1", json.dumps(body).encode())
            self.assertEqual((answer.status, answer.codes), (404, ["MANIFEST_BLOB_UNKNOWN"]))
        self.assert_held({"one": [pushed.digest]}, [CONFIG, digest_of(b"layer")])
        self.assertEqual(set(self.site.holdings().repositories), {"one"})


class ReplacedTagTest(ReferencesTestCase):
    """A tag that is pointed at another manifest."""

    def test_the_manifest_that_the_tag_pointed_to_before_goes(self) -> None:
        self.push_image("app", "latest", b"old", b"base")
        new = self.push_image("app", "latest", b"new", b"base")
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"new"), digest_of(b"base")])

    def test_an_index_that_is_replaced_goes_with_its_children(self) -> None:
        self.push_index("app", "latest", [self.push_image("app", "", b"old"), self.push_image("app", "", b"kept")])
        kept = self.push_image("app", "", b"kept")
        new = self.push_index("app", "latest", [kept])
        self.assert_held({"app": [kept.digest, new.digest]}, [CONFIG, digest_of(b"kept")])

    def test_a_replaced_manifest_with_another_tag_stays(self) -> None:
        old = self.push_image("app", "1", b"old")
        self.push_image("app", "latest", b"old")
        new = self.push_image("app", "latest", b"new")
        self.assert_held({"app": [old.digest, new.digest]}, [CONFIG, digest_of(b"old"), digest_of(b"new")])

    def test_pushing_the_same_manifest_again_changes_nothing(self) -> None:
        pushed = self.push_image("app", "latest", b"layer")
        before = self.site.holdings()
        self.push_manifest("app", "latest", image(b"layer"))
        self.assertEqual(self.site.holdings(), before)
        self.assert_held({"app": [pushed.digest]}, [CONFIG, digest_of(b"layer")])

    def test_tagging_a_manifest_over_the_index_that_holds_it_keeps_it(self) -> None:
        child = self.push_image("app", "", b"layer")
        self.push_index("app", "latest", [child])
        self.push_manifest("app", "latest", image(b"layer"))
        self.assert_held({"app": [child.digest]}, [CONFIG, digest_of(b"layer")])
        self.assertEqual(self.site.holdings().tags, {("app", "latest"): child.digest})


class KeepReplacedTest(ReferencesTestCase):
    """`keep-replaced`: how long a replaced manifest can still be pulled by digest."""

    options = Options(keep_replaced=HOUR, pull_grace=0)

    def test_a_replaced_manifest_can_be_pulled_by_digest_until_its_time_is_up(self) -> None:
        old = self.push_image("app", "latest", b"old")
        new = self.push_image("app", "latest", b"new")
        self.site.advance(HOUR - 1)
        self.assert_held({"app": [old.digest, new.digest]}, [CONFIG, digest_of(b"old"), digest_of(b"new")])
        self.assertEqual(self.manifest_status("app", old.digest), 200)
        self.site.advance(1)
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"new")])

    def test_a_replaced_manifest_that_is_tagged_again_stays(self) -> None:
        old = self.push_image("app", "latest", b"old")
        new = self.push_image("app", "latest", b"new")
        self.push_manifest("app", "old", image(b"old"))
        self.site.advance(2 * HOUR)
        self.assert_held({"app": [old.digest, new.digest]}, [CONFIG, digest_of(b"old"), digest_of(b"new")])

    def test_a_replaced_manifest_that_is_pushed_again_by_digest_stays(self) -> None:
        old = self.push_image("app", "latest", b"old")
        new = self.push_image("app", "latest", b"new")
        self.push_manifest("app", "", image(b"old"))
        self.site.advance(2 * HOUR)
        self.assert_held({"app": [old.digest, new.digest]}, [CONFIG, digest_of(b"old"), digest_of(b"new")])

    def test_a_replaced_manifest_that_an_index_took_up_goes_with_the_index(self) -> None:
        old = self.push_image("app", "latest", b"old")
        self.push_image("app", "latest", b"new")
        self.push_index("app", "both", [old])
        self.site.advance(2 * HOUR)
        self.assertEqual(self.manifest_status("app", old.digest), 200)
        self.delete("app", "both")
        self.assertEqual(self.manifest_status("app", old.digest), 404)

    def test_a_replaced_index_keeps_its_children_as_long(self) -> None:
        child = self.push_image("app", "", b"old")
        old = self.push_index("app", "latest", [child])
        new = self.push_image("app", "latest", b"new")
        self.site.advance(HOUR - 1)
        self.assertEqual(
            (self.manifest_status("app", old.digest), self.manifest_status("app", child.digest)), (200, 200)
        )
        self.site.advance(1)
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"new")])

    def test_a_deleted_tag_removes_at_once(self) -> None:
        self.push_image("app", "latest", b"layer")
        self.delete("app", "latest")
        self.assert_nothing_held()

    def test_the_time_is_kept_over_a_restart(self) -> None:
        self.push_image("app", "latest", b"old")
        new = self.push_image("app", "latest", b"new")
        self.site.restart()
        self.site.advance(HOUR)
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"new")])


class SubjectTest(ReferencesTestCase):
    """Referrers: manifests with a `subject`."""

    def push_referrer(self, tag: str, subject: tuple[str, int], layer: bytes) -> tuple[str, int]:
        """Push an artifact that refers to a manifest."""
        return self.push_image(
            "app", tag, layer, subject={"mediaType": OCI_INDEX, "digest": subject[0], "size": subject[1]}
        )

    def test_an_untagged_referrer_goes_with_its_subject(self) -> None:
        subject = self.push_image("app", "1", b"layer")
        self.push_referrer("", subject, b"signature")
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_a_chain_of_referrers_goes_with_its_first_subject(self) -> None:
        subject = self.push_image("app", "1", b"layer")
        bill = self.push_referrer("", subject, b"bill of materials")
        self.push_referrer("", bill, b"signature of it")
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_a_tagged_referrer_stays_with_what_refers_to_it(self) -> None:
        subject = self.push_image("app", "1", b"layer")
        bill = self.push_referrer("bill", subject, b"bill of materials")
        signature = self.push_referrer("", bill, b"signature of it")
        self.delete("app", "1")
        self.assert_held(
            {"app": [bill[0], signature[0]]}, [CONFIG, digest_of(b"bill of materials"), digest_of(b"signature of it")]
        )

    def test_a_referrer_of_a_child_goes_with_the_index(self) -> None:
        child = self.push_image("app", "", b"layer")
        self.push_index("app", "1", [child])
        self.push_referrer("", child, b"signature")
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_deleting_a_referrer_leaves_its_subject(self) -> None:
        subject = self.push_image("app", "1", b"layer")
        self.delete("app", self.push_referrer("", subject, b"signature")[0])
        self.assert_held({"app": [subject.digest]}, [CONFIG, digest_of(b"layer")])

    def test_a_referrer_loses_its_tag_and_goes(self) -> None:
        subject = self.push_image("app", "1", b"layer")
        self.push_referrer("signature", subject, b"signature")
        self.delete("app", "signature")
        self.assert_held({"app": [subject.digest]}, [CONFIG, digest_of(b"layer")])

    def test_a_referrer_whose_subject_does_not_come_is_listed_and_goes_a_day_after_its_push(self) -> None:
        missing = (digest_of(b"nowhere"), 7)
        referrer = self.push_referrer("", missing, b"signature")
        self.site.advance(DAY - 1)
        self.assert_held({"app": [referrer[0]]}, [CONFIG, digest_of(b"signature")])
        listed = self.ok(200, "GET", f"/v2/app/referrers/{missing[0]}").json["manifests"]
        self.assertEqual([entry["digest"] for entry in listed], [referrer[0]])
        self.assertEqual(self.ok(200, "GET", "/v2/_catalog").json["repositories"], ["app"])
        self.push_manifest(
            "app", "", image(b"signature", subject={"mediaType": OCI_INDEX, "digest": missing[0], "size": missing[1]})
        )
        self.site.advance(DAY - 1)
        self.assert_held({"app": [referrer[0]]}, [CONFIG, digest_of(b"signature")])
        self.site.advance(1)
        self.assert_nothing_held()
        self.assertEqual(self.ok(200, "GET", "/v2/_catalog").json["repositories"], [])

    def test_a_referrer_stays_whose_subject_comes_or_that_has_a_tag_or_an_index(self) -> None:
        content = json.dumps(image(b"layer")).encode()
        waiting = self.push_referrer("", (digest_of(content), len(content)), b"signature")
        missing = (digest_of(b"nowhere"), 7)
        tagged, listed = self.push_referrer("kept", missing, b"tagged"), self.push_referrer("", missing, b"listed")
        parent = self.push_index("app", "index", [listed])
        subject = self.push_image("app", "1", b"layer")
        self.site.advance(30 * DAY)
        self.assertEqual(
            self.site.holdings().manifests,
            {("app", pushed[0]) for pushed in (waiting, tagged, listed, parent, subject)},
        )

    def test_many_referrers_that_waited_stay_with_their_subject(self) -> None:
        content = json.dumps(image(b"layer")).encode()
        for number in range(250):
            self.push_referrer("", (digest_of(content), len(content)), b"signature %d" % (number % 2))
            self.push_image(
                "app",
                "",
                b"%d" % number,
                subject={"mediaType": OCI_INDEX, "digest": digest_of(content), "size": len(content)},
            )
        self.push_image("app", "1", b"layer")
        self.site.advance(2 * DAY)
        self.assertEqual(len(self.site.holdings().manifests), 253)
        self.delete("app", "1")
        self.site.housekeeping.sweep()
        self.assert_nothing_held()

    def test_a_referrer_pushed_before_its_subject_goes_with_it(self) -> None:
        content = json.dumps(image(b"layer")).encode()
        self.push_referrer("", (digest_of(content), len(content)), b"signature")
        self.push_image("app", "1", b"layer")
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_a_referrer_in_another_repository_stays(self) -> None:
        subject = self.push_image("other", "1", b"layer")
        referrer = self.push_referrer("", subject, b"signature")
        self.delete("other", "1")
        self.assert_held({"app": [referrer[0]]}, [CONFIG, digest_of(b"signature")])


class DeletionTest(ReferencesTestCase):
    """DELETE of a manifest by digest, and of a blob."""

    def test_a_manifest_with_tags_is_not_deleted_and_the_tags_are_named(self) -> None:
        pushed = self.push_image("app", "1.0", b"layer")
        self.push_image("app", "stable", b"layer")
        message = self.refusal(f"/v2/app/manifests/{pushed.digest}")
        self.assertIn("1.0", message)
        self.assertIn("stable", message)
        self.assertIn("DELETE /v2/app/manifests/1.0", message)
        self.assertRegex(message, "delete-untags .*: one .*, yes ")
        self.assert_held({"app": [pushed.digest]}, [CONFIG, digest_of(b"layer")])
        self.assertEqual(len(self.site.holdings().tags), 2)

    def test_a_child_is_not_deleted_and_its_index_is_named(self) -> None:
        child = self.push_image("app", "", b"layer")
        parent = self.push_index("app", "1", [child])
        self.assertIn(parent.digest, self.refusal(f"/v2/app/manifests/{child.digest}"))
        self.assert_held({"app": [child.digest, parent.digest]}, [CONFIG, digest_of(b"layer")])

    def test_a_manifest_or_tag_that_is_not_here_is_unknown(self) -> None:
        elsewhere = self.push_image("other", "1", b"layer")
        for reference in (elsewhere.digest, "1", digest_of(b"nowhere")):
            self.assertEqual(self.ok(404, "DELETE", f"/v2/app/manifests/{reference}").codes, ["MANIFEST_UNKNOWN"])
        self.assert_held({"other": [elsewhere.digest]}, [CONFIG, digest_of(b"layer")])

    def test_a_blob_that_a_manifest_references_is_not_deleted_and_the_manifest_is_named(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        for blob in (CONFIG, digest_of(b"layer")):
            self.assertIn(pushed.digest, self.refusal(f"/v2/app/blobs/{blob}"))
        self.assert_held({"app": [pushed.digest]}, [CONFIG, digest_of(b"layer")])

    def test_deleting_an_uploaded_blob_drops_its_lease_and_its_file(self) -> None:
        blob = self.push_blob("app", b"layer")
        self.ok(202, "DELETE", f"/v2/app/blobs/{blob}")
        self.assert_nothing_held()
        self.ok(404, "DELETE", f"/v2/app/blobs/{blob}")

    def test_deleting_a_blob_leaves_it_to_the_others_that_hold_it(self) -> None:
        leased, referenced = self.push_blob("one", b"leased"), self.push_blob("one", b"referenced")
        self.push_blob("two", b"leased")
        pushed = self.push_image("two", "1", b"referenced")
        for blob in (leased, referenced):
            self.ok(202, "DELETE", f"/v2/one/blobs/{blob}")
            self.assertEqual((self.blob_status("one", blob), self.blob_status("two", blob)), (404, 200))
        self.assert_held({"two": [pushed.digest]}, [CONFIG, leased, referenced])

    def test_a_blob_of_another_repository_is_unknown(self) -> None:
        blob = self.push_blob("other", b"layer")
        self.assertEqual(self.ok(404, "DELETE", f"/v2/app/blobs/{blob}").codes, ["BLOB_UNKNOWN"])
        self.assert_held({}, [blob])


class SignatureTagTest(ReferencesTestCase):
    """The tags of cosign, `sha256-….sig`, `.att` and `.sbom`: they go with the manifest that they name."""

    def sign(self, subject: str, kind: str, layer: bytes) -> tuple[str, tuple[str, int]]:
        """Push something about a manifest as cosign 2 does; returns its tag and itself."""
        tag = f"{subject.replace(':', '-')}.{kind}"
        return tag, self.push_image("app", tag, layer)

    def tags(self) -> list[str]:
        """List the tags of the repository."""
        return list(self.ok(200, "GET", "/v2/app/tags/list").json["tags"])

    def test_they_go_with_the_last_tag_of_the_manifest(self) -> None:
        subject = self.push_image("app", "1", b"layer")
        for kind in ("sig", "att", "sbom"):
            self.sign(subject.digest, kind, kind.encode())
        self.delete("app", "1")
        self.assertEqual(self.tags(), [])
        self.assert_nothing_held()

    def test_they_go_with_a_replaced_index_and_its_children_and_so_does_what_is_about_them(self) -> None:
        child = self.push_image("app", "", b"layer")
        parent = self.push_index("app", "latest", [child])
        self.sign(parent.digest, "sig", b"of the index")
        _, bill = self.sign(child.digest, "sbom", b"of the child")
        self.sign(bill[0], "sig", b"of the bill")
        new = self.push_image("app", "latest", b"new")
        self.assertEqual(self.tags(), ["latest"])
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"new")])

    def test_they_stay_while_the_manifest_does(self) -> None:
        subject = self.push_image("app", "1", b"layer")
        self.push_manifest("app", "2", image(b"layer"))
        tag, _ = self.sign(subject.digest, "sig", b"signature")
        self.delete("app", "1")
        self.assertEqual(self.tags(), ["2", tag])

    def test_they_stay_where_a_tag_of_another_kind_points(self) -> None:
        subject = self.push_image("app", "1", b"layer")
        tag, signature = self.sign(subject.digest, "sig", b"signature")
        self.push_manifest("app", "release-signature", image(b"signature"))
        self.delete("app", "1")
        self.assertEqual(self.tags(), ["release-signature", tag])
        self.assert_held({"app": [signature[0]]}, [CONFIG, digest_of(b"signature")])

    def test_one_signature_of_two_manifests_goes_with_the_second(self) -> None:
        first, second = self.push_image("app", "1", b"one"), self.push_image("app", "2", b"two")
        self.sign(first.digest, "sig", b"signature")
        tag, _ = self.sign(second.digest, "sig", b"signature")
        self.delete("app", "1")
        self.assertEqual(self.tags(), ["2", tag])
        self.delete("app", "2")
        self.assert_nothing_held()

    def test_other_tags_of_such_a_look_stay(self) -> None:
        subject = self.push_image("app", "1", b"layer")
        encoded = subject.digest.partition(":")[2]
        others = [
            f"sha256-{encoded}",
            f"sha256-{encoded}.sig2",
            f"sha256-{encoded}.sigs",
            f"sha256-{'0' * 64}.sig",
            f"{encoded}.sig",
        ]
        for tag in others:
            self.push_image("app", tag, b"other")
        self.delete("app", "1")
        self.assertEqual(self.tags(), sorted(others))

    def test_while_a_pull_of_the_manifest_is_under_way_they_can_be_had_by_digest(self) -> None:
        subject = self.push_image("app", "1", b"layer")
        _, signature = self.sign(subject.digest, "sig", b"signature")
        self.manifest_status("app", "1")
        self.site.advance(MINUTE)
        self.delete("app", "1")
        self.assertEqual(self.tags(), [])
        self.assertEqual(self.ok(200, "GET", "/v2/_catalog").json["repositories"], [])
        self.site.advance(9 * MINUTE - 1)
        self.assertEqual(
            (self.manifest_status("app", signature[0]), self.blob_status("app", digest_of(b"signature"))), (200, 200)
        )
        self.site.advance(10 * MINUTE)
        self.assert_nothing_held()


class DeleteUntagsTest(ReferencesTestCase):
    """`delete-untags`: the tags go with the manifest."""

    options = Options(delete_untags="yes")

    def test_all_tags_go_with_the_manifest(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        for number in range(2, 14):
            self.push_manifest("app", str(number), image(b"layer"))
        other = self.push_image("app", "other", b"other")
        self.delete("app", pushed.digest)
        self.assert_held({"app": [other.digest]}, [CONFIG, digest_of(b"other")])
        self.assertEqual(self.site.holdings().tags, {("app", "other"): other.digest})

    def test_a_child_of_an_index_is_refused_all_the_same(self) -> None:
        child = self.push_image("app", "amd64", b"layer")
        parent = self.push_index("app", "1", [child])
        self.assertIn(parent.digest, self.refusal(f"/v2/app/manifests/{child.digest}"))
        self.assertEqual(self.site.holdings().tags, {("app", "amd64"): child.digest, ("app", "1"): parent.digest})


class DeleteUntagsOneTest(ReferencesTestCase):
    """`delete-untags = one`: a manifest with one tag can be deleted with it."""

    options = Options(delete_untags="one")

    def test_one_tag_goes_with_the_manifest(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.delete("app", pushed.digest)
        self.assert_nothing_held()

    def test_two_tags_are_named_and_stay(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.push_manifest("app", "2", image(b"layer"))
        message = self.refusal(f"/v2/app/manifests/{pushed.digest}")
        self.assertRegex(message, "tags 1, 2.*delete-untags.*one.*yes")
        self.assertEqual(len(self.site.holdings().tags), 2)

    def test_a_child_of_an_index_is_refused_all_the_same(self) -> None:
        child = self.push_image("app", "amd64", b"layer")
        parent = self.push_index("app", "1", [child])
        self.assertIn(parent.digest, self.refusal(f"/v2/app/manifests/{child.digest}"))


class LeaseTest(ReferencesTestCase):
    """Leases: where they come from, how long they last, and what ends them."""

    def leases(self) -> dict[tuple[str, str], int]:
        """Return the seconds that each lease still lasts."""
        return {key: expires - self.site.now for key, expires in self.site.holdings().leases.items()}

    def test_an_upload_holds_its_blob_for_a_day(self) -> None:
        blob = self.push_blob("app", b"layer")
        self.assertEqual(self.leases(), {("app", blob): 24 * HOUR})
        self.site.advance(24 * HOUR - 1)
        self.assert_held({}, [blob])
        self.assertEqual(self.blob_status("app", blob), 200)
        self.site.advance(1)
        self.assert_nothing_held()

    def test_uploading_again_holds_it_for_a_day_from_then(self) -> None:
        blob = self.push_blob("app", b"layer")
        self.site.advance(HOUR)
        self.push_blob("app", b"layer")
        self.assertEqual(self.leases(), {("app", blob): 24 * HOUR})

    def test_a_blob_is_not_here_past_its_lease_even_before_it_is_removed(self) -> None:
        blob = self.push_blob("app", b"layer")
        self.site.now += 24 * HOUR
        self.assertEqual(self.blob_status("app", blob), 404)
        answer = self.site.request("PUT", "/v2/app/manifests/1", json.dumps(image(config=b"layer")).encode())
        self.assertEqual(answer.codes, ["MANIFEST_BLOB_UNKNOWN"])

    def test_putting_a_manifest_drops_the_leases_of_its_blobs_in_that_repository(self) -> None:
        other = self.push_blob("other", b"layer")
        unused = self.push_blob("app", b"unused")
        self.push_image("app", "1", b"layer")
        self.assertEqual(set(self.leases()), {("other", other), ("app", unused)})

    def test_a_mount_holds_the_blob_for_a_day(self) -> None:
        blob = self.push_blob("one", b"layer")
        for path in (f"/v2/two/blobs/uploads/?mount={blob}&from=one", f"/v2/three/blobs/uploads/?mount={blob}"):
            self.ok(201, "POST", path)
        self.site.advance(HOUR)
        self.assertEqual(self.leases(), {(name, blob): 23 * HOUR for name in ("one", "two", "three")})
        self.ok(202, "DELETE", f"/v2/one/blobs/{blob}")
        self.assertEqual((self.blob_status("one", blob), self.blob_status("two", blob)), (404, 200))
        self.site.advance(23 * HOUR)
        self.assert_nothing_held()

    def test_a_mount_of_what_is_not_there_opens_an_upload(self) -> None:
        answer = self.ok(202, "POST", f"/v2/app/blobs/uploads/?mount={digest_of(b'nowhere')}&from=other")
        self.assertTrue(answer.headers["Location"].startswith("/v2/app/blobs/uploads/"))
        self.assert_nothing_held()

    def test_head_of_a_blob_that_another_repository_references_holds_it_for_an_hour(self) -> None:
        self.push_image("one", "1", b"layer")
        blob = digest_of(b"layer")
        self.ok(200, "HEAD", f"/v2/two/blobs/{blob}")
        self.assertEqual(self.leases(), {("two", blob): HOUR})
        self.delete("one", "1")
        self.assert_held({}, [blob])
        self.assertEqual(self.blob_status("two", blob), 200)
        self.site.advance(HOUR)
        self.assert_nothing_held()

    def test_head_by_one_who_only_reads_holds_nothing(self) -> None:
        self.push_image("one", "1", b"layer")
        self.ok(404, "HEAD", f"/v2/two/blobs/{digest_of(b'layer')}", user="")
        self.assertEqual(self.leases(), {})
        self.assertEqual(set(self.site.holdings().repositories), {"one"})

    def test_head_of_a_blob_that_is_here_does_not_hold_it_longer(self) -> None:
        self.push_image("app", "1", b"layer")
        self.ok(200, "HEAD", f"/v2/app/blobs/{CONFIG}")
        self.assertEqual(self.leases(), {})

    def test_head_of_a_blob_that_is_only_leased_elsewhere_is_unknown(self) -> None:
        blob = self.push_blob("one", b"layer")
        self.ok(404, "HEAD", f"/v2/two/blobs/{blob}")
        self.assertEqual(set(self.leases()), {("one", blob)})

    def test_a_push_after_head_needs_no_upload(self) -> None:
        self.push_image("one", "1", b"layer")
        for blob in (CONFIG, digest_of(b"layer")):
            self.ok(200, "HEAD", f"/v2/two/blobs/{blob}")
        pushed = self.push_manifest("two", "1", image(b"layer"))
        self.assertEqual(self.leases(), {})
        self.delete("one", "1")
        self.assert_held({"two": [pushed.digest]}, [CONFIG, digest_of(b"layer")])

    def test_a_shorter_lease_does_not_cut_a_longer_one(self) -> None:
        pushed = self.push_image("one", "1", b"layer")
        blob = self.push_blob("one", b"layer")
        self.manifest_status("one", pushed.digest)
        self.delete("one", "1")
        self.assertEqual(self.leases()["one", blob], 24 * HOUR)


class HoldTestCase(ReferencesTestCase):
    """Looks at what can still be had."""

    def statuses(self, *digests: str) -> set[int]:
        """Fetch manifests and blobs by digest, in ways that are no answer to anybody: nothing is noted."""
        manifests = {row for row, state in self.site.holdings().states.items() if state != "gone"}
        return {
            200 if ("app", digest) in manifests or self.blob_status("app", digest) == 200 else 404 for digest in digests
        }

    def assert_nothing_listed(self) -> None:
        """Check that the repository looks as if there were nothing in it."""
        self.assertEqual(self.ok(200, "GET", "/v2/app/tags/list").json["tags"], [])
        self.assertEqual(self.ok(200, "GET", "/v2/_catalog").json["repositories"], [])
        self.assertEqual(self.site.holdings().listed, 0)


class PullGraceTest(HoldTestCase):
    """`pull-grace`: what was asked for a short while ago stays, by digest, so that a pull under way ends well."""

    def test_a_manifest_that_was_just_fetched_can_be_fetched_by_digest_for_ten_minutes_when_its_tag_goes(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.assertEqual(self.manifest_status("app", "1"), 404)
        self.assert_nothing_listed()
        self.site.advance(10 * MINUTE - 1)
        self.assertEqual(self.statuses(pushed.digest, CONFIG, digest_of(b"layer")), {200})
        self.site.advance(1)
        self.assert_nothing_held()

    def test_each_fetch_by_digest_counts_from_then(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.site.advance(6 * MINUTE)
        self.assertEqual(self.manifest_status("app", pushed.digest), 200)
        self.site.advance(10 * MINUTE - 1)
        self.assertEqual(self.statuses(pushed.digest, digest_of(b"layer")), {200})
        self.site.advance(1)
        self.assert_nothing_held()

    def test_a_fetch_ten_minutes_ago_does_not_count(self) -> None:
        self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.site.advance(10 * MINUTE)
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_every_way_to_ask_counts(self) -> None:
        ways: tuple[tuple[str, str, dict[str, str]], ...] = (
            ("GET", "manifests/1", {}),
            ("HEAD", "manifests/1", {}),
            ("GET", "manifests/1", {"If-None-Match": "*"}),
            ("HEAD", "manifests/1", {"If-None-Match": "*"}),
            ("GET", "manifests/{digest}", {}),
            ("HEAD", "manifests/{digest}", {}),
            ("GET", "blobs/{digest}", {}),
            ("HEAD", "blobs/{digest}", {}),
            ("GET", "blobs/{digest}", {"If-None-Match": "*"}),
        )
        for number, (method, path, headers) in enumerate(ways):
            with self.subTest(f"{method} {path} {headers}"):
                layer = b"layer %d" % number
                pushed = self.push_image("app", "1", layer)
                answer = self.site.request(
                    method, f"/v2/app/{path.format(digest=pushed.digest)}", headers=headers, user=""
                )
                self.assertIn(answer.status, (200, 304))
                self.delete("app", "1")
                self.assertEqual(self.statuses(pushed.digest, CONFIG, digest_of(layer)), {200})
                self.site.advance(10 * MINUTE)
                self.assert_nothing_held()

    def test_a_clock_that_is_set_changes_nothing(self) -> None:
        for seconds in (365 * DAY, -365 * DAY):
            with self.subTest(seconds):
                pushed = self.push_image("app", "1", b"layer")
                self.ok(200, "GET", "/v2/app/manifests/1")
                self.ok(200, "HEAD", f"/v2/app/blobs/{CONFIG}")
                self.site.jump(seconds)
                self.delete("app", "1")
                self.assertEqual(self.statuses(pushed.digest, CONFIG, digest_of(b"layer")), {200})
                self.site.advance(HOUR - 1)
                self.assertEqual(self.blob_status("app", CONFIG), 200)
                self.site.advance(1)
                self.assert_nothing_held()

    def test_a_fetch_from_another_repository_does_not_count(self) -> None:
        self.push_image("one", "1", b"layer")
        kept = self.push_image("two", "1", b"layer")
        self.manifest_status("two", "1")
        self.delete("one", "1")
        self.assert_held({"two": [kept.digest]}, [CONFIG, digest_of(b"layer")])

    def test_a_replaced_tag_gives_the_same_grace_and_moves_at_once(self) -> None:
        old = self.push_image("app", "latest", b"old")
        self.ok(200, "HEAD", "/v2/app/manifests/latest", user="")
        new = self.push_image("app", "latest", b"new")
        self.assertEqual(
            self.ok(200, "HEAD", "/v2/app/manifests/latest", user="").headers["Docker-Content-Digest"], new.digest
        )
        self.assertEqual(self.manifest_status("app", old.digest), 200)
        self.site.advance(10 * MINUTE)
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"new")])

    def test_an_index_that_was_fetched_keeps_its_children_at_any_depth_and_their_referrers(self) -> None:
        child = self.push_image("app", "", b"layer")
        inner = self.push_index("app", "", [child])
        outer = self.push_index("app", "latest", [inner], annotations={"level": "outer"})
        subject = {"mediaType": OCI_INDEX, "digest": child.digest, "size": child.size}
        signature = self.push_image("app", "", b"signature", subject=subject)
        self.manifest_status("app", "latest")
        new = self.push_image("app", "latest", b"new")
        self.site.advance(10 * MINUTE - 1)
        held = (
            outer.digest,
            inner.digest,
            child.digest,
            signature.digest,
            digest_of(b"layer"),
            digest_of(b"signature"),
        )
        self.assertEqual(self.statuses(*held), {200})
        listed = self.ok(200, "GET", f"/v2/app/referrers/{child.digest}").json["manifests"]
        self.assertEqual([entry["digest"] for entry in listed], [signature.digest])
        self.site.advance(1)
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"new")])

    def test_a_repository_in_which_everything_is_only_held_is_not_listed(self) -> None:
        child = self.push_image("app", "", b"layer")
        self.push_index("app", "1", [child])
        subject = {"mediaType": OCI_INDEX, "digest": child.digest, "size": child.size}
        self.push_image("app", "", b"signature", subject=subject)
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.assert_nothing_listed()
        self.site.advance(10 * MINUTE)
        self.assert_nothing_held()

    def test_a_child_that_was_fetched_stays_when_its_index_goes(self) -> None:
        fetched, other = self.push_image("app", "", b"fetched"), self.push_image("app", "", b"other")
        self.push_index("app", "1", [fetched, other])
        self.manifest_status("app", fetched.digest)
        self.delete("app", "1")
        self.assert_held({"app": [fetched.digest]}, [CONFIG, digest_of(b"fetched")])
        self.assert_nothing_listed()
        self.site.advance(10 * MINUTE)
        self.assert_nothing_held()

    def test_a_child_that_was_fetched_later_stays_longer_than_its_index(self) -> None:
        child = self.push_image("app", "", b"layer")
        parent = self.push_index("app", "1", [child])
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.site.advance(9 * MINUTE)
        self.assertEqual(self.manifest_status("app", child.digest), 200)
        self.site.advance(5 * MINUTE)
        self.assertEqual(
            (self.statuses(parent.digest), self.statuses(child.digest, digest_of(b"layer"))), ({404}, {200})
        )
        self.site.advance(5 * MINUTE)
        self.assert_nothing_held()

    def test_a_fetch_counts_for_the_manifest_that_was_fetched_and_not_for_the_next_one(self) -> None:
        first = self.push_image("app", "1", b"first")
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.push_image("app", "2", b"second")
        self.delete("app", "2")
        self.assert_held({"app": [first.digest]}, [CONFIG, digest_of(b"first")])

    def test_the_tag_of_a_child_of_an_index_that_is_only_held_leaves_nothing_that_is_listed(self) -> None:
        child = self.push_image("app", "amd64", b"layer")
        self.push_index("app", "1", [child])
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.assertEqual(self.ok(200, "GET", "/v2/_catalog").json["repositories"], ["app"])
        self.delete("app", "amd64")
        self.assert_nothing_listed()
        self.site.advance(10 * MINUTE)
        self.assert_nothing_held()

    def test_what_is_held_is_held_over_a_restart_and_goes_by_itself(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.site.restart()
        self.site.advance(10 * MINUTE - 1)
        self.assertEqual(self.statuses(pushed.digest, digest_of(b"layer")), {200})
        self.site.advance(1)
        self.assert_nothing_held()

    def test_what_is_held_can_be_tagged_again_by_a_push_and_lives_then(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.push_manifest("app", "2", image(b"layer"))
        self.site.advance(30 * DAY)
        self.assert_held({"app": [pushed.digest]}, [CONFIG, digest_of(b"layer")])
        self.assertEqual(self.ok(200, "GET", "/v2/_catalog").json["repositories"], ["app"])

    def test_a_repository_is_removed_a_day_after_the_last_of_what_is_held(self) -> None:
        self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.site.advance(10 * MINUTE)
        self.site.advance(DAY - 1)
        self.assertEqual(set(self.site.holdings().repositories), {"app"})
        self.site.advance(1)
        self.assertEqual(set(self.site.holdings().repositories), set())

    def test_a_replaced_manifest_that_is_kept_is_held_when_its_time_is_up_during_a_pull(self) -> None:
        self.site.close()
        self.site.options = Options(keep_replaced=HOUR)
        self.site.open()
        old = self.push_image("app", "latest", b"old")
        new = self.push_image("app", "latest", b"new")
        self.site.advance(HOUR - 1)
        self.manifest_status("app", old.digest)
        self.site.advance(10 * MINUTE - 1)
        self.assertEqual(self.statuses(old.digest, digest_of(b"old")), {200})
        self.site.advance(1)
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"new")])


class DeletedByDigestTest(HoldTestCase):
    """A manifest that was deleted by its digest: it is unknown at once, and what hangs on it stays for those who pull
    it.
    """

    options = Options(delete_untags="yes")

    def test_the_digest_is_unknown_and_its_blobs_children_and_referrers_are_not(self) -> None:
        child = self.push_image("app", "", b"layer")
        parent = self.push_index("app", "1", [child])
        subject = {"mediaType": OCI_INDEX, "digest": parent.digest, "size": parent.size}
        signature = self.push_image("app", "", b"signature", subject=subject)
        self.manifest_status("app", "1")
        self.delete("app", parent.digest)
        for path in ("manifests/1", f"manifests/{parent.digest}", f"blobs/{parent.digest}"):
            for method in ("GET", "HEAD"):
                self.ok(404, method, f"/v2/app/{path}")
        self.assert_nothing_listed()
        self.site.advance(10 * MINUTE - 1)
        self.assertEqual(
            self.statuses(child.digest, digest_of(b"layer"), signature.digest, digest_of(b"signature")), {200}
        )
        listed = self.ok(200, "GET", f"/v2/app/referrers/{parent.digest}").json["manifests"]
        self.assertEqual([entry["digest"] for entry in listed], [signature.digest])
        self.site.advance(1)
        self.assert_nothing_held()

    def test_a_second_deletion_is_of_something_unknown(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.delete("app", pushed.digest)
        self.assertEqual(self.ok(404, "DELETE", f"/v2/app/manifests/{pushed.digest}").codes, ["MANIFEST_UNKNOWN"])

    def test_a_push_brings_it_back(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.delete("app", pushed.digest)
        self.push_manifest("app", "1", image(b"layer"))
        self.site.advance(30 * DAY)
        self.assert_held({"app": [pushed.digest]}, [CONFIG, digest_of(b"layer")])
        self.assertEqual(self.manifest_status("app", pushed.digest), 200)

    def test_a_child_of_an_index_that_is_only_held_can_be_deleted_and_takes_the_index_along(self) -> None:
        child = self.push_image("app", "", b"layer")
        parent = self.push_index("app", "1", [child])
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.delete("app", child.digest)
        self.assertEqual({self.manifest_status("app", digest) for digest in (child.digest, parent.digest)}, {404})
        self.assertEqual(self.blob_status("app", digest_of(b"layer")), 200)
        self.site.advance(10 * MINUTE)
        self.assert_nothing_held()


class DeletedAlreadyTest(HoldTestCase):
    """Clients that delete a tag, and then the digest behind it."""

    def test_the_digest_that_went_with_its_last_tag_is_deleted_once_more_without_an_error(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.delete("app", "1")
        self.assert_nothing_held()
        self.delete("app", pushed.digest)
        self.assertEqual(self.ok(404, "DELETE", f"/v2/app/manifests/{pushed.digest}").codes, ["MANIFEST_UNKNOWN"])

    def test_so_is_one_that_is_held(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.delete("app", pushed.digest)
        self.assertEqual(self.manifest_status("app", pushed.digest), 404)
        self.assertEqual(self.blob_status("app", digest_of(b"layer")), 200)
        self.ok(404, "DELETE", f"/v2/app/manifests/{pushed.digest}")
        self.site.advance(10 * MINUTE)
        self.assert_nothing_held()

    def test_so_is_a_child_that_went_with_its_index(self) -> None:
        child = self.push_image("app", "", b"layer")
        parent = self.push_index("app", "1", [child])
        self.delete("app", "1")
        self.delete("app", parent.digest)
        self.delete("app", child.digest)

    def test_not_after_ten_minutes_and_not_in_another_repository_and_not_what_never_was(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.push_blob("other", b"x")
        self.delete("app", "1")
        self.ok(404, "DELETE", f"/v2/other/manifests/{pushed.digest}")
        self.ok(404, "DELETE", f"/v2/app/manifests/{digest_of(b'never')}")
        self.site.advance(10 * MINUTE)
        self.ok(404, "DELETE", f"/v2/app/manifests/{pushed.digest}")


class PushHoldTest(HoldTestCase):
    """What one who may push was told is there: it is, for an hour, so that the manifest that comes next finds it."""

    def put(self, document: dict[str, object], media_type: str = OCI_MANIFEST) -> None:
        """Push a manifest whose content was not sent, because it is there."""
        self.ok(201, "PUT", "/v2/app/manifests/next", json.dumps(document).encode(), {"Content-Type": media_type})

    def tell_blob(self, digest: str, method: str = "HEAD") -> None:
        """Be told that a blob is there."""
        self.ok(200, method, f"/v2/app/blobs/{digest}")

    def test_a_blob_stays_when_the_last_image_with_it_is_deleted(self) -> None:
        for method in ("HEAD", "GET"):
            with self.subTest(method):
                self.push_image("app", "1", b"layer")
                self.tell_blob(CONFIG, method)
                self.tell_blob(digest_of(b"layer"), method)
                self.delete("app", "1")
                self.assert_nothing_listed()
                self.site.advance(HOUR - 1)
                self.put(image(b"layer"))
                self.delete("app", "next")
                self.site.advance(1)
                self.assert_nothing_held()

    def test_a_blob_stays_when_the_tag_of_the_last_image_with_it_is_moved(self) -> None:
        self.push_image("app", "latest", b"layer")
        self.tell_blob(digest_of(b"layer"))
        new = self.push_image("app", "latest", b"new")
        self.site.advance(HOUR - 1)
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"layer"), digest_of(b"new")])
        self.site.advance(1)
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"new")])

    def test_it_counts_from_the_answer_and_not_from_the_removal(self) -> None:
        self.push_image("app", "1", b"layer")
        self.tell_blob(digest_of(b"layer"))
        self.site.advance(40 * MINUTE)
        self.delete("app", "1")
        self.site.advance(20 * MINUTE - 1)
        self.assert_held({}, [digest_of(b"layer")])
        self.site.advance(1)
        self.assert_nothing_held()

    def test_a_blob_stays_whose_lease_ends(self) -> None:
        blob = self.push_blob("app", b"layer")
        self.site.advance(DAY - 1)
        self.tell_blob(blob)
        self.site.now += 1
        # Before the sweep, and after it.
        self.tell_blob(blob)
        self.site.advance(HOUR - 2)
        self.push_blob("app", b"{}")
        self.put(image(b"layer"))

    def test_a_blob_that_another_repository_has_is_held_as_long_whenever_it_was_told_of(self) -> None:
        self.push_image("other", "1", b"layer")
        self.tell_blob(digest_of(b"layer"))
        self.delete("other", "1")
        self.site.advance(HOUR - 1)
        self.tell_blob(digest_of(b"layer"))
        self.site.advance(HOUR - 1)
        self.push_blob("app", b"{}")
        self.put(image(b"layer"))

    def test_a_child_stays_by_digest_when_its_tag_or_its_index_goes(self) -> None:
        for method in ("HEAD", "GET"):
            for tagged in (True, False):
                with self.subTest(f"{method} {tagged}"):
                    child = self.push_image("app", "amd64" if tagged else "", b"layer")
                    self.push_index("app", "1", [child])
                    self.ok(200, method, f"/v2/app/manifests/{child.digest}")
                    if tagged:
                        self.delete("app", "amd64")
                    self.delete("app", "1")
                    self.assert_nothing_listed()
                    self.site.advance(HOUR - 1)
                    self.put(index([child], annotations={"a": "next"}), OCI_INDEX)
                    self.site.advance(30 * DAY)
                    self.assertEqual(self.manifest_status("app", child.digest), 200)
                    self.site.advance(10 * MINUTE)
                    self.delete("app", "next")
                    self.assert_nothing_held()

    def test_a_blob_that_two_push_at_once_stays_for_the_second_when_the_image_of_the_first_is_gone(self) -> None:
        layer = digest_of(b"layer")
        ways = {"sent": ("POST", "app", 201), "mounted": ("POST", "mount", 201), "told of": ("HEAD", "head", 200)}
        for way, (method, name, status) in ways.items():
            with self.subTest(way):
                self.push_image("source", "1", b"layer")
                for config in (b"1", b"2"):
                    self.push_blob(name, config)
                    query = (
                        f"uploads/?digest={layer}"
                        if way == "sent"
                        else f"uploads/?mount={layer}"
                        if way == "mounted"
                        else layer
                    )
                    self.ok(status, method, f"/v2/{name}/blobs/{query}", b"layer" if way == "sent" else b"")
                self.push_manifest(name, "1", image(b"layer", config=b"1"))
                self.delete(name, "1")
                self.delete("source", "1")
                self.site.advance(HOUR - 1)
                self.push_manifest(name, "2", image(b"layer", config=b"2"))
                self.delete(name, "2")
                self.site.advance(1)
                self.assert_nothing_held()

    def test_a_closing_put_that_is_repeated_is_told_that_the_blob_is_there(self) -> None:
        location = self.ok(202, "POST", "/v2/app/blobs/uploads/").headers["Location"]
        self.push_blob("app", b"{}")
        closing = f"{location}&digest={digest_of(b'layer')}"
        self.ok(201, "PUT", closing, b"layer")
        self.push_manifest("app", "1", image(b"layer"))
        # Another one had the blob in his image before the first answer was missed.
        self.ok(201, "PUT", closing, b"layer")
        self.delete("app", "1")
        self.push_blob("app", b"{}")
        self.site.advance(HOUR - 1)
        self.put(image(b"layer"))

    def test_a_child_that_two_push_by_digest_stays_for_the_second_when_the_index_of_the_first_is_gone(self) -> None:
        child = self.push_image("app", "", b"layer")
        self.push_manifest("app", "", image(b"layer"))
        self.push_index("app", "1", [child])
        self.delete("app", "1")
        self.assert_nothing_listed()
        self.site.advance(HOUR - 1)
        self.put(index([child], annotations={"a": "next"}), OCI_INDEX)
        self.delete("app", "next")
        self.site.advance(1)
        self.assert_nothing_held()

    def test_a_child_that_was_deleted_by_digest_is_unknown_but_an_index_may_still_name_it(self) -> None:
        child = self.push_image("app", "", b"layer")
        self.ok(200, "HEAD", f"/v2/app/manifests/{child.digest}")
        self.delete("app", child.digest)
        self.ok(404, "HEAD", f"/v2/app/manifests/{child.digest}")
        self.site.advance(HOUR - 1)
        self.put(index([child]), OCI_INDEX)
        self.assertEqual(self.manifest_status("app", child.digest), 200)

    def test_one_who_only_reads_is_not_told_for_a_push(self) -> None:
        self.push_image("app", "1", b"layer")
        for path in (f"blobs/{digest_of(b'layer')}", f"blobs/{CONFIG}"):
            self.ok(200, "GET", f"/v2/app/{path}", user="")
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_deleting_a_blob_lets_go_of_it(self) -> None:
        blob = self.push_blob("app", b"layer")
        self.tell_blob(blob)
        self.ok(202, "DELETE", f"/v2/app/blobs/{blob}")
        self.ok(404, "HEAD", f"/v2/app/blobs/{blob}")
        self.assert_nothing_held()

    def test_it_is_held_over_a_restart_once_it_was_removed(self) -> None:
        self.push_image("app", "1", b"layer")
        self.tell_blob(CONFIG)
        self.tell_blob(digest_of(b"layer"))
        self.delete("app", "1")
        self.site.restart()
        self.site.advance(HOUR - 1)
        self.put(image(b"layer"))


class NoPullGraceTest(ReferencesTestCase):
    """`pull-grace = 0`."""

    options = Options(pull_grace=0)

    def test_nothing_stays(self) -> None:
        self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.assert_nothing_held()


class EmptyRepositoryTest(ReferencesTestCase):
    """Repositories come with the first write, and go a day after the last thing in them."""

    def assert_repositories(self, *names: str) -> None:
        """Compare the rows."""
        self.assertEqual(set(self.site.holdings().repositories), set(names))

    def catalog(self) -> list[str]:
        """List the repositories that hold a manifest."""
        return list(self.ok(200, "GET", "/v2/_catalog").json["repositories"])

    def test_a_repository_is_removed_a_day_after_its_last_tag(self) -> None:
        self.push_image("app", "1", b"layer")
        self.site.advance(30 * DAY)
        self.delete("app", "1")
        self.assertEqual(self.catalog(), [])
        self.site.advance(DAY - 1)
        self.assert_repositories("app")
        self.site.advance(1)
        self.assert_repositories()
        self.ok(404, "GET", "/v2/app/tags/list")

    def test_a_repository_that_is_filled_again_stays(self) -> None:
        self.push_image("app", "1", b"layer")
        self.delete("app", "1")
        self.site.advance(HOUR)
        self.push_image("app", "2", b"layer")
        self.site.advance(2 * DAY)
        self.assert_repositories("app")
        self.assertEqual(self.catalog(), ["app"])

    def test_a_lease_keeps_the_repository_for_a_day_more(self) -> None:
        self.push_blob("app", b"layer")
        self.assertEqual(self.catalog(), [])
        self.site.advance(DAY)
        self.assert_repositories("app")
        self.site.advance(DAY - 1)
        self.assert_repositories("app")
        self.site.advance(1)
        self.assert_repositories()

    def test_an_upload_keeps_the_repository(self) -> None:
        blob = self.push_blob("app", b"layer")
        self.ok(202, "DELETE", f"/v2/app/blobs/{blob}")
        self.site.advance(HOUR)
        location = self.ok(202, "POST", "/v2/app/blobs/uploads/").headers["Location"]
        self.site.advance(23 * HOUR)
        self.assert_repositories("app")
        self.ok(204, "DELETE", location)
        self.site.advance(DAY)
        self.assert_repositories()

    def test_an_upload_that_is_cancelled_leaves_no_repository(self) -> None:
        location = self.ok(202, "POST", "/v2/app/blobs/uploads/").headers["Location"]
        self.ok(204, "DELETE", location)
        self.assert_repositories()
        self.ok(404, "GET", "/v2/app/tags/list")


class UnusedUploadTest(ReferencesTestCase):
    """Upload sessions that nobody goes on with."""

    def upload_files(self) -> int:
        """Count the files of sessions."""
        return len(list((self.site.directory / "uploads").iterdir()))

    def test_an_upload_that_is_idle_for_a_day_is_ended_with_its_file(self) -> None:
        location = self.ok(202, "POST", "/v2/app/blobs/uploads/").headers["Location"]
        self.ok(202, "PATCH", location, b"half of it")
        self.site.advance(DAY)
        self.ok(204, "GET", location)
        self.site.advance(DAY + 1)
        self.assertEqual(self.ok(404, "GET", location).codes, ["BLOB_UPLOAD_UNKNOWN"])
        self.assertEqual(self.upload_files(), 0)
        self.assert_nothing_held()

    def test_a_finished_upload_leaves_no_file_but_the_blob(self) -> None:
        location = self.ok(202, "POST", "/v2/app/blobs/uploads/").headers["Location"]
        self.ok(202, "PATCH", location, b"all of it")
        self.ok(201, "PUT", f"{location}?digest={digest_of(b'all of it')}")
        self.assertEqual(self.upload_files(), 0)
        self.assert_held({}, [digest_of(b"all of it")])

    def test_a_wrong_digest_leaves_nothing(self) -> None:
        location = self.ok(202, "POST", "/v2/app/blobs/uploads/").headers["Location"]
        self.assertEqual(
            self.ok(400, "PUT", f"{location}?digest={digest_of(b'other')}", b"content").codes, ["DIGEST_INVALID"]
        )
        self.assertEqual(self.upload_files(), 0)
        self.assert_nothing_held()
