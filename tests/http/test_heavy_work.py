"""Heavy work of all kinds that is under way or waits for its turn: it ends with the process, and when nobody waits for
it any more.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import threading
import time
import unittest

from tests.support.crowded import running_crowded
from tests.support.page import PagesTestCase
from tests.support.server import Server, image
from vex.errors import Disconnected
from vex.http.turns import HeavyWork, Turns

ANNOTATIONS = 320_000
AT_ONCE = 12
# What is under way ends at its next step, the longest of which is the parsing of a manifest of 4 MiB: a second, where
# nothing else is done. All of it would take 15.
SOON_SECONDS = 6


class EndOfTheProcess(unittest.TestCase):
    def test_pages_lists_and_searches_that_are_made_or_wait_end_with_it(self) -> None:
        with running_crowded() as server:
            server.auth.push_blob("app", b"{}")
            digest = server.auth.push_manifest(
                "app", "v1", image(annotations={f"{number:x}": "" for number in range(ANNOTATIONS)})
            )
            paths = (
                f"/r/app/m/{digest}/",
                f"/r/app/m/{digest}/json/",
                "/v2/tags/tags/list",
                "/?q=zzz",
                "/v1/search?q=zzz",
            )
            clients = [threading.Thread(target=_ask_on, args=(server, path)) for path in paths for _ in range(AT_ONCE)]
            for client in clients:
                client.start()
            deadline = time.monotonic() + 60
            while server.metric('vex_requests_in_flight{listener="public"}') < len(clients) / 2:
                self.assertLess(time.monotonic(), deadline)
            started = time.monotonic()
            self.assertEqual(server.stop(), 0)
            took = time.monotonic() - started
            for client in clients:
                client.join()
            self.assertNotIn("Traceback", server.log.read_text())
        self.assertLess(took, SOON_SECONDS)


def _ask_on(server: Server, path: str) -> None:
    """Ask for a page again and again, until there is nobody to ask."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        while True:
            with contextlib.closing(http.client.HTTPConnection(*server.addresses["public"], timeout=60)) as connection:
                connection.request("GET", path)
                connection.getresponse().read()


class Leaving(PagesTestCase):
    def test_who_leaves_while_a_large_manifest_is_waited_for_frees_both_places(self) -> None:
        digest = self.push_image("app", "v1", annotations={"key": "x" * 300_000}).digest
        for path in (f"/r/app/m/{digest}/", f"/r/app/m/{digest}/json/", f"/r/app/m/{digest}/image.tar"):
            # Here when it comes, and when it is given a turn at a page.
            looks = itertools.chain((False, False), itertools.repeat(True))
            with self.work.large_manifests.take(_here), self.assertRaises(Disconnected):
                self.respond(path, left=functools.partial(next, looks))
        for turns in (self.work.pages, self.work.large_manifests):
            self.assert_free(turns)

    def assert_free(self, turns: Turns) -> None:
        """Check that a turn can be had at once: who has to wait is looked after again and again."""
        looks = iter((False, True))
        with turns.take(functools.partial(next, looks)):
            self.assertEqual(list(looks), [True])

    def test_all_kinds_of_work_end_together(self) -> None:
        work = HeavyWork()
        work.end()
        for turns in (work.pages, work.layers, work.lists, work.large_manifests):
            with self.assertRaisesRegex(Exception, "about to end"), turns.take(_here):
                self.fail("there was a turn")


def _here() -> bool:
    return False


if __name__ == "__main__":
    unittest.main()
