"""`vex import` into a registry that denies some of it: what is refused is named, and the rest goes on."""

from __future__ import annotations

import unittest
from collections.abc import Iterator

from tests.support.server import PASSWORD, USER, Server, configured, running, vex


def _run(target: Server, source: Server, code: int) -> str:
    ended = vex("import", source.urls["public"], "--username", USER, "--to", target.urls["auth"], text=f"{PASSWORD}\n")
    assert ended.returncode == code, ended
    return ended.stderr


class Denied(unittest.TestCase):
    def test_an_immutable_tag_of_other_content_stays_and_everything_else_is_imported(self) -> None:
        for target, source in self.registries("[repositories app]\nimmutable = v*\n"):
            mine = target.auth.push_image("app", "v1", b"mine")
            same = target.auth.push_image("app", "v2", b"same")
            for name in ("app", "other"):
                theirs = source.auth.push_image(name, "v1", b"theirs")
                source.auth.push_image(name, "v2", b"same")
                source.auth.push_image(name, "v3", b"new")
            errors = _run(target, source, 1)
            self.assertIn("app:v1: the tag v1 is immutable by [repositories app], line 1", errors)
            self.assertIn(mine, errors)
            self.assertIn("named above: 1", errors)
            self.assertEqual(self.tags(target, "app"), {"v1": mine, "v2": same, "v3": self.tags(source, "app")["v3"]})
            self.assertEqual(self.tags(target, "other"), self.tags(source, "other"))
            self.assertEqual(target.auth.get(f"/v2/app/manifests/{theirs}").status, 404)

    def test_a_repository_past_its_quota_is_named_and_others_are_imported(self) -> None:
        for target, source in self.registries("[repositories small]\nquota = 1KiB\n"):
            for name in ("other", "small", "team/app"):
                source.auth.push_image(name, "1", b"x" * 500)
                source.auth.push_image(name, "2", b"y" * 1000)
            errors = _run(target, source, 1)
            self.assertIn("small:2: ", errors)
            self.assertIn("small would hold 1502 bytes with this, and its quota is 1024 bytes", errors)
            self.assertIn("named above: 1", errors)
            self.assertEqual([*self.tags(target, "small")], ["1"])
            for name in ("other", "team/app"):
                self.assertEqual(self.tags(target, name), self.tags(source, name))

    def registries(self, configuration: str) -> Iterator[tuple[Server, Server]]:
        """Run a target with this configuration, and a source."""
        with running(prepare=configured(configuration)) as target, running() as source:
            yield target, source

    def tags(self, server: Server, name: str) -> dict[str, str]:
        """Return the tags of a repository with their digests."""
        found = server.auth.get(f"/v2/{name}/tags/list").json["tags"]
        return {tag: server.auth.get(f"/v2/{name}/manifests/{tag}").headers["Docker-Content-Digest"] for tag in found}
