"""Listeners at Unix sockets: with curl, behind nginx, and the files that they are."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import time
import unittest
from pathlib import Path

from tests.support.programs import require
from tests.support.registries import run, temporary_directory
from tests.support.server import PASSWORD, USER, Client, Server, digest_of, vex
from vex.errors import Failure
from vex.http.sockets import listen
from vex.settings.values import UnixAddress

LISTENERS = ("public", "auth", "internal")
_NGINX = """
daemon off;
error_log stderr;
pid {directory}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 0;
    proxy_request_buffering off;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    server {{ listen 127.0.0.1:{public}; location / {{ proxy_pass http://unix:{directory}/public.sock; }} }}
    server {{ listen 127.0.0.1:{auth}; location / {{ proxy_pass http://unix:{directory}/auth.sock; }} }}
}}
"""


class UnixSocketTest(unittest.TestCase):
    """One server with all listeners at sockets."""

    server: Server
    directory: Path

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server."""
        with contextlib.ExitStack() as stack:
            cls.directory = stack.enter_context(temporary_directory())
            flags = [f"--{name}-addr=unix:{cls.directory}/{name}.sock" for name in LISTENERS]
            cls.server = Server(cls.directory, *flags)
            stack.callback(cls.server.kill)
            cls.addClassCleanup(stack.pop_all().close)

    def curl(self, listener: str, path: str, *options: str) -> str:
        command = [
            require("curl", "curl"),
            "--silent",
            "--show-error",
            "--unix-socket",
            str(self.directory / f"{listener}.sock"),
        ]
        return run(*command, *options, f"http://registry.test{path}").stdout

    def code(self, listener: str, path: str, *options: str) -> str:
        return self.curl(listener, path, "--output", "/dev/null", "--write-out", "%{http_code}", *options)

    def test_it_prints_where_they_are(self) -> None:
        self.assertEqual(self.server.urls, {name: f"unix:{self.directory}/{name}.sock" for name in LISTENERS})

    def test_their_files_are_for_owner_and_group(self) -> None:
        for name in LISTENERS:
            mode = (self.directory / f"{name}.sock").stat().st_mode
            self.assertEqual((stat.S_ISSOCK(mode), stat.S_IMODE(mode)), (True, 0o660))

    def test_curl_pushes_and_pulls(self) -> None:
        user = ("--user", f"{USER}:{PASSWORD}")
        content = os.urandom(300_000)
        (self.directory / "blob").write_bytes(content)
        pushed = f"/v2/sock/blobs/uploads/?digest={digest_of(content)}"
        self.assertEqual(
            self.code("auth", pushed, *user, "--request", "POST", "--data-binary", f"@{self.directory}/blob"), "201"
        )
        self.assertEqual(self.code("auth", "/v2/"), "401")
        manifest = json.dumps({"schemaVersion": 2, "manifests": []})
        kind = ("--header", "Content-Type: application/vnd.oci.image.index.v1+json")
        self.assertEqual(
            self.code("auth", "/v2/sock/manifests/v1", *user, *kind, "--request", "PUT", "--data-binary", manifest),
            "201",
        )
        self.assertEqual(self.curl("public", "/v2/sock/manifests/v1"), manifest)
        self.assertEqual(json.loads(self.curl("public", "/v2/sock/tags/list")), {"name": "sock", "tags": ["v1"]})
        self.curl("public", f"/v2/sock/blobs/{digest_of(content)}", "--output", str(self.directory / "pulled"))
        self.assertIn("process_open_fds", self.curl("internal", "/metrics"))
        self.assertEqual(self.code("public", "/"), "200")

    def test_failed_logins_are_throttled_for_all_who_come_through_it(self) -> None:
        codes = [self.code("auth", "/v2/", "--user", "mallory:wrong password") for _ in range(12)]
        self.assertEqual(codes, ["401"] * 10 + ["429"] * 2)
        self.assertEqual(self.code("auth", "/v2/", "--user", f"{USER}:{PASSWORD}"), "200")

    def test_nginx_proxies_to_them(self) -> None:
        program = require("nginx", "nginx")
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            public, auth = one.getsockname(), other.getsockname()
        configuration = self.directory / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        configuration.write_text(user + _NGINX.format(directory=self.directory, public=public[1], auth=auth[1]))
        with open(self.directory / "nginx.log", "wb") as log:
            process = subprocess.Popen(
                [program, "-p", str(self.directory), "-e", "stderr", "-c", str(configuration)], stdout=log, stderr=log
            )
        try:
            _await_port(public, process)
            digest = Client(auth, USER).push_image("proxied", "v1", b"layer" * 100_000)
            answer = Client(public).get("/v2/proxied/manifests/v1")
            self.assertEqual((answer.status, answer.headers["Docker-Content-Digest"]), (200, digest))
            self.assertEqual(
                Client(public).get(f"/v2/proxied/blobs/{digest_of(b'layer' * 100_000)}").body, b"layer" * 100_000
            )
        finally:
            process.terminate()
            process.wait(timeout=20)


class SocketFileTest(unittest.TestCase):
    def setUp(self) -> None:
        context = temporary_directory()
        self.addCleanup(context.__exit__, None, None, None)
        self.directory = context.__enter__()
        self.path = self.directory / "public.sock"

    def server(self) -> Server:
        flags = ("--public-addr", f"unix:{self.path}", "--auth-addr", "off", "--internal-addr", "off")
        server = Server(self.directory, *flags)
        self.addCleanup(server.kill)
        return server

    def refused(self, path: Path, *words: str) -> None:
        with self.assertRaises(Failure) as caught:
            listen("public", UnixAddress(path), 1)
        for word in (str(path), "for public", *words):
            self.assertIn(word, str(caught.exception))

    def test_the_file_goes_with_the_server(self) -> None:
        server = self.server()
        self.assertTrue(self.path.is_socket())
        self.assertEqual(server.stop(), 0)
        self.assertFalse(self.path.exists())

    def test_one_that_a_killed_server_left_is_replaced(self) -> None:
        server = self.server()
        server.kill()
        self.assertTrue(self.path.is_socket())
        server.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
        self.assertEqual(server.stop(), 0)
        self.assertFalse(self.path.exists())

    def test_one_in_use_is_left_alone(self) -> None:
        server = self.server()
        result = vex(
            "serve",
            "--data-dir",
            str(self.directory / "other"),
            "--public-addr",
            f"unix:{self.path}",
            "--auth-addr=off",
            "--internal-addr=off",
        )
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertRegex(
            result.stderr,
            (
                r"\Avex: cannot listen on unix:.*/public\.sock for public: Address already in use; end what listens"
                r" .*public-addr\n\Z"
            ),
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
        self.assertEqual(server.stop(), 0)

    def test_one_whose_backlog_is_full_is_in_use(self) -> None:
        with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as clients:
            busy.bind(str(self.path))
            busy.listen(0)
            for _ in range(3):
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect_ex(str(self.path))
            self.refused(self.path, "Address already in use")

    def test_what_is_no_socket_is_left_alone(self) -> None:
        self.path.write_text("mine")
        self.refused(self.path, "move away what is no socket")
        self.assertEqual(self.path.read_text(), "mine")
        link = self.directory / "link"
        link.symlink_to(self.directory / "nowhere")
        self.refused(link, "move away what is no socket")
        self.assertTrue(link.is_symlink())

    def test_a_path_that_cannot_be_is_refused_with_advice(self) -> None:
        self.refused(self.directory / ("a" * 108), "107 bytes", "public-addr")
        self.refused(self.directory / "nowhere" / "a.sock", "No such file or directory", "its directory must be there")
        self.refused(Path("/proc/a.sock"), "this user must be able to write to it")

    def test_a_file_that_took_its_place_stays(self) -> None:
        listening = listen("public", UnixAddress(self.path), 1)
        self.path.unlink()
        self.path.write_text("another")
        listening.close()
        self.assertEqual(self.path.read_text(), "another")


def _await_port(address: tuple[str, int], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(address, timeout=1).close()
            return
        time.sleep(0.02)
    raise AssertionError("nginx does not listen")


if __name__ == "__main__":
    unittest.main()
