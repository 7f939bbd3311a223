"""Anonymous reading at the auth listener with the real docker, podman, skopeo and containerd, with and without stored
credentials.
"""

from __future__ import annotations

import json

from tests.support.containerd import running_containerd, write_hosts
from tests.support.docker import DockerTestCase
from tests.support.images import SINGLE, Layout, tar_of, write_layout
from tests.support.logins import add_token
from tests.support.programs import require
from tests.support.registries import HOST, ProgramTestCase, require_root, run, run_on_terminal
from tests.support.server import PASSWORD, USER, Server, vex

ONE_PORT = ("--anonymous-read", "yes", "--pull-grace", "0s")


def host_of(server: Server) -> str:
    """Return HOST:PORT of the one port."""
    return f"{HOST}:{server.addresses['auth'][1]}"


class DockerOnOnePort(DockerTestCase):
    """docker, over plain HTTP."""

    flags = ONE_PORT

    def setUp(self) -> None:
        self.host = host_of(self.server)

    def test_anyone_pulls_what_a_user_pushed_and_nobody_else_pushes(self) -> None:
        name = f"{self.host}/team/hello:v1"
        image_id = self.load(name, tar_of({"a": b"one port"}), tar_of({"b": b"two layers"}))
        refused = self.docker("push", name, code=1, config="nobody").stderr
        self.assertIn("unauthorized: a user name and a password are needed", refused)
        self.assertIn("Login Succeeded", self.login(self.host))
        self.docker("push", name)
        self.docker("image", "rm", "--force", name)
        self.docker("pull", name, config="nobody")
        self.assertEqual(self.image_id(name), image_id)
        self.docker("image", "rm", "--force", name)
        self.docker("pull", name)
        self.assertEqual(self.image_id(name), image_id)

    def test_a_layer_is_mounted_from_another_repository(self) -> None:
        self.login(self.host)
        self.load(f"{self.host}/first:v1", tar_of({"large": b"x" * 300_000}))
        self.docker("push", f"{self.host}/first:v1")
        self.docker("tag", f"{self.host}/first:v1", f"{self.host}/second:v1")
        before = self.server.metric("vex_received_bytes_total")
        self.docker("push", f"{self.host}/second:v1")
        self.assertLess(self.server.metric("vex_received_bytes_total") - before, 20_000)

    def test_login_refuses_a_wrong_password(self) -> None:
        self.assertIn(
            "the user name or the password is wrong", self.login(self.host, "wrong password", code=1, config="wrong")
        )

    def test_what_docker_stores_is_good_for_skopeo_podman_and_buildah(self) -> None:
        # Each with storage of its own: as root, podman and buildah would write to the machine's.
        storage = self.directory / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{self.directory}/graph"\nrunroot = "{self.directory}/run"\n'
        )
        self.login(self.host, config="shared")
        file = self.directory / "shared" / "config.json"
        self.assertEqual(set(json.loads(file.read_text())["auths"][self.host]), {"auth"})
        for program in ("skopeo", "podman", "buildah"):
            with self.subTest(program):
                flags = (
                    "login",
                    "--tls-verify=false",
                    "--authfile",
                    str(file),
                    "--username",
                    USER,
                    "--password-stdin",
                    self.host,
                )
                ended = run(
                    require(program, program),
                    *flags,
                    text=PASSWORD,
                    environment={"CONTAINERS_STORAGE_CONF": str(storage)},
                )
                self.assertIn("Login Succeeded", ended.stdout)
        name = f"{self.host}/shared:v1"
        self.load(name, tar_of({"s": b"shared"}))
        self.docker("push", name, config="shared")

    def test_a_token_of_a_machine_pushes_where_it_may_until_it_is_withdrawn(self) -> None:
        self.login(self.host, add_token(self.server, "ci", "--repository", "ci/*"), user="ci", config="ci")
        for name in ("ci/app", "other/app"):
            self.load(f"{self.host}/{name}:v1", tar_of({"name": name.encode()}))
        self.docker("push", f"{self.host}/ci/app:v1", config="ci")
        refused = self.docker("push", f"{self.host}/other/app:v1", code=1, config="ci").stderr
        self.assertIn("denied: the token ci is for the repositories ci/* alone", refused)
        self.assertEqual(vex("token", "delete", "ci", "--data-dir", str(self.server.data)).returncode, 0)
        self.load(f"{self.host}/ci/app:v2", tar_of({"name": b"later"}))
        self.assertIn("unauthorized", self.docker("push", f"{self.host}/ci/app:v2", code=1, config="ci").stderr)


class DockerWithIdentityTokens(DockerTestCase):
    """docker, which stores a token where the operator wants that."""

    flags = (*ONE_PORT, "--identity-tokens", "yes")

    def setUp(self) -> None:
        self.host = host_of(self.server)

    def test_docker_stores_no_password_and_what_it_stores_ends_with_the_password(self) -> None:
        added = vex("user", "add", "carol", "--data-dir", str(self.server.data), text="first horse battery\n")
        self.assertEqual(added.returncode, 0, added.stderr)
        name = f"{self.host}/carol:v1"
        self.load(name, tar_of({"c": b"carol"}))
        self.login(self.host, "first horse battery", user="carol", config="carol")
        stored = json.loads((self.directory / "carol" / "config.json").read_text())["auths"][self.host]
        self.assertTrue(stored["identitytoken"])
        self.docker("push", name, config="carol")
        vex("user", "password", "carol", "--data-dir", str(self.server.data), text="second horse battery\n")
        self.assertIn("log in again", self.docker("push", name, code=1, config="carol").stderr)


class SkopeoAndPodmanOnOnePort(ProgramTestCase):
    """skopeo and podman, over HTTPS with the certificate of `vex quickstart`, verified."""

    https = True
    flags = (*ONE_PORT, "--delete-untags", "yes")
    layout: Layout

    @classmethod
    def setUpClass(cls) -> None:
        """Write an image, and settings for podman's storage."""
        require_root()
        for program in ("skopeo", "podman"):
            require(program, program)
        super().setUpClass()
        cls.layout = write_layout(cls.directory / "layout")
        settings = f'[storage]\ndriver = "vfs"\ngraphroot = "{cls.directory}/graph"\nrunroot = "{cls.directory}/run"\n'
        (cls.directory / "storage.conf").write_text(settings)
        (cls.directory / "nobody.json").write_text("{}")

    def run_program(
        self, program: str, *arguments: str, text: str = "", code: int = 0, credentials: str = "nobody"
    ) -> str:
        """Run skopeo or podman to its end; returns what it printed."""
        environment = {
            "CONTAINERS_STORAGE_CONF": f"{self.directory}/storage.conf",
            "REGISTRY_AUTH_FILE": f"{self.directory}/{credentials}.json",
        }
        ended = run(require(program, program), *arguments, environment=environment, text=text, code=code)
        return ended.stdout + ended.stderr

    def push(self, name: str, credentials: str, code: int = 0) -> str:
        """Push an image with skopeo."""
        source = f"oci:{self.layout.directory}:{SINGLE}"
        return self.run_program(
            "skopeo", "copy", self.tls("dest-"), source, f"docker://{name}", credentials=credentials, code=code
        )

    def test_anyone_pulls_what_a_user_pushed_and_nobody_else_pushes(self) -> None:
        for program in ("skopeo", "podman"):
            with self.subTest(program):
                name = f"{host_of(self.server)}/{program}/app:v1"
                self.assertIn("a user name and a password are needed", self.push(name, "nobody", code=1))
                login = (program, "login", self.tls(), "--username", USER, "--password-stdin", host_of(self.server))
                self.run_program(
                    *login, text="wrong password", code=125 if program == "podman" else 1, credentials=program
                )
                self.assertIn("Login Succeeded", self.run_program(*login, text=PASSWORD, credentials=program))
                self.push(name, program)
                for credentials in ("nobody", program):
                    self.run_program(
                        "skopeo",
                        "copy",
                        self.tls("src-"),
                        f"docker://{name}",
                        f"dir:{self.directory}/{program}",
                        credentials=credentials,
                    )
                    self.run_program("podman", "pull", self.tls(), name, credentials=credentials)
                    self.run_program("podman", "rmi", "--all", "--force")
                self.assertIn(
                    '"v1"', self.run_program("skopeo", "list-tags", self.tls(), f"docker://{name.rpartition(':')[0]}")
                )

    def test_podman_pushes_and_skopeo_deletes_with_the_token_of_a_machine(self) -> None:
        name = f"{host_of(self.server)}/machine/app:v1"
        login = ("podman", "login", self.tls(), "--username", "robot", "--password-stdin", host_of(self.server))
        self.run_program(*login, text=add_token(self.server, "robot"), credentials="robot")
        self.push(name, "robot")
        self.run_program("podman", "pull", self.tls(), name, credentials="robot")
        self.run_program("podman", "push", self.tls(), name, f"docker://{name}-again", credentials="robot")
        self.assertEqual(self.client("auth").get("/v2/machine/app/manifests/v1").status, 200)
        self.assertIn(
            "unauthorized", self.run_program("skopeo", "delete", self.tls(), f"docker://{name}", code=1).lower()
        )
        self.run_program("skopeo", "delete", self.tls(), f"docker://{name}", credentials="robot")
        self.assertEqual(self.client("auth").get("/v2/machine/app/manifests/v1").status, 404)

    def test_a_token_that_only_reads_does_not_push(self) -> None:
        login = ("skopeo", "login", self.tls(), "--username", "reader", "--password-stdin", host_of(self.server))
        self.run_program(*login, text=add_token(self.server, "reader", "--read-only"), credentials="reader")
        self.assertIn(
            "denied: the token reader only reads", self.push(f"{host_of(self.server)}/machine/app:v2", "reader", code=1)
        )


class ContainerdOnOnePort(ProgramTestCase):
    """containerd with ctr, over plain HTTP and HTTPS."""

    alone = True

    flags = ONE_PORT
    layout: Layout
    hosts: str

    @classmethod
    def setUpClass(cls) -> None:
        """Pack an image for import, and say how the registry is reached."""
        require_root()
        require("containerd", "containerd")
        super().setUpClass()
        cls.layout = write_layout(cls.directory / "layout")
        run("tar", "-C", str(cls.layout.directory), "-cf", f"{cls.directory}/layout.tar", ".")
        cls.hosts = write_hosts(cls.directory, host_of(cls.server), https=cls.https)

    def test_anyone_pulls_what_a_user_pushed_and_nobody_else_pushes(self) -> None:
        name = f"{host_of(self.server)}/app:v1"
        with running_containerd() as ctr:
            run(
                *ctr,
                "images",
                "import",
                "--all-platforms",
                "--no-unpack",
                "--base-name",
                "layout",
                f"{self.directory}/layout.tar",
            )
            self.assertIn(
                "401", run_on_terminal(*ctr, "images", "push", self.hosts, name, f"layout:{SINGLE}", codes=(1,))
            )
            run_on_terminal(*ctr, "images", "push", self.hosts, "--user", USER, name, f"layout:{SINGLE}")
        for user in ((), ("--user", USER)):
            with running_containerd() as ctr:
                run_on_terminal(*ctr, "content", "fetch", "--all-platforms", self.hosts, *user, name)
                self.assertLessEqual(
                    self.layout.blobs[SINGLE], set(run(*ctr, "content", "ls", "--quiet").stdout.split())
                )


class ContainerdOnOnePortOverHttps(ContainerdOnOnePort):
    """With the certificate of `vex quickstart`, verified."""

    https = True
