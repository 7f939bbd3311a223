"""What the user of a real client reads when an immutable tag, a protected one or a quota refuses something."""

from __future__ import annotations

from tests.support.docker import DockerTestCase
from tests.support.images import INDEX, SINGLE, tar_of
from tests.support.registries import hosts
from tests.support.server import USER
from tests.support.skopeo import SkopeoTestCase

CONFIGURATION = """\
delete-untags = yes

[repositories small/*]
quota = 16

[repositories *]
immutable = v*
protected = v*, keep
"""
PLACE = "[repositories *], line 6 of the configuration"
# How often pushes were refused so: clients shall not try it again.
REFUSED = 'vex_request_duration_seconds_count{listener="auth",method="PUT",op="manifest",code="409"}'


class SkopeoDenials(SkopeoTestCase):
    configuration = CONFIGURATION

    def digest(self, name: str, tag: str) -> str:
        """Return the digest that a tag points to."""
        return self.client("public").get(f"/v2/{name}/manifests/{tag}").headers["Docker-Content-Digest"]

    def refused(self, kind: str, name: str) -> str:
        """Copy an image that is refused; returns what skopeo says."""
        return self.skopeo(
            "copy",
            "--all",
            self.tls("dest-"),
            f"oci:{self.layout.directory}:{kind}",
            f"docker://{self.auth}/{name}",
            code=1,
        ).stderr

    def test_a_copy_to_an_immutable_tag_fails_with_the_digest_and_the_section(self) -> None:
        # The other way round it would try the index once more, as a list of Docker's.
        self.push(INDEX, "moved:v1")
        digest = self.digest("moved", "v1")
        said = self.refused(SINGLE, "moved:v1")
        for words in ("the tag v1 is immutable", digest, PLACE, "push this under another tag"):
            self.assertIn(words, said)
        self.assertEqual(self.server.metric(REFUSED), 1)
        self.push(INDEX, "moved:v1")
        self.assertEqual(self.digest("moved", "v1"), digest)

    def test_a_deletion_of_a_protected_tag_fails_with_the_digest_and_the_section(self) -> None:
        self.push(SINGLE, "deleted:keep")
        self.push(SINGLE, "deleted:other")
        for tag in ("keep", "other"):
            said = self.skopeo("delete", self.tls(), f"docker://{self.auth}/deleted:{tag}", code=1).stderr
            for words in ("the tag keep", self.digest("deleted", "keep"), "is protected", PLACE):
                self.assertIn(words, said)
        self.assertEqual(self.client("auth", USER).get("/v2/deleted/tags/list").json["tags"], ["keep", "other"])

    def test_a_copy_past_the_quota_fails_with_the_numbers(self) -> None:
        self.assertRegex(
            self.refused(SINGLE, "small/app:1"),
            r"small/app would hold \d+ bytes with this, and its quota is 16 bytes, by \[repositories small/\*\]",
        )


class DockerDenials(DockerTestCase):
    configuration = CONFIGURATION

    def setUp(self) -> None:
        self.host, _ = hosts(self.server)
        self.login(self.host)

    def refused(self, name: str) -> str:
        """Push an image that is refused; returns what docker says."""
        return self.docker("push", name, code=1).stderr

    def test_a_push_to_an_immutable_tag_fails_with_the_digest_and_the_section(self) -> None:
        name = f"{self.host}/moved:v1"
        self.load(name, tar_of({"a": b"1"}))
        self.docker("push", name)
        self.docker("push", name)
        digest = self.server.public.get("/v2/moved/manifests/v1").headers["Docker-Content-Digest"]
        self.load(name, tar_of({"a": b"2"}))
        said = self.refused(name)
        for words in ("the tag v1 is immutable", digest, PLACE, "push this under another tag"):
            self.assertIn(words, said)
        self.assertEqual(self.server.metric(REFUSED), 1)

    def test_a_push_past_the_quota_fails_with_the_numbers(self) -> None:
        name = f"{self.host}/small/app:1"
        self.load(name, tar_of({"a": b"1"}))
        self.assertRegex(self.refused(name), r"small/app would hold \d+ bytes with this, and its quota is 16 bytes")
