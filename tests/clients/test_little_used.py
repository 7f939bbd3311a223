"""Clients from PyPI and npm that few use, each as its documentation shows: they push, pull, list, tag and delete as
with other registries.

Those that need an absolute Location are in test_absolute_clients.py, those that read long lists without pages in
test_long_lists.py.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

from tests.support.images import docker_archive
from tests.support.programs import require_client
from tests.support.server import PASSWORD, USER, Client, Server, digest_of, write_certificate
from tests.support.tars import archive, member

_SECONDS = 120


class LittleUsed(unittest.TestCase):
    """A server for each test, in a directory that the client works in as well; scripts print what they found as
    JSON.
    """

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def serve(self, *flags: str, host: str = "127.0.0.1", tls: bool = False) -> Client:
        """Start a server with an image `seed:v1`, and return a client of its auth port, whose address is `self.at`."""
        context = None
        if tls:
            certificate, key = write_certificate(self.directory)
            flags = (*flags, "--auth-tls-cert", str(certificate), "--auth-tls-key", str(key))
            self.certificate = str(certificate)
            context = ssl.create_default_context(cafile=self.certificate)
        server = Server(self.directory, *flags)
        self.server = server
        self.addCleanup(server.kill)
        port = server.addresses["auth"][1]
        self.at = f"{host}:{port}"
        client = Client((host, port), USER, context=context)
        self.digest = client.push_image("seed", "v1", b"a layer" * 100)
        return client

    def python(self, script: str, *arguments: str, **environment: str) -> Any:
        """Run a script with the packages from PyPI; `AT`, `USER` and `PASSWORD` are defined in it."""
        return self._run(
            [require_client("bin/python"), "-c", f"import json, sys\nAT, USER, PASSWORD = sys.argv[1:4]\n{script}"],
            arguments,
            environment,
        )

    def node(self, script: str, **environment: str) -> Any:
        """Run a script with the packages from npm; `AT`, `USER` and `PASSWORD` are defined in it."""
        path = self.directory / "script.cjs"
        path.write_text(f"const [AT, USER, PASSWORD] = process.argv.slice(2);\n{script}")
        modules = Path(require_client("node_modules/.package-lock.json")).parent
        return self._run(["node", str(path)], (), {"NODE_PATH": str(modules), **environment})

    def _run(self, command: list[str], arguments: tuple[str, ...], environment: dict[str, str]) -> Any:
        settings = {**os.environ, "HOME": str(self.directory), **environment}
        ended = subprocess.run(
            [*command, self.at, USER, PASSWORD, *arguments],
            cwd=self.directory,
            env=settings,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        return json.loads(ended.stdout.splitlines()[-1])

    # PyPI

    def test_oras_pushes_and_pulls_files_with_basic_and_with_tokens(self) -> None:
        require_client("bin/python")
        (self.directory / "notes.txt").write_text("what it is about")
        for flags, backend in (((), "basic"), (("--anonymous-read", "yes"), "token")):
            with self.subTest(backend):
                client = self.serve(*flags)
                found = self.python(
                    """
import oras.client
client = oras.client.OrasClient(hostname=AT, insecure=True, auth_backend=sys.argv[4])
client.auth.set_basic_auth(USER, PASSWORD)
client.push(target=f"{AT}/files/notes:v1", files=["notes.txt"])
pulled = client.pull(target=f"{AT}/files/notes:v1", outdir="pulled")
print(json.dumps([open(pulled[0]).read(), client.get_tags(f"{AT}/files/notes")]))
""",
                    backend,
                )
                self.assertEqual(found, ["what it is about", ["v1"]])
                self.assertEqual(
                    client.get("/v2/files/notes/manifests/v1").json["layers"][0]["annotations"][
                        "org.opencontainers.image.title"
                    ],
                    "notes.txt",
                )
                self.server.kill()

    def test_dxf_pushes_and_pulls_over_tls_and_deletes_the_digest_behind_an_alias(self) -> None:
        client = self.serve("--delete-untags", "one", host="localhost", tls=True)
        (self.directory / "blob").write_bytes(b"a blob" * 1000)
        found = self.python(
            """
import dxf
def log_in(client, response):
    client.authenticate(USER, PASSWORD, response=response)
client = dxf.DXF(AT, "blobs/a", log_in, tlsverify=sys.argv[4])
digest = client.push_blob("blob")
client.set_alias("v1", digest)
pulled = b"".join(client.pull_blob(client.get_alias("v1")[0]))
print(json.dumps([digest, len(pulled), client.list_aliases(), client.del_alias("v1"), client.list_aliases()]))
""",
            self.certificate,
        )
        digest = digest_of(b"a blob" * 1000)
        self.assertEqual(found, [digest, 6000, ["v1"], [digest], []])
        self.assertEqual(client.get("/v2/blobs/a/manifests/v1").status, 404)

    def test_docker_registry_client_reads_what_is_oci_although_it_asks_for_docker(self) -> None:
        self.serve()
        found = self.python(
            """
from docker_registry_client import DockerRegistryClient
client = DockerRegistryClient(f"http://{AT}", username=USER, password=PASSWORD, api_version=2)
repository = client.repository("seed")
manifest, digest = repository.manifest("v1")
names = client.repositories() and sorted(client.repositories())
print(json.dumps([names, repository.tags(), digest, manifest["schemaVersion"]]))
"""
        )
        self.assertEqual(found, [["seed"], ["v1"], self.digest, 2])

    def test_coregio_reads_with_credentials_of_dockers_file(self) -> None:
        self.serve("--anonymous-read", "yes")
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        found = self.python(
            """
from coregio.registry_api import ContainerRegistry
client = ContainerRegistry(f"http://{AT}", sys.argv[4])
manifest = client.get_manifest("seed", "v1")
print(json.dumps([client.get_tags("seed"), manifest["schemaVersion"], client.get_layers("seed", "v1")]))
""",
            json.dumps({"auths": {self.at: {"auth": auth}}}),
        )
        self.assertEqual(found, [["v1"], 2, [digest_of(b"a layer" * 100)]])

    def test_gardener_oci_untags_and_then_deletes_the_digest(self) -> None:
        client = self.serve(host="localhost", tls=True)
        found = self.python(
            """
import hashlib
import oci.auth, oci.client
def credentials(image_reference, privileges=None, absent_ok=False):
    return oci.auth.OciBasicAuthCredentials(USER, PASSWORD)
client = oci.client.Client(credentials_lookup=credentials)
blob = b"a component" * 10
digest = "sha256:" + hashlib.sha256(blob).hexdigest()
client.put_blob(f"{AT}/components/a", digest=digest, octets_count=len(blob), data=blob)
seed = client.manifest_raw(f"{AT}/seed:v1")
tags = list(client.tags(f"{AT}/seed"))
client.delete_manifest(f"{AT}/seed:v1", purge=True)
print(json.dumps([seed.headers["Docker-Content-Digest"], tags]))
""",
            REQUESTS_CA_BUNDLE=self.certificate,
        )
        self.assertEqual(found, [self.digest, ["v1"]])
        self.assertEqual(client.get(f"/v2/seed/manifests/{self.digest}").status, 404)

    def test_aioregistry_copies_an_image_within_the_registry(self) -> None:
        client = self.serve("--anonymous-read", "yes")
        found = self.python(
            """
import asyncio
from aioregistry import AsyncRegistryClient, parse_image_name
from aioregistry.auth import DictCredentialStore
async def copy():
    async with AsyncRegistryClient(creds=DictCredentialStore({f"http://{AT}": (USER, PASSWORD)})) as client:
        source, target = parse_image_name(f"http://{AT}/seed:v1"), parse_image_name(f"http://{AT}/copies/a:v2")
        await client.copy_refs(source, target)
        return await client.registry_repo_tags(target.registry, target.repo)
print(json.dumps(asyncio.run(copy())))
"""
        )
        self.assertEqual(found, ["v2"])
        self.assertEqual(client.get("/v2/copies/a/manifests/v2").headers["Docker-Content-Digest"], self.digest)

    def test_crpy_pushes_an_archive_and_pulls_it(self) -> None:
        client = self.serve("--anonymous-read", "yes", host="localhost")
        content, _ = docker_archive("hello:v1", archive(member("etc/motd", content=b"hello")))
        (self.directory / "image.tar").write_bytes(content)
        crpy = require_client("bin/crpy")
        settings = {**os.environ, "HOME": str(self.directory)}
        for arguments in (
            ("login", "--username", USER, "--password", PASSWORD, f"http://{self.at}"),
            ("push", "image.tar", f"http://{self.at}/hello:v1"),
            ("pull", f"http://{self.at}/hello:v1", "pulled.tar"),
        ):
            ended = subprocess.run(
                [crpy, *arguments],
                cwd=self.directory,
                env=settings,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
            self.assertEqual(ended.returncode, 0, f"{arguments}: {ended.stdout}{ended.stderr}")
        self.assertEqual(client.get("/v2/hello/tags/list").json["tags"], ["v1"])
        self.assertGreater((self.directory / "pulled.tar").stat().st_size, 0)

    def test_helm_4_pushes_lists_and_pulls_a_chart(self) -> None:
        client = self.serve(host="localhost")
        chart = self.directory / "chart"
        (chart / "templates").mkdir(parents=True)
        (chart / "Chart.yaml").write_text("apiVersion: v2\nname: hello\nversion: 1.2.3\ndescription: A chart\n")
        (chart / "templates" / "map.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: hello}\n")
        found = self.python(
            """
import helm_python as helm
import os
os.mkdir("pulled")
packed = helm.package("chart", destination=".")
with helm.RegistryClient(plain_http=True, credentials_file="credentials.json") as client:
    client.login(AT, USER, PASSWORD, plain_http=True)
    client.push(packed, f"oci://{AT}/charts", plain_http=True)
    tags = client.tags(f"oci://{AT}/charts/hello")
    client.pull(f"oci://{AT}/charts/hello", version="1.2.3", destination="pulled", plain_http=True)
print(json.dumps(tags))
"""
        )
        self.assertEqual(found, ["1.2.3"])
        manifest = client.get("/v2/charts/hello/manifests/1.2.3").json
        self.assertEqual(manifest["config"]["mediaType"], "application/vnd.cncf.helm.config.v1+json")
        self.assertEqual(
            digest_of((self.directory / "pulled" / "hello-1.2.3.tgz").read_bytes()), manifest["layers"][0]["digest"]
        )

    # npm

    def test_sigstore_attaches_a_bundle_as_a_referrer(self) -> None:
        client = self.serve(host="localhost")
        found = self.node(
            """
const { attachArtifactToImage, getImageDigest } = require('@sigstore/oci');
(async () => {
  const common = { imageName: `${AT}/seed`, credentials: { username: USER, password: PASSWORD } };
  const imageDigest = await getImageDigest({ ...common, imageTag: 'v1' });
  const mediaType = 'application/vnd.dev.sigstore.bundle.v0.3+json';
  const attached = await attachArtifactToImage({ ...common, imageDigest, artifact: Buffer.from('{}'),
    mediaType, annotations: { made: 'here' } });
  console.log(JSON.stringify([imageDigest, attached.digest]));
})();
"""
        )
        self.assertEqual(found[0], self.digest)
        referrers = client.get(f"/v2/seed/referrers/{self.digest}").json["manifests"]
        self.assertEqual(
            [(one["digest"], one["artifactType"]) for one in referrers],
            [(found[1], "application/vnd.dev.sigstore.bundle.v0.3+json")],
        )

    def test_node_clients_of_dockers_time_read_oci_images(self) -> None:
        self.serve()
        for package in ("docker-registry-client", "@renovatebot/docker-registry-client"):
            with self.subTest(package):
                found = self.node(
                    f"""
const {{ createClientV2 }} = require('{package}');
const client = createClientV2({{ name: `http://${{AT}}/seed`, username: USER, password: PASSWORD, insecure: true }});
client.listTags((error, listed) => {{
  if (error) throw error;
  client.getManifest({{ ref: 'v1', maxSchemaVersion: 2, acceptManifestLists: true }}, (failed, manifest) => {{
    if (failed) throw failed;
    console.log(JSON.stringify([listed.tags, manifest.config.digest]));
    client.close();
  }});
}});
"""
                )
                self.assertEqual(found, [["v1"], digest_of(b"{}")])

    def test_snyk_follows_pages_of_tags_and_reads_oci_images(self) -> None:
        client = self.serve()
        for number in range(25):
            client.push_image("seed", f"t{number:02}")
        found = self.node(
            """
const { getTags, getManifest } = require('@snyk/docker-registry-v2-client');
(async () => {
  const tags = await getTags(AT, 'seed', USER, PASSWORD, 10, 10, { protocol: 'http' });
  const manifest = await getManifest(AT, 'seed', 'v1', USER, PASSWORD, { protocol: 'http' });
  console.log(JSON.stringify([tags.length, manifest.config.digest]));
})();
"""
        )
        self.assertEqual(found, [26, digest_of(b"{}")])
