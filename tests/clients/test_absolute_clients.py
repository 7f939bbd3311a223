"""Real clients that push only where the Location of an upload is absolute, or has a query: Charliecloud, and three from
PyPI; over TLS of Vex itself.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import ssl
from pathlib import Path

from tests.support.images import docker_archive, tar_of
from tests.support.programs import require, require_client
from tests.support.registries import run, temporary_directory
from tests.support.server import (
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    PASSWORD,
    USER,
    Client,
    ServerTestCase,
    descriptor,
    digest_of,
    image,
    write_certificate,
)

_DOCKERTARPUSHER = """
import sys
from dockertarpusher import Registry
registry = Registry(sys.argv[1], sys.argv[2], login=sys.argv[3], password=sys.argv[4], sslVerify=sys.argv[5])
sys.exit(not registry.processImage())
"""
_CONTAINERIMAGE = """
import json, sys
from image.client import ContainerImageRegistryClient as client
from image.descriptor import ContainerImageDescriptor
name, auth, chunked = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "chunked"
text, blobs = open(sys.argv[4]).read(), sys.argv[5:]
manifest = json.loads(text)
for path, listed in zip(blobs, [manifest["config"], *manifest["layers"]]):
    location = client.initialize_upload(name, auth)
    content = open(path, "rb").read()
    descriptor = ContainerImageDescriptor(listed)
    client.upload_blob(name, location, descriptor, content, chunked=chunked, chunk_size=100_000, auth=auth)
client.upload_manifest(name, text, manifest["mediaType"], auth)
"""
_ASYNC = """
import asyncio, sys
from docker_registry_client_async import DockerRegistryClientAsync, FormattedSHA256, ImageName, Manifest, MediaTypes

async def push(name, manifest, blobs):
    async with DockerRegistryClientAsync() as client:
        await client.add_credentials(credentials=sys.argv[2], endpoint=name.endpoint)
        for path in blobs:
            content = open(path, "rb").read()
            started = await client.post_blob(name)
            sent = await client.patch_blob_upload(started.location, content[:1000], offset=0)
            if content[1000:]:
                sent = await client.patch_blob_upload(sent.location, content[1000:], offset=len(content[:1000]))
            await client.put_blob_upload(sent.location, FormattedSHA256.calculate(content))
        await client.put_manifest(name, Manifest(open(manifest, "rb").read(), media_type=sys.argv[3]))

asyncio.run(push(ImageName.parse(sys.argv[1]), sys.argv[4], sys.argv[5:]))
"""


class AbsoluteClients(ServerTestCase):
    """A server at localhost with HTTPS, and one image."""

    directory: Path
    certificate: Path
    client: Client
    host: str

    @classmethod
    def setUpClass(cls) -> None:
        """Start it."""
        directory = temporary_directory()
        cls.directory = directory.__enter__()
        cls.addClassCleanup(directory.__exit__, None, None, None)
        cls.certificate, key = write_certificate(cls.directory)
        cls.flags = ("--auth-tls-cert", str(cls.certificate), "--auth-tls-key", str(key))
        super().setUpClass()
        port = cls.server.addresses["auth"][1]
        cls.host = f"localhost:{port}"
        cls.client = Client(("localhost", port), USER, context=ssl.create_default_context(cafile=str(cls.certificate)))

    def write(self, *contents: bytes) -> list[str]:
        """Write files; returns their paths."""
        paths = [self.directory / digest_of(content)[7:] for content in contents]
        for path, content in zip(paths, contents):
            path.write_bytes(content)
        return list(map(str, paths))

    def python(self, program: str, *arguments: str) -> None:
        """Run a program with the clients from PyPI."""
        trust = {
            "REQUESTS_CA_BUNDLE": str(self.certificate),
            "DRCA_CACERTS": str(self.certificate),
            "HOME": str(self.directory),
        }
        run(require_client("bin/python"), "-c", program, *arguments, environment=trust)

    def assert_there(self, repository: str, *contents: bytes) -> None:
        """Check that the tag v1 has this config and these layers."""
        manifest = self.server.public.get(f"/v2/{repository}/manifests/v1").json
        self.assertEqual(
            [listed["digest"] for listed in (manifest["config"], *manifest["layers"])], list(map(digest_of, contents))
        )
        for content in contents:
            self.assertEqual(self.server.public.get(f"/v2/{repository}/blobs/{digest_of(content)}").body, content)

    def test_charliecloud(self) -> None:
        program = require("ch-image", "charliecloud")
        layer = tar_of({"bin/motd": b"hello"})
        packed = gzip.compress(layer, mtime=0)
        diff_ids = {"type": "layers", "diff_ids": [digest_of(layer)]}
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": diff_ids,
                "history": [{"created_by": "a test"}],
            }
        ).encode()
        for content in (config, packed):
            self.client.push_blob("source", content)
        listed = [descriptor(packed, "application/vnd.docker.image.rootfs.diff.tar.gzip")]
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": descriptor(config, "application/vnd.docker.container.image.v1+json"),
        }
        self.client.push_manifest("source", "v1", {**document, "layers": listed}, DOCKER_MANIFEST)
        environment = {
            "PATH": "/usr/bin:/bin",  # it wants Debian's Python
            "HOME": str(self.directory),
            "USER": "tester",
            "CH_IMAGE_STORAGE": str(self.directory / "storage"),
            "CH_IMAGE_USERNAME": USER,
            "CH_IMAGE_PASSWORD": PASSWORD,
            "REQUESTS_CA_BUNDLE": str(self.certificate),
        }
        for command in (("pull", f"{self.host}/source:v1", "hello"), ("push", "hello", f"{self.host}/charliecloud:v1")):
            run(program, "--no-cache", "--auth", *command, environment=environment)
        self.assertEqual(len(self.server.public.get("/v2/charliecloud/manifests/v1").json["layers"]), 1)

    def test_dockertarpusher(self) -> None:
        layer = tar_of({"motd": os.urandom(100_000)})
        archive, config = docker_archive("dockertarpusher:v1", layer)
        self.python(
            _DOCKERTARPUSHER, f"https://{self.host}", *self.write(archive), USER, PASSWORD, str(self.certificate)
        )
        self.assertEqual(self.server.public.get(f"/v2/dockertarpusher/blobs/{digest_of(layer)}").body, layer)
        self.assertEqual(self.server.public.get("/v2/dockertarpusher/manifests/v1").json["config"]["digest"], config)

    def test_containerimage(self) -> None:
        config, layer = b"{}", os.urandom(250_000)
        auth = json.dumps({"auths": {self.host: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}})
        manifest = self.write(json.dumps(image(layer, config=config)).encode())
        for style in ("chunked", "monolithic"):
            with self.subTest(style):
                repository = f"containerimage/{style}"
                self.python(
                    _CONTAINERIMAGE, f"{self.host}/{repository}:v1", auth, style, *manifest, *self.write(config, layer)
                )
                self.assert_there(repository, config, layer)

    def test_docker_registry_client_async(self) -> None:
        config, layer = b"{}", os.urandom(10_000)
        credentials = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        paths = self.write(json.dumps(image(layer, config=config)).encode(), config, layer)
        self.python(_ASYNC, f"{self.host}/drca/app:v1", credentials, OCI_MANIFEST, *paths)
        self.assert_there("drca/app", config, layer)
