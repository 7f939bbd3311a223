"""The real docker: logs in, pushes and pulls over plain HTTP, with a dockerd of its own and without network.

HTTPS is in test_pasted.py: at 127.0.0.1 docker verifies no certificate.
"""

from __future__ import annotations

import os

from tests.support.docker import DockerTestCase
from tests.support.images import tar_of
from tests.support.registries import hosts
from tests.support.server import DOCKER_LIST, DOCKER_MANIFEST, PASSWORD, USER, digest_of, vex


class DockerTests(DockerTestCase):
    """Pushing at the auth listener, and pulling at the public one."""

    def setUp(self) -> None:
        self.auth, self.public = hosts(self.server)
        self.login(self.auth)

    def test_login_refuses_a_wrong_password(self) -> None:
        self.assertIn("unauthorized", self.login(self.auth, "wrong", code=1).lower())

    def test_login_says_that_it_succeeded(self) -> None:
        self.assertIn("Login Succeeded", self.login(self.auth))

    def test_push_without_login_is_refused(self) -> None:
        name = f"{self.auth}/stranger:v1"
        self.load(name, tar_of({"a": b"stranger"}))
        refused = self.docker("push", name, code=1, config="nobody")
        self.assertRegex(refused.stderr, "no basic auth credentials|unauthorized")
        self.assertEqual(self.server.public.get("/v2/stranger/tags/list").status, 404)

    def test_push_to_the_public_listener_says_where_to_push(self) -> None:
        name = f"{self.public}/reader:v1"
        self.load(name, tar_of({"a": b"reader"}))
        self.assertIn(
            f"push and delete at port {self.server.addresses['auth'][1]}", self.docker("push", name, code=1).stderr
        )

    def test_what_docker_saves_is_imported(self) -> None:
        name = f"{self.auth}/saved/hello:v1"
        image_id = self.load(name, tar_of({"a": b"1"}), tar_of({"b": b"2"}))
        archive = str(self.directory / "saved.tar")
        self.docker("save", "--output", archive, name)
        imported = vex("import", archive, "--username", USER, "--to", self.server.urls["auth"], text=PASSWORD + "\n")
        self.assertEqual(imported.returncode, 0, imported)
        self.assertEqual(self.pull_anew(f"{self.public}/saved/hello:v1", name), image_id)

    def test_anyone_pulls_what_was_pushed(self) -> None:
        pushed, pulled = f"{self.auth}/some/where/hello:v1", f"{self.public}/some/where/hello:v1"
        image_id = self.load(pushed, tar_of({"a": b"1"}), tar_of({"b": b"2"}))
        self.docker("push", pushed)
        self.assertEqual(self.pull_anew(pulled, pushed), image_id)
        answer = self.server.public.get("/v2/some/where/hello/manifests/v1")
        self.assertEqual(answer.headers["Content-Type"], DOCKER_MANIFEST)
        self.assertEqual((answer.json["config"]["digest"], len(answer.json["layers"])), (image_id, 2))

    def test_search_finds_what_has_the_word_in_its_name(self) -> None:
        for name in ("found/hello", "found/yellow", "found/other"):
            self.server.auth.push_image(name, "v1", b"layer")
        found = self.docker("search", "--format", "{{.Name}}", f"{self.public}/ello").stdout.splitlines()
        self.assertEqual([name for name in found if name.startswith("found/")], ["found/hello", "found/yellow"])
        self.assertEqual(
            self.docker("search", "--limit", "1", "--format", "{{.Name}}", f"{self.public}/FOUND").stdout.splitlines(),
            ["found/hello"],
        )
        self.assertEqual(self.docker("search", "--format", "{{.Name}}", f"{self.public}/nowhere").stdout, "")

    def test_pull_by_digest(self) -> None:
        pushed = f"{self.auth}/digests:v1"
        image_id = self.load(pushed, tar_of({"a": b"by digest"}))
        output = self.docker("push", pushed).stdout
        digest = digest_of(self.server.public.get("/v2/digests/manifests/v1").body)
        self.assertIn(f"digest: {digest}", output)
        self.assertEqual(self.pull_anew(f"{self.public}/digests@{digest}", pushed), image_id)

    def test_second_push_sends_only_what_is_new(self) -> None:
        base, added = tar_of({"base": os.urandom(300_000)}), tar_of({"added": os.urandom(1_000)})
        self.load(f"{self.auth}/grows:v1", base)
        self.docker("push", f"{self.auth}/grows:v1")
        self.load(f"{self.auth}/grows:v2", base, added)
        before, posts = self.server.metric("vex_received_bytes_total"), self.uploads_started()
        self.docker("push", f"{self.auth}/grows:v2")
        self.assertEqual(self.uploads_started() - posts, 2, "the new layer and the new config")
        self.assertLess(self.server.metric("vex_received_bytes_total") - before, 20_000)

    def test_repeated_push_uploads_nothing(self) -> None:
        name = f"{self.auth}/twice:v1"
        self.load(name, tar_of({"a": b"twice"}))
        self.docker("push", name)
        posts, received = self.uploads_started(), self.server.metric("vex_received_bytes_total")
        self.docker("push", name)
        self.assertGreaterEqual(posts, 2)
        self.assertEqual(self.uploads_started(), posts)
        manifest = self.server.public.get("/v2/twice/manifests/v1").body
        self.assertEqual(self.server.metric("vex_received_bytes_total") - received, len(manifest))

    def test_push_to_another_repository_sends_no_layer_again(self) -> None:
        layer = tar_of({"large": os.urandom(300_000)})
        self.load(f"{self.auth}/first:v1", layer)
        self.docker("push", f"{self.auth}/first:v1")
        self.docker("tag", f"{self.auth}/first:v1", f"{self.auth}/second:v1")
        before = self.server.metric("vex_received_bytes_total")
        self.docker("push", f"{self.auth}/second:v1")
        self.assertLess(self.server.metric("vex_received_bytes_total") - before, 20_000)
        self.assertEqual(self.server.public.get("/v2/second/manifests/v1").status, 200)

    def test_moving_a_tag_and_deleting_it_leaves_only_what_is_referenced(self) -> None:
        kept = self.server.lasting_files()
        name = f"{self.auth}/moves:latest"
        first = self.load(name, tar_of({"old": b"old"}))
        self.docker("push", name)
        self.assertIn(first, self.server.files())
        self.load(name, tar_of({"new": b"new"}))
        self.docker("push", name)
        manifest = self.server.public.get("/v2/moves/manifests/latest").json
        self.assertEqual(
            self.server.lasting_files(),
            kept | {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])},
        )
        self.assertEqual(self.server.auth.request("DELETE", "/v2/moves/manifests/latest").status, 202)
        self.assertEqual(self.server.lasting_files(), kept)
        self.assertEqual(self.server.metric("vex_blobs"), len(self.server.files()))

    def test_manifest_list(self) -> None:
        names = [f"{self.auth}/list:{architecture}" for architecture in ("amd64", "arm64")]
        for name in names:
            self.load(name, tar_of({"name": name.encode()}))
            self.docker("push", name)
        listed = f"{self.auth}/list:all"
        self.docker("manifest", "create", "--insecure", listed, *names)
        self.docker("manifest", "annotate", listed, names[1], "--os", "linux", "--arch", "arm64")
        self.docker("manifest", "push", "--insecure", listed)
        answer = self.server.public.get("/v2/list/manifests/all")
        self.assertEqual((answer.headers["Content-Type"], len(answer.json["manifests"])), (DOCKER_LIST, 2))
        image_id = self.image_id(names[0])
        self.assertEqual(self.pull_anew(f"{self.public}/list:all", *names), image_id)

    def uploads_started(self) -> float:
        return self.server.metric(
            'vex_request_duration_seconds_count{listener="auth",method="POST",op="uploads",code="202"}'
        )
