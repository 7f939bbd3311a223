"""The real podman and buildah: push and pull images and indexes in both formats, over plain HTTP and HTTPS."""

from __future__ import annotations

from tests.support.images import tar_of
from tests.support.programs import require
from tests.support.registries import ProgramTestCase, hosts, require_root, run
from tests.support.server import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, PASSWORD, USER, digest_of

IMAGES = {"oci": OCI_MANIFEST, "v2s2": DOCKER_MANIFEST}
INDEXES = {"oci": OCI_INDEX, "v2s2": DOCKER_LIST}
# Both take the same arguments for what they have in common.
PROGRAMS = ("podman", "buildah")


class PodmanTests(ProgramTestCase):
    """A server at 127.0.0.1; podman and buildah share credentials, the storage that they push from, and the storage
    that they pull into.
    """

    flags = ("--pull-grace", "0s")
    image: str

    @classmethod
    def setUpClass(cls) -> None:
        """Log in, and make an image."""
        require_root()
        for program in PROGRAMS:
            require(program, program)
        super().setUpClass()
        for storage in ("from", "into"):
            settings = (
                f'[storage]\ndriver = "vfs"\ngraphroot = "{cls.directory}/{storage}/graph"\n'
                f'runroot = "{cls.directory}/{storage}/run"\n'
            )
            (cls.directory / f"{storage}.conf").write_text(settings)
        (cls.directory / "files.tar").write_bytes(tar_of({"motd": b"made by podman\n"}))
        cls.image = (
            cls.run_program("podman", "import", str(cls.directory / "files.tar"), "imported").strip().rpartition(":")[2]
        )
        cls.run_program(
            "podman", "login", cls.tls(), "--username", USER, "--password-stdin", hosts(cls.server)[0], text=PASSWORD
        )

    @classmethod
    def run_program(cls, program: str, *arguments: str, text: str = "", storage: str = "from") -> str:
        """Run podman or buildah to its end; returns its output."""
        environment = {
            "CONTAINERS_STORAGE_CONF": f"{cls.directory}/{storage}.conf",
            "REGISTRY_AUTH_FILE": f"{cls.directory}/auth.json",
        }
        return run(require(program, program), *arguments, environment=environment, text=text).stdout

    def setUp(self) -> None:
        self.auth, self.public = hosts(self.server)

    def test_search_finds_what_has_the_word_in_its_name(self) -> None:
        for name in ("found/hello", "found/yellow", "found/other"):
            self.client("auth", USER).push_image(name, "v1", b"layer")
        # It knows no --cert-dir.
        found = self.run_program(
            "podman", "search", "--tls-verify=false", "--format", "{{.Name}}", f"{self.public}/ello"
        ).split()
        self.assertEqual(found, [f"{self.public}/found/hello", f"{self.public}/found/yellow"])

    def test_login_and_logout(self) -> None:
        for program in PROGRAMS:
            with self.subTest(program=program):
                login = (
                    program,
                    "login",
                    self.tls(),
                    "--authfile",
                    f"{self.directory}/{program}.json",
                    "--username",
                    USER,
                    "--password-stdin",
                    self.auth,
                )
                self.assertIn("Login Succeeded", self.run_program(*login, text=PASSWORD))
                with self.assertRaisesRegex(AssertionError, "invalid username/password"):
                    self.run_program(*login, text="wrong")

    def test_push_and_pull_in_both_formats(self) -> None:
        for program in PROGRAMS:
            for form, media_type in IMAGES.items():
                with self.subTest(program=program, format=form):
                    name = f"{program}/image-{form}"
                    self.run_program(
                        program, "push", self.tls(), "--format", form, self.image, f"docker://{self.auth}/{name}:v1"
                    )
                    digest = self.check_pushed(name, media_type)
                    for reference in (":v1", f"@{digest}"):
                        self.assertEqual(
                            self.pull_anew(program, f"{self.public}/{name}{reference}"), self.content_of(name)
                        )

    def test_push_and_pull_of_an_index_in_both_formats(self) -> None:
        for program in PROGRAMS:
            for form, media_type in INDEXES.items():
                with self.subTest(program=program, format=form):
                    name, made, kept = f"{program}/index-{form}", f"made-{program}-{form}", self.server.lasting_files()
                    self.run_program(
                        program, "push", self.tls(), "--format", form, self.image, f"docker://{self.auth}/{name}:part"
                    )
                    self.run_program(program, "manifest", "create", made)
                    self.run_program(program, "manifest", "add", self.tls(), made, f"docker://{self.auth}/{name}:part")
                    self.run_program(
                        program,
                        "manifest",
                        "push",
                        "--all",
                        "--format",
                        form,
                        self.tls(),
                        made,
                        f"docker://{self.auth}/{name}:v1",
                    )
                    self.check_pushed(name, media_type)
                    self.assertEqual(self.pull_anew(program, f"{self.public}/{name}:v1"), self.content_of(name, "part"))
                    for tag in ("part", "v1"):
                        self.assertEqual(
                            self.client("auth", USER).request("DELETE", f"/v2/{name}/manifests/{tag}").status, 202
                        )
                    self.assertEqual(
                        (self.server.lasting_files(), self.server.metric("vex_blobs")), (kept, len(self.server.files()))
                    )

    def test_buildah_builds_pushes_and_pulls(self) -> None:
        container = self.run_program("buildah", "from", "scratch").strip()
        self.run_program("buildah", "add", container, f"{self.directory}/files.tar")
        self.run_program("buildah", "commit", "--rm", container, "built")
        self.run_program("buildah", "push", self.tls(), "built", f"docker://{self.auth}/built:v1")
        self.assertEqual(self.pull_anew("buildah", f"{self.public}/built:v1"), self.content_of("built"))

    def check_pushed(self, name: str, media_type: str) -> str:
        """Check the media type of v1 of a repository; returns its digest."""
        answer = self.client("public").get(f"/v2/{name}/manifests/v1")
        self.assertEqual(answer.headers["Content-Type"], media_type)
        return digest_of(answer.body)

    def content_of(self, name: str, tag: str = "v1") -> str:
        """Return the id of an image in the registry, which is the hexadecimal part of the digest of its config."""
        digest: str = self.client("public").get(f"/v2/{name}/manifests/{tag}").json["config"]["digest"]
        return digest.partition(":")[2]

    def pull_anew(self, program: str, name: str) -> str:
        """Pull an image into empty storage; returns its id."""
        self.run_program(program, "pull", self.tls(), name, storage="into")
        shown = self.run_program("podman", "image", "inspect", "--format", "{{.Id}}", name, storage="into").strip()
        self.run_program(program, "rmi", "--all", storage="into")
        return shown


class HttpsTests(PodmanTests):
    """With the certificate of `vex quickstart`, verified."""

    https = True
