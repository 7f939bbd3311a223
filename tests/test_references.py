"""The reference rules and the leases, rule by rule: what stays, what goes, and when.

Each test says what must be held in the end; rows and files must then be exactly that. Expectations are the design's, not the code's.
"""

from __future__ import annotations

import json

from tests.in_process import DAY, HOUR, MINUTE, InProcessTestCase, Options
from tests.support import DOCKER_MANIFEST, OCI_INDEX, OCI_LAYER, descriptor, digest_of, image

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
        self.assert_held({"app": [tagged.digest, shared.digest, other.digest]}, [CONFIG, digest_of(b"tagged"), digest_of(b"shared")])

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
        self.push_image("app", "1", b"{}", b"{}")
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
        pushed = self.push_manifest("app", "cache", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}, OCI_INDEX)
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
        for body in (image(b"layer"), {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(json.dumps(image(b"layer")).encode(), OCI_INDEX)]}):
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
        self.assertEqual((self.manifest_status("app", old.digest), self.manifest_status("app", child.digest)), (200, 200))
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
        return self.push_image("app", tag, layer, subject={"mediaType": OCI_INDEX, "digest": subject[0], "size": subject[1]})

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
        self.assert_held({"app": [bill[0], signature[0]]}, [CONFIG, digest_of(b"bill of materials"), digest_of(b"signature of it")])

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

    def test_a_subject_that_is_not_there_is_no_reason_to_refuse_or_to_remove(self) -> None:
        missing = (digest_of(b"nowhere"), 7)
        referrer = self.push_referrer("", missing, b"signature")
        self.site.advance(30 * DAY)
        self.assert_held({"app": [referrer[0]]}, [CONFIG, digest_of(b"signature")])
        listed = self.ok(200, "GET", f"/v2/app/referrers/{missing[0]}").json["manifests"]
        self.assertEqual([entry["digest"] for entry in listed], [referrer[0]])

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


class DeleteUntagsTest(ReferencesTestCase):
    """`delete-untags`: the tags go with the manifest."""

    options = Options(delete_untags=True)

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


class PullGraceTest(ReferencesTestCase):
    """`pull-grace`: the blobs of a manifest that was fetched a short while ago stay, so that a pull under way ends well."""

    def test_blobs_stay_for_ten_minutes_when_the_manifest_was_just_fetched(self) -> None:
        pushed = self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.delete("app", "1")
        self.assertEqual(self.manifest_status("app", pushed.digest), 404)
        self.site.advance(10 * MINUTE - 1)
        self.assert_held({}, [CONFIG, digest_of(b"layer")])
        self.assertEqual(self.blob_status("app", digest_of(b"layer")), 200)
        self.site.advance(1)
        self.assert_nothing_held()

    def test_a_fetch_ten_minutes_ago_does_not_count(self) -> None:
        self.push_image("app", "1", b"layer")
        self.manifest_status("app", "1")
        self.site.advance(10 * MINUTE)
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_a_head_is_no_fetch(self) -> None:
        self.push_image("app", "1", b"layer")
        self.ok(200, "HEAD", "/v2/app/manifests/1")
        self.delete("app", "1")
        self.assert_nothing_held()

    def test_a_fetch_from_another_repository_does_not_count(self) -> None:
        self.push_image("one", "1", b"layer")
        self.push_image("two", "1", b"layer")
        self.manifest_status("two", "1")
        self.delete("one", "1")
        self.assertEqual(self.site.holdings().leases, {})

    def test_a_replaced_tag_gives_the_same_grace(self) -> None:
        self.push_image("app", "latest", b"old")
        self.manifest_status("app", "latest")
        new = self.push_image("app", "latest", b"new")
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"old"), digest_of(b"new")])
        self.site.advance(10 * MINUTE)
        self.assert_held({"app": [new.digest]}, [CONFIG, digest_of(b"new")])

    def test_a_child_that_was_fetched_has_its_blobs_kept(self) -> None:
        fetched, other = self.push_image("app", "", b"fetched"), self.push_image("app", "", b"other")
        self.push_index("app", "1", [fetched, other])
        self.manifest_status("app", "1")
        self.manifest_status("app", fetched.digest)
        self.delete("app", "1")
        self.assert_held({}, [CONFIG, digest_of(b"fetched")])

    def test_a_fetch_counts_for_the_manifest_that_was_fetched_and_not_for_the_next_one(self) -> None:
        self.push_image("app", "1", b"first")
        self.manifest_status("app", "1")
        self.delete("app", "1")
        second = self.push_image("app", "2", b"second")
        self.delete("app", "2")
        self.assertNotIn(("app", digest_of(b"second")), self.site.holdings().leases)
        self.assertEqual(self.blob_status("app", digest_of(b"second")), 404, second)


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
        self.assertEqual(self.ok(400, "PUT", f"{location}?digest={digest_of(b'other')}", b"content").codes, ["DIGEST_INVALID"])
        self.assertEqual(self.upload_files(), 0)
        self.assert_nothing_held()
