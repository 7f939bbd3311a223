"""The registries that are compared: each a process that is started here, with its data under the directory that it is
given.

Reads go to `read`, writes to `write` with `authorization`: Vex has a listener for each, a peer has one for both and
asks for no password.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from tests.bench.measure import WrongAnswer, cpu_seconds, resident_bytes, wait_until
from tests.support.nginx import CACHE, CERTIFICATE, KEY, replaced, start_nginx
from tests.support.server import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, PASSWORD, TOP, USER, free_port

# What real clients send; the peer hides OCI manifests from those that do not.
ACCEPT = ", ".join([OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST])
_START_SECONDS = 60
_DEBIAN_CONFIGURATION = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {data}}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
  secret: benchmark
{tls}"""


class Tls(NamedTuple):
    """A certificate for 127.0.0.1 and its key, PEM."""

    certificate: Path
    key: Path


class Answer(NamedTuple):
    """An answer, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Registry:
    """A registry that runs until `stop`."""

    def __init__(self, name: str, directory: Path, tls: Tls | None = None) -> None:
        self.name = name
        self.directory = directory
        self.tls = tls
        self.authorization = ""
        self.user = ""
        self.read = self.write = ("", 0)
        self.process: subprocess.Popen[str]
        self._prepared: set[Callable[[Registry], None]] = set()
        directory.mkdir()

    @property
    def url(self) -> str:
        """Where it can be read."""
        return f"http{'s' if self.tls else ''}://{self.read[0]}:{self.read[1]}"

    def prepare(self, work: Callable[[Registry], None]) -> None:
        """Have something done to this registry, once."""
        if work not in self._prepared:
            work(self)
            self._prepared.add(work)

    def cpu_seconds(self) -> float:
        """Return the processor time it has used."""
        return cpu_seconds(self.process.pid)

    def resident_bytes(self) -> int:
        """Return its resident memory."""
        return resident_bytes(self.process.pid)

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request: reads to where it is read, others to where it is written."""
        reading = method in ("GET", "HEAD")
        host, port = self.read if reading else self.write
        if self.tls:
            context = ssl.create_default_context(cafile=str(self.tls.certificate))
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=600, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=600)
        with contextlib.closing(connection):
            credentials = {"Authorization": self.authorization} if self.authorization and not reading else {}
            connection.request(method, path, body, {"Accept": ACCEPT, **credentials, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def expect(
        self, status: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request whose answer must have this status; raises WrongAnswer."""
        answer = self.request(method, path, body, headers)
        if answer.status != status:
            raise WrongAnswer(f"{self.name}: {method} {path}: {answer.status} {answer.body[:500]!r}")
        return answer

    def check(self, path: str, digest: str) -> None:
        """Pull something, and compare its digest; raises WrongAnswer."""
        found = f"sha256:{hashlib.sha256(self.expect(200, 'GET', path).body).hexdigest()}"
        if found != digest:
            raise WrongAnswer(f"{self.name}: GET {path}: {found} instead of {digest}")

    def discard_blob(self, repository: str, digest: str) -> None:
        """Give the space of a blob back to the file system, as far as that is possible."""
        self.request("DELETE", f"/v2/{repository}/blobs/{digest}")

    def stop(self) -> None:
        """End it in order."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _launch(self, command: Sequence[str], **options: int) -> None:
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.directory, stderr=log, text=True, **options)  # type: ignore[call-overload]

    def _wait_for_answers(self) -> None:
        def answers() -> bool:
            if self.process.poll() is not None:
                raise WrongAnswer(
                    f"{self.name} ended; see {self.directory / 'log'}:\n{(self.directory / 'log').read_text()[-2000:]}"
                )
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.request("GET", "/v2/").status == 200
            return False

        try:
            wait_until(answers, _START_SECONDS, f"the start of {self.name}")
        except TimeoutError:
            self.stop()
            raise


class Vex(Registry):
    """Vex, from the zipapp that users run; `runner` is a command that runs a Python program, for profiles."""

    tls_listeners: tuple[str, ...] = ("public", "auth")

    def __init__(
        self,
        name: str,
        directory: Path,
        program: Path,
        tls: Tls | None = None,
        runner: Sequence[str] = (sys.executable,),
    ) -> None:
        super().__init__(name, directory, tls)
        self.user = f"{USER}:{PASSWORD}"
        self.authorization = "Basic " + base64.b64encode(self.user.encode()).decode()
        self._command = [*runner, str(program), "serve", "--data-dir", str(directory / "data")]
        for listener in ("public", "auth", "internal"):
            self._command += [f"--{listener}-addr", "127.0.0.1:0"]
        if tls:
            for listener in self.tls_listeners:
                self._command += [f"--{listener}-tls-cert", str(tls.certificate), f"--{listener}-tls-key", str(tls.key)]
        added = [sys.executable, str(program), "user", "add", USER, "--data-dir", str(directory / "data")]
        subprocess.run(added, input=PASSWORD + "\n", text=True, check=True)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self._launch(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        addresses: dict[str, tuple[str, int]] = {}
        for line in self.process.stdout:
            if line == "ready\n":
                self.read, self.write = addresses["public"], addresses["auth"]
                return
            name, url = line.split()
            host, _, port = url.partition("//")[2].rpartition(":")
            addresses[name] = (host, int(port))
        raise WrongAnswer(f"{self.name} did not start:\n{(self.directory / 'log').read_text()[-2000:]}")


class CachedVex(Vex):
    """Vex behind an nginx that caches, with the configuration of the manual; both count."""

    tls_listeners = ("auth",)

    def start(self) -> None:
        """Start both."""
        super().start()
        read, self.read = self.read, ("127.0.0.1", free_port())
        values: dict[str, object] = {
            "listen 443 ssl": "listen {}:{}{}".format(*self.read, " ssl" if self.tls else ""),
            "192.0.2.10:8200": "{}:{}".format(*read),
            "127.0.0.1:8210": f"127.0.0.1:{free_port()}",
            "/var/cache/nginx/vex": self.directory / "cache",
        }
        if self.tls:
            values.update({CERTIFICATE: self.tls.certificate, KEY: self.tls.key})
        block = replaced(CACHE, values)
        if not self.tls:
            block = re.sub(r"ssl_certificate.*;", "", block)
        self._nginx = start_nginx(self.directory / "nginx", block)

    def cpu_seconds(self) -> float:
        """Return the processor time of both."""
        return super().cpu_seconds() + cpu_seconds(self._nginx.process.pid)

    def stop(self) -> None:
        """End both."""
        self._nginx.stop()
        super().stop()


class DebianRegistry(Registry):
    """Debian's package `docker-registry`: distribution 2.8, with its file system driver."""

    def __init__(self, name: str, directory: Path, tls: Tls | None = None) -> None:
        super().__init__(name, directory, tls)
        self.read = self.write = ("127.0.0.1", free_port())
        files = f"  tls: {{certificate: {tls.certificate}, key: {tls.key}}}\n" if tls else ""
        text = _DEBIAN_CONFIGURATION.format(data=directory / "data", port=self.read[1], tls=files)
        (directory / "config.yml").write_text(text)
        self._launch(["docker-registry", "serve", str(directory / "config.yml")], stdout=subprocess.DEVNULL)
        self._wait_for_answers()

    def discard_blob(self, repository: str, digest: str) -> None:
        """Delete the blob; the space is only given back by its garbage collection, which here is a removal of the
        file.
        """
        super().discard_blob(repository, digest)
        encoded = digest.partition(":")[2]
        shutil.rmtree(
            self.directory / "data/docker/registry/v2/blobs/sha256" / encoded[:2] / encoded, ignore_errors=True
        )


class OtherRegistry(Registry):
    """Any registry: a command line, in which {port} stands for the port on 127.0.0.1, and {data} for its directory."""

    def __init__(self, name: str, directory: Path, command: str) -> None:
        super().__init__(name, directory)
        self.read = self.write = ("127.0.0.1", free_port())
        data = directory / "data"
        data.mkdir()
        self._launch(
            [part.format(port=self.read[1], data=data) for part in shlex.split(command)], stdout=subprocess.DEVNULL
        )
        self._wait_for_answers()


def build_vex(directory: Path) -> Path:
    """Build vex.pyz into a directory."""
    program = directory / "vex.pyz"
    subprocess.run([str(TOP / "zipapp.sh"), str(program)], stdout=subprocess.DEVNULL, check=True)
    return program


def make_tls(directory: Path) -> Tls:
    """Make a certificate for 127.0.0.1 with openssl."""
    tls = Tls(directory / "crt.pem", directory / "key.pem")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(tls.key)]
    subprocess.run(
        ["openssl", "req", "-x509", *key, *subject, "-days", "2", "-out", str(tls.certificate)],
        capture_output=True,
        check=True,
    )
    return tls
