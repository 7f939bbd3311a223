"""`vex import` from other registries: Debian's docker-registry, another Vex, and some that are broken or hostile."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.debian_registry import (
    SOURCE_PASSWORD,
    SOURCE_USER,
    docker_registry,
    htpasswd,
    push_artifact,
    push_blob,
    push_fallback_tag,
)
from tests.support.images import INDEX, SINGLE, write_layout
from tests.support.other_registries import Reply, answering, import_into
from tests.support.programs import require
from tests.support.registries import run
from tests.support.server import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    PASSWORD,
    TOP,
    USER,
    Client,
    Server,
    ServerTestCase,
    digest_of,
    image,
    running,
    vex,
)

ACCEPT = {"Accept": ", ".join([OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST])}
IMAGES = (
    (INDEX, "oci", "team/app:all"),
    (INDEX, "v2s2", "team/docker:all"),
    (SINGLE, "oci", "team/app:one"),
    (SINGLE, "v2s2", "base:1"),
)
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def url(client: Client) -> str:
    return f"http://{client.address[0]}:{client.address[1]}"


def contents(client: Client) -> dict[str, tuple[str, str, bytes]]:
    """Return every tag of a registry, and every manifest and blob below it, by name: media type, digest, content."""
    found: dict[str, tuple[str, str, bytes]] = {}
    for repository in client.get("/v2/_catalog").json["repositories"]:
        for tag in client.get(f"/v2/{repository}/tags/list").json["tags"]:
            answer = client.get(f"/v2/{repository}/manifests/{tag}", ACCEPT)
            found[f"{repository}:{tag}"] = (
                answer.headers["Content-Type"],
                answer.headers["Docker-Content-Digest"],
                answer.body,
            )
            _add_parts(client, repository, answer.json, found)
    return found


def _add_parts(client: Client, repository: str, document: Any, found: dict[str, tuple[str, str, bytes]]) -> None:
    for part in document.get("manifests", []):
        answer = client.get(f"/v2/{repository}/manifests/{part['digest']}", ACCEPT)
        found[f"{repository}@{part['digest']}"] = (
            answer.headers["Content-Type"],
            answer.headers["Docker-Content-Digest"],
            answer.body,
        )
        _add_parts(client, repository, answer.json, found)
    for part in [document["config"], *document["layers"]] if "config" in document else []:
        answer = client.get(f"/v2/{repository}/blobs/{part['digest']}")
        assert digest_of(answer.body) == part["digest"], (answer.status, part)
        found[f"{repository}@{part['digest']}"] = ("", part["digest"], answer.body)


class FromDockerRegistry(ServerTestCase):
    source: Client
    subject: str
    about: str
    signed: str

    @classmethod
    def setUpClass(cls) -> None:
        """Fill a docker-registry with images in both formats, an index, and an artifact about an artifact about an
        image, under fallback tags.
        """
        skopeo = require("skopeo", "skopeo")
        super().setUpClass()
        context = docker_registry()
        cls.source = context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)
        with tempfile.TemporaryDirectory() as directory:
            layout = write_layout(Path(directory))
            for kind, form, name in IMAGES:
                target = f"docker://127.0.0.1:{cls.source.address[1]}/{name}"
                run(
                    skopeo,
                    "copy",
                    "--all",
                    "--format",
                    form,
                    "--dest-tls-verify=false",
                    f"oci:{layout.directory}:{kind}",
                    target,
                )
        answer = cls.source.get("/v2/team/app/manifests/one", ACCEPT)
        subject: dict[str, Any] = {
            "mediaType": OCI_MANIFEST,
            "digest": digest_of(answer.body),
            "size": len(answer.body),
        }
        about = push_artifact(cls.source, "team/app", b"about the image", subject)
        push_fallback_tag(cls.source, "team/app", subject["digest"], [about])
        signed = push_artifact(cls.source, "team/app", b"about that", about)
        push_fallback_tag(cls.source, "team/app", about["digest"], [signed])
        cls.subject, cls.about, cls.signed = subject["digest"], about["digest"], signed["digest"]

    def referrers(self, server: Server, repository: str, digest: str) -> list[str]:
        return [
            entry["digest"] for entry in server.public.get(f"/v2/{repository}/referrers/{digest}").json["manifests"]
        ]

    def test_everything_is_the_same_on_both_sides(self) -> None:
        with running() as server:
            output = import_into(server, url(self.source))
            expected = contents(self.source)
            self.assertEqual(len([name for name in expected if "@" not in name]), 6)
            self.assertEqual(contents(server.public), expected)
            self.assertEqual(self.referrers(server, "team/app", self.subject), [self.about])
            self.assertEqual(self.referrers(server, "team/app", self.about), [self.signed])
            self.assertRegex(output, "repositories: 3, tags: 6; sent: manifests: [1-9]")
            again = import_into(server, url(self.source))
            self.assertRegex(again, "repositories: 3, tags: 6; sent: manifests: 0, blobs: 0")
            self.assertEqual(vex("check", "--hash", "--data-dir", str(server.data)).returncode, 0)

    def test_only_repositories_that_match_are_imported(self) -> None:
        with running() as server:
            import_into(server, url(self.source), "--repository", "team/d*")
            self.assertEqual(server.public.get("/v2/_catalog").json["repositories"], ["team/docker"])
            import_into(server, url(self.source), "--repository", "base", "--repository", "none*")
            self.assertEqual(server.public.get("/v2/_catalog").json["repositories"], ["base", "team/docker"])
            self.assertIn(
                "nothing that matches", import_into(server, url(self.source), "--repository", "none*", code=1)
            )

    def test_only_tags_that_match_are_imported_with_what_is_attached_to_them(self) -> None:
        with running() as server:
            import_into(server, url(self.source), "--repository", "team/app", "--tag", "on?")
            tags = server.public.get("/v2/team/app/tags/list").json["tags"]
            self.assertEqual(set(tags), {"one", self.subject.replace(":", "-"), self.about.replace(":", "-")})
            self.assertEqual(self.referrers(server, "team/app", self.about), [self.signed])

    def test_a_name_that_is_not_there_is_told_and_the_rest_goes_on(self) -> None:
        with running() as server:
            output = import_into(
                server, url(self.source), "--repository", "nobody/knows", "--repository", "base", code=1
            )
            self.assertRegex(output, r"nobody/knows: .*\(404\)")
            self.assertIn("could not be imported, and are named above: 1", output)
            self.assertEqual(server.public.get("/v2/base/tags/list").json["tags"], ["1"])

    def test_a_tag_that_moved_in_the_source_moves(self) -> None:
        with running() as server:
            server.auth.push_image("base", "1", b"another image")
            import_into(server, url(self.source), "--repository", "base")
            expected = self.source.get("/v2/base/manifests/1", ACCEPT)
            self.assertEqual(server.public.get("/v2/base/manifests/1").body, expected.body)

    def test_blobs_that_are_there_are_not_sent(self) -> None:
        with running() as server:
            import_into(server, url(self.source), "--repository", "team/app", "--tag", "all")
            output = import_into(server, url(self.source), "--repository", "team/docker", "--tag", "all")
            layers = server.metric("vex_blobs")
            self.assertRegex(output, r"blobs that were there already: [2-9]")
            self.assertGreater(layers, 0)


class Interrupted(unittest.TestCase):
    def test_killed_and_run_again_it_sends_only_what_is_missing(self) -> None:
        with docker_registry() as source, running() as server:
            layers = [secrets.token_bytes(2**20) for _ in range(40)]
            config = {"mediaType": OCI_CONFIG, **push_blob(source, "large", b"{}")}
            listed = [{"mediaType": OCI_LAYER, **push_blob(source, "large", layer)} for layer in layers]
            source.push_manifest(
                "large", "1", {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": listed}
            )
            command = [
                sys.executable,
                str(TOP / "vex.py"),
                "import",
                url(source),
                "--username",
                USER,
                "--to",
                server.urls["auth"],
            ]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            assert process.stdin is not None
            with process.stdin as stdin:
                stdin.write(f"{PASSWORD}\n".encode())
            deadline = time.monotonic() + 30
            while len(server.files()) < 5:
                self.assertLess(time.monotonic(), deadline)
                self.assertIsNone(process.poll(), "it ended before it could be killed")
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.assertEqual(server.public.get("/v2/large/manifests/1").status, 404)
            there = len(server.files())
            output = import_into(server, url(source))
            found = re.search(r"blobs: ([0-9]+) .*already: ([0-9]+)", output)
            assert found is not None, output
            self.assertGreaterEqual(int(found[2]), there)
            self.assertEqual(int(found[1]) + int(found[2]), 41)
            self.assertEqual(contents(server.public), contents(source))


class FromVex(unittest.TestCase):
    def test_referrers_of_referrers_are_found_by_the_api(self) -> None:
        with running() as source, running() as server:
            source.auth.push_image("app", "1", b"layer")
            body = source.public.get("/v2/app/manifests/1").body
            about = push_artifact(
                source.auth, "app", b"about", {"mediaType": OCI_MANIFEST, "digest": digest_of(body), "size": len(body)}
            )
            signed = push_artifact(source.auth, "app", b"about that", about)
            import_into(server, source.urls["public"])
            self.assertEqual(contents(server.public), contents(source.public))
            for digest in (about["digest"], signed["digest"]):
                self.assertEqual(
                    server.public.get(f"/v2/app/manifests/{digest}").body,
                    source.public.get(f"/v2/app/manifests/{digest}").body,
                )
            source.auth.push_manifest(
                "app", "", image(b"layer", config=b"{}", subject=signed, artifactType="test/late")
            )
            self.assertIn("manifests: 1, blobs: 0", import_into(server, source.urls["public"]))
            self.assertEqual(len(server.public.get(f"/v2/app/referrers/{signed['digest']}").json["manifests"]), 1)

    def test_it_closes_its_connections_to_both(self) -> None:
        with running() as source, running() as server:
            source.auth.push_image("app", "1", b"layer")
            command = [
                sys.executable,
                "-W",
                "always::ResourceWarning",
                str(TOP / "vex.py"),
                "import",
                source.urls["public"],
                "--username",
                USER,
            ]
            ended = subprocess.run(
                [*command, "--to", server.urls["auth"]],
                input=f"{PASSWORD}\n",
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            self.assertEqual(ended.returncode, 0, ended)
            self.assertNotIn("ResourceWarning", ended.stderr)

    def test_a_cache_of_layers_and_a_foreign_layer_and_sha512_are_copied(self) -> None:
        with running() as source, running() as server:
            layer = {"mediaType": OCI_LAYER, "digest": source.auth.push_blob("cache", b"cached"), "size": 6}
            source.auth.push_manifest(
                "cache", "1", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [layer]}, OCI_INDEX
            )
            foreign = {
                "mediaType": OCI_LAYER,
                "digest": digest_of(b"elsewhere"),
                "size": 9,
                "urls": ["http://127.0.0.1:1/never"],
            }
            long = {"mediaType": OCI_LAYER, "digest": source.auth.push_blob("cache", b"long", "sha512"), "size": 4}
            manifest = image(config=b"{}")
            source.auth.push_blob("cache", b"{}")
            source.auth.push_manifest("cache", "2", {**manifest, "layers": [foreign, long]})
            import_into(server, source.urls["public"])
            self.assertEqual(server.public.get(f"/v2/cache/blobs/{layer['digest']}").body, b"cached")
            self.assertEqual(server.public.get(f"/v2/cache/blobs/{long['digest']}").body, b"long")
            self.assertEqual(
                server.public.get("/v2/cache/manifests/2").body, source.public.get("/v2/cache/manifests/2").body
            )


class Authentication(unittest.TestCase):
    def test_basic_and_what_is_said_without_it(self) -> None:
        with docker_registry(htpasswd()) as source, running() as server:
            with_password = Client(source.address, SOURCE_USER, SOURCE_PASSWORD)
            config = {"mediaType": OCI_CONFIG, **push_blob(with_password, "app", b"{}")}
            with_password.push_manifest(
                "app", "1", {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}
            )
            refused = import_into(server, url(source), code=1)
            self.assertIn("give --source-username", refused)
            self.assertEqual(server.public.get("/v2/_catalog").json["repositories"], [])
            import_into(server, url(source), "--source-username", SOURCE_USER, text=SOURCE_PASSWORD + "\n")
            self.assertEqual(contents(server.public), contents(with_password))

    def test_tokens_are_fetched_for_each_repository(self) -> None:
        require("openssl", "openssl")
        with token_service() as (realm, asked, certificate):
            auth = (
                f'auth: {{{{token: {{{{realm: "{realm}", service: test, issuer: test, rootcertbundle:'
                f' "{{directory}}/crt.pem"}}}}}}}}'
            )
            with docker_registry(auth, {"crt.pem": certificate}) as source, running() as server:
                chosen = ("--repository", "one", "--repository", "two", "--source-username")
                refused = import_into(server, url(source), *chosen, "wrong", text="wrong\n", code=1)
                self.assertRegex(refused, "one: .*401")
                asked.clear()
                output = import_into(server, url(source), *chosen, SOURCE_USER, text=SOURCE_PASSWORD + "\n", code=1)
                # Both were let in, and told that there is no such repository.
                self.assertRegex(output, r"(?s)one: .*404.*two: .*404")
                self.assertEqual([query["scope"] for query in asked], ["repository:one:pull", "repository:two:pull"])
                self.assertEqual({query["service"] for query in asked}, {"test"})


@contextlib.contextmanager
def token_service() -> Iterator[tuple[str, list[dict[str, str]], str]]:
    """Run a service that signs tokens for SOURCE_USER; gives its address, the queries it got, and its certificate."""
    asked: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        files = ("-keyout", f"{name}/key.pem", "-out", f"{name}/crt.pem")
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", *files)
        certificate = (directory / "crt.pem").read_text()

        def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
            query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(handler.path).query))
            asked.append(query)
            expected = "Basic " + base64.b64encode(f"{SOURCE_USER}:{SOURCE_PASSWORD}".encode()).decode()
            right = handler.headers["Authorization"] == expected
            body = json.dumps(
                {"token": signed(query)} if right else {"errors": [{"code": "UNAUTHORIZED", "message": "wrong"}]}
            ).encode()
            handler.send_response(200 if right else 401)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        def signed(query: Mapping[str, str]) -> str:
            kind, resource, actions = query["scope"].split(":")
            chain = ["".join(certificate.splitlines()[1:-1])]
            now = int(time.time())
            claims = {
                "iss": "test",
                "sub": "",
                "aud": query["service"],
                "exp": now + 300,
                "nbf": now - 5,
                "iat": now,
                "jti": secrets.token_hex(8),
            }
            access = [{"type": kind, "name": resource, "actions": actions.split(",")}]
            parts = [{"typ": "JWT", "alg": "RS256", "x5c": chain}, {**claims, "access": access}]
            text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
            signature = subprocess.run(
                ["openssl", "dgst", "-sha256", "-sign", f"{name}/key.pem"],
                input=text.encode(),
                capture_output=True,
                check=True,
            ).stdout
            return f"{text}.{encoded(signature)}"

        with answering(_Everything(reply)) as address:
            yield f"{address}/token", asked, certificate


class _Everything(dict[str, Reply]):
    """The same answer for every path."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self._reply = reply

    def get(self, _key: object, _default: object = None) -> Any:
        return self._reply


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


class HostileSources(ServerTestCase):
    """What a source can do wrong; a source is a server with made-up answers."""

    def source(self, layer: bytes, sent: Reply | None = None, **replies: Reply) -> dict[str, Reply]:
        """Make a registry with the image app:1, whose layer is sent like this."""
        manifest = json.dumps(image(layer)).encode()
        found = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest_of(manifest)}
        return {
            "/v2/_catalog": (200, {}, b'{"repositories": ["app"]}'),
            "/v2/app/tags/list": (200, {}, b'{"tags": ["1"]}'),
            "/v2/app/manifests/1": (200, found, manifest),
            f"/v2/app/manifests/{digest_of(manifest)}": (200, found, manifest),
            f"/v2/app/blobs/{digest_of(b'{}')}": (200, {}, b"{}"),
            f"/v2/app/blobs/{digest_of(layer)}": sent or (200, {}, layer),
            **replies,
        }

    def import_as(self, repository: str, replies: dict[str, Reply], code: int = 1) -> str:
        """Import, under a name of its own, what this source has."""
        renamed = {path.replace("/v2/app/", f"/v2/{repository}/"): reply for path, reply in replies.items()}
        with answering(renamed) as address:
            return import_into(self.server, address, "--repository", repository, code=code)

    def assert_nothing(self, repository: str) -> None:
        self.assertEqual(self.server.public.get(f"/v2/{repository}/manifests/1").status, 404)
        self.assertEqual(self.server.metric("vex_uploads_open"), 0)

    def test_a_sound_one_is_imported(self) -> None:
        self.assertIn("tags: 1", self.import_as("sound", self.source(b"sound layer"), code=0))

    def test_content_of_another_digest_is_refused(self) -> None:
        output = self.import_as("wrong", self.source(b"right layer", (200, {}, b"wrong layer")))
        self.assertRegex(output, f"wrong:1: blob {digest_of(b'right layer')}: .*digest")
        self.assert_nothing("wrong")

    def test_content_of_another_length_is_refused(self) -> None:
        for name, content in (("longer", b"a layer that is longer"), ("shorter", b"short")):
            output = self.import_as(name, self.source(f"layer of {name}".encode(), (200, {}, content)))
            self.assertRegex(output, f"{name}:1: .*the blob has {len(content)} bytes, but the manifest says")
            self.assert_nothing(name)

    def test_content_without_end_is_refused(self) -> None:
        def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Connection", "close")
            handler.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    handler.wfile.write(bytes(65536))

        output = self.import_as("endless", self.source(b"not endless", endless))
        self.assertRegex(output, "endless:1: .*(more bytes than the manifest says|digest)")
        self.assert_nothing("endless")

    def test_a_manifest_without_end_is_refused(self) -> None:
        output = self.import_as("huge", {**self.source(b"x"), "/v2/app/manifests/1": (200, {}, bytes(5 * 2**20))})
        self.assertIn("huge:1: the registry sends more than the 4194304 bytes", output)

    def test_a_manifest_of_another_digest_is_refused(self) -> None:
        replies = self.source(b"of another manifest")
        path = next(path for path in replies if "manifests/sha256" in path)
        output = self.import_as("forged", {**replies, path: (200, {"Content-Type": OCI_MANIFEST}, b"{}")})
        self.assertIn("forged:1: the manifest that the source sends does not have this digest", output)

    def test_schema_1_is_told_by_name_and_the_rest_goes_on(self) -> None:
        replies = self.source(b"beside schema 1")
        replies["/v2/app/tags/list"] = (200, {}, b'{"tags": ["1", "old", "-bad-"]}')
        replies["/v2/app/manifests/old"] = (
            200,
            {"Content-Type": SCHEMA_1, "Docker-Content-Digest": digest_of(b"old")},
            b"old",
        )
        replies[f"/v2/app/manifests/{digest_of(b'old')}"] = (200, {"Content-Type": SCHEMA_1}, b"old")
        output = self.import_as("mixed", replies)
        self.assertIn("mixed:old: an image of schema 1, which Vex does not take", output)
        self.assertRegex(output, "mixed:-bad-.*not a tag")
        self.assertIn("named above: 2", output)
        self.assertEqual(self.server.public.get("/v2/mixed/tags/list").json["tags"], ["1"])

    def test_lists_are_followed_and_those_without_end_end(self) -> None:
        replies = self.source(b"in an endless list")
        replies["/v2/app/tags/list"] = (200, {"Link": '</v2/app/tags/list?last=1>; rel="next"'}, b'{"tags": ["1"]}')
        replies["/v2/app/tags/list?last=1"] = (
            200,
            {"Link": '<http://127.0.0.1:1/v2/app/tags/list?last=1>; rel="next"'},
            b'{"tags": ["1", "2"]}',
        )
        replies["/v2/app/manifests/2"] = replies["/v2/app/manifests/1"]
        self.import_as("looped", replies, code=0)
        self.assertEqual(self.server.public.get("/v2/looped/tags/list").json["tags"], ["1", "2"])

    def test_a_transfer_that_breaks_goes_on_where_it_broke(self) -> None:
        layer = secrets.token_bytes(3 * 2**20)
        ranges: list[str | None] = []

        def breaking(handler: http.server.BaseHTTPRequestHandler) -> None:
            asked = handler.headers["Range"]
            ranges.append(asked)
            first = int(asked[6:-1]) if asked else 0
            handler.send_response(206 if asked else 200)
            handler.send_header("Content-Length", str(len(layer) - first))
            handler.end_headers()
            handler.wfile.write(layer[first : first + 2**20])
            handler.close_connection = True

        self.import_as("broken", self.source(layer, breaking), code=0)
        self.assertGreaterEqual(len(ranges), 3)
        self.assertIsNone(ranges[0])
        self.assertIn("bytes=2097152-", ranges)
        self.assertEqual(self.server.public.get(f"/v2/broken/blobs/{digest_of(layer)}").body, layer)

    def test_a_redirect_leads_to_the_blob_and_never_takes_the_password_along(self) -> None:
        layer = b"stored elsewhere"
        requests: list[tuple[str, str | None]] = []
        with answering({"/store": (200, {}, layer)}, requests) as store:
            challenge: Reply = (401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")
            replies = self.source(layer, (307, {"Location": f"{store}/store"}, b""))
            tags = replies["/v2/app/tags/list"]

            def guarded(handler: http.server.BaseHTTPRequestHandler) -> None:
                reply = tags if handler.headers["Authorization"] else challenge
                assert isinstance(reply, tuple)
                handler.send_response(reply[0])
                for name, value in {**reply[1], "Content-Length": str(len(reply[2]))}.items():
                    handler.send_header(name, value)
                handler.end_headers()
                handler.wfile.write(reply[2])

            replies["/v2/app/tags/list"] = guarded
            with answering(replies) as address:
                import_into(self.server, address, "--repository", "app", "--source-username", "me", text="secret\n")
        self.assertEqual(requests, [("/store", None)])
        self.assertEqual(self.server.public.get(f"/v2/app/blobs/{digest_of(layer)}").body, layer)

    def test_redirects_in_a_circle_end(self) -> None:
        path = f"/v2/circle/blobs/{digest_of(b'around')}"
        output = self.import_as("circle", self.source(b"around", (307, {"Location": path}, b"")))
        self.assertRegex(output, "circle:1: .*redirects more than 5 times")


class Commands(ServerTestCase):
    def failed(self, *arguments: str, text: str = PASSWORD + "\n") -> str:
        ended = vex("import", *arguments, "--username", USER, text=text)
        self.assertEqual((ended.returncode, ended.stdout), (1, ""), ended)
        self.assertEqual(ended.stderr.count("\n"), 1, ended.stderr)
        return ended.stderr

    def test_a_registry_that_does_not_run_is_told_in_a_sentence(self) -> None:
        output = self.failed("http://127.0.0.1:1", "--to", "http://127.0.0.1:1")
        self.assertRegex(output, "http://127.0.0.1:1 does not answer: .*; start the registry there with 'vex serve'")

    def test_a_wrong_password_is_told(self) -> None:
        # A source that does not answer is told before a password is asked for.
        output = self.failed(self.server.urls["public"], "--to", self.server.urls["auth"], text="wrong\n")
        self.assertIn("refuses this: the user name or the password is wrong (401)", output)

    def test_a_source_that_is_not_there_is_told(self) -> None:
        to = ("--to", self.server.urls["auth"])
        self.assertIn("no/such/file is not there", self.failed("no/such/file", *to))
        self.assertRegex(self.failed("http://127.0.0.1:1", *to), "http://127.0.0.1:1 does not answer")

    def test_the_public_address_is_no_place_to_import_into(self) -> None:
        with running() as source:
            source.auth.push_image("app", "1", b"layer")
            output = self.failed(source.urls["public"], "--to", self.server.urls["public"])
        self.assertIn("this address only reads; push and delete at ", output)

    def test_without_a_user_name_the_command_line_is_wrong(self) -> None:
        self.assertEqual(vex("import", "x").returncode, 2)
