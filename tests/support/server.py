"""What tests share: the real server in a process of its own, a small HTTP client, and content to push."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.client
import json
import math
import os
import random
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from tests.support.commands import run_command
from vex.access.users import Users
from vex.commands.certificate import PemPair, create_authority, create_certificate, hosts_of
from vex.storage.database import Database

_LASTING_BLOBS = """
WITH RECURSIVE live (repository, manifest) AS (
  SELECT repository, manifest FROM tag
  UNION SELECT repository, manifest FROM repository_manifest WHERE state < 2 AND holders = 0 AND subject IS NULL
  UNION SELECT c.repository, c.child FROM live l
    JOIN manifest_child c ON c.repository = l.repository AND c.parent = l.manifest
  UNION SELECT r.repository, r.manifest FROM live l JOIN manifest m ON m.id = l.manifest
    JOIN repository_manifest r ON r.repository = l.repository AND r.subject = m.digest AND r.state < 2
)
SELECT digest FROM live l
  JOIN manifest_blob b ON b.repository = l.repository AND b.manifest = l.manifest JOIN blob ON blob.id = b.blob
UNION SELECT digest FROM lease JOIN blob ON blob.id = blob WHERE lease.expires > ?
"""
TOP = Path(__file__).resolve().parent.parent.parent
USER, PASSWORD = "alice", "correct horse battery"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of bytes, computed without Vex."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def free_port() -> int:
    """Find a port of 127.0.0.1 for a program that cannot choose one by itself.

    It is below those that systems give to outgoing connections, of which one could take it before the program does.
    """
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def vex(
    *arguments: str, cwd: Path | None = None, text: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run one Vex command to its end."""
    return run_command([str(TOP / "vex.py"), *arguments], cwd or Path.cwd(), text, timeout)


class Answer(NamedTuple):
    """A response, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body as a JSON document."""
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        """The error codes of an OCI error document."""
        return [error["code"] for error in self.json["errors"]]


class Client:
    """Requests to one listener, each on a connection of its own; `user` "" sends no credentials."""

    def __init__(
        self,
        address: tuple[str, int],
        user: str = "",
        password: str = PASSWORD,
        context: ssl.SSLContext | None = None,
        timeout: float = 60,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self.context = context
        self._authorization = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}" if user else ""

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
    ) -> Answer:
        """Send a request; `body` is bytes or an iterable of bytes, which goes in chunks."""
        if self.context is None:
            connection = http.client.HTTPConnection(*self.address, timeout=self.timeout)
        else:
            connection = http.client.HTTPSConnection(*self.address, timeout=self.timeout, context=self.context)
        sent = dict(headers or {})
        if self._authorization:
            sent.setdefault("Authorization", self._authorization)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=sent, encode_chunked=chunked)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a GET."""
        return self.request("GET", path, headers=headers)

    # Pushing; each asserts that it worked, since a test that goes on after a failed push only confuses

    def push_blob(self, repository: str, content: bytes, algorithm: str = "sha256") -> str:
        """Push a blob in one POST; returns its digest."""
        digest = digest_of(content, algorithm)
        answer = self.request("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", content)
        assert answer.status == 201, answer
        return digest

    def push_manifest(
        self, repository: str, reference: str, manifest: Mapping[str, Any] | bytes, media_type: str = OCI_MANIFEST
    ) -> str:
        """Push a manifest under a tag or digest ("" for its own digest); returns its sha256 digest."""
        content = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        digest = digest_of(content)
        answer = self.request(
            "PUT", f"/v2/{repository}/manifests/{reference or digest}", content, {"Content-Type": media_type}
        )
        assert answer.status == 201, answer
        return digest

    def push_image(self, repository: str, tag: str, *layers: bytes, config: bytes = b"{}", **fields: Any) -> str:
        """Push an OCI image of these layers, config and further manifest fields; returns the digest of its manifest."""
        for content in (config, *layers):
            self.push_blob(repository, content)
        return self.push_manifest(repository, tag, image(*layers, config=config, **fields))

    def push_index(self, repository: str, tag: str, children: Sequence[tuple[str, int]], **fields: Any) -> str:
        """Push an OCI index of manifests, (digest, size) each; returns its digest."""
        return self.push_manifest(repository, tag, index(children, **fields), OCI_INDEX)


def descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    """Describe content."""
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def image(*layers: bytes, config: bytes = b"{}", **fields: Any) -> dict[str, Any]:
    """Make an OCI image manifest."""
    listed = [descriptor(layer, OCI_LAYER) for layer in layers]
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, OCI_CONFIG),
        "layers": listed,
        **fields,
    }


def index(children: Sequence[tuple[str, int]], **fields: Any) -> dict[str, Any]:
    """Make an OCI index of manifests, (digest, size) each."""
    listed = [{"mediaType": OCI_MANIFEST, "digest": digest, "size": size} for digest, size in children]
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed, **fields}


def make_certificate(host: str, *, now: float) -> PemPair:
    """Make a certificate for a server with that of a new authority behind it, so that who trusts the file trusts the
    server.
    """
    hosts = hosts_of(host)
    return create_certificate(hosts, create_authority(hosts, now=now), now=now)


def write_certificate(directory: str | Path) -> tuple[Path, Path]:
    """Write a certificate for localhost and its key, and return their paths."""
    made = make_certificate("localhost", now=time.time())
    certificate, key = Path(directory, "crt.pem"), Path(directory, "key.pem")
    certificate.write_text(made.certificate_pem)
    key.write_text(made.key_pem)
    return certificate, key


def tls_flags(certificate: object, key: object, *listeners: str) -> tuple[str, ...]:
    """Give the flags with which listeners serve HTTPS."""
    return tuple(
        flag for name in listeners for flag in (f"--{name}-tls-cert", str(certificate), f"--{name}-tls-key", str(key))
    )


def trusting(certificate: object) -> ssl.SSLContext:
    """Make a context that trusts the certificate of a test, whatever the name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(certificate))
    context.check_hostname = False
    return context


@functools.cache
def _database_with_user() -> bytes:
    """Make the database of a registry with one user, once: hundreds of servers start with it."""
    with tempfile.TemporaryDirectory(prefix="vex-test-") as directory:
        path = Path(directory) / "vex.db"
        with contextlib.closing(Database(path)) as database:
            Users(database).add(USER, PASSWORD)
        return path.read_bytes()


def _write_synced(path: Path, content: bytes) -> None:
    """Write a file as Vex does, so that it survives what some tests do to the disk."""
    for opened in (path, path.parent, path.parent.parent):
        descriptor = os.open(opened, os.O_WRONLY | os.O_CREAT if opened == path else os.O_RDONLY, 0o640)
        if opened == path:
            os.write(descriptor, content)
        os.fsync(descriptor)
        os.close(descriptor)


class Server:
    """`vex serve` in a process of its own, on free ports, with its data in `directory`/data and one user, USER."""

    program: tuple[str, ...] = (str(TOP / "vex.py"),)

    def __init__(self, directory: Path, *flags: str, environment: Mapping[str, str] | None = None) -> None:
        """Start it and wait until it says ready; `flags` are those of `serve`."""
        self.directory = directory
        self.data = directory / "data"
        self._flags = flags
        self._environment = {**os.environ, **(environment or {})}
        if not (self.data / "vex.db").exists():
            self.data.mkdir(0o750, exist_ok=True)
            _write_synced(self.data / "vex.db", _database_with_user())
        self.start()

    def start(self) -> None:
        """Start it, again perhaps; the ports are new."""
        command = [sys.executable, *self.program, "serve", "--data-dir", str(self.data)]
        for listener in ("public", "auth", "internal"):
            if not any(flag.partition("=")[0] == f"--{listener}-addr" for flag in self._flags):
                command += [f"--{listener}-addr", "127.0.0.1:0"]
        self.log = self.directory / "vex.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*command, *self._flags],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
                cwd=self.directory,
            )
        self.addresses: dict[str, tuple[str, int]] = {}
        self.urls: dict[str, str] = {}
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "ready\n":
                return
            name, url = line.split()[:2]
            self.urls[name] = url
            if url.startswith("unix:"):
                continue
            host, _, port = url.partition("//")[2].rpartition(":")
            self.addresses[name] = (host.strip("[]"), int(port))
        self.kill()
        raise AssertionError(f"vex serve did not start: {self.log.read_text()}")

    @property
    def public(self) -> Client:
        """A client of the public listener."""
        return Client(self.addresses["public"])

    @property
    def auth(self) -> Client:
        """A client of the auth listener, with the credentials of USER."""
        return Client(self.addresses["auth"], USER)

    @property
    def internal(self) -> Client:
        """A client of the internal listener."""
        return Client(self.addresses["internal"])

    def metric(self, series: str) -> float:
        """Return the value of a series, such as `vex_blobs`, 0 when there is none."""
        for line in self.internal.get("/metrics").body.decode().splitlines():
            if line.rpartition(" ")[0] == series:
                return float(line.rpartition(" ")[2])
        return 0

    def files(self) -> set[str]:
        """Return the digests of all files under blobs/."""
        return {f"{path.parent.name}:{path.name}" for path in (self.data / "blobs").glob("*/*")}

    def lasting_files(self) -> set[str]:
        """Return the digests of files that will be there in more than an hour, for which those who push are told of
        what is there.

        That is what tags, or manifests that were pushed by digest, lead to, and what was uploaded; all others must have
        an end, and a row.
        """
        with contextlib.closing(sqlite3.connect(self.data / "vex.db", timeout=30)) as connection:
            connection.execute("BEGIN")
            later = math.ceil(time.time() + 3600)
            lasting = {digest for (digest,) in connection.execute(_LASTING_BLOBS, (later,))}
            rows = {digest for (digest,) in connection.execute("SELECT digest FROM blob")}
            files = self.files()
            endless = connection.execute(
                "SELECT count(*) FROM repository_manifest WHERE state >= 2 AND NOT coalesce(expires <= ?, 0)", (later,)
            ).fetchone()
        assert (files, endless) == (rows, (0,)), (files ^ rows, endless)
        assert lasting <= files, lasting - files
        return lasting

    def wait_for_housekeeping(self) -> None:
        """Wait until its thread is there, which comes behind `ready`: on new data, its first round ends with space that
        is set aside.
        """
        deadline = time.monotonic() + 20
        while not (self.data / "ballast").exists():
            assert time.monotonic() < deadline, "no housekeeping"
            time.sleep(0.01)

    def wait_until_counted(self) -> None:
        """Wait until all requests are counted that the public and the auth listener have answered: each is a moment
        after its client has the answer.
        """
        deadline = time.monotonic() + 20
        while any(self.metric(f'vex_requests_in_flight{{listener="{name}"}}') for name in ("public", "auth")):
            assert time.monotonic() < deadline, "requests in flight"
            time.sleep(0.01)

    def stop(self) -> int:
        """End it with SIGTERM; returns its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End it with SIGKILL."""
        return self._end(signal.SIGKILL)

    def restart(self, *flags: str) -> None:
        """Stop it in order, and start it on the same data; with other flags if some are given."""
        code = self.stop()
        assert code == 0, self.log.read_text()
        self._flags = flags or self._flags
        self.start()

    def _end(self, number: int) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextlib.contextmanager
def running(*flags: str, prepare: Callable[[Path], None] | None = None) -> Iterator[Server]:
    """Run a server in a new directory for a block; `prepare` fills that before it starts."""
    directory = Path(tempfile.mkdtemp(prefix="vex-test-"))
    try:
        if prepare:
            prepare(directory)
        server = Server(directory, *flags)
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(directory)


def configured(text: str) -> Callable[[Path], None]:
    """Have a server begin with a `vex.conf` of this text."""

    def prepare(directory: Path) -> None:
        (directory / "vex.conf").write_text(text)

    return prepare


class ServerTestCase(unittest.TestCase):
    """Tests that share one server, started with `flags`; each test uses repositories of its own. No traceback may reach
    the log.
    """

    flags: tuple[str, ...] = ()
    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server."""
        context = running(*cls.flags)
        cls.server = context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)
        cls.addClassCleanup(cls._check_log)

    @classmethod
    def _check_log(cls) -> None:
        log = cls.server.log.read_text()
        assert "Traceback" not in log, log

    def assert_error(self, answer: Answer, status: int, code: str) -> None:
        """Check for an OCI error document with one error."""
        self.assertEqual((answer.status, answer.codes), (status, [code]), answer)
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        self.assertTrue(answer.json["errors"][0]["message"])
