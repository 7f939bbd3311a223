"""Reads that Vex does not answer: from a real nginx that caches, with the configuration of the manual, and from where
`blob-redirect` leads.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import unittest
from collections.abc import Sequence
from http.client import HTTPConnection
from urllib.parse import urlsplit

from tests.support.images import SINGLE, write_layout
from tests.support.nginx import CACHE, Nginx, replaced, start_nginx, write_certificate
from tests.support.programs import require
from tests.support.registries import ProgramTestCase, daemon, dockerd, require_root, run, temporary_directory
from tests.support.server import PASSWORD, USER, Answer, Client, digest_of, free_port

MIB = 1024 * 1024
SLICES = 3
CONTENT = os.urandom(SLICES * 8 * MIB - 5)


class CacheTestCase(ProgramTestCase):
    """One server, one cache; without TLS, which test_proxy.py has."""

    flags: tuple[str, ...] = ("--trusted-proxies", "127.0.0.1", "--debug")
    nginx: Nginx
    cache: Client
    port: int

    @classmethod
    def setUpClass(cls) -> None:
        """Start both."""
        require("nginx", "nginx-light")
        super().setUpClass()
        cls.port = free_port()
        values = {
            "listen 443 ssl": f"listen 127.0.0.1:{cls.port}",
            "192.0.2.10:8200": "{}:{}".format(*cls.server.addresses["public"]),
            "127.0.0.1:8210": f"127.0.0.1:{free_port()}",
            "/var/cache/nginx/vex": f"{cls.directory}/cache",
            **write_certificate(cls.directory, "127.0.0.1"),
        }
        cls.nginx = start_nginx(cls.directory / "nginx", replaced(CACHE, values))
        cls.addClassCleanup(cls.nginx.stop)
        cls.cache = Client(("127.0.0.1", cls.port))

    def asked(self, op: str, status: int = 0) -> int:
        """Return how many times Vex was asked for something, in all, or with an answer of this status."""
        self.server.wait_until_counted()
        found = 0.0
        for line in self.server.internal.get("/metrics").body.decode().splitlines():
            if (
                line.startswith("vex_request_duration_seconds_count")
                and f'op="{op}"' in line
                and 'method="GET"' in line
            ):
                found += float(line.rpartition(" ")[2]) if not status or f'code="{status}"' in line else 0
        return int(found)

    def assert_asked(self, op: str, expected: int, status: int = 0) -> None:
        """Check how many times Vex was asked."""
        self.assertEqual(self.asked(op, status), expected)


class Cached(CacheTestCase):
    def test_a_second_pull_of_a_blob_does_not_reach_vex(self) -> None:
        digest = self.server.auth.push_blob("second", CONTENT)
        before = self.asked("blob")
        for _ in range(3):
            answer = self.cache.get(f"/v2/second/blobs/{digest}")
            self.assertEqual((answer.status, answer.headers["Content-Length"]), (200, str(len(CONTENT))))
            self.assertEqual(digest_of(answer.body), digest)
            self.assert_asked("blob", before + SLICES)
        for name in (
            "Docker-Content-Digest",
            "ETag",
            "Cache-Control",
            "Content-Type",
            "Content-Disposition",
            "X-Content-Type-Options",
        ):
            direct = self.server.public.get(f"/v2/second/blobs/{digest}", {"Range": "bytes=0-0"})
            self.assertEqual(answer.headers.get_all(name), direct.headers.get_all(name), name)
        self.assertEqual(
            self.cache.request("HEAD", f"/v2/second/blobs/{digest}").headers["Content-Length"], str(len(CONTENT))
        )

    def test_many_first_pulls_at_once_fetch_each_part_once(self) -> None:
        digest = self.server.auth.push_blob("crowd", CONTENT[1:])
        before = self.asked("blob")
        answers = self.at_once(8, f"/v2/crowd/blobs/{digest}")
        self.assertEqual({(answer.status, digest_of(answer.body)) for answer in answers}, {(200, digest)})
        self.assert_asked("blob", before + SLICES)

    def at_once(self, count: int, path: str) -> Sequence[Answer]:
        answers: list[Answer] = []
        threads = [threading.Thread(target=lambda: answers.append(self.cache.get(path))) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), count)
        return answers

    def test_ranges_come_from_the_cache_and_fetch_only_what_they_need(self) -> None:
        digest = self.server.auth.push_blob("ranges", CONTENT[2:])
        size, before = len(CONTENT) - 2, self.asked("blob")
        for first, end, fetched in (
            (10, 20, 1),
            (10, 20, 1),
            (8 * MIB - 5, 8 * MIB + 5, 2),
            (size - 5, size, 3),
            (0, size, 3),
        ):
            answer = self.cache.get(f"/v2/ranges/blobs/{digest}", {"Range": f"bytes={first}-{end - 1}"})
            self.assertEqual((answer.status, answer.headers["Content-Range"]), (206, f"bytes {first}-{end - 1}/{size}"))
            self.assertEqual(answer.body, CONTENT[2:][first:end])
            self.assert_asked("blob", before + fetched)
        self.assertEqual(self.cache.get(f"/v2/ranges/blobs/{digest}", {"Range": f"bytes={size}-"}).status, 416)

    def test_small_and_empty_blobs(self) -> None:
        for content in (b"", b"x", b"y" * 8 * MIB):
            digest = self.server.auth.push_blob("sizes", content)
            for _ in range(2):
                answer = self.cache.get(f"/v2/sizes/blobs/{digest}")
                self.assertEqual((answer.status, digest_of(answer.body)), (200, digest))

    def test_a_manifest_is_fetched_once_by_digest_and_asked_for_by_tag(self) -> None:
        digest = self.server.auth.push_image("manifests", "v1", b"layer")
        for reference, answered, unchanged in (
            (digest, 1, 0),
            (digest, 0, 0),
            ("v1", 1, 0),
            ("v1", 1, 1),
            ("v1", 1, 1),
        ):
            asked, not_modified = self.asked("manifest"), self.asked("manifest", 304)
            answer = self.cache.get(f"/v2/manifests/manifests/{reference}")
            self.assertEqual((answer.status, digest_of(answer.body)), (200, digest))
            self.assertEqual(
                (answer.headers["Docker-Content-Digest"], answer.headers["X-Accel-Expires"]), (digest, None)
            )
            self.assert_asked("manifest", asked + answered)
            self.assert_asked("manifest", not_modified + unchanged, 304)
        answer = self.cache.get("/v2/manifests/manifests/v1", {"If-None-Match": answer.headers["ETag"]})
        self.assertEqual((answer.status, answer.headers["Cache-Control"]), (304, "no-cache"))
        head = self.cache.request("HEAD", "/v2/manifests/manifests/v1")
        self.assertEqual((head.status, head.headers["Docker-Content-Digest"]), (200, digest))

    def test_a_moved_tag_is_seen_at_once(self) -> None:
        for number in range(5):
            digest = self.server.auth.push_image("moving", "latest", b"layer %d" % number)
            for _ in range(2):
                self.assertEqual(digest_of(self.cache.get("/v2/moving/manifests/latest").body), digest)
        self.server.auth.request("DELETE", "/v2/moving/manifests/latest")
        self.assertEqual(self.cache.get("/v2/moving/manifests/latest").status, 404)

    def test_vex_learns_who_asks(self) -> None:
        digest = self.server.auth.push_image("asked", "v1", b"layer")
        paths = (
            "/v2/asked/manifests/v1",
            f"/v2/asked/manifests/{digest}",
            f"/v2/asked/blobs/{digest_of(b'layer')}",
            "/v2/asked/tags/list",
        )
        for path in paths:
            with contextlib.closing(
                HTTPConnection("127.0.0.1", self.port, source_address=("127.0.0.2", 0))
            ) as connection:
                connection.request("GET", path)
                self.assertEqual(connection.getresponse().status, 200)
            deadline = time.monotonic() + 10
            while f" 127.0.0.2 - GET {path} " not in self.server.log.read_text():
                self.assertLess(time.monotonic(), deadline, path)
                time.sleep(0.01)

    def test_what_is_not_there_is_asked_for_again(self) -> None:
        digest = digest_of(b"later")
        self.assertEqual(self.cache.get(f"/v2/later/blobs/{digest}").status, 404)
        self.server.auth.push_blob("later", b"later")
        self.assertEqual(self.cache.get(f"/v2/later/blobs/{digest}").status, 200)

    def test_lists_pages_and_writes_are_passed_on(self) -> None:
        self.server.auth.push_image("passed", "v1", b"layer")
        self.assertEqual(self.cache.get("/v2/passed/tags/list").json["tags"], ["v1"])
        self.assertEqual(self.cache.get("/r/passed/").status, 200)
        self.assertEqual(self.cache.request("PUT", "/v2/passed/manifests/v1", b"{}").status, 405)


class Away(CacheTestCase):
    def test_skopeo_pulls_what_the_cache_has_without_vex(self) -> None:
        skopeo, layout = require("skopeo", "skopeo"), write_layout(self.directory / "layout")
        auth = "{}:{}".format(*self.server.addresses["auth"])
        credentials = ("--dest-tls-verify=false", "--dest-creds", f"{USER}:{PASSWORD}")
        run(skopeo, "copy", *credentials, f"oci:{layout.directory}:{SINGLE}", f"docker://{auth}/away:v1")

        def pull() -> set[str]:
            with temporary_directory() as target:
                run(
                    skopeo, "copy", "--src-tls-verify=false", f"docker://127.0.0.1:{self.port}/away:v1", f"dir:{target}"
                )
                return {f"sha256:{path.name}" for path in target.iterdir() if len(path.name) == 64}

        self.assertEqual(pull(), layout.blobs[SINGLE])
        asked = self.asked("blob")
        self.assertEqual(pull(), layout.blobs[SINGLE])
        self.assert_asked("blob", asked)
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(pull(), layout.blobs[SINGLE])


class Redirected(ProgramTestCase):
    """With `blob-redirect` to an nginx that has nothing but the directory `blobs/`."""

    alone = True

    mirror: tuple[str, int]

    @classmethod
    def setUpClass(cls) -> None:
        """Start both."""
        require("nginx", "nginx-light")
        cls.mirror = ("127.0.0.1", free_port())
        cls.flags = ("--blob-redirect", f"http://127.0.0.1:{cls.mirror[1]}/{{algorithm}}/{{encoded}}")
        super().setUpClass()
        block = f"server {{ listen 127.0.0.1:{cls.mirror[1]}; root {cls.server.data}/blobs; }}"
        cls.addClassCleanup(start_nginx(cls.directory / "nginx", block).stop)

    def test_a_public_pull_is_sent_to_the_mirror_with_its_range(self) -> None:
        digest = self.server.auth.push_blob("sent", b"0123456789")
        answer = self.server.public.get(f"/v2/sent/blobs/{digest}", {"Range": "bytes=2-4"})
        self.assertEqual((answer.status, answer.body, answer.headers["Cache-Control"]), (307, b"", "no-cache"))
        url = urlsplit(answer.headers["Location"])
        self.assertEqual(
            (url.scheme, url.netloc, url.path), ("http", "{}:{}".format(*self.mirror), f"/{digest.replace(':', '/')}")
        )
        part = Client(self.mirror).get(url.path, {"Range": "bytes=2-4"})
        self.assertEqual((part.status, part.body), (206, b"234"))

    def test_head_conditions_and_manifests_are_answered_here(self) -> None:
        manifest = self.server.auth.push_image("here", "v1", b"layer")
        path = f"/v2/here/blobs/{digest_of(b'layer')}"
        head = self.server.public.request("HEAD", path)
        self.assertEqual((head.status, head.headers["Content-Length"]), (200, "5"))
        self.assertEqual(self.server.public.get(path, {"If-None-Match": head.headers["ETag"]}).status, 304)
        self.assertEqual(self.server.public.get("/v2/here/manifests/v1").status, 200)
        self.assertEqual(digest_of(self.server.public.get(f"/v2/here/blobs/{manifest}").body), manifest)

    def test_auth_sends_nobody_away(self) -> None:
        digest = self.server.auth.push_blob("own", b"content")
        answer = self.server.auth.get(f"/v2/own/blobs/{digest}")
        self.assertEqual((answer.status, answer.body), (200, b"content"))

    def test_what_is_damaged_or_in_no_such_repository_is_404(self) -> None:
        digest = self.server.auth.push_blob("holder", b"something")
        for path in (f"/v2/other/blobs/{digest}", f"/v2/holder/blobs/{digest_of(b'nothing')}"):
            self.assert_error(self.server.public.get(path), 404, "BLOB_UNKNOWN")
        os.truncate(self.server.data / "blobs" / digest.replace(":", "/"), 3)
        self.assert_error(self.server.public.get(f"/v2/holder/blobs/{digest}"), 404, "BLOB_UNKNOWN")

    def test_skopeo_and_docker_follow(self) -> None:
        require_root()
        skopeo, docker = require("skopeo", "skopeo"), require("docker", "docker.io")
        layout, mirrored = write_layout(self.directory / "layout"), self.directory / "nginx" / "access.log"
        auth, public = ("{}:{}".format(*self.server.addresses[name]) for name in ("auth", "public"))
        run(
            skopeo,
            "copy",
            self.tls("dest-"),
            "--dest-creds",
            f"{USER}:{PASSWORD}",
            f"oci:{layout.directory}:{SINGLE}",
            f"docker://{auth}/followed:v1",
        )
        with temporary_directory() as target:
            run(skopeo, "copy", self.tls("src-"), f"docker://{public}/followed:v1", f"dir:{target}")
            self.assertEqual(
                {f"sha256:{path.name}" for path in target.iterdir() if len(path.name) == 64}, layout.blobs[SINGLE]
            )
        for digest in layout.blobs[SINGLE]:
            self.assertIn(f'GET /{digest.replace(":", "/")} HTTP/1.1" 200', mirrored.read_text())
        before = len(mirrored.read_text().splitlines())
        socket = f"unix://{self.directory}/docker.sock"
        with daemon(self.directory, *dockerd(self.directory, socket)):
            run(docker, "-H", socket, "pull", f"{public}/followed:v1")
        self.assertGreaterEqual(len(mirrored.read_text().splitlines()) - before, len(layout.blobs[SINGLE]))


if __name__ == "__main__":
    unittest.main()
