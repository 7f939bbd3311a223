"""The server is killed at random moments and at each named point while clients work, and keeps every promise that it
made.

VEX_TEST_KILLS says how many times, and VEX_TEST_SEED repeats the choices.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import time
import unittest
from pathlib import Path

from tests.proof.crash.clients import Clients
from tests.proof.crash.journal import Journal
from tests.proof.crash.oracle import disagreements, losses
from tests.proof.crash.points import KILL, Trap
from tests.proof.crash.server import TrapServer
from tests.support.in_process import directory_in_memory
from tests.support.server import digest_of, image

KILLS = int(os.environ.get("VEX_TEST_KILLS") or 6)
SEED = os.environ.get("VEX_TEST_SEED") or str(random.SystemRandom().randrange(10**9))
# Everything that changes files or the database, and what the answer comes behind.
POINTS = (
    "open uploads",
    "write uploads",
    "fsync uploads",
    "rename blobs",
    "open blobs",
    "fsync blobs",
    "database begin",
    "database insert",
    "database update",
    "database delete",
    "database commit",
    "rename uploads",
    "unlink uploads",
)
_REACH_SECONDS = 10.0


@unittest.skipUnless(Path("/proc/self/fd").exists(), "needs /proc, which Linux has")
class KillTest(unittest.TestCase):
    """Cycles of work, kill, restart and check, on one data directory."""

    def test_a_killed_server_has_kept_what_it_acknowledged_and_leaves_no_litter(self) -> None:
        choose = random.Random(SEED)
        traps = [Trap(point, KILL, after=after) for point in POINTS for after in (False, True)]
        choose.shuffle(traps)
        with self.subTest(VEX_TEST_SEED=SEED), directory_in_memory() as directory, contextlib.ExitStack() as ending:
            server = TrapServer(Path(directory), "--shutdown-timeout", "1s")
            ending.callback(server.kill)
            with contextlib.closing(Journal(Path(directory) / "journal")) as journal:
                for cycle in range(KILLS):
                    trap = traps[cycle // 2 % len(traps)]._replace(nth=choose.randrange(1, 20)) if cycle % 2 else None
                    self._crash(server, journal, trap, choose.uniform(0.02, 0.5), f"{SEED} {cycle}")
                    server.start()
                    self.assertEqual(
                        losses(server, journal), [], f"cycle {cycle}, killed at {trap or 'a random moment'}"
                    )
                    self.assertNotIn("Traceback", server.log.read_text())

    def _crash(self, server: TrapServer, journal: Journal, trap: Trap | None, seconds: float, seed: str) -> None:
        clients = Clients(server, journal, seed)
        clients.start()
        reached = server.kill_at(trap, _REACH_SECONDS) if trap else not server.kill_at(Trap("nowhere", KILL), seconds)
        clients.join()
        self.assertEqual(clients.failures, [])
        self.assertTrue(reached, f"{trap} is not reached")


@unittest.skipUnless(Path("/proc/self/fd").exists(), "needs /proc, which Linux has")
class KillDuringRemovalTest(unittest.TestCase):
    """A large index is removed in many transactions, and the server is killed before or after one of them."""

    def test_a_start_goes_on_with_a_removal_that_had_begun(self) -> None:
        with directory_in_memory() as directory, contextlib.ExitStack() as ending:
            server = TrapServer(Path(directory), "--pull-grace", "0", "--shutdown-timeout", "1s")
            ending.callback(server.kill)
            server.wait_for_housekeeping()
            for nth, after in ((1, True), (2, False), (4, True), (9, False)):
                with self.subTest(nth=nth, after=after):
                    self._push_index(server)
                    server.points.arm(Trap("database commit", KILL, nth=nth, after=after))
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        server.auth.request("DELETE", "/v2/app/manifests/1")
                    server.process.wait(_REACH_SECONDS)
                    server.points.disarm()
                    server.kill()
                    server.start()
                    self.assertEqual(server.public.get("/v2/app/manifests/1").status, 404)
                    self._wait_until_empty(server)
                    self.assertEqual(list(disagreements(server)), [])
                    self.assertEqual(server.files(), set())

    def _push_index(self, server: TrapServer) -> None:
        layers = [b"%d" % number for number in range(100)]
        for content in (b"{}", *layers):
            server.auth.push_blob("app", content)
        documents = [json.dumps(image(*layers, annotations={"number": str(number)})).encode() for number in range(30)]
        for document in documents:
            server.auth.push_manifest("app", "", document)
        server.auth.push_index("app", "1", [(digest_of(document), len(document)) for document in documents])

    def _wait_until_empty(self, server: TrapServer) -> None:
        deadline = time.monotonic() + 20
        while server.metric("vex_manifests"):
            self.assertLess(time.monotonic(), deadline, "it stands still")
