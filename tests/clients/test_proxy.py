"""Vex behind a real nginx with the configuration of the manual, which terminates TLS in front of the public and the
auth port.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
import unittest
from pathlib import Path
from typing import Callable

from tests.support.images import SINGLE, docker_archive, tar_of, write_layout
from tests.support.machine import NAME, running_machine
from tests.support.multipart import read_parts
from tests.support.nginx import PROXY, replaced, start_nginx, with_accel, write_certificate
from tests.support.page import Page
from tests.support.programs import require
from tests.support.proxied import TRUST, AcceleratedTestCase, ProxyTestCase
from tests.support.registries import daemon, dockerd, require_root, run, temporary_directory
from tests.support.server import PASSWORD, TOP, USER, digest_of, vex


class CheckedTestCase(ProxyTestCase):
    """What is checked with both configurations."""

    def skopeo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run skopeo, which trusts the certificate of nginx alone."""
        return run(require("skopeo", "skopeo"), *arguments)

    def check_parts(self, path: str, content: bytes) -> None:
        """Ask for many parts of a blob in one request, whose field for them is more than 16 KiB."""
        offsets = range(1_000_000, 1_000_000 + 999 * 2000, 2000)
        answer = self.public.get(path, {"Range": "bytes=" + ",".join(f"{first}-{first + 299}" for first in offsets)})
        self.assertEqual((answer.status, answer.headers["Docker-Content-Digest"]), (206, digest_of(content)))
        expected = [(f"bytes {first}-{first + 299}/{len(content)}", content[first : first + 300]) for first in offsets]
        self.assertEqual(read_parts(answer.headers["Content-Type"], answer.body), expected)

    def check_skopeo(self, repository: str) -> None:
        """Push an image through nginx and pull it again, byte for byte."""
        layout = write_layout(self.directory / repository)
        source, (host, port), (_, read) = (
            f"oci:{layout.directory}:{SINGLE}",
            self.addresses["auth"],
            self.addresses["public"],
        )
        certificates = f"{self.directory}/certificates"
        self.skopeo(
            "copy",
            "--dest-cert-dir",
            certificates,
            "--dest-creds",
            f"{USER}:{PASSWORD}",
            source,
            f"docker://{host}:{port}/{repository}:v1",
        )
        with temporary_directory() as target:
            self.skopeo(
                "copy", "--src-cert-dir", certificates, f"docker://{host}:{read}/{repository}:v1", f"dir:{target}"
            )
            self.assertEqual(
                {f"sha256:{path.name}" for path in target.iterdir() if len(path.name) == 64}, layout.blobs[SINGLE]
            )


class Proxied(CheckedTestCase):
    flags = (*TRUST, "--failed-logins", "2")

    def test_skopeo_pushes_and_pulls(self) -> None:
        self.check_skopeo("copied")

    def test_bytes_reach_the_registry_before_the_client_has_sent_all(self) -> None:
        address = self.addresses["auth"]
        location = self.auth.request("POST", "/v2/streamed/blobs/uploads/").headers["Location"]
        piece = os.urandom(1024 * 1024)
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        head = (
            f"PATCH {location} HTTP/1.1\r\nHost: vex\r\nAuthorization: Basic {token}\r\nTransfer-Encoding: chunked\r\n"
            "\r\n"
        )
        with self.context.wrap_socket(
            socket.create_connection(address, timeout=30), server_hostname=address[0]
        ) as client:
            client.sendall(head.encode() + b"%x\r\n" % len(piece) + piece + b"\r\n")
            deadline = time.monotonic() + 30
            while sum(path.stat().st_size for path in (self.server.data / "uploads").iterdir()) < len(piece):
                self.assertLess(time.monotonic(), deadline, "nginx keeps the body")
                time.sleep(0.01)
            client.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n0\r\n\r\n")
            self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 202 "))
        self.assertEqual(self.auth.request("PUT", f"{location}?digest={digest_of(piece * 2)}").status, 201)

    def test_locations_and_links_lead_back_through_the_proxy(self) -> None:
        self.auth.push_image("listed", "v1", b"layer")
        self.auth.push_image("listed", "v2", b"layer")
        link = self.public.get("/v2/listed/tags/list?n=1").headers["Link"]
        self.assertEqual(self.public.get(link[1 : link.index(">")]).json["tags"], ["v2"])

    def test_wrong_passwords_are_counted_for_each_client(self) -> None:
        def refused(source: str) -> int:
            plain = socket.create_connection(self.addresses["auth"], 30, (source, 0))
            with self.context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
                # What a client says of itself is not passed on.
                forged = (
                    "Authorization: Basic bWFsbG9yeTp3cm9uZw==\r\nX-Forwarded-For: 198.51.100.7\r\n"
                    "Forwarded: for=198.51.100.7\r\n"
                )
                client.sendall(f"GET /v2/ HTTP/1.1\r\nHost: vex\r\n{forged}\r\n".encode())
                return int(client.recv(4096).split()[1])

        self.assertEqual([refused("127.0.0.2") for _ in range(3)], [401, 401, 429])
        self.assertEqual(refused("127.0.0.3"), 401)

    def test_the_web_interface_shows_the_scheme_and_host_of_the_proxy(self) -> None:
        digest = self.auth.push_image("shown", "v1", b"layer")
        page = Page(self.public.get(f"/r/shown/m/{digest}/").body.decode())
        self.assertIn("podman pull {}:{}/shown".format(*self.addresses["public"]), page.text)
        self.assertNotIn("tls-verify", page.text)

    def test_a_page_of_the_proxy_s_own_host_may_write(self) -> None:
        own = "https://{}:{}".format(*self.addresses["auth"])
        self.assertEqual(self.auth.request("POST", "/v2/own/blobs/uploads/", headers={"Origin": own}).status, 202)
        self.assertEqual(
            self.auth.request("POST", "/v2/own/blobs/uploads/", headers={"Origin": "https://evil.example"}).status, 403
        )

    def test_ranges_come_through(self) -> None:
        digest = self.auth.push_blob("ranges", bytes(range(256)))
        answer = self.public.get(f"/v2/ranges/blobs/{digest}", {"Range": "bytes=10-19"})
        self.assertEqual(
            (answer.status, answer.body, answer.headers["Content-Range"]),
            (206, bytes(range(10, 20)), "bytes 10-19/256"),
        )

    def test_many_ranges_come_through(self) -> None:
        content = os.urandom(3_000_000)
        self.check_parts(f"/v2/ranges/blobs/{self.auth.push_blob('ranges', content)}", content)


class Accelerated(CheckedTestCase, AcceleratedTestCase):
    """With `accel-redirect`."""

    content = os.urandom(300_000)

    def setUp(self) -> None:
        self.path = f"/v2/accelerated/blobs/{self.auth.push_blob('accelerated', self.content)}"

    def test_skopeo_pushes_and_pulls(self) -> None:
        self.check_skopeo("accelerated-copy")

    def test_nginx_sends_the_blob_with_the_same_header_fields_and_vex_does_not(self) -> None:
        direct = self.server.public.get(self.path)
        self.server.wait_until_counted()
        sent = self.server.metric("vex_sent_bytes_total")
        for client in (self.public, self.auth):
            answer = client.get(self.path)
            self.assertEqual((answer.status, answer.body), (200, self.content))
            for name in (
                "Content-Type",
                "Content-Length",
                "ETag",
                "Docker-Content-Digest",
                "Cache-Control",
                "Content-Disposition",
            ):
                self.assertEqual(answer.headers.get_all(name), direct.headers.get_all(name), name)
            for name in ("X-Content-Type-Options", "Content-Security-Policy", "Accept-Ranges"):
                self.assertEqual(answer.headers.get_all(name), direct.headers.get_all(name), name)
            self.assertIsNone(answer.headers["X-Accel-Redirect"])
        self.server.wait_until_counted()
        self.assertLess(self.server.metric("vex_sent_bytes_total") - sent, len(self.content))

    def test_who_asks_vex_directly_gets_the_blob_from_it(self) -> None:
        # Not through nginx, but from its address.
        for client in (self.server.public, self.server.auth):
            answer = client.get(self.path)
            self.assertEqual(
                (answer.status, answer.body, answer.headers["X-Accel-Redirect"]), (200, self.content, None)
            )

    def test_who_is_no_trusted_proxy_is_not_told_where_files_are(self) -> None:
        host, port = self.server.addresses["public"]
        for source, told in (("127.0.0.1", True), ("127.0.0.2", False)):
            with contextlib.closing(http.client.HTTPConnection(host, port, source_address=(source, 0))) as connection:
                connection.request("GET", self.path, headers={"X-Forwarded-For": "198.51.100.7"})
                answer = connection.getresponse()
                self.assertEqual(
                    (answer.headers["X-Accel-Redirect"] is not None, answer.read()),
                    (told, b"" if told else self.content),
                )

    def test_ranges_and_conditions(self) -> None:
        for value, first, end in (
            ("bytes=10-19", 10, 20),
            ("bytes=299990-", 299_990, 300_000),
            ("bytes=-5", 299_995, 300_000),
        ):
            answer = self.public.get(self.path, {"Range": value})
            self.assertEqual((answer.status, answer.body), (206, self.content[first:end]))
            self.assertEqual(answer.headers["Content-Range"], f"bytes {first}-{end - 1}/300000")
        etag = f'"{digest_of(self.content)}"'
        self.assertEqual(self.public.get(self.path, {"Range": "bytes=300000-"}).status, 416)
        self.assertEqual(self.public.get(self.path, {"If-None-Match": etag}).status, 304)
        self.assertEqual(self.public.get(self.path, {"Range": "bytes=0-0", "If-Range": etag}).status, 206)
        self.assertEqual(self.public.get(self.path, {"Range": "bytes=0-0", "If-Range": '"other"'}).status, 200)
        head = self.public.request("HEAD", self.path)
        self.assertEqual((head.status, head.headers["Content-Length"]), (200, "300000"))

    def test_many_ranges_come_from_nginx(self) -> None:
        content = os.urandom(3_000_000)
        path = f"/v2/accelerated/blobs/{self.auth.push_blob('accelerated', content)}"
        self.server.wait_until_counted()
        sent = self.server.metric("vex_sent_bytes_total")
        self.check_parts(path, content)
        self.server.wait_until_counted()
        # What metrics take to look at counts as well.
        self.assertLess(self.server.metric("vex_sent_bytes_total") - sent, len(content) // 10)

    def test_what_is_not_in_the_repository_is_404(self) -> None:
        digest = digest_of(self.content)
        for path in (
            f"/v2/elsewhere/blobs/{digest}",
            f"/v2/accelerated/blobs/{digest_of(b'missing')}",
            f"/blobs/{digest.replace(':', '/')}",
        ):
            self.assertEqual(self.public.get(path).status, 404, path)

    def test_a_damaged_blob_is_404_and_a_manifest_comes_from_vex(self) -> None:
        digest = self.auth.push_blob("accelerated", b"damaged content")
        os.truncate(self.server.data / "blobs" / digest.replace(":", "/"), 3)
        self.assertEqual(self.public.get(f"/v2/accelerated/blobs/{digest}").status, 404)
        manifest = self.auth.push_image("accelerated", "v1", b"layer")
        self.assertEqual(digest_of(self.public.get(f"/v2/accelerated/blobs/{manifest}").body), manifest)


class Docker(unittest.TestCase):
    """On a machine of its own, where docker verifies certificates, and the ports are those of the manual."""

    alone = True

    def test_docker_logs_in_pushes_and_pulls_through_nginx(self) -> None:
        require_root()
        for program, package in (("nginx", "nginx-light"), ("docker", "docker.io"), ("dockerd", "docker.io")):
            require(program, package)
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(temporary_directory())
            machine = stack.enter_context(running_machine(directory))
            assert (
                vex("user", "add", USER, "--data-dir", str(directory / "registry"), text=PASSWORD + "\n").returncode
                == 0
            )
            serve = [
                str(TOP / "vex.py"),
                "serve",
                "--data-dir",
                str(directory / "registry"),
                *TRUST,
                "--accel-redirect",
                "/blobs/",
                "--debug",
            ]
            with open(directory / "log", "wb") as log:
                server = subprocess.Popen(
                    machine.command("python3", *serve), stdout=subprocess.PIPE, stderr=log, text=True
                )
            stack.callback(server.communicate)
            stack.callback(server.terminate)
            assert server.stdout is not None
            self.assertIn("ready\n", iter(server.stdout.readline, ""))
            files = {**write_certificate(directory, NAME), "/srv/registry/data": directory / "registry"}
            stack.callback(
                start_nginx(directory / "nginx", replaced(with_accel(PROXY), files), *machine.command()).stop
            )
            stack.enter_context(daemon(directory, *machine.command(*dockerd(directory, "unix:///run/docker.sock"))))
            self.check(
                directory,
                lambda *words, text="": run(
                    *machine.command(*words), text=text, environment={"DOCKER_CONFIG": str(directory / "config")}
                ),
            )
            requests = [line for line in (directory / "log").read_text().splitlines() if " GET /v2/" in line]
            self.assertTrue(requests)
            self.assertEqual([line for line in requests if " 192.0.2.1 " not in line and " 127.0.0.1 " in line], [])

    def check(self, directory: Path, do: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        for host in (NAME, f"{NAME}:8443"):
            do("mkdir", "-p", f"/etc/docker/certs.d/{host}")
            do("cp", f"{directory}/crt.pem", f"/etc/docker/certs.d/{host}/ca.crt")
        do("docker", "login", "--username", USER, "--password-stdin", f"{NAME}:8443", text=PASSWORD)
        content, image_id = docker_archive(f"{NAME}:8443/hello:v1", tar_of({"a": os.urandom(100_000)}))
        (directory / "image.tar").write_bytes(content)
        do("docker", "load", "--input", f"{directory}/image.tar")
        do("docker", "push", f"{NAME}:8443/hello:v1")
        do("docker", "image", "rm", f"{NAME}:8443/hello:v1")
        do("docker", "pull", f"{NAME}/hello:v1")
        inspected = json.loads(do("docker", "image", "inspect", f"{NAME}/hello:v1").stdout)
        self.assertEqual(inspected[0]["Id"], image_id)


if __name__ == "__main__":
    unittest.main()
