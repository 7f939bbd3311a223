"""Debian's docker-registry as the registry to move from, and what it takes to fill it."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.programs import require
from tests.support.server import OCI_INDEX, OCI_MANIFEST, Client, digest_of

SOURCE_USER, SOURCE_PASSWORD = "reader", "source password"
# bcrypt, which is all that docker-registry takes.
_HTPASSWD = f"{SOURCE_USER}:$2y$05$abcdefghijklmnopqrstuuXeMINziNapVx4lw5EjEld78//7avcG2\n"
_CONFIGURATION = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {directory}/data}}
http: {{addr: "127.0.0.1:{port}", secret: test}}
{auth}
"""


@contextlib.contextmanager
def docker_registry(auth: str = "", files: Mapping[str, str] | None = None) -> Iterator[Client]:
    """Run docker-registry for a block; in `auth`, the part of its configuration, {directory} stands for where `files`
    are.
    """
    program = require("docker-registry", "docker-registry")
    directory = Path(tempfile.mkdtemp(prefix="vex-test-"))
    try:
        for name, content in {"htpasswd": _HTPASSWD, **(files or {})}.items():
            (directory / name).write_text(content)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = probe.getsockname()
        text = _CONFIGURATION.format(directory=directory, port=address[1], auth=auth.format(directory=directory))
        (directory / "config.yml").write_text(text)
        with open(directory / "log", "wb") as log:
            process = subprocess.Popen([program, "serve", str(directory / "config.yml")], stdout=log, stderr=log)
        try:
            _wait_for(address, process, directory / "log")
            yield Client(address)
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(directory)


def htpasswd() -> str:
    """Return the part of the configuration that has SOURCE_USER log in."""
    return 'auth: {{htpasswd: {{realm: test, path: "{directory}/htpasswd"}}}}'


def _wait_for(address: tuple[str, int], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            Client(address).get("/v2/")
            return
        time.sleep(0.02)
    raise AssertionError(f"docker-registry did not start: {log.read_text()}")


def push_blob(client: Client, repository: str, content: bytes) -> dict[str, Any]:
    """Push a blob in two steps, which every registry takes; returns digest and size."""
    answer = client.request("POST", f"/v2/{repository}/blobs/uploads/")
    path = answer.headers["Location"].partition(f":{client.address[1]}")[2] or answer.headers["Location"]
    digest = digest_of(content)
    answer = client.request("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", content)
    assert answer.status == 201, answer
    return {"digest": digest, "size": len(content)}


def push_artifact(
    client: Client, repository: str, content: bytes, subject: Mapping[str, Any], tag: str = ""
) -> dict[str, Any]:
    """Push an artifact about an image; returns its descriptor."""
    config = {"mediaType": "application/vnd.oci.empty.v1+json", **push_blob(client, repository, b"{}")}
    layers = [{"mediaType": "text/plain", **push_blob(client, repository, content)}]
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "test/about",
        "config": config,
        "layers": layers,
        "subject": subject,
    }
    body = json.dumps(manifest).encode()
    client.push_manifest(repository, tag, body)
    return {"mediaType": OCI_MANIFEST, "digest": digest_of(body), "size": len(body)}


def push_fallback_tag(client: Client, repository: str, subject: str, referrers: list[dict[str, Any]]) -> None:
    """List referrers where clients keep them in a registry without an API for that."""
    client.push_manifest(
        repository,
        subject.replace(":", "-"),
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": referrers},
        OCI_INDEX,
    )
