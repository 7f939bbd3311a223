"""The lists of the web interface: repositories, tags, and what has no tag; filtered, sorted, and a hundred at a
time.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

from tests.support.page import PagesTestCase
from tests.support.server import OCI_EMPTY, OCI_MANIFEST, descriptor, digest_of
from vex.errors import RegistryError

HOST = "registry.test:8200"
CONFIG = json.dumps({"os": "linux", "architecture": "arm64", "variant": "v8"}).encode()


class WithoutTheLock(PagesTestCase):
    """Lists are made while somebody else holds the lock of the database: those who push do not wait for them either."""

    def test_lists_need_no_lock(self) -> None:
        self.push_image("team/app", "v1", b"layer", config=b"{}")
        made: list[int] = []
        thread = threading.Thread(target=lambda: made.extend(self._ask()), daemon=True)
        with self.site.database.write():
            thread.start()
            thread.join(20)
            self.assertFalse(thread.is_alive(), made)
        self.assertEqual(made, [200] * 10)

    def _ask(self) -> Iterator[int]:
        for path in (
            "/",
            "/?q=app&sort=-size",
            "/r/team/",
            "/r/team/app/",
            "/r/team/app/?q=v",
            "/r/team/app/history:v1/",
        ):
            yield self.respond(path).status
        for path in (
            "/v2/_catalog",
            "/v2/team/app/tags/list",
            f"/v2/team/app/referrers/{digest_of(b'')}",
            "/v1/search?q=app",
        ):
            yield self.site.request("GET", path).status

    def test_a_list_that_takes_too_long_ends(self) -> None:
        with self.assertRaises(RegistryError) as raised, self.site.database.browse() as tx:
            tx.value("WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
        self.assertEqual(raised.exception.kind.status, 503)
        self.assertEqual(self.respond("/").status, 200)

    def test_a_list_shows_what_was_committed_a_moment_ago(self) -> None:
        for tag in "abc":
            self.push_image("app", tag, b"layer")
            self.assertEqual(self.ok(200, "GET", "/v2/app/tags/list").json["tags"][-1], tag)
            self.assert_shows(self.page("/r/app/"), tag)
        self.delete("app", "c")
        self.assertEqual(self.ok(200, "GET", "/v2/app/tags/list").json["tags"], ["a", "b"])


class Repositories(PagesTestCase):
    def push(self, *names: str) -> None:
        for name in names:
            self.push_image(name, "v1", b"layer", config=b"{}")

    def test_they_are_listed_by_name_a_hundred_at_a_time(self) -> None:
        self.push(*(f"r{number:03}" for number in range(133)))
        first = self.page("/")
        self.assert_shows(first, "Repositories", "r000", "r099", "1\u2013100 of 133", "Next")
        self.assertNotIn("r100", first.text)
        self.assert_shows(self.page("/?page=2"), "r100", "r132", "Previous", "101\u2013133 of 133")
        page = self.page("/?q=r&sort=-name")
        self.assert_shows(page, "r132", "r033", "1\u2013100 of 133")
        self.assertIn("/?q=r&sort=-name&page=2", page.values)
        self.assert_shows(self.page("/?q=r12"), "r120", "r129")

    def test_each_part_of_a_name_can_be_followed(self) -> None:
        self.push("team/tools/lint", "team/app", "teams")
        self.assertIn("/r/team/tools/", self.page("/?q=lint").values)
        page = self.page("/r/team/")
        self.assert_shows(page, "team/", "team/app", "team/tools/lint")
        self.assertNotIn("teams", page.text)
        self.assert_shows(self.page("/r/team/?sort=-name"), "team/tools/lint", "team/app")
        self.assertEqual(self.respond("/r/tea/").status, 404)

    def test_tags_date_and_size_are_shown(self) -> None:
        self.push("app")
        self.site.now += 3 * 3600
        self.assert_shows(self.page("/"), "app 1 3 hours ago 7 bytes")

    def test_a_filter_that_finds_nothing_leads_back(self) -> None:
        self.push("app")
        self.assert_shows(self.page("/?q=x"), "No repository has that in its name.", "Show all")

    def test_names_that_look_like_pages_are_repositories(self) -> None:
        names = ("a/m/b", "a/diff/b", "a/m", "r/r", "static/x", "a/layer/b", "a/m/b/json")
        self.push(*names)
        for name in names:
            self.assert_shows(self.page(f"/r/{name}/"), name, f"docker pull {HOST}/{name}:v1")

    def test_an_empty_registry_says_what_to_do(self) -> None:
        push = "registry.test:8201"
        page = self.page("/")
        self.assert_shows(
            page, f"docker login {push}", f"docker tag IMAGE {push}/hello:latest", f"docker push {push}/hello:latest"
        )
        self.assert_shows(page, f"docker pull {HOST}/hello:latest")
        # Clients other than docker have to be told that a registry speaks plain HTTP.
        self.assert_shows(page, "podman", "--tls-verify=false")


class Tags(PagesTestCase):
    def test_a_repository_lists_its_tags_with_all_that_matters(self) -> None:
        pushed = self.push_image("app", "v1", b"one", config=CONFIG)
        self.push_image("app", "stable", b"one", config=CONFIG)
        self.push_image("app", "v2", b"two")
        page = self.page("/r/app/?sort=name")
        self.assert_shows(
            page,
            "app",
            "3 tags",
            "stable",
            "also v1",
            "linux/arm64/v8",
            pushed.digest[:19],
            f"docker pull {HOST}/app:stable",
            "v1",
            "v2",
        )
        self.assertIn(pushed.digest, page.values)

    def test_they_are_filtered_sorted_and_paged(self) -> None:
        for number in range(101):
            self.push_image("app", f"t{number:03}", b"layer", config=b"{}")
        self.assert_shows(self.page("/r/app/?sort=name"), "t000", "t099", "1\u2013100 of 101")
        self.assert_shows(self.page("/r/app/?sort=name&page=2"), "t100", "101\u2013101 of 101")
        self.assert_shows(self.page("/r/app/?sort=-name&q=T01"), "t019", "t010")
        self.assert_shows(self.page("/r/app/?q=none"), "No tag has that in its name.", "Show all")

    def test_the_newest_is_first(self) -> None:
        for tag in ("b", "c", "a"):
            self.push_image("app", tag, tag.encode())
            self.site.now += 60
        self.assert_shows(self.page("/r/app/"), "app:a", "app:c", "app:b")

    def test_untagged_manifests_and_referrers_have_a_section(self) -> None:
        subject = self.push_image("app", "v1", b"image")
        untagged = self.push_image("app", "", b"untagged")
        for content in (b"{}", b"bill"):
            self.push_blob("app", content)
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/spdx+json",
            "config": descriptor(b"{}", OCI_EMPTY),
            "layers": [descriptor(b"bill", "application/spdx+json")],
            "subject": {"mediaType": OCI_MANIFEST, "digest": subject.digest, "size": subject.size},
        }
        self.site.now += 60
        self.push_manifest("app", "", document)
        page = self.page("/r/app/")
        self.assert_shows(
            page,
            "Untagged manifests and referrers",
            "SBOM",
            "application/spdx+json",
            f"of {subject.digest[:19]}",
            untagged.digest[:19],
        )

    def test_many_untagged_manifests_have_pages_of_their_own(self) -> None:
        for number in range(101):
            self.push_image("app", "", b"%d" % number, config=b"{}")
        self.assert_shows(self.page("/r/app/"), "No tags here", "1\u2013100 of 101", "Next")
        self.assert_shows(self.page("/r/app/?others=2"), "101\u2013101 of 101")

    def test_repositories_below_are_linked(self) -> None:
        for name in ("up", "up/down"):
            self.push_image(name, "v1", b"x")
        self.assert_shows(self.page("/r/up/"), "Repositories below up/", "up/down")
