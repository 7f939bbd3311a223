"""The real skopeo: copies in both formats, single images and indexes, over plain HTTP and HTTPS; inspects, lists and
deletes.
"""

from __future__ import annotations

import json
from typing import Any

from tests.support.images import INDEX, SINGLE
from tests.support.server import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, USER, digest_of
from tests.support.skopeo import SkopeoTestCase

FORMATS = {
    ("oci", SINGLE): OCI_MANIFEST,
    ("oci", INDEX): OCI_INDEX,
    ("v2s2", SINGLE): DOCKER_MANIFEST,
    ("v2s2", INDEX): DOCKER_LIST,
}


class CopyTests(SkopeoTestCase):
    def test_copies_images_and_indexes_in_both_formats(self) -> None:
        for (form, kind), media_type in FORMATS.items():
            with self.subTest(format=form, kind=kind):
                self.check_copy(form, kind, media_type)

    def check_copy(self, form: str, kind: str, media_type: str) -> None:
        blobs, name = self.layout.blobs[kind], f"copies-{form}/{kind}"
        self.push(kind, f"{name}:v1", form)
        answer = self.client("public").get(f"/v2/{name}/manifests/v1")
        self.assertEqual((answer.headers["Content-Type"], answer.json["mediaType"]), (media_type, media_type))
        self.assertEqual(answer.headers["Docker-Content-Digest"], digest_of(answer.body))
        self.assertEqual(self.server.lasting_files(), blobs)
        self.assertEqual(self.pull(f"{name}:v1"), blobs)
        self.assertEqual(self.pull(f"{name}@{digest_of(answer.body)}"), blobs)
        self.skopeo(
            "copy",
            "--all",
            self.tls("src-"),
            self.tls("dest-"),
            f"docker://{self.public}/{name}:v1",
            f"docker://{self.auth}/again/{kind}:v1",
        )
        self.assertEqual(self.client("public").get(f"/v2/again/{kind}/manifests/v1").body, answer.body)
        self.assertEqual(self.delete_tag(name, "v1"), blobs, "the other repository still needs everything")
        self.assertEqual(self.delete_tag(f"again/{kind}", "v1"), set())


class HttpsCopyTests(CopyTests):
    """With the certificate of `vex quickstart`, verified."""

    https = True

    def test_the_certificate_is_refused_until_it_is_trusted(self) -> None:
        refused = self.skopeo("inspect", f"docker://{self.public}/any:v1", code=1)
        self.assertIn("x509: certificate signed by unknown authority", refused.stderr)


class CommandTests(SkopeoTestCase):
    def test_login_refuses_a_wrong_password(self) -> None:
        arguments = (
            "login",
            self.tls(),
            "--authfile",
            str(self.directory / "wrong.json"),
            "--username",
            USER,
            "--password-stdin",
            self.auth,
        )
        refused = self.skopeo(*arguments, text="wrong", code=1)
        self.assertIn("invalid username/password", refused.stderr)

    def test_copy_to_the_public_listener_says_where_to_push(self) -> None:
        source, target = f"oci:{self.layout.directory}:{SINGLE}", f"docker://{self.public}/refused:v1"
        refused = self.skopeo("copy", self.tls("dest-"), source, target, code=1)
        self.assertIn(f"push and delete at port {self.server.addresses['auth'][1]}", refused.stderr)

    def test_inspect_shows_digest_and_layers(self) -> None:
        self.push(SINGLE, "inspected:v1")
        manifest = self.client("public").get("/v2/inspected/manifests/v1")
        shown = self.inspect(f"{self.public}/inspected:v1")
        self.assertEqual(shown["Digest"], digest_of(manifest.body))
        self.assertEqual(shown["Layers"], [layer["digest"] for layer in manifest.json["layers"]])
        self.assertEqual(shown["RepoTags"], ["v1"])
        raw = self.skopeo("inspect", "--raw", self.tls(), f"docker://{self.public}/inspected:v1").stdout
        self.assertEqual(raw.encode(), manifest.body)

    def test_list_tags_lists_all(self) -> None:
        tags = ["10", "9", "Latest", "_x", "latest", "v1.0"]
        for tag in reversed(tags):
            self.push(SINGLE, f"tagged:{tag}")
        shown = json.loads(self.skopeo("list-tags", self.tls(), f"docker://{self.public}/tagged").stdout)
        self.assertEqual(shown["Tags"], tags)

    def test_delete_of_a_tagged_image_is_refused_and_names_the_tag(self) -> None:
        self.push(SINGLE, "kept:precious")
        refused = self.skopeo("delete", self.tls(), f"docker://{self.auth}/kept:precious", code=1)
        self.assertRegex(refused.stderr, "tag precious.*DELETE /v2/kept/manifests/precious.*delete-untags")
        self.assertEqual(self.pull("kept:precious"), self.layout.blobs[SINGLE])

    def inspect(self, name: str) -> Any:
        return json.loads(self.skopeo("inspect", self.tls(), f"docker://{name}").stdout)


class DeletingTests(SkopeoTestCase):
    """With delete-untags = yes, which skopeo expects."""

    flags = ("--pull-grace", "0s", "--delete-untags", "yes")

    def test_delete_removes_the_tag_and_what_it_alone_kept(self) -> None:
        self.push(INDEX, "deleted:all")
        self.push(SINGLE, "deleted:one", "v2s2")
        self.delete("deleted:all")
        self.assertEqual(self.server.public.get("/v2/deleted/tags/list").json["tags"], ["one"])
        self.assertEqual(self.server.lasting_files(), self.layout.blobs[SINGLE])
        self.delete("deleted:one")
        self.assertEqual(self.server.lasting_files(), set())
        self.assertEqual(self.server.public.get("/v2/_catalog").json["repositories"], [])
        self.assertEqual([self.server.metric(f"vex_{what}") for what in ("tags", "uploads_open")], [0] * 2)

    def test_delete_of_an_image_in_an_index_is_refused_and_names_the_index(self) -> None:
        self.push(INDEX, "parts:all")
        index = self.server.public.get("/v2/parts/manifests/all")
        child = index.json["manifests"][1]["digest"]
        refused = self.skopeo("delete", self.tls(), f"docker://{self.auth}/parts@{child}", code=1)
        self.assertIn(f"index {digest_of(index.body)}", refused.stderr)
        self.assertEqual(self.pull("parts:all"), self.layout.blobs[INDEX])
        self.delete("parts:all")
        self.assertEqual(self.server.lasting_files(), set())

    def delete(self, name: str) -> None:
        self.skopeo("delete", self.tls(), f"docker://{self.auth}/{name}")


class PullGraceTests(SkopeoTestCase):
    """With the default pull-grace."""

    flags = ()

    def test_a_pull_under_way_ends_well_when_the_tag_is_deleted(self) -> None:
        self.push(SINGLE, "fetched:v1")
        self.pull("fetched:v1")
        digest = self.server.public.get("/v2/fetched/manifests/v1").headers["Docker-Content-Digest"]
        self.assertEqual(self.delete_tag("fetched", "v1"), set())
        self.assertEqual(self.pull(f"fetched@{digest}"), self.layout.blobs[SINGLE])
        self.assertEqual(self.server.public.get("/v2/fetched/tags/list").json["tags"], [])
        self.assertEqual(self.server.public.get("/v2/_catalog").json["repositories"], [])
