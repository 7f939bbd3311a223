"""The pages over HTTP, from the real server: what they show, where they lead, and how they answer what is wrong."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.page import Page, PageAssertions
from tests.support.raw import connected
from tests.support.server import (
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    ServerTestCase,
    descriptor,
    digest_of,
    image,
)
from tests.support.tars import archive, member

LAYER = archive(member("bin/app", content=b"x" * 2048, mode=0o755), member("etc/.wh.old"))
CONFIG = {
    "os": "linux",
    "architecture": "arm64",
    "variant": "v8",
    "created": "2020-02-03T04:05:06.789Z",
    "author": "Ada <ada@example.org>",
    "config": {
        "Env": ["PATH=/bin", "EMPTY="],
        "Entrypoint": ["/bin/app", "-x"],
        "Cmd": ["serve"],
        "User": "nobody",
        "WorkingDir": "/srv",
        "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"org.opencontainers.image.source": "https://example.org/source"},
        "Healthcheck": {"Test": ["CMD-SHELL", "test -e /ok"], "Interval": 30_000_000_000, "Retries": 3},
    },
    "history": [
        {"created_by": "/bin/sh -c #(nop) ADD file:123 in / "},
        {"created_by": "/bin/sh -c make   install"},
        {"created_by": "ENV PATH=/bin", "empty_layer": True},
    ],
}
_HREF = re.compile(rb'(?:href|src)="([^"]*)"')


class WebTestCase(PageAssertions, ServerTestCase):
    """Pages of one server."""

    def get(self, path: str, status: int = 200, headers: dict[str, str] | None = None) -> Page:
        """Fetch a page, and check that it is well-formed and safe."""
        answer = self.server.public.get(path, headers)
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (status, "text/html; charset=utf-8"), path)
        page = Page(answer.body.decode())
        self.assertEqual(page.faults, [], path)
        return page

    @property
    def host(self) -> str:
        """How commands address the public listener."""
        return "{}:{}".format(*self.server.addresses["public"])

    def push_image(self, repository: str, tag: str, **config: Any) -> str:
        """Push an image with a layer of files; returns its digest."""
        return self.server.auth.push_image(
            repository, tag, LAYER, tag.encode() * 10, config=json.dumps({**CONFIG, **config}).encode()
        )

    def push_files(self, repository: str, tag: str, files: dict[str, bytes], artifact_type: str, **fields: Any) -> str:
        """Push an artifact; returns its digest."""
        layers = []
        for title, content in files.items():
            self.server.auth.push_blob(repository, content)
            layers.append(
                {**descriptor(content, "text/plain"), "annotations": {"org.opencontainers.image.title": title}}
            )
        self.server.auth.push_blob(repository, b"{}")
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": descriptor(b"{}", OCI_EMPTY),
            "layers": layers,
        }
        return self.server.auth.push_manifest(repository, tag, {**document, **fields})


class EmptyRegistry(WebTestCase):
    def test_it_shows_the_commands_to_log_in_tag_and_push(self) -> None:
        push = "127.0.0.1:{}".format(self.server.addresses["auth"][1])
        page = self.get("/")
        self.assert_shows(
            page, f"docker login {push}", f"docker tag IMAGE {push}/hello:latest", f"docker push {push}/hello:latest"
        )
        self.assert_shows(page, f"docker pull {self.host}/hello:latest")

    def test_a_filter_that_finds_nothing_leads_back(self) -> None:
        self.assert_shows(self.get("/?q=x"), "No repository has that in its name.", "Show all")


class Images(WebTestCase):
    def test_an_image_shows_everything_about_it(self) -> None:
        digest = self.push_image("app", "v1")
        page = self.get(f"/r/app/m/{digest}/?tag=v1")
        by_tag = [f"docker pull {self.host}/app:v1", f"podman pull --tls-verify=false {self.host}/app:v1"]
        by_tag += [
            f"skopeo copy --src-tls-verify=false docker://{self.host}/app:v1 oci-archive:app.tar",
            f"crane pull --insecure {self.host}/app:v1 app.tar",
        ]
        self.assert_shows(page, "app:v1", "Image", *by_tag, f"docker pull {self.host}/app@{digest}", "image.tar")
        self.assert_shows(page, "Digest", digest, "Tags", "v1", "Media type", OCI_MANIFEST)
        self.assert_shows(page, "Platform", "linux/arm64/v8", "Created", "years ago", "Author", "Ada <ada@example.org>")
        self.assertIn("2020-02-03 04:05:06 UTC", page.values)
        steps = ["ADD file:123 in /", "v1.tar+gzip", "RUN make install", "ENV PATH=/bin"]
        self.assert_shows(page, "Layers", *steps)
        self.assert_shows(
            page,
            "Entrypoint",
            '["/bin/app", "-x"]',
            "Command",
            '["serve"]',
            "User",
            "nobody",
            "Working directory",
            "/srv",
        )
        self.assert_shows(
            page,
            "Ports",
            "443/tcp, 80/tcp",
            "Volumes",
            "/data",
            "Health check",
            "test -e /ok; interval 30 s, 3 retries",
        )
        self.assert_shows(
            page, "PATH", "/bin", "EMPTY", "Labels", "org.opencontainers.image.source", "https://example.org/source"
        )

    def test_a_usual_image_has_a_page_of_less_than_sixty_kilobytes(self) -> None:
        steps = [
            {
                "created_by": (
                    f"RUN /bin/sh -c apt-get install -y package-{number} && rm -rf /var/lib/apt/lists/* # buildkit"
                )
            }
            for number in range(30)
        ]
        layers = [b"%d" % number for number in range(30)]
        labels = {f"org.example.label-{number}": "value " * 10 for number in range(30)}
        config = {**CONFIG, "history": steps, "config": {**CONFIG["config"], "Labels": labels}}  # type: ignore[dict-item]
        digest = self.server.auth.push_image("usual", "v1", *layers, config=json.dumps(config).encode())
        self.assertLess(len(self.server.public.get(f"/r/usual/m/{digest}/").body), 60_000)

    def test_a_history_that_does_not_fit_is_not_told_of_the_wrong_layers(self) -> None:
        digest = self.push_image("unfit", "v1", history=[{"created_by": f"step {number}"} for number in range(5)])
        page = self.get(f"/r/unfit/m/{digest}/")
        self.assertNotIn("step 1", page.text)
        self.assert_shows(page, "Layers", "no history", "no history")

    def test_a_tag_that_points_elsewhere_is_not_shown(self) -> None:
        digest = self.push_image("app", "one")
        self.server.auth.push_image("app", "two", b"x")
        self.assertNotIn("app:two", self.get(f"/r/app/m/{digest}/?tag=two").text)

    def test_the_json_is_on_a_page_of_its_own(self) -> None:
        digest = self.push_image("app", "v1")
        self.assert_shows(self.get(f"/r/app/m/{digest}/json/"), '{ "schemaVersion": 2, "mediaType":', '"layers": [ {')

    def test_signatures_of_cosign_that_are_found_by_tag_are_referrers(self) -> None:
        digest = self.push_image("signed", "v1")
        for ending in ("sig", "att", "sbom"):
            self.push_files(
                "signed", f"sha256-{digest[7:]}.{ending}", {"x": ending.encode()}, "application/vnd.example"
            )
        self.assert_shows(self.get(f"/r/signed/m/{digest}/"), "referrers", "Attestation", "SBOM", "Signature")

    def test_the_files_of_a_layer_are_listed(self) -> None:
        digest = self.push_image("app", "v1")
        page = self.get(f"/r/app/m/{digest}/layer/{digest_of(LAYER)}/?tag=v1")
        self.assert_shows(
            page, "Layer 1 of app:v1", "Made by", "ADD file:123 in /", "bin/app", "-rwxr-xr-x", "0:0", "2.00 KiB"
        )
        self.assert_shows(page, "etc/old", "deleted", "2 entries")

    def test_a_layer_that_is_no_archive_is_said_to_be_none(self) -> None:
        digest = self.push_image("app", "v1")
        self.assert_shows(
            self.get(f"/r/app/m/{digest}/layer/{digest_of(b'v1' * 10)}/"),
            "0 entries",
            "This list ends here: what follows is not a tar archive.",
        )

    def test_a_blob_that_is_no_layer_of_the_manifest_is_not_there(self) -> None:
        digest = self.push_image("app", "v1")
        other = self.server.auth.push_blob("app", b"another")
        self.assert_shows(self.get(f"/r/app/m/{digest}/layer/{other}/", 404), "This manifest has no such layer")

    def test_an_archive_for_http_1_0_ends_with_the_connection(self) -> None:
        digest = self.push_image("old/client", "v1")
        path = f"/r/old/client/m/{digest}/image.tar"
        with connected(self.server.addresses["public"]) as wire:
            wire.send(f"GET {path} HTTP/1.0\r\nHost: {self.host}\r\nConnection: keep-alive\r\n\r\n".encode())
            head, _, body = wire.rest().partition(b"\r\n\r\n")
        self.assertNotIn(b"transfer-encoding", head.lower())
        self.assertIn(b"\r\nConnection: close\r\n", head + b"\r\n")
        self.assertTrue(body == self.server.public.get(path).body)

    def test_two_images_are_compared(self) -> None:
        old = self.push_image("app", "v1")
        old_config = CONFIG["config"]
        assert isinstance(old_config, dict)
        config = {**old_config, "Env": ["PATH=/bin", "NEW=1"], "User": "root"}
        new = self.push_image("app", "v2-longer", config=config)
        answer = self.server.public.get(f"/r/app/m/{old}/?compare=v2-longer")
        self.assertEqual((answer.status, answer.headers["Location"]), (307, f"/r/app/diff/{old}...{new}/"))
        page = self.get(answer.headers["Location"])
        self.assert_shows(
            page,
            "Before: v1",
            "After: v2-longer",
            "more than v1",
            "= shared",
            "\u2212 removed",
            "20 bytes",
            "+ added",
            "90 bytes",
        )
        self.assert_shows(
            page, "Settings", "User nobody root", "Environment", "EMPTY not set", "NEW not set 1", "Labels"
        )
        self.assertNotIn("PATH /bin", " ".join(page.text.split()))


class Indexes(WebTestCase):
    def push_index(self, repository: str, tag: str) -> tuple[str, dict[str, str]]:
        """Push an index of two platforms with an attestation of one; returns the digests of all."""
        children, digests = [], {}
        for architecture in ("amd64", "s390x"):
            settings = json.dumps({**CONFIG, "architecture": architecture, "variant": ""}).encode()
            digests[architecture] = self.server.auth.push_image(
                repository, "", LAYER, f"{tag}{architecture}".encode(), config=settings
            )
            document = json.dumps(image(LAYER, f"{tag}{architecture}".encode(), config=settings)).encode()
            children.append(
                {**descriptor(document, OCI_MANIFEST), "platform": {"os": "linux", "architecture": architecture}}
            )
        statement = b'{"predicateType": "https://slsa.dev/provenance/v1"}'
        nothing = b'{"os": "unknown", "architecture": "unknown"}'
        entry = {
            **descriptor(statement, "application/vnd.in-toto+json"),
            "annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"},
        }
        for content in (statement, nothing):
            self.server.auth.push_blob(repository, content)
        attestation = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(nothing, OCI_CONFIG),
            "layers": [entry],
        }
        digests["attestation"] = self.server.auth.push_manifest(repository, "", attestation)
        annotations = {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": digests["amd64"],
        }
        platform = {"os": "unknown", "architecture": "unknown"}
        children.append(
            {
                **descriptor(json.dumps(attestation).encode(), OCI_MANIFEST),
                "platform": platform,
                "annotations": annotations,
            }
        )
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
        return self.server.auth.push_manifest(repository, tag, index, OCI_INDEX), digests

    def test_an_index_lists_its_platforms_with_their_provenance(self) -> None:
        digest, digests = self.push_index("app", "v1")
        page = self.get(f"/r/app/m/{digest}/")
        self.assert_shows(
            page,
            "app:v1",
            "Index",
            "docker pull",
            "Platforms",
            "linux/amd64 with provenance",
            digests["amd64"][:19],
            "linux/s390x",
        )
        self.assertNotIn("unknown", page.text)
        self.assert_shows(self.get(f"/r/app/m/{digests['s390x']}/"), "Part of", "the index v1")
        attestation = self.get(f"/r/app/m/{digests['attestation']}/")
        self.assert_shows(
            attestation, "Artifact", "application/vnd.in-toto+json", "Files", "https://slsa.dev/provenance/v1"
        )

    def test_an_archive_of_an_index_is_that_of_a_platform(self) -> None:
        digest, digests = self.push_index("app", "v1")
        answer = self.server.public.get(f"/r/app/m/{digest}/image.tar?platform=linux/s390x")
        self.assertEqual(answer.status, 200)
        self.assertIn(digests["s390x"].encode(), answer.body)
        self.assertIn(
            f"/r/app/m/{digest}/image.tar?platform=linux%2Fs390x&tag=v1", self.get(f"/r/app/m/{digest}/").values
        )
        for query in ("", "?platform=linux/arm64", "?platform=unknown/unknown"):
            self.assert_shows(self.get(f"/r/app/m/{digest}/image.tar{query}", 400), "it has: linux/amd64, linux/s390x")

    def test_indexes_are_compared_by_platform(self) -> None:
        old, new = self.push_index("app", "v1")[0], self.push_index("app", "v2")[0]
        self.assert_shows(
            self.get(f"/r/app/diff/{old}...{new}/"), "Platforms: linux/amd64, linux/s390x", "removed", "added"
        )
        self.assert_shows(self.get(f"/r/app/diff/{old}...{new}/?platform=linux/s390x"), "removed 7 bytes", "added")

    def test_layers_in_an_index_are_files_as_in_a_cache_of_buildkit(self) -> None:
        layer = self.server.auth.push_blob("cache", LAYER)
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(LAYER, OCI_LAYER)]}
        digest = self.server.auth.push_manifest("cache", "v1", document, OCI_INDEX)
        page = self.get(f"/r/cache/m/{digest}/")
        self.assertIn(f"/v2/cache/blobs/{layer}", page.values)
        self.assert_shows(self.get("/r/cache/"), "v1", "index")

    def test_an_empty_index_is_said_to_be_empty(self) -> None:
        digest = self.server.auth.push_index("none", "v1", [])
        self.assert_shows(self.get(f"/r/none/m/{digest}/"), "This index is empty")


class Artifacts(WebTestCase):
    def test_an_artifact_lists_its_files_for_download(self) -> None:
        digest = self.push_files(
            "docs", "v1", {"guide.txt": b"read me"}, "application/vnd.example.docs", annotations={"a": "b"}
        )
        page = self.get(f"/r/docs/m/{digest}/?tag=v1")
        self.assert_shows(
            page,
            "Artifact",
            "Artifact type",
            "application/vnd.example.docs",
            "Files",
            "guide.txt",
            "7 bytes",
            "text/plain",
        )
        self.assert_shows(page, "Annotations", "a b")
        self.assertNotIn("docker pull", page.text)
        blob = self.server.public.get(f"/v2/docs/blobs/{digest_of(b'read me')}")
        self.assertIn(f"/v2/docs/blobs/{digest_of(b'read me')}", page.values)
        self.assertEqual((blob.body, blob.headers["Content-Disposition"]), (b"read me", "attachment"))

    def test_referrers_are_shown_by_type_and_lead_back(self) -> None:
        subject = self.push_image("app", "v1")
        reference = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}
        types = {
            "application/spdx+json": "SBOM",
            "application/vnd.cncf.notary.signature": "Signature",
            "application/vnd.example": "Artifact",
        }
        digests = {kind: self.push_files("app", "", {"x": kind.encode()}, kind, subject=reference) for kind in types}
        page = self.get(f"/r/app/m/{subject}/")
        for kind, name in types.items():
            self.assert_shows(page, "referrers", f"{name} ", kind, digests[kind][:19])
            self.assert_shows(self.get(f"/r/app/m/{digests[kind]}/"), "Refers to", subject[:19])


class Addresses(WebTestCase):
    def test_a_missing_slash_is_added(self) -> None:
        digest = self.push_image("app", "v1")
        layer = digest_of(LAYER)
        for path in (
            "/r/app",
            f"/r/app/m/{digest}",
            f"/r/app/m/{digest}/json",
            f"/r/app/m/{digest}/layer/{layer}",
            f"/r/app/diff/{digest}...{digest}",
        ):
            answer = self.server.public.get(path)
            self.assertEqual((answer.status, answer.headers["Location"]), (307, f"{path}/"))
        self.assertEqual(
            self.server.public.get(f"/r/app/m/{digest}?tag=v1").headers["Location"], f"/r/app/m/{digest}/?tag=v1"
        )

    def test_what_is_not_there_is_a_page_with_a_way_back(self) -> None:
        missing = digest_of(b"missing")
        for path in (
            "/nothing",
            "/r/",
            "/r/none/",
            f"/r/none/m/{missing}/",
            f"/r/none/m/{missing}/json/",
            f"/r/none/diff/{missing}...{missing}/",
            "/static/x",
        ):
            page = self.get(path, 404)
            self.assert_shows(page, "Not here", "All repositories")
            self.assertIn(("a", ("href",)), page.elements)

    def test_a_digest_that_is_none_is_a_bad_address(self) -> None:
        for digest in ("sha256:1", "md5:" + "0" * 32, "sha256:" + "g" * 64):
            for path in (f"/r/app/m/{digest}/", f"/r/app/m/{digest}/image.tar", f"/r/app/diff/{digest}...{digest}/"):
                self.assert_shows(self.get(path, 400), "This address is not right", "All repositories")

    def test_other_methods_are_refused_with_a_page(self) -> None:
        for method in ("POST", "PUT", "DELETE"):
            answer = self.server.public.request(method, "/")
            self.assertEqual((answer.status, answer.headers["Content-Type"]), (405, "text/html; charset=utf-8"))

    def test_head_has_the_length_of_the_page_and_no_body(self) -> None:
        self.push_image("app", "v1")
        for path in ("/", "/r/app/"):
            answer = self.server.public.request("HEAD", path)
            self.assertEqual((answer.status, answer.body), (200, b""))
            self.assertGreater(int(answer.headers["Content-Length"]), 1000)

    def test_style_and_script_are_cached_for_ever_under_the_hash_of_their_content(self) -> None:
        answer = self.server.public.get("/")
        files = [path.decode() for path in _HREF.findall(answer.body) if path.startswith(b"/static/")]
        self.assertEqual(
            sorted(re.sub(r"\.[0-9a-f]{16}\.", ".", path) for path in files),
            ["/static/vex.css", "/static/vex.js", "/static/vex.svg"],
        )
        for path in files:
            file = self.server.public.get(path)
            self.assertEqual((file.status, file.headers["Cache-Control"]), (200, "public, max-age=31536000, immutable"))
            self.assertIn(digest_of(file.body)[7:23], path)

    def test_no_page_names_another_host_unless_a_pusher_did(self) -> None:
        digest = self.push_image("app", "v1", config={})
        for path in ("/", "/r/app/", f"/r/app/m/{digest}/", f"/r/app/m/{digest}/layer/{digest_of(LAYER)}/"):
            for target in _HREF.findall(self.server.public.get(path).body):
                self.assertTrue(target.startswith((b"/", b"#")) and not target.startswith(b"//"), target)

    def test_the_authenticated_listener_has_no_pages(self) -> None:
        for path in ("/", "/r/app/", "/static/vex.css"):
            self.assertEqual(self.server.auth.get(path).status, 404)

    def test_commands_have_the_host_that_was_asked_for(self) -> None:
        self.push_image("app", "v1")
        for host, name in (
            ("registry.example", "registry.example"),
            ("[::1]:8200", "[::1]:8200"),
            ("box:8200", "box:8200"),
            ("box", "box:80"),
        ):
            self.assert_shows(self.get("/r/app/", headers={"Host": host}), f"docker pull {name}/app:v1")


class PublicUrl(WebTestCase):
    flags = ("--public-url", "https://registry.example.org", "--auth-addr", "off")

    def test_commands_have_the_configured_host_whatever_was_asked_for(self) -> None:
        page = self.get("/", headers={"Host": "other.example"})
        self.assert_shows(page, "registry.example.org", "turned off")
        self.assertNotIn("other.example", page.text)
