"""Pages that are given again: until what they show changes, in the encoding that the client takes, and no longer."""

from __future__ import annotations

import gzip
import re
import threading
import unittest
from typing import Any

from tests.support.page import PagesTestCase
from tests.support.server import ServerTestCase, digest_of
from vex.http.answers import Revisions
from vex.http.fields import takes_gzip
from vex.http.message import Response
from vex.web.kept import KeptPages, PageKey
from vex.web.moment import Moment

GZIP = {"Accept-Encoding": "gzip, deflate, br"}
MINUTE, HOUR, DAY = 60, 3600, 86400


def key(path: str) -> PageKey:
    return PageKey("front", path, "", "registry.test", True, False)


class Keeping(PagesTestCase):
    """Once all heavy work has ended, nothing more is made: what still has a page is kept."""

    def kept(self, *targets: str, **options: Any) -> list[bool]:
        self.work.end()
        statuses = [self.respond(target, **options).status for target in targets]
        self.assertLessEqual(set(statuses), {200, 503})
        return [status == 200 for status in statuses]

    def test_a_page_is_made_once(self) -> None:
        manifest = self.push_image("team/app", "v1", b"layer", config=b"{}")
        targets = ("/", "/?q=app", "/r/team/", "/r/team/app/", f"/r/team/app/m/{manifest.digest}/")
        first = [self.respond(target) for target in targets]
        self.work.end()
        for target, made in zip(targets, first):
            again = self.respond(target)
            self.assertEqual((again.status, again.headers, again.body), (200, made.headers, made.body))

    def test_a_write_ends_it(self) -> None:
        manifest = self.push_image("team/app", "v1", b"layer", config=b"{}")
        targets = ("/", "/r/team/", "/r/team/app/", f"/r/team/app/m/{manifest.digest}/")
        before = [self.respond(target).body for target in targets]
        self.push_image("team/app", "v2", b"layer", config=b"{}")
        for target, body in zip(targets, before):
            self.assertNotEqual(self.respond(target).body, body, target)
        self.delete("team/app", "v2")
        self.assertNotIn(b"v2", self.respond("/r/team/app/").body)

    def test_a_write_below_a_repository_ends_its_page(self) -> None:
        self.push_image("team", "v1", b"layer")
        self.assertNotIn(b"tools", self.respond("/r/team/").body)
        self.push_image("team/tools/lint", "v1", b"layer")
        self.assertIn(b"tools", self.respond("/r/team/").body)

    def test_a_write_elsewhere_leaves_the_page_of_a_repository(self) -> None:
        self.push_image("one", "v1", b"layer")
        self.respond("/r/one/")
        self.respond("/")
        self.push_image("another/app", "v1", b"layer")
        self.assertEqual(self.kept("/r/one/", "/"), [True, False])

    def test_a_page_of_what_was_deleted_is_gone(self) -> None:
        digest = self.push_image("app", "v1", b"layer").digest
        for target in (f"/r/app/m/{digest}/json/", f"/r/app/m/{digest}/layer/{digest_of(b'layer')}/"):
            self.assertEqual(self.respond(target).status, 200)
        self.delete("app", "v1")
        for target in (f"/r/app/m/{digest}/json/", f"/r/app/m/{digest}/layer/{digest_of(b'layer')}/"):
            self.assertEqual(self.respond(target).status, 404)

    def test_ages_grow(self) -> None:
        self.push_image("app", "v1", b"layer")
        for seconds, age in ((0, b"just now"), (MINUTE, b"1 minute ago"), (HOUR, b"1 hour ago"), (3 * DAY, b"3 days")):
            self.site.now += seconds
            self.assertIn(age, self.respond("/r/app/").body)

    def test_a_clock_that_is_set_back_makes_it_anew(self) -> None:
        self.push_image("app", "v1", b"layer")
        self.site.now += HOUR
        self.assertIn(b"1 hour ago", self.respond("/r/app/").body)
        self.site.now -= HOUR
        self.assertIn(b"just now", self.respond("/r/app/").body)

    def test_each_host_and_query_has_its_own(self) -> None:
        self.push_image("app", "v1", b"layer")
        for _ in range(2):
            for host in ("a.test:1", "b.test:2"):
                self.assertIn(f"{host}/app:v1".encode(), self.respond("/r/app/", host=host).body)
            self.assertNotEqual(self.respond("/r/app/?sort=name").body, self.respond("/r/app/?sort=-name").body)
        self.assertEqual(self.kept("/r/app/?sort=name", "/r/app/"), [True, False])
        self.assertEqual(self.kept("/r/app/", host="b.test:2"), [True])

    def test_commands_are_those_of_the_scheme_that_was_asked_with(self) -> None:
        digest = self.push_image("app", "v1", b"layer", config=b"{}").digest
        for _ in range(2):
            for scheme, plain in (("http", True), ("https", False)):
                page = self.respond(f"/r/app/m/{digest}/", scheme=scheme).body
                self.assertEqual(b"--tls-verify=false" in page, plain)

    def test_what_is_not_right_is_not_kept(self) -> None:
        self.assertEqual(self.respond("/r/app/").status, 404)
        self.assertEqual(self.kept("/r/app/"), [False])

    def test_a_page_whose_config_cannot_be_read_is_not_kept(self) -> None:
        digest = self.push_image("app", "v1", b"layer", config=b"no object").digest
        self.assertEqual(self.respond(f"/r/app/m/{digest}/").status, 200)
        self.assertEqual(self.kept(f"/r/app/m/{digest}/"), [False])

    def test_who_has_a_page_is_told_that_it_is_the_same(self) -> None:
        digest = self.push_image("app", "v1", b"layer").digest
        for target in ("/", "/r/app/", f"/r/app/m/{digest}/json/"):
            for encoding in ({}, GZIP):
                fields = dict(self.respond(target, headers=encoding).headers)
                again = self.respond(target, headers={**encoding, "If-None-Match": f'"other", {fields["ETag"]}'})
                repeated = {name: fields[name] for name in ("ETag", "Cache-Control", "Vary")}
                self.assertEqual((again.status, again.body, dict(again.headers)), (304, b"", repeated))
        self.assertEqual(self.respond("/", headers={"If-None-Match": '"other"'}).status, 200)
        tag = dict(self.respond("/r/app/").headers)["ETag"]
        self.push_image("app", "v2", b"layer")
        self.assertEqual(self.respond("/r/app/", headers={"If-None-Match": tag}).status, 200)

    def test_the_json_of_a_manifest_never_changes(self) -> None:
        digest = self.push_image("app", "v1", b"layer").digest
        headers = dict(self.respond(f"/r/app/m/{digest}/json/").headers)
        self.assertEqual(headers["Cache-Control"], "public, max-age=86400, immutable")
        self.assertEqual(dict(self.respond(f"/r/app/m/{digest}/").headers)["Cache-Control"], "no-cache")

    def test_pages_are_compressed_for_those_who_take_it(self) -> None:
        self.push_image("app", "v1", b"layer")
        plain, packed = self.respond("/r/app/"), self.respond("/r/app/", headers=GZIP)
        self.assertEqual(gzip.decompress(packed.body), plain.body)
        self.assertLess(len(packed.body) * 2, len(plain.body))
        # RFC 1952: no time in its head.
        self.assertEqual(packed.body[4:8], bytes(4))
        self.assertEqual(dict(packed.headers)["Content-Encoding"], "gzip")
        self.assertEqual(packed.length, len(packed.body))
        self.assertNotIn("Content-Encoding", dict(plain.headers))
        for response in (plain, packed):
            self.assertEqual(dict(response.headers)["Vary"], "Accept-Encoding")
        self.assertNotEqual(dict(plain.headers)["ETag"], dict(packed.headers)["ETag"])
        self.work.end()
        self.assertEqual(self.respond("/r/app/", headers=GZIP).body, packed.body)

    def test_what_is_short_and_what_is_no_page_is_not_compressed(self) -> None:
        digest = self.push_image("app", "v1", b"layer", config=b"{}").digest
        for target in ("/robots.txt", "/r/app", f"/r/app/m/{digest}/image.tar", "/r/none/"):
            self.assertNotIn("Content-Encoding", dict(self.respond(target, headers=GZIP).headers))


class Ages(unittest.TestCase):
    def test_each_is_right_until_it_changes(self) -> None:
        now = 1_700_000_000
        for age in (0, 59, 60, 3599, 3600, 7100, DAY - 1, 6 * DAY, 27 * DAY, 29 * DAY, 359 * DAY, 364 * DAY, 800 * DAY):
            moment = Moment(now)
            told = moment.age_of(now - age)
            until = int(moment.until)
            self.assertGreater(until, now)
            # At most so many seconds late, and no sooner than needed, or than the hour that pages are kept.
            self.assertEqual(Moment(max(until - 6, now)).age_of(now - age), told)
            if until < now + HOUR and until > now + 5:
                self.assertNotEqual(Moment(until).age_of(now - age), told)

    def test_a_time_to_come_is_right_until_it_is_near(self) -> None:
        moment = Moment(1000)
        self.assertEqual(moment.age_of(1200), "in the future")
        self.assertEqual((Moment(1139).age_of(1200), Moment(1141).age_of(1200)), ("in the future", "just now"))
        self.assertEqual(moment.until, 1140)


class Bounds(unittest.TestCase):
    def setUp(self) -> None:
        self.revisions = Revisions()
        self.kept = KeptPages(self.revisions, most_bytes=100_000)

    def keep(self, path: str, size: int = 20_000) -> None:
        self.kept.keep(key(path), Response(200, (), bytes(size)), self.revisions.basis(""), Moment(0))

    def known(self, *paths: str) -> list[bool]:
        return [self.kept.find(key(path), 1) is not None for path in paths]

    def test_those_that_were_used_last_stay(self) -> None:
        for path in "abcd":
            self.keep(path)
        self.assertEqual(self.known("a"), [True])
        self.keep("e")
        self.assertEqual(self.known(*"abcde"), [True, False, True, True, True])

    def test_one_that_is_made_again_counts_once(self) -> None:
        for _ in range(20):
            self.keep("a")
        self.keep("b")
        self.assertEqual(self.known("a", "b"), [True, True])

    def test_those_that_no_longer_count_make_room(self) -> None:
        for path in "abcd":
            self.keep(path)
        self.revisions.changed("app")
        self.assertEqual(self.known(*"abcd"), [False] * 4)
        for path in "efgh":
            self.keep(path)
        self.assertEqual(self.known(*"efgh"), [True] * 4)

    def test_a_long_address_counts(self) -> None:
        paths = [f"{letter}{'x' * 30_000}" for letter in "abcd"]
        for path in paths:
            self.keep(path, 0)
        self.assertEqual(self.known(*paths), [False, True, True, True])

    def test_one_larger_than_all_is_not_kept(self) -> None:
        self.keep("a")
        self.keep("b", 2_000_000)
        self.assertEqual(self.known("a", "b"), [True, False])

    def test_any_thread_may_ask(self) -> None:
        def work(name: str) -> None:
            for number in range(200):
                self.keep(f"{name}{number % 7}")
                self.known(f"{name}{number % 5}")

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.keep("last")
        self.assertEqual(self.known("last"), [True])


class AcceptEncoding(unittest.TestCase):
    def test_gzip_is_taken_where_the_client_says_so(self) -> None:
        for value in ("gzip", "GZIP", "br, gzip", "gzip;q=0.5", "x-gzip", "*", "deflate, gzip ; q=1.0", "*;q=0, gzip"):
            self.assertTrue(takes_gzip(value), value)

    def test_gzip_is_not_taken_otherwise(self) -> None:
        for value in (
            *(None, "", "br", "identity", "gzip;q=0", "gzip; q=0.000", "*, gzip;q=0", "*;q=0", "gzip;q=x", "gzip;q=2"),
            *("identity, gzip;q=0.5", "g" * 5000, ",,,"),
        ):
            self.assertFalse(takes_gzip(value), value)


class OnTheWire(ServerTestCase):
    def test_a_compressed_page_goes_on_with_the_connection_and_so_does_its_head(self) -> None:
        self.server.auth.push_image("wire/app", "v1", b"layer")
        plain = self.server.public.get("/r/wire/app/")
        for _ in range(2):
            packed = self.server.public.request("GET", "/r/wire/app/", headers=GZIP)
            self.assertEqual(gzip.decompress(packed.body), plain.body)
            head = self.server.public.request("HEAD", "/r/wire/app/", headers=GZIP)
            self.assertEqual((head.status, head.body), (200, b""))
            for name in ("Content-Length", "Content-Encoding", "ETag", "Vary"):
                self.assertEqual(head.headers[name], packed.headers[name])
            same = self.server.public.request(
                "GET", "/r/wire/app/", headers={**GZIP, "If-None-Match": packed.headers["ETag"]}
            )
            self.assertEqual((same.status, same.body), (304, b""))

    def test_a_page_that_is_given_again_has_the_same_head(self) -> None:
        self.server.auth.push_image("wire/heads", "v1", b"layer")
        heads = []
        for _ in range(3):
            answer = self.server.public.get("/r/wire/heads/")
            heads.append([field for field in answer.headers.items() if field[0] != "Date"])
        self.assertEqual(heads, [heads[0]] * 3)
        self.assertEqual(len(heads[0]), len(dict(heads[0])))

    def test_style_and_script_are_compressed(self) -> None:
        page = self.server.public.get("/").body.decode()
        for path in re.findall(r'"(/static/[^"]+\.(?:css|js))"', page):
            packed = self.server.public.request("GET", path, headers=GZIP)
            self.assertEqual(gzip.decompress(packed.body), self.server.public.get(path).body)
