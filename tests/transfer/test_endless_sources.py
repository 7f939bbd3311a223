"""`vex import` from registries that never end: lists, bodies, answers that do not begin, names that are none."""

from __future__ import annotations

import contextlib
import http.server
import io
import itertools
import json
import unittest
from collections.abc import Iterator
from typing import Any, Callable

from tests.support.other_registries import Reply, answering, import_into
from tests.support.server import OCI_MANIFEST, ServerTestCase, digest_of, image
from vex.errors import Refused
from vex.names import RepositoryName
from vex.progress import Progress
from vex.transfer.endpoints import Endpoints
from vex.transfer.origins import parse_origin
from vex.transfer.remote import Remote
from vex.transfer.replies import Broken, Unreachable
from vex.transfer.sources import Problems

LAYER = b"layer"


class Pages(dict[str, Reply]):
    """Answers by path, and by the beginning of a path lists without end: what each of their pages holds is made from
    its number.
    """

    def __init__(self, replies: dict[str, Reply], lists: dict[str, Callable[[int], dict[str, Any]]]) -> None:
        super().__init__(replies)
        self._lists = lists
        self._numbers = itertools.count()
        self.asked = 0

    def get(self, key: Any, default: Any = None) -> Any:
        """Answer with the next page of a list."""
        for path, page in self._lists.items():
            if key.partition("?")[0] == path:
                self.asked += 1
                number = next(self._numbers)
                return 200, {"Link": f'<{path}?last={number}>; rel="next"'}, json.dumps(page(number)).encode()
        return super().get(key, default)


def source(repository: str) -> tuple[dict[str, Reply], str]:
    """Make a registry with an image under the tag 1; returns its answers, and the digest of the image."""
    manifest = json.dumps(image(LAYER)).encode()
    found = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest_of(manifest)}
    base = f"/v2/{repository}"
    replies: dict[str, Reply] = {
        "/v2/_catalog": (200, {}, json.dumps({"repositories": [repository]}).encode()),
        f"{base}/tags/list": (200, {}, b'{"tags": ["1"]}'),
        f"{base}/manifests/1": (200, found, manifest),
        f"{base}/manifests/{digest_of(manifest)}": (200, found, manifest),
        f"{base}/blobs/{digest_of(b'{}')}": (200, {}, b"{}"),
        f"{base}/blobs/{digest_of(LAYER)}": (200, {}, LAYER),
    }
    return replies, digest_of(manifest)


class Lists(ServerTestCase):
    def take(self, pages: Pages, *arguments: str, code: int) -> str:
        with answering(pages) as address:
            return import_into(self.server, address, *arguments, code=code)

    def test_referrers_without_end_end_at_a_page_without_anything_new(self) -> None:
        replies, digest = source("empty")
        pages = Pages(replies, {f"/v2/empty/referrers/{digest}": lambda _: {"manifests": []}})
        self.take(pages, "--repository", "empty", code=0)
        self.assertEqual(pages.asked, 1)
        replies, digest = source("same")
        pages = Pages(replies, {f"/v2/same/referrers/{digest}": lambda _: {"manifests": [{"digest": "none"}, {}, 5]}})
        self.take(pages, "--repository", "same", code=0)
        self.assertEqual(pages.asked, 2)

    def test_referrers_that_are_none_end_at_a_number_of_pages(self) -> None:
        replies, digest = source("bad")
        pages = Pages(
            replies, {f"/v2/bad/referrers/{digest}": lambda number: {"manifests": [{"digest": f"none-{number}"}]}}
        )
        output = self.take(pages, "--repository", "bad", code=1)
        self.assertIn(f"the list /v2/bad/referrers/{digest} goes on without anything that can be used", output)
        self.assertLess(pages.asked, 110)
        self.assertEqual(self.server.public.get("/v2/bad/manifests/1").status, 200)

    def test_names_that_are_none_end_a_list_and_the_first_ten_are_told(self) -> None:
        replies, _ = source("named")
        pages = Pages(replies, {"/v2/_catalog": lambda number: {"repositories": [f"Bad {number}"]}})
        output = self.take(pages, code=1)
        self.assertIn("the list /v2/_catalog goes on without anything that can be used", output)
        self.assertEqual(output.count("Bad "), 10)
        pages = Pages(replies, {"/v2/named/tags/list": lambda number: {"tags": ["1", f"bad {number}"]}})
        output = self.take(pages, "--repository", "named", code=1)
        self.assertEqual(output.count("bad "), 10)
        self.assertIn("the list /v2/named/tags/list goes on without anything that can be used", output)
        self.assertLess(pages.asked, 110)

    def test_of_many_names_that_are_none_ten_and_their_number_are_told(self) -> None:
        replies, _ = source("many")
        replies["/v2/many/tags/list"] = (
            200,
            {},
            json.dumps({"tags": ["1", *(f"bad {number}" for number in range(25))]}).encode(),
        )
        output = self.take(Pages(replies, {}), "--repository", "many", code=1)
        self.assertEqual(output.count("bad "), 10)
        self.assertIn("names in all that are none here: 25", output)
        self.assertIn("named above: 25", output)
        self.assertEqual(self.server.public.get("/v2/many/tags/list").json["tags"], ["1"])

    def test_a_list_of_two_names_a_page_is_read_to_its_end(self) -> None:
        replies, _ = source("long")
        names = ["1", *(f"t{number}" for number in range(400))]

        def page(number: int) -> dict[str, Any]:
            return {"tags": names[2 * number : 2 * number + 2]}

        with (
            answering(Pages(replies, {"/v2/long/tags/list": page})) as address,
            contextlib.closing(Remote(parse_origin(address))) as remote,
        ):
            endpoints = Endpoints(remote, 2**20)
            self.assertEqual(list(endpoints.tags(RepositoryName("long"), lambda *_: None)), names)


class Time(unittest.TestCase):
    """With a clock that goes fast."""

    def test_a_list_ends_after_a_time_without_anything_that_can_be_used(self) -> None:
        clock = itertools.count(0, 250).__next__
        pages = Pages(
            {}, {"/v2/_catalog": lambda number: {"repositories": [f"Bad {number}" if number % 3 else f"good{number}"]}}
        )
        with answering(pages) as address, contextlib.closing(Remote(parse_origin(address))) as remote:
            found = Endpoints(remote, 2**20, clock=clock).repositories(lambda *_: None)
            self.assertEqual([next(found) for _ in range(5)], ["good0", "good3", "good6", "good9", "good12"])
        pages = Pages({}, {"/v2/_catalog": lambda number: {"repositories": [f"Bad {number}"]}})
        ending = self.assertRaisesRegex(Refused, "goes on without anything that can be used")
        with answering(pages) as address, contextlib.closing(Remote(parse_origin(address))) as remote, ending:
            list(Endpoints(remote, 2**20, clock=clock).repositories(lambda *_: None))
        self.assertEqual(pages.asked, 3)

    def test_an_import_in_which_nothing_comes_for_ten_minutes_ends(self) -> None:
        now = [0.0]
        problems = Problems(Progress(io.StringIO()), lambda: now[0])
        for number in range(30):
            problems.add(f"quick-{number}", "failed")
        now[0] = 601
        with self.assertRaisesRegex(Unreachable, "nothing could be imported for 10 minutes"):
            problems.add("late", "failed")
        problems.went_on()
        for number in range(30):
            now[0] += 15
            problems.add(f"slow-{number}", "failed")

    @contextlib.contextmanager
    def remote(self, send: Callable[[http.server.BaseHTTPRequestHandler], None], step: float) -> Iterator[Remote]:
        """Run a server that answers like this, and give its client, for whom each wait takes so many seconds."""
        clock = itertools.count(0, step).__next__
        with (
            answering({"/v2/": send}) as address,
            contextlib.closing(Remote(parse_origin(address), clock=clock)) as remote,
        ):
            yield remote

    def assert_ends(
        self, send: Callable[[http.server.BaseHTTPRequestHandler], None], step: float, expected: str
    ) -> None:
        def all_of(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.close_connection = True
            with contextlib.suppress(OSError):
                send(handler)

        with (
            self.remote(all_of, step) as remote,
            self.assertRaisesRegex((Broken, Refused), expected),
            remote.open("GET", "/v2/") as response,
        ):
            while response.read(100):
                pass

    def test_an_answer_that_does_not_begin_ends(self) -> None:
        def going_on(handler: http.server.BaseHTTPRequestHandler) -> None:
            while True:
                handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

        # Newer Pythons count them, and end before it is too long.
        self.assert_ends(going_on, 0, "its answer does not begin|more than 100 interim responses")

    def test_an_answer_that_comes_in_drops_ends(self) -> None:
        def dripping(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                handler.wfile.write(b"x")
                handler.wfile.flush()

        self.assert_ends(dripping, 50, "sends less than 1024 bytes a second|less than")

        def head(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                handler.wfile.write(b"x")
                handler.wfile.flush()

        self.assert_ends(head, 50, "less than|one header line|header line")
