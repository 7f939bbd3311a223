"""Discovery: the catalog, tags and referrers (end-8, end-12), and how a client pages through them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.support.lists import walk
from tests.support.server import (
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Answer,
    Client,
    ServerTestCase,
    descriptor,
    digest_of,
    image,
    index,
)

ABSENT = "sha256:" + "0" * 64
# The fields of a result besides its name ("Docker Registry API v1", Search).
RESULT = {"description": str, "star_count": int, "is_official": bool, "is_automated": bool}
ARTIFACT, OTHER_ARTIFACT = "application/vnd.example.sbom.v1+json", "application/vnd.example.signature+json"


class PagedCase(ServerTestCase):
    """What the catalog and the list of tags have in common; `path` lists `entries`, in ASCII order, under `key`."""

    path: str
    key: str
    entries: tuple[str, ...]

    def page(self, query: str) -> tuple[str, ...]:
        answer = self.server.public.get(self.path + query)
        self.assertEqual(answer.status, 200, answer)
        return tuple(answer.json[self.key])

    def check_everything(self) -> None:
        answer = self.server.public.get(self.path)
        self.assertEqual(
            (tuple(answer.json[self.key]), answer.headers["Content-Type"]), (self.entries, "application/json")
        )
        self.assertNotIn("Link", answer.headers)
        head = self.server.public.request("HEAD", self.path)
        self.assertEqual((head.status, head.body, head.headers["Content-Length"]), (200, b"", str(len(answer.body))))

    def check_pages(self) -> None:
        count = len(self.entries)
        for n in (1, 2, 3, count - 1, count, count + 1):
            with self.subTest(n=n):
                entries, sizes = walk(self.server.public, f"{self.path}?n={n}", self.key)
                self.assertEqual(tuple(entries), self.entries)
                full, rest = divmod(count, n)
                self.assertEqual(sizes, [n] * full + ([rest] if rest else []))

    def check_last(self) -> None:
        for position, last in enumerate(self.entries):
            self.assertEqual(self.page(f"?last={last.replace('/', '%2F')}"), self.entries[position + 1 :])
        self.assertEqual(self.page(f"?last={self.entries[0].replace('/', '%2F')}&n=1"), self.entries[1:2])
        # What is not there has its place in the order all the same.
        self.assertEqual(self.page("?last=~"), ())
        self.assertEqual(self.page("?last="), self.entries)

    def check_none(self) -> None:
        answer = self.server.public.get(self.path + "?n=0")
        self.assertEqual((answer.status, answer.json[self.key]), (200, []))
        self.assertNotIn("Link", answer.headers)

    def check_numbers(self) -> None:
        for n in ("-1", "%2B5", "+5", "1_0", "%D9%A3", "", "x", "1.0", "0x1", "%201"):
            with self.subTest(n):
                self.assert_error(self.server.public.get(f"{self.path}?n={n}"), 400, "PAGINATION_NUMBER_INVALID")
        self.assertEqual(self.server.public.get(f"{self.path}?n=1%0A").status, 400)
        # A plain number that is too large asks for as much as there can be.
        self.assertEqual(self.page(f"?n={10**18}"), self.entries)


class Tags(PagedCase):
    """end-8a and end-8b."""

    path, key = "/v2/team/app/tags/list", "tags"
    entries = ("1.0", "1.10", "1.9", "A", "Z", "_x", "a", "a-b", "a.b", "z")

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for tag in reversed(cls.entries):
            cls.server.auth.push_image("team/app", tag)

    def test_tags_are_all_in_ascii_order(self) -> None:
        self.check_everything()
        self.assertEqual(self.server.public.get(self.path).json["name"], "team/app")

    def test_pages_have_n_tags_and_link_to_the_next(self) -> None:
        self.check_pages()

    def test_last_is_where_a_page_begins_without_it(self) -> None:
        self.check_last()

    def test_no_tags_asked_for_are_no_tags_and_no_link(self) -> None:
        self.check_none()

    def test_what_is_no_number_is_400(self) -> None:
        self.check_numbers()

    def test_a_repository_that_is_not_there_has_no_tags(self) -> None:
        self.assert_error(self.server.public.get("/v2/nowhere/tags/list"), 404, "NAME_UNKNOWN")

    def test_a_repository_of_untagged_manifests_has_an_empty_list(self) -> None:
        self.server.auth.push_blob("untagged", b"{}")
        self.server.auth.push_manifest("untagged", "", image())
        self.assertEqual(self.server.public.get("/v2/untagged/tags/list").json, {"name": "untagged", "tags": []})

    def test_the_path_is_that_of_the_specification_alone(self) -> None:
        for path in ("/v2/team/app/list/tags", "/v2/team/app/tags", "/v2/team/app/tags/list/"):
            self.assertEqual(self.server.public.get(path).status, 404, path)


class Catalog(PagedCase):
    """Docker's catalog."""

    path, key = "/v2/_catalog", "repositories"
    entries = ("a", "a-b", "a/b", "a/b/c", "a0", "b")

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for name in reversed(cls.entries):
            cls.server.auth.push_image(name, "v1")
        cls.server.auth.push_blob("only/blobs", b"a blob makes no repository that anybody sees")
        cls.server.auth.push_image("was/here", "v1")
        deleted = cls.server.auth.request("DELETE", "/v2/was/here/manifests/v1")
        assert deleted.status == 202, deleted

    def test_repositories_that_hold_a_manifest_are_in_ascii_order(self) -> None:
        self.check_everything()

    def test_pages_have_n_repositories_and_link_to_the_next(self) -> None:
        self.check_pages()

    def test_last_is_where_a_page_begins_without_it(self) -> None:
        self.check_last()

    def test_no_repositories_asked_for_are_none_and_no_link(self) -> None:
        self.check_none()

    def test_what_is_no_number_is_400(self) -> None:
        self.check_numbers()


class Search(ServerTestCase):
    """What `docker search HOST/WORD` asks; with the real docker in test_docker.py."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for name in ("team/hello", "team/yellow", "other"):
            cls.server.auth.push_image(name, "v1")
        cls.server.auth.push_blob("only/jello", b"a blob makes no repository that anybody sees")

    def found(self, query: str) -> list[str]:
        answer = self.server.public.get(f"/v1/search{query}")
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "application/json"), answer)
        self.assertEqual(answer.json["num_results"], len(answer.json["results"]))
        for result in answer.json["results"]:
            self.assertEqual({key: type(value) for key, value in result.items() if key != "name"}, RESULT)
        return [result["name"] for result in answer.json["results"]]

    def test_the_word_is_looked_for_in_names(self) -> None:
        self.assertEqual(self.found("?q=ello&n=25"), ["team/hello", "team/yellow"])
        self.assertEqual(self.found("?q=TEAM%2FH"), ["team/hello"])
        self.assertEqual(self.found("?q=%25"), [])
        self.assertEqual(self.found("?q=" + "x" * 1000), [])
        self.assertEqual(self.found(""), ["other", "team/hello", "team/yellow"])

    def test_as_many_are_found_as_are_asked_for(self) -> None:
        self.assertEqual(self.found("?q=ello&n=1"), ["team/hello"])
        self.assertEqual(len(self.found("?q=ello&n=1000")), 2)
        self.assert_error(self.server.public.get("/v1/search?q=ello&n=x"), 400, "PAGINATION_NUMBER_INVALID")

    def test_docker_is_told_that_the_registry_speaks_for_itself(self) -> None:
        for method in ("GET", "HEAD"):
            answer = self.server.public.request(method, "/v1/_ping")
            self.assertEqual((answer.status, answer.headers["X-Docker-Registry-Standalone"]), (200, "true"))

    def test_with_a_password_it_is_the_same_where_users_push(self) -> None:
        self.assertEqual(len(self.server.auth.get("/v1/search?q=ello").json["results"]), 2)
        self.assertEqual(Client(self.server.addresses["auth"]).get("/v1/search?q=ello").status, 401)


class PageSizes(ServerTestCase):
    """page-size and page-limit."""

    flags = ("--page-size", "2", "--page-limit", "3")
    tags = ("a", "b", "c", "d", "e", "f", "g")

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for tag in cls.tags:
            cls.server.auth.push_image("sizes", tag)

    def test_a_client_that_does_not_ask_for_a_number_gets_all(self) -> None:
        self.assertEqual(walk(self.server.public, "/v2/sizes/tags/list", "tags"), (list(self.tags), [7]))

    def test_a_client_that_asks_for_more_gets_the_limit_and_a_link(self) -> None:
        for n in (4, 7, 10**18):
            self.assertEqual(
                walk(self.server.public, f"/v2/sizes/tags/list?n={n}", "tags"), (list(self.tags), [3, 3, 1])
            )

    def test_referrers_come_in_pages_and_the_filter_stays(self) -> None:
        auth = self.server.auth
        subject = {"mediaType": OCI_MANIFEST, "digest": ABSENT, "size": 1}
        auth.push_blob("sizes/referrers", b"{}")
        pushed = []
        for number in range(10):
            artifact_type = ARTIFACT if number % 2 else OTHER_ARTIFACT
            manifest = image(subject=subject, artifactType=artifact_type, annotations={"number": str(number)})
            pushed.append((auth.push_manifest("sizes/referrers", "", manifest), artifact_type))
        path = f"/v2/sizes/referrers/referrers/{ABSENT}"
        listed, sizes = walk(self.server.public, path, "manifests")
        self.assertEqual(sizes, [2] * 5)
        self.assertEqual(sorted(entry["digest"] for entry in listed), sorted(digest for digest, _ in pushed))
        filtered, sizes = walk(self.server.public, f"{path}?artifactType={ARTIFACT.replace('+', '%2B')}", "manifests")
        self.assertEqual(sizes, [2, 2, 1])
        self.assertEqual(
            sorted(entry["digest"] for entry in filtered),
            sorted(digest for digest, artifact_type in pushed if artifact_type == ARTIFACT),
        )


class Referrers(ServerTestCase):
    """end-12a and end-12b."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        auth = cls.server.auth
        cls.manifest = image(b"layer")
        cls.digest = auth.push_image("app", "v1", b"layer")
        cls.subject = {"mediaType": OCI_MANIFEST, "digest": cls.digest, "size": len(json.dumps(cls.manifest))}

    manifest: dict[str, Any]
    digest: str
    subject: dict[str, Any]

    def referrers(self, repository: str, digest: str, query: str = "") -> Answer:
        answer = self.server.public.get(f"/v2/{repository}/referrers/{digest}{query}")
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, OCI_INDEX), answer)
        self.assertEqual((answer.json["schemaVersion"], answer.json["mediaType"]), (2, OCI_INDEX))
        return answer

    def push(
        self, repository: str, document: Mapping[str, Any], media_type: str = OCI_MANIFEST, reference: str = ""
    ) -> dict[str, Any]:
        """Push a manifest without layers of its own; returns what its descriptor begins with."""
        self.server.auth.push_blob(repository, b"{}")
        digest = self.server.auth.push_manifest(repository, reference, document, media_type)
        return {"mediaType": media_type, "digest": digest, "size": len(json.dumps(document))}

    def test_any_digest_has_an_empty_index(self) -> None:
        """As oras probes for the API."""
        for repository in ("app", "nowhere"):
            answer = self.referrers(repository, ABSENT)
            self.assertEqual(answer.json["manifests"], [])
            self.assertNotIn("Link", answer.headers)
        self.assertEqual(self.server.public.request("HEAD", f"/v2/app/referrers/{ABSENT}").status, 200)

    def test_what_is_no_digest_is_400(self) -> None:
        for text in ("v1", "sha256:00", "md5:d41d8cd98f00b204e9800998ecf8427e"):
            self.assert_error(self.server.public.get(f"/v2/app/referrers/{text}"), 400, "DIGEST_INVALID")

    def test_each_descriptor_says_what_the_specification_wants(self) -> None:
        subject = {**self.subject, "digest": digest_of(b"described")}
        annotations = {"org.example.key": "a \u00e9 value"}
        own = image(subject=subject, artifactType=ARTIFACT, annotations=annotations)
        of_config = {**image(subject=subject), "config": descriptor(b"{}", OTHER_ARTIFACT)}
        of_index = index([], subject=subject)
        index_with_type = index([], subject=subject, artifactType=ARTIFACT, annotations=annotations)
        expected = [
            {**self.push("described", own), "artifactType": ARTIFACT, "annotations": annotations},
            {**self.push("described", of_config), "artifactType": OTHER_ARTIFACT},
            self.push("described", of_index, OCI_INDEX),
            {
                **self.push("described", index_with_type, OCI_INDEX),
                "artifactType": ARTIFACT,
                "annotations": annotations,
            },
        ]
        listed = self.referrers("described", subject["digest"]).json["manifests"]
        self.assertCountEqual(listed, expected)

    def test_the_filter_is_named_and_counts(self) -> None:
        subject = {**self.subject, "digest": digest_of(b"filtered")}
        wanted = self.push("filtered", image(subject=subject, artifactType=ARTIFACT))
        self.push("filtered", image(subject=subject, artifactType=OTHER_ARTIFACT))
        everything = self.referrers("filtered", subject["digest"])
        self.assertEqual(len(everything.json["manifests"]), 2)
        self.assertNotIn("OCI-Filters-Applied", everything.headers)
        filtered = self.referrers("filtered", subject["digest"], f"?artifactType={ARTIFACT.replace('+', '%2B')}")
        self.assertEqual([entry["digest"] for entry in filtered.json["manifests"]], [wanted["digest"]])
        self.assertEqual(filtered.headers["OCI-Filters-Applied"], "artifactType")
        nothing = self.referrers("filtered", subject["digest"], "?artifactType=application/x")
        self.assertEqual((nothing.json["manifests"], nothing.headers["OCI-Filters-Applied"]), ([], "artifactType"))

    def test_referrers_of_another_repository_are_not_listed(self) -> None:
        self.push("elsewhere", image(subject=self.subject))
        self.assertEqual(self.referrers("not/elsewhere", self.digest).json["manifests"], [])

    def test_a_referrer_can_come_before_its_subject(self) -> None:
        subject = {**self.subject, "digest": digest_of(b"{}")}
        early = self.push("early", image(subject=subject))
        self.assertEqual(
            [entry["digest"] for entry in self.referrers("early", subject["digest"]).json["manifests"]],
            [early["digest"]],
        )

    def test_a_deleted_referrer_is_no_longer_listed(self) -> None:
        subject = {**self.subject, "digest": digest_of(b"deleted")}
        pushed = self.push("deleted", image(subject=subject))
        self.assertEqual(len(self.referrers("deleted", subject["digest"]).json["manifests"]), 1)
        self.assertEqual(self.server.auth.request("DELETE", f"/v2/deleted/manifests/{pushed['digest']}").status, 202)
        self.assertEqual(self.referrers("deleted", subject["digest"]).json["manifests"], [])

    def test_what_a_client_left_under_the_fallback_tag_is_part_of_the_answer(self) -> None:
        subject = {**self.subject, "digest": digest_of(b"fallback")}
        referrer = self.push("fallback", image(subject=subject, artifactType=ARTIFACT))
        listed = {**referrer, "artifactType": ARTIFACT}
        stray = self.push("fallback", image(annotations={"not": "a referrer"}))
        document = {**index([]), "manifests": [listed, stray]}
        self.push("fallback", document, OCI_INDEX, subject["digest"].replace(":", "-"))
        self.assertEqual(self.referrers("fallback", subject["digest"]).json["manifests"], [listed])

    def test_cosign_tags_are_tags_like_others(self) -> None:
        for suffix in ("sig", "att", "sbom"):
            tag = f"{self.digest.replace(':', '-')}.{suffix}"
            self.push(
                "cosign",
                {**image(), "layers": [descriptor(b"{}", OCI_LAYER)], "config": descriptor(b"{}", OCI_EMPTY)},
                reference=tag,
            )
            self.assertEqual(self.server.public.get(f"/v2/cosign/manifests/{tag}").status, 200)
