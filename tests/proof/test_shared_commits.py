"""Pushes that share a commit, or a sync of names, of which one breaks: the server is killed between their parts or in
the commit, or a statement of theirs fails, or a client has gone; and each was told the truth.

That they share one is no chance: the commit before theirs is held until they wait for it, and what is done with theirs
begins with the last of them in it.
"""

from __future__ import annotations

import http.client
import itertools
import socket
import threading
import time
import unittest
from pathlib import Path
from typing import Callable

from tests.proof.crash.clients import tag_target
from tests.proof.crash.content import image_of
from tests.proof.crash.journal import Journal
from tests.proof.crash.oracle import losses
from tests.proof.crash.points import HOLD, KILL, Trap
from tests.proof.crash.scenarios import REPOSITORY, Refused, Session
from tests.proof.crash.server import TrapServer
from tests.support.in_process import directory_in_memory
from tests.support.raw import basic
from tests.support.server import OCI_MANIFEST, PASSWORD, USER, digest_of

MEMBERS = 4
# Where the scheduler has some of them come too late, it is done again.
_ATTEMPTS = 20
_SECONDS = 20
_CLOSED = 0


class Member(threading.Thread):
    """A client that points a tag of its own at an image whose blobs are there; `status` is what it was told."""

    def __init__(self, server: TrapServer, journal: Journal, seed: str) -> None:
        super().__init__(daemon=True)
        self.seed = seed
        self.tag = seed.replace(" ", "-")
        self.session = Session(server, journal, _SECONDS, seed)
        self.status = _CLOSED

    def run(self) -> None:
        try:
            self.session.change_tag(self.tag, self.seed, 201)
            self.status = 201
        except Refused as refused:
            self.status = refused.answer.status
        except (OSError, http.client.HTTPException):
            pass  # the server is gone


@unittest.skipUnless(Path("/proc/self/fd").exists(), "needs /proc, which Linux has")
class SharedCommitTest(unittest.TestCase):
    """One server for all, which is started again where it has to end."""

    server: TrapServer
    journal: Journal
    cases = itertools.count()

    @classmethod
    def setUpClass(cls) -> None:
        directory = directory_in_memory()
        cls.addClassCleanup(directory.cleanup)
        cls.journal = Journal(Path(directory.name) / "journal")
        cls.addClassCleanup(cls.journal.close)
        cls.server = TrapServer(Path(directory.name), "--shutdown-timeout", "1s")
        cls.addClassCleanup(cls.server.kill)
        cls.server.wait_for_housekeeping()

    def test_a_kill_between_parts_or_before_the_commit_leaves_nothing_of_which_nobody_was_told(self) -> None:
        for trap in (Trap("database insert", KILL), Trap("database release", KILL), Trap("database commit", KILL)):
            with self.subTest(trap=trap):
                members = self.share(trap)
                self.start_again()
                self.assertEqual([member.status for member in members], [_CLOSED] * MEMBERS)
                self.assertEqual(self.there(members), [])

    def test_a_kill_after_the_commit_leaves_all(self) -> None:
        members = self.share(Trap("database commit", KILL, after=True))
        self.start_again()
        self.assertEqual(self.there(members), members)

    def test_a_part_that_cannot_begin_or_end_is_refused_alone(self) -> None:
        for trap, status in (
            (Trap("database savepoint", "ENOMEM", nth=MEMBERS - 1), 503),
            (Trap("database savepoint", "ENOSPC", nth=MEMBERS - 1), 507),
            (Trap("database release", "ENOMEM"), 503),
        ):
            with self.subTest(trap=trap):
                members = self.share(trap)
                self.assertEqual(sorted(member.status for member in members), [*[201] * (MEMBERS - 1), status])
                self.assertEqual(self.there(members), [member for member in members if member.status == 201])
                self.assertEqual(losses(self.server, self.journal), [])

    def test_where_a_part_cannot_be_taken_back_those_before_it_are_refused_too(self) -> None:
        members = self.share(Trap("database rollback", "EIO"), lacking=True)
        self.assertEqual(sorted(member.status for member in members), [404, *[500] * (MEMBERS - 1)])
        self.assertEqual(self.there(members), [])
        self.assertEqual(losses(self.server, self.journal), [])

    def test_a_commit_without_space_refuses_all_and_the_next_succeed(self) -> None:
        members = self.share(Trap("database commit", "ENOSPC"))
        self.assertEqual([member.status for member in members], [507] * MEMBERS)
        self.assertEqual(self.there(members), [])
        self.assertEqual(losses(self.server, self.journal), [])

    def test_a_commit_that_fails_is_told_to_all_and_ends_the_server(self) -> None:
        for after in (False, True):
            with self.subTest(after=after):
                members = self.share(Trap("database commit", "EIO", after=after))
                self.assertLessEqual({member.status for member in members}, {500, 503, _CLOSED})
                self.assertEqual(self.server.process.wait(_SECONDS), 1)
                self.start_again()
                self.assertEqual(self.there(members), members if after else [])

    def test_a_client_that_has_gone_harms_no_other(self) -> None:
        members = self.share(Trap("nothing", KILL), gone=True)
        self.assertEqual([member.status for member in members], [201] * (MEMBERS - 1))
        self.assertEqual(self.there(members), members)
        self.wait_until(lambda: self.server.public.get(f"/v2/{REPOSITORY}/manifests/gone").status == 200)
        self.assertEqual(losses(self.server, self.journal), [])

    def test_a_sync_of_names_that_fails_is_told_to_all_who_share_it(self) -> None:
        contents = [b"synced %d" % number for number in range(MEMBERS + 1)]
        statuses: dict[bytes, int] = {}

        def push(content: bytes) -> None:
            path = f"/v2/{REPOSITORY}/blobs/uploads/?digest={digest_of(content)}"
            statuses[content] = self.server.auth.request("POST", path, content).status

        clients = [threading.Thread(target=push, args=(content,), daemon=True) for content in contents]
        self.server.points.arm(Trap("fsync blobs", HOLD))
        clients[0].start()
        self.wait_until(lambda: self.server.points.sprung > 0)
        for client in clients[1:]:
            client.start()
        self.wait_until(lambda: self.server.files() >= set(map(digest_of, contents)))
        self.server.points.arm(Trap("fsync blobs", "EIO"))
        for client in clients:
            client.join(_SECONDS)
        self.server.points.disarm()
        self.assertEqual(statuses[contents[0]], 201)
        # One that came a moment after its file had been renamed has a sync of its own.
        self.assertIn(500, statuses.values())
        self.assertLessEqual(set(statuses.values()), {201, 500})
        for content, status in statuses.items():
            found = self.server.auth.get(f"/v2/{REPOSITORY}/blobs/{digest_of(content)}")
            self.assertEqual(found.status, 200 if status == 201 else 404)
        self.assertEqual(losses(self.server, self.journal), [])

    def share(self, trap: Trap, *, lacking: bool = False, gone: bool = False) -> list[Member]:
        """Have clients share a commit, with a trap from its last part on; returns them when each has its answer. Of one
        the blobs are missing, or it is gone.
        """
        for _ in range(_ATTEMPTS):
            members = self.try_to_share(trap, lacking, gone)
            if self.server.points.sprung or gone:
                break
        else:
            self.fail(f"{trap} is not reached")
        self.server.points.disarm()
        return members

    def try_to_share(self, trap: Trap, lacking: bool, gone: bool) -> list[Member]:
        case = next(self.cases)
        first, *members = [Member(self.server, self.journal, f"case {case} {number}") for number in range(MEMBERS + 1)]
        for member in (first, *members[: MEMBERS - lacking]):
            member.session.push_blobs(member.seed)
        self.server.points.arm(Trap("database commit", HOLD))
        first.start()
        self.wait_until(lambda: self.server.points.sprung > 0)
        if gone:
            self.send_and_go(members.pop())
        for number, member in enumerate(members, 1):
            member.start()
            self.wait_until(lambda number=number: self.in_flight() > number + gone)  # type: ignore[misc]
        last = Trap("database savepoint", HOLD, nth=MEMBERS - 1)
        if trap.point == last.point:
            self.server.points.arm(trap)
        else:
            self.server.points.arm(last)
            self.wait_until(lambda: self.server.points.sprung > 0 or not any(map(Member.is_alive, members)))
            if self.server.points.sprung:
                self.server.points.arm(trap)
        for member in (first, *members):
            member.join(_SECONDS)
            self.assertFalse(member.is_alive(), "no answer")
        return members

    def in_flight(self) -> float:
        return self.server.metric('vex_requests_in_flight{listener="auth"}')

    def send_and_go(self, member: Member) -> None:
        """Push what a member pushes under another tag, and close the connection without waiting for the answer."""
        content = image_of(member.seed).manifest
        self.journal.add("intend", f"{member.seed} gone", f"{REPOSITORY}:gone", member.seed)
        head = [
            f"PUT /v2/{REPOSITORY}/manifests/gone HTTP/1.1",
            "Host: localhost",
            f"Authorization: {basic(USER, PASSWORD)}",
            f"Content-Type: {OCI_MANIFEST}",
            f"Content-Length: {len(content)}",
        ]
        with socket.create_connection(self.server.addresses["auth"], _SECONDS) as connection:
            connection.sendall("\r\n".join([*head, "", ""]).encode() + content)

    def there(self, members: list[Member]) -> list[Member]:
        """Return those whose tag points at their image."""
        return [
            member
            for member in members
            if tag_target(self.server.public, f"{REPOSITORY}:{member.tag}", {None, member.seed})[0]
        ]

    def start_again(self) -> None:
        self.server.process.wait(_SECONDS)
        self.server.kill()
        self.server.start()
        self.assertEqual(losses(self.server, self.journal), [])
        self.server.wait_for_housekeeping()

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _SECONDS
        while not holds():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)


if __name__ == "__main__":
    unittest.main()
