"""`vex.pyz` replaced under a running server: nothing is read from it once the server has begun. And what Vex says where
it cannot run.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile
from pathlib import Path
from typing import Callable

from tests.support.images import tar_of
from tests.support.raw import basic
from tests.support.server import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    PASSWORD,
    TOP,
    USER,
    Client,
    Server,
    descriptor,
    digest_of,
    write_certificate,
)
from vex.api import routes
from vex.web import addresses


def copy(directory: Path) -> Path:
    """Copy the checkout, without the tests; returns where to run it."""
    shutil.copytree(TOP / "vex", directory / "vex", ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    return Path(shutil.copy(TOP / "vex.py", directory))


def pack(path: Path, *, without: str = "") -> None:
    """Make a zipapp of the checkout, without what zipapp.sh checks, and perhaps without a directory of it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(TOP / "vex.py", "__main__.py")
        for file in sorted((TOP / "vex").rglob("*")):
            if file.is_file() and not {"__pycache__", without} & set(file.parts):
                archive.write(file, str(file.relative_to(TOP)))


class PackedServer(Server):
    """A server that runs from a zipapp of its own."""

    def __init__(self, directory: Path, *flags: str) -> None:
        archive = directory / "vex.pyz"
        pack(archive)
        self.program = (str(archive),)
        super().__init__(directory, *flags)


class CopiedServer(Server):
    """A server that runs from a checkout of its own."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.program = (str(copy(directory)),)
        super().__init__(directory, *flags)


class Replaced(unittest.TestCase):
    def serve(self, *flags: str, kind: type[Server] = PackedServer) -> Server:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        path = Path(directory.name)
        write_certificate(path)
        (path / "vex.conf").write_text("failed-logins = 5\ninternal-tls-cert = crt.pem\ninternal-tls-key = key.pem\n")
        server = kind(path, "--config", str(path / "vex.conf"), "--pull-grace", "0s", *flags)
        self.addCleanup(server.kill)
        return server

    def replace(self, server: Server) -> None:
        """Write over the file that the server runs from, and then put another one in its place."""
        archive = Path(server.program[0])
        with open(archive, "r+b") as file:
            file.write(os.urandom(archive.stat().st_size))
        other = server.directory / "other.pyz"
        other.write_bytes(b"another version")
        os.replace(other, archive)

    def test_everything_goes_on(self) -> None:
        server = self.serve("--anonymous-read", "yes", "--access-log", "stderr")
        self.replace(server)
        self.use_everything(server)

    def test_a_checkout_may_go_too_once_what_is_loaded_last_is_loaded(self) -> None:
        server = self.serve("--anonymous-read", "yes", "--access-log", "stderr", kind=CopiedServer)
        internal = server.internal
        internal.context = _unverified()
        self.wait_until(lambda: b'{step="pages"}' in internal.get("/metrics").body, server)
        shutil.rmtree(server.directory / "vex")
        self.use_everything(server)

    def use_everything(self, server: Server) -> None:
        """Push, read each route, reload, delete and stop; nothing of it fails."""
        auth, public = server.auth, server.public
        layers = [gzip.compress(tar_of({"etc/passwd": b"root"})), b"\x28\xb5\x2f\xfd no zstd", b"no archive"]
        config = json.dumps(
            {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}
        ).encode()
        manifests = []
        for number in range(2):
            manifest = {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": descriptor(config, OCI_CONFIG),
                "layers": [descriptor(layer, OCI_LAYER) for layer in layers[: 3 - number]],
            }
            for content in (config, *layers):
                auth.push_blob("app", content)
            manifests.append(auth.push_manifest("app", f"v{number}", manifest))
        self.visit_everything(server, manifests, layers)
        (server.directory / "vex.conf").write_text(
            "failed-logins = 7\ninternal-tls-cert = crt.pem\ninternal-tls-key = key.pem\nnonsense = 1\n"
        )
        self.reload(server, "the configuration stays as it was")
        (server.directory / "vex.conf").write_text(
            "failed-logins = 7\ninternal-tls-cert = crt.pem\ninternal-tls-key = key.pem\n"
        )
        write_certificate(server.directory)
        self.reload(server, "new connections get the new certificate")
        self.assertEqual(auth.request("DELETE", "/v2/app/manifests/v0").status, 202)
        self.assertEqual(public.get("/nothing/here").status, 404)
        self.assertEqual(server.stop(), 0)
        self.assertNotIn("Traceback", server.log.read_text())

    def visit_everything(self, server: Server, manifests: list[str], layers: list[bytes]) -> None:
        """Ask for something at each route of each listener, and see in the metrics that none was left out."""
        auth, public, page = server.auth, server.public, f"/r/app/m/{manifests[0]}/"
        upload = auth.request("POST", "/v2/app/blobs/uploads/").headers["Location"].partition("?")[0]
        static = re.findall(r"/static/[^\"]+", public.get("/").body.decode())
        self.assertGreater(len(static), 1)
        wanted = [
            *(
                "/",
                "/?q=app",
                "/r/app/",
                page,
                f"{page}json/",
                f"/r/app/diff/{manifests[0]}...{manifests[1]}/",
                "/r/app/history:v0/",
                "/robots.txt",
            ),
            *(f"{page}layer/{digest_of(layer)}/" for layer in layers),
            *static,
            *(
                "/help/",
                "/help/proof/",
                "/v2/",
                "/v2/_catalog",
                "/v2/app/tags/list",
                "/v2/app/manifests/v0",
                f"/v2/app/referrers/{manifests[0]}",
            ),
            *(f"/v2/app/blobs/{digest_of(layers[0])}", f"{page}image.tar", "/healthz", "/v1/_ping", "/v1/search?q=app"),
        ]
        for path in wanted:
            self.assertIn(public.get(path).status, (200, 422), path)
        for path in (
            "/r/none/",
            "/r/app/m/wrong/",
            "/static/none.css",
            "/r/app/history:none/",
            f"/r/app/m/{digest_of(b'none')}/",
            "/%00",
        ):
            self.assertIn(public.get(path).status, (400, 404), path)
        self.assertEqual(public.request("POST", "/").status, 405)
        self.assertEqual(auth.get(upload).status, 204)
        self.assertEqual(
            Client(auth.address)
            .get("/v2/_token?scope=repository:app:pull", {"Authorization": basic(USER, PASSWORD)})
            .status,
            200,
        )
        self.assertEqual(Client(auth.address, USER, "a wrong password").get("/v2/").status, 401)
        internal = server.internal
        internal.context = _unverified()
        for path in ("/", "/readyz", "/metrics", "/healthz"):
            self.assertEqual(internal.get(path).status, 200, path)
        seen = set(
            re.findall(r'vex_request_duration_seconds_count{[^}]*op="([^"]+)"', internal.get("/metrics").body.decode())
        )
        known = {
            route.op
            for route in (
                *routes.REGISTRY,
                routes.TOKEN,
                *routes.INTERNAL,
                routes.HEALTHZ,
                addresses.INDEX,
                *addresses.PAGES,
            )
        }
        self.assertEqual(known - seen, set())

    def reload(self, server: Server, said: str) -> None:
        server.process.send_signal(signal.SIGHUP)
        self.wait_until(lambda: said in server.log.read_text(), server)

    def wait_until(self, condition: Callable[[], bool], server: Server) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), deadline, server.log.read_text())
            time.sleep(0.02)

    def test_a_failure_that_nobody_foresaw_still_shows_its_lines_in_the_log(self) -> None:
        server = self.serve()
        self.replace(server)
        # What housekeeping cannot do is logged with a traceback.
        ballast = server.data / "ballast"
        server.stop()
        ballast.unlink(missing_ok=True)
        ballast.mkdir()
        pack(Path(server.program[0]))
        server.start()
        self.replace(server)
        self.wait_until(lambda: "Traceback" in server.log.read_text(), server)
        self.assertIn("in keep_ballast", server.log.read_text())


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Broken(unittest.TestCase):
    """Pages that fail, their error page among them."""

    def test_whoever_asks_is_answered_in_plain_text(self) -> None:
        with tempfile.TemporaryDirectory(prefix="vex-test-") as directory:
            archive = Path(directory, "vex.pyz")
            pack(archive, without="templates")
            server = BrokenServer(Path(directory))
            self.addCleanup(server.kill)
            for path, status, said in (
                ("/", 500, b"the registry failed on this request"),
                ("/nothing", 404, b"there is nothing at this path"),
            ):
                for _ in range(2):
                    answer = server.public.get(path)
                    self.assertEqual(
                        (answer.status, answer.headers["Content-Type"]), (status, "text/plain; charset=utf-8")
                    )
                    self.assertIn(said, answer.body)
            refused = server.public.request("POST", "/")
            self.assertEqual((refused.status, refused.headers["Allow"]), (405, "GET, HEAD, OPTIONS"))
            self.assertEqual(server.public.get("/v2/").status, 200)
            self.assertGreater(server.metric("vex_panic_total"), 0)
            self.assertEqual(server.stop(), 0)


class BrokenServer(Server):
    """A server that runs from the zipapp in its directory."""

    def __init__(self, directory: Path) -> None:
        self.program = (str(directory / "vex.pyz"),)
        super().__init__(directory)


class Elsewhere(unittest.TestCase):
    """Where Vex cannot run."""

    def test_a_python_without_a_needed_module_is_told_in_one_line_which(self) -> None:
        script = (
            "import runpy, sys; sys.modules[sys.argv[1]] = None; sys.argv[1:2] = []; runpy.run_path(sys.argv[1],"
            " run_name='__main__')"
        )
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "vex.pyz"
            pack(archive)
            for module in ("fcntl", "resource", "_sqlite3", "_ssl"):
                for program in (TOP / "vex.py", archive):
                    with self.subTest(module, program=program.name):
                        command = [sys.executable, "-c", script, module, str(program)]
                        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=TOP)
                        self.assertEqual(
                            (ran.returncode, ran.stdout, len(ran.stderr.splitlines())), (1, "", 1), ran.stderr
                        )
                        for part in (f"no module {module}", "POSIX", "WSL", "container"):
                            self.assertIn(part, ran.stderr)


if __name__ == "__main__":
    unittest.main()
