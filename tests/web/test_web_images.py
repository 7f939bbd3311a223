"""What pages say of images: platforms that only a version tells apart, everything that a config sets, and times that
are none.
"""

from __future__ import annotations

import json
from typing import Any

from tests.support.in_process import Pushed
from tests.support.page import PagesTestCase
from tests.support.server import OCI_INDEX, OCI_MANIFEST

OLD, NEW = "10.0.17763.1234", "10.0.20348.5"


class Windows(PagesTestCase):
    """Indexes of images for Windows, each for a release (image specification, "Image Index", `os.version`)."""

    def push_index_of(self, tag: str, *platforms: dict[str, Any]) -> tuple[Pushed, list[Pushed]]:
        """Push an index with an image for each platform; returns both."""
        children = []
        for platform in platforms:
            config = json.dumps({**platform, "config": {"Labels": {"tag": tag}}}).encode()
            children.append(self.push_image("win", "", f"{tag} {platform}".encode(), config=config))
        manifests = [
            {"mediaType": OCI_MANIFEST, "digest": child.digest, "size": child.size, "platform": platform}
            for child, platform in zip(children, platforms)
        ]
        return self.push_manifest(
            "win", tag, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}, OCI_INDEX
        ), children

    def windows(self, version: str) -> dict[str, str]:
        return {"os": "windows", "architecture": "amd64", "os.version": version}

    def test_the_version_tells_them_apart_wherever_they_are_listed(self) -> None:
        index, (old, _) = self.push_index_of("v1", self.windows(OLD), self.windows(NEW))
        self.assert_shows(self.page(f"/r/win/m/{index.digest}/"), f"windows/amd64:{OLD}", f"windows/amd64:{NEW}")
        self.assert_shows(self.page("/r/win/"), "v1", f"windows/amd64:{OLD}, windows/amd64:{NEW}")
        self.assert_shows(self.page(f"/r/win/m/{old.digest}/"), "Platform", f"windows/amd64:{OLD}")

    def test_an_archive_is_chosen_by_version_as_crane_and_containerd_write_it(self) -> None:
        index, (old, new) = self.push_index_of("v1", self.windows(OLD), self.windows(NEW))
        for platform, child in (
            (f"windows/amd64:{OLD}", old),
            (f"windows/amd64:{NEW}", new),
            ("windows/amd64:10.0.20348", new),
            ("windows(10.0.17763)/amd64", old),
        ):
            with self.subTest(platform):
                response = self.respond(f"/r/win/m/{index.digest}/image.tar?platform={platform}")
                self.assertEqual(response.status, 200, response.body)
                assert response.stream
                self.assertIn(child.digest.encode(), b"".join(response.stream))

    def test_what_does_not_say_which_is_asked_to(self) -> None:
        arm = {"os": "linux", "architecture": "arm"}
        index, _ = self.push_index_of(
            "v1", self.windows(OLD), self.windows(NEW), {**arm, "variant": "v6"}, {**arm, "variant": "v7"}
        )
        for platform in ("windows/amd64", "windows", "linux/arm", "windows/amd64:10.0"):
            with self.subTest(platform):
                page = self.page(f"/r/win/m/{index.digest}/image.tar?platform={platform}", 400)
                self.assert_shows(
                    page,
                    f"2 images of this index are for {platform}",
                    f"windows/amd64:{OLD}, windows/amd64:{NEW}, linux/arm/v6, linux/arm/v7",
                )
        for platform in ("windows/amd64:10.0.1776", "windows/amd", "linux/arm64"):
            self.page(f"/r/win/m/{index.digest}/image.tar?platform={platform}", 400)

    def test_indexes_are_compared_release_by_release(self) -> None:
        before, (old, _) = self.push_index_of("v1", self.windows("10.0.17763.1"), self.windows("10.0.20348.1"))
        after, (new, _) = self.push_index_of("v2", self.windows("10.0.17763.2"), self.windows("10.0.20348.2"))
        page = self.page(f"/r/win/diff/{before.digest}...{after.digest}/")
        self.assert_shows(page, "Platforms: windows/amd64:10.0.17763, windows/amd64:10.0.20348")
        self.assert_shows(
            page, old.digest[:19], new.digest[:19], "Settings", "OS version", "10.0.17763.1", "10.0.17763.2"
        )
        other = self.page(f"/r/win/diff/{before.digest}...{after.digest}/?platform=windows/amd64:10.0.20348")
        self.assert_shows(other, "OS version", "10.0.20348.1", "10.0.20348.2")


class Configs(PagesTestCase):
    """What is in a config (image specification, "Image Configuration"; Docker's image specification 1.2)."""

    def push_config(self, tag: str, settings: dict[str, Any], **fields: Any) -> Pushed:
        return self.push_image(
            "app",
            tag,
            b"layer",
            config=json.dumps({"os": "linux", "architecture": "amd64", "config": settings, **fields}).encode(),
        )

    def test_every_setting_is_shown_and_compared(self) -> None:
        health = {"Test": ["CMD", "true"], "StartInterval": 2 * 10**9}
        for field, before, after, shown in (
            ("OnBuild", ["RUN a"], ["RUN b"], ("On build", '["RUN a"]', '["RUN b"]')),
            (
                "Healthcheck",
                health,
                {**health, "StartInterval": 5 * 10**9},
                ("Health check", "start interval 2 s", "start interval 5 s"),
            ),
            ("StopTimeout", 10, 20, ("Stop timeout", "10 s", "20 s")),
            ("Shell", ["a"], ["b"], ("Shell", '["a"]', '["b"]')),
            ("ArgsEscaped", False, True, ("Arguments escaped", "not set", "yes")),
            ("Hostname", "one", "two", ("Hostname", "one", "two")),
            ("MacAddress", "", "02:42", ("MacAddress", "not set", "02:42")),
            ("x-future", {"a": [1]}, {"a": [2]}, ("x-future", '{"a": [1]}', '{"a": [2]}')),
            ("StopSignal", 9, "SIGTERM", ("Stop signal", "9", "SIGTERM")),
        ):
            with self.subTest(field):
                self._check(self.push_config("a", {field: before}), self.push_config("b", {field: after}), shown)

    def test_what_the_image_says_beside_its_settings_is_compared(self) -> None:
        for field, before, after, shown in (
            ("os.version", "1", "2", ("OS version", "1", "2")),
            ("os.features", ["win32k"], ["win32k", "other"], ("OS features", "win32k", "win32k, other")),
            ("variant", "v2", "v3", ("Platform", "linux/amd64/v2", "linux/amd64/v3")),
            ("author", "one", "two", ("Author", "one", "two")),
            ("docker_version", "20.10", "28.0", ("docker_version", "20.10", "28.0")),
        ):
            with self.subTest(field):
                self._check(
                    self.push_config("a", {}, **{field: before}), self.push_config("b", {}, **{field: after}), shown
                )

    def test_known_words_come_first_and_what_nobody_set_is_left_out(self) -> None:
        settings = {
            "Aardvark": 1,
            "AttachStdin": False,
            "Domainname": "",
            "OnBuild": None,
            "Volumes": {},
            "Cmd": ["run"],
        }
        page = self.page(f"/r/app/m/{self.push_config('v1', settings).digest}/")
        self.assert_shows(page, "Settings", "Command", '["run"]', "Aardvark", "1")
        for absent in ("AttachStdin", "Domainname", "On build", "Volumes"):
            self.assertNotIn(absent, page.text)

    def test_labels_that_are_no_text_are_shown_as_they_are(self) -> None:
        self.assert_shows(
            self.page(f"/r/app/m/{self.push_config('v1', {'Labels': {'a': 1, 'b': ['c']}}).digest}/"),
            "Labels",
            "a",
            "1",
            "b",
            '["c"]',
        )

    def _check(self, before: Pushed, after: Pushed, shown: tuple[str, str, str]) -> None:
        name, old, new = shown
        self.assert_shows(self.page(f"/r/app/diff/{before.digest}...{after.digest}/"), "Settings", name, old, new)
        for pushed, value in ((before, old), (after, new)):
            if value != "not set":
                self.assert_shows(self.page(f"/r/app/m/{pushed.digest}/"), name, value)


class ZeroTime(PagesTestCase):
    """Go's zero time, which `crane append` writes where it has no time."""

    def test_it_is_no_date(self) -> None:
        pushed = {}
        for tag, created in (
            ("none", "0001-01-01T00:00:00Z"),
            ("zone", "0001-01-01T00:00:00.000+00:00"),
            ("some", "2020-02-03T04:05:06Z"),
        ):
            config = json.dumps({"os": "linux", "architecture": "amd64", "created": created}).encode()
            pushed[tag] = self.push_image("app", tag, tag.encode(), config=config)
            page = self.page(f"/r/app/m/{pushed[tag].digest}/")
            self.assertEqual("Created" in page.text, tag == "some", created)
            self.assertEqual("2020-02-03" in page.values, tag == "some")
            self.assertNotIn("2027 years", page.text)
            self.assertNotIn("1-01-01T00", page.values)
        page = self.page(f"/r/app/diff/{pushed['none'].digest}...{pushed['zone'].digest}/")
        self.assertNotIn("Created", page.text)
