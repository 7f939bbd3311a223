"""The registries that are compared: each a process that is started here, with its data under the directory that it is
given.

Reads go to `read`, writes to `write` with `authorization`: Vex has a listener for each, a peer may have one for both
and ask for no password.
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
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from tests.bench.content import Image
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

    @property
    def write_url(self) -> str:
        """Where it can be written."""
        return f"http{'s' if self.tls else ''}://{self.write[0]}:{self.write[1]}"

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

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
    ) -> Answer:
        """Send one request: reads to where it is read, unless they have an authorization (or "", which is none); others
        to where it is written.
        """
        if authorization is None and method not in ("GET", "HEAD"):
            authorization = self.authorization
        with contextlib.closing(self.connect(self.read if authorization is None else self.write)) as connection:
            credentials = {"Authorization": authorization} if authorization else {}
            connection.request(method, path, body, {"Accept": ACCEPT, **credentials, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def connect(self, address: tuple[str, int]) -> http.client.HTTPConnection:
        """Make a connection to one of its ports."""
        if not self.tls:
            return http.client.HTTPConnection(*address, timeout=600)
        context = ssl.create_default_context(cafile=str(self.tls.certificate))
        return http.client.HTTPSConnection(*address, timeout=600, context=context)

    def expect(
        self,
        status: int,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
    ) -> Answer:
        """Send one request whose answer must have this status; raises WrongAnswer."""
        answer = self.request(method, path, body, headers, authorization)
        if answer.status != status:
            raise WrongAnswer(f"{self.name}: {method} {path}: {answer.status} {answer.body[:500]!r}")
        return answer

    def check(self, path: str, digest: str, authorization: str | None = None) -> None:
        """Pull something, and compare its digest; raises WrongAnswer."""
        content = self.expect(200, "GET", path, authorization=authorization).body
        found = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if found != digest:
            raise WrongAnswer(f"{self.name}: GET {path}: {found} instead of {digest}")

    def push_image(self, repository: str, tag: str, image: Image) -> None:
        """Push an image."""
        for digest, content in image.blobs.items():
            self.push_blob(repository, digest, content)
        path = f"/v2/{repository}/manifests/{tag}"
        self.expect(201, "PUT", path, image.manifest, {"Content-Type": OCI_MANIFEST})

    def push_blob(self, repository: str, digest: str, content: bytes) -> None:
        """Push a blob."""
        location = self.expect(202, "POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
        target = location.replace(self.write_url, "")
        self.expect(201, "PUT", f"{target}{'&' if '?' in target else '?'}digest={digest}", content)

    def _log_in(self) -> None:
        """Have writes name the user."""
        self.user = f"{USER}:{PASSWORD}"
        self.authorization = "Basic " + base64.b64encode(self.user.encode()).decode()

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
            """Tell whether both ports answer; that for writes may well ask for a password."""
            if self.process.poll() is not None:
                raise WrongAnswer(
                    f"{self.name} ended; see {self.directory / 'log'}:\n{(self.directory / 'log').read_text()[-2000:]}"
                )
            refused = contextlib.suppress(OSError, http.client.HTTPException)
            with refused, socket.create_connection(self.write):
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
        flags: Sequence[str] = (),
    ) -> None:
        super().__init__(name, directory, tls)
        self._log_in()
        self._program = program
        self.data = directory / "data"
        self._command = [*runner, str(program), "serve", "--data-dir", str(self.data), *flags]
        for listener in ("public", "auth", "internal"):
            self._command += [f"--{listener}-addr", "127.0.0.1:0"]
        if tls:
            for listener in self.tls_listeners:
                self._command += [f"--{listener}-tls-cert", str(tls.certificate), f"--{listener}-tls-key", str(tls.key)]
        self.command("user", "add", USER, text=PASSWORD + "\n")
        self.start()

    def command(self, *arguments: str, text: str = "") -> str:
        """Run a command on its data to its end; returns what it printed. Raises WrongAnswer."""
        command = [sys.executable, str(self._program), *arguments, "--data-dir", str(self.data)]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WrongAnswer(f"{self.name}: {' '.join(arguments)}: {(done.stdout + done.stderr)[-500:]}")
        return done.stdout

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self._launch(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        addresses: dict[str, tuple[str, int]] = {}
        for line in self.process.stdout:
            if line == "ready\n":
                self.read, self.write = addresses["public"], addresses["auth"]
                return
            name, url = line.split()[:2]
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
    """Any registry: a command line, in which {port} stands for the port on 127.0.0.1, and {data} for its directory.
    With {write_port} it has another port for all that is not read, and with {user} and {password} asks for them there.
    """

    def __init__(self, name: str, directory: Path, command: str) -> None:
        super().__init__(name, directory)
        self.read = self.write = ("127.0.0.1", free_port())
        if "{write_port}" in command:
            self.write = ("127.0.0.1", free_port())
        if "{user}" in command:
            self._log_in()
        values = {"port": self.read[1], "write_port": self.write[1], "user": USER, "password": PASSWORD}
        data = directory / "data"
        data.mkdir()
        parts = [part.format(data=data, **values) for part in shlex.split(command)]
        self._launch(parts, stdout=subprocess.DEVNULL)
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
