"""Quotas: what a repository may hold, what is refused past it, and what does not count."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.support.in_process import DAY, HOUR, MINUTE, InProcessTestCase, Options, section
from tests.support.server import Answer, ServerTestCase, configured, digest_of, image, running
from vex.registry.policies import Clause
from vex.registry.quotas import fullest

PLACE = "[repositories app], line 2 of the configuration"
# Of each image here: a configuration of 2 bytes, which all share, and a layer of 100.
ONE, TWO = 102, 202


def layer(number: int) -> bytes:
    """Give one of many layers."""
    return b"%d" % number * 100 if number < 10 else (b"%d " % number * 100)[:100]


class QuotaTestCase(InProcessTestCase):
    """A repository that has room for two images."""

    options = Options(sections=(section("app", 2, quota=str(TWO)),))

    def put(self, tag: str, *layers: bytes) -> Answer:
        """Push an image to `app`, of which the layers may be there; the manifest may be refused."""
        for content in (b"{}", *layers):
            self.push_blob("app", content)
        content = json.dumps(image(*layers)).encode()
        return self.site.request(
            "PUT",
            f"/v2/app/manifests/{tag or digest_of(content)}",
            content,
            {"Content-Type": "application/vnd.oci.image.manifest.v1+json"},
        )

    def assert_denied(self, answer: Answer, needed: int) -> None:
        """Check that the quota is why something was refused."""
        self.assertEqual((answer.status, answer.codes), (403, ["DENIED"]), answer.body)
        error = answer.json["errors"][0]
        self.assertEqual(error["detail"], {"needed": needed, "quota": TWO, "section": PLACE})
        for word in ("app would hold", str(needed), str(TWO), PLACE, "delete tags"):
            self.assertIn(word, error["message"])

    def fill(self) -> list[str]:
        """Push what there is room for; returns the digests."""
        answers = [self.put(f"n{number}", layer(number)) for number in range(2)]
        self.assertEqual([answer.status for answer in answers], [201, 201])
        return [answer.headers["Docker-Content-Digest"] for answer in answers]


class Pushes(QuotaTestCase):
    def test_a_push_past_the_quota_is_refused_with_the_numbers_and_stores_nothing(self) -> None:
        self.fill()
        for content in (b"{}", layer(2)):
            self.push_blob("app", content)
        before = self.site.holdings()
        self.assert_denied(self.put("n2", layer(2)), TWO + 100)
        self.assertEqual(self.site.holdings(), before)

    def test_a_push_by_digest_is_refused_too(self) -> None:
        self.fill()
        self.assert_denied(self.put("", layer(2)), TWO + 100)

    def test_each_blob_counts_once(self) -> None:
        self.assertEqual(self.put("a", layer(0), layer(1)).status, 201)
        for tag, layers in (("b", (layer(0),)), ("c", (layer(1), layer(0))), ("d", ())):
            self.assertEqual(self.put(tag, *layers).status, 201)

    def test_what_adds_nothing_is_taken_also_past_a_quota_that_has_become_smaller(self) -> None:
        self.fill()
        self.site.policies.replace([Clause("app", PLACE, {"quota": 10})])
        self.assertEqual(self.put("n0", layer(0)).status, 201)
        self.assertEqual(self.put("latest", layer(1)).status, 201)
        self.assertEqual(self.put("n2", layer(2)).status, 403)

    def test_a_deletion_is_never_refused_and_makes_room(self) -> None:
        self.fill()
        self.site.advance(DAY)
        self.delete("app", "n0")
        self.assertEqual(self.put("n2", layer(2)).status, 201)
        self.assert_denied(self.put("n0", layer(0)), TWO + 100)

    def test_what_a_push_replaces_makes_room_for_it(self) -> None:
        self.fill()
        self.site.advance(DAY)
        self.assertEqual(self.put("n0", layer(2)).status, 201)
        self.assertEqual(self.put("n0", layer(0)).status, 201)

    def test_other_repositories_have_none(self) -> None:
        for number in range(5):
            self.push_image("other", f"n{number}", layer(number))

    def test_of_several_pushes_at_once_so_many_are_taken_as_there_is_room_for(self) -> None:
        start = threading.Barrier(6)
        for number in range(6):
            self.push_blob("app", layer(number))

        def push(number: int) -> int:
            start.wait()
            return self.put(f"n{number}", layer(number)).status

        with ThreadPoolExecutor(6) as pool:
            self.assertEqual(sorted(pool.map(push, range(6))), [201, 201, 403, 403, 403, 403])


class Kept(QuotaTestCase):
    """What is not there for anybody any more, and still on the disk."""

    options = Options(delete_untags="yes", sections=(section("app", 2, quota=str(TWO)),))

    def test_what_was_deleted_does_not_count_while_it_is_kept(self) -> None:
        first, _ = self.fill()
        self.site.advance(DAY)
        self.ok(200, "GET", f"/v2/app/manifests/{first}", user="")
        self.delete("app", first)
        self.assertEqual(self.site.holdings().states["app", first], "gone")
        self.assertEqual(self.put("n2", layer(2)).status, 201)

    def test_what_was_deleted_counts_when_it_comes_back(self) -> None:
        first, _ = self.fill()
        self.site.advance(DAY)
        self.ok(200, "GET", f"/v2/app/manifests/{first}", user="")
        self.delete("app", first)
        self.assertEqual(self.put("n2", layer(2)).status, 201)
        # All its blobs are referenced already, by what is deleted.
        self.assert_denied(self.put("n0", layer(0)), TWO + 100)

    def test_what_a_pull_under_way_holds_counts_until_that_may_have_ended(self) -> None:
        self.fill()
        self.site.advance(DAY)
        self.ok(200, "GET", "/v2/app/manifests/n0", user="")
        self.delete("app", "n0")
        self.assertEqual(self.put("n2", layer(2)).status, 403)
        self.site.advance(11 * MINUTE)
        self.assertEqual(self.put("n2", layer(2)).status, 201)


class Mounts(QuotaTestCase):
    def mount(self, content: bytes) -> Answer:
        """Ask for a blob of another repository in `app`."""
        return self.site.request("POST", f"/v2/app/blobs/uploads/?mount={digest_of(content)}&from=other")

    def test_a_mount_past_the_quota_is_refused_with_the_numbers(self) -> None:
        self.push_image("other", "1", layer(2))
        self.assertEqual(self.mount(layer(2)).status, 201)
        self.fill()
        before = self.site.holdings()
        self.assert_denied(self.mount(layer(2)), TWO + 100)
        self.assertEqual(self.site.holdings(), before)

    def test_a_mount_of_what_is_there_already_is_taken(self) -> None:
        self.fill()
        self.assertEqual(self.mount(layer(0)).status, 201)

    def test_a_mount_into_a_new_repository_that_cannot_hold_it_is_refused(self) -> None:
        self.push_blob("other", b"x" * (TWO + 1))
        self.assert_denied(self.mount(b"x" * (TWO + 1)), TWO + 1)
        self.assertNotIn("app", self.site.holdings().repositories)

    def test_a_mount_of_what_is_nowhere_becomes_an_upload(self) -> None:
        self.fill()
        self.assertEqual(self.mount(layer(7)).status, 202)


class Fullest(QuotaTestCase):
    options = Options(sections=(section("small/*", 2, quota="1000"), section("b*", 5, quota="100000")))

    def test_they_are_those_that_use_most_of_what_they_may(self) -> None:
        for name, size in (("small/a", 500), ("small/b", 900), ("big", 90_500), ("bigger", 1000), ("none", 100_000)):
            self.push_image(name, "1", b"x" * size)
        self.assertEqual(
            fullest(self.site.database, self.site.policies),
            [("big", 90_502, 100_000), ("small/b", 902, 1000), ("small/a", 502, 1000), ("bigger", 1002, 100_000)],
        )

    def test_they_are_ten_at_most(self) -> None:
        for number in range(12):
            self.push_image(f"small/{number}", "1", b"x" * (number + 1) * 10)
        names = [name for name, _, _ in fullest(self.site.database, self.site.policies)]
        self.assertEqual(names, [f"small/{number}" for number in range(11, 1, -1)])

    def test_what_is_deleted_and_kept_does_not_count(self) -> None:
        pushed = self.push_image("small/a", "", b"x" * 500)
        self.push_image("small/a", "2", b"y" * 100)
        self.site.advance(HOUR)
        self.ok(200, "GET", f"/v2/small/a/manifests/{pushed.digest}", user="")
        self.delete("small/a", pushed.digest)
        self.assertEqual(fullest(self.site.database, self.site.policies), [("small/a", 102, 1000)])

    def test_there_are_none_without_a_quota(self) -> None:
        self.site.policies.replace([])
        self.push_image("small/a", "1", b"x" * 500)
        self.assertEqual(fullest(self.site.database, self.site.policies), [])


class QuotaMetrics(ServerTestCase):
    def test_they_tell_what_is_used_and_what_is_allowed(self) -> None:
        with running(prepare=configured("[repositories *]\nquota = 1KiB\n")) as server:
            server.auth.push_image("app", "1", layer(0))
            self.assertEqual(server.metric('vex_quota_used_bytes{repository="app"}'), ONE)
            self.assertEqual(server.metric('vex_quota_allowed_bytes{repository="app"}'), 1024)
            series = 'vex_requests_refused_total{listener="auth",reason="quota"}'
            self.assertEqual(server.metric(series), 0)
            server.auth.push_blob("big", b"x" * 2000)
            mount = f"/v2/app/blobs/uploads/?mount={digest_of(b'x' * 2000)}&from=big"
            self.assertEqual(server.auth.request("POST", mount).status, 403)
            self.assertEqual(server.metric(series), 1)
        self.assertNotIn(b"vex_quota", self.server.internal.get("/metrics").body)
