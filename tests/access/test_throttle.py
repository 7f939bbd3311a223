"""Who is refused after failed logins, who is verified first, and what of it is logged: in parallel, through the clock,
and by time.
"""

from __future__ import annotations

import http.client
import logging
import threading
import time
import unittest
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support.in_process import directory_in_memory
from tests.support.logs import lines_of
from tests.support.raw import basic
from tests.support.server import PASSWORD, USER, Server, ServerTestCase, running
from vex.access.attempts import Attempt, Attempts
from vex.access.users import Users
from vex.errors import TOOMANYREQUESTS, UNAUTHORIZED, RegistryError
from vex.storage.database import Database

HERE, THERE = "192.0.2.1", "192.0.2.2"
WRONG = "wrong password"
YEAR = 365 * 24 * 3600


class UsersCase(unittest.TestCase):
    """Users in a database of their own, ten failures a minute; tests set the time that has passed, `now`."""

    def setUp(self) -> None:
        context = directory_in_memory()
        self.addCleanup(context.__exit__, None, None, None)
        self.database = Database(Path(context.__enter__(), "vex.db"))
        self.addCleanup(self.database.close)
        self.now = 1000.0
        self.wall = 1_700_000_000.0
        self.users = self.open()
        self.users.add(USER, PASSWORD)

    def open(self) -> Users:
        """Begin with nothing in memory, as a start does."""
        return Users(self.database, failures_per_minute=10, clock=lambda: self.wall, monotonic=lambda: self.now)

    def outcome(self, name: str, password: str, address: str = HERE) -> str:
        """Try a login; returns the code of its failure, "" if it was right."""
        try:
            self.users.check(name, password, address)
        except RegistryError as error:
            return error.kind.code
        return ""

    def outcomes(self, logins: list[tuple[str, str]]) -> list[str]:
        """Try logins at the same moment."""
        gate = threading.Barrier(len(logins))

        def log_in(login: tuple[str, str]) -> str:
            gate.wait()
            return self.outcome(*login)

        with ThreadPoolExecutor(len(logins)) as pool:
            return list(pool.map(log_in, logins))


class InParallel(UsersCase):
    """What is tried at the same moment."""

    def test_the_limit_holds_for_different_passwords(self) -> None:
        outcomes = self.outcomes([(USER, f"wrong password {number}") for number in range(40)])
        self.assertEqual((outcomes.count(UNAUTHORIZED.code), outcomes.count(TOOMANYREQUESTS.code)), (10, 30))

    def test_the_limit_holds_for_the_same_password(self) -> None:
        outcomes = self.outcomes([(USER, WRONG)] * 40)
        self.assertEqual((outcomes.count(UNAUTHORIZED.code), outcomes.count(TOOMANYREQUESTS.code)), (10, 30))

    def test_the_right_password_on_more_connections_than_the_limit_is_never_refused(self) -> None:
        self.assertEqual(set(self.outcomes([(USER, PASSWORD)] * 40)), {""})
        self.assertEqual([self.outcome(USER, WRONG) for _ in range(10)], [UNAUTHORIZED.code] * 10)


class Waiting(UsersCase):
    """The right password after others have failed."""

    def test_it_is_verified_after_one_part_of_the_minute_whatever_was_tried(self) -> None:
        self.outcomes([(USER, f"wrong password {number}") for number in range(100)])
        self.assertEqual(self.outcome(USER, PASSWORD), TOOMANYREQUESTS.code)
        self.now += 6
        self.assertEqual(self.outcome(USER, PASSWORD), "")

    def test_one_attempt_in_each_part_of_the_minute_goes_through_and_no_more(self) -> None:
        tried = []
        for _ in range(30):
            tried.append([self.outcome(USER, WRONG) for _ in range(15)].count(UNAUTHORIZED.code))
            self.now += 6
        self.assertEqual(tried, [10] + [1] * 29)

    def test_a_lower_limit_does_not_refuse_for_longer_than_its_own_part(self) -> None:
        self.outcomes([(USER, f"wrong password {number}") for number in range(10)])
        self.users.limit_failures(2)
        self.now += 30
        self.assertEqual(self.outcome(USER, PASSWORD), "")


class Clocks(UsersCase):
    """A clock that was wrong for a moment."""

    def test_a_wrong_login_while_it_was_ahead_does_not_lock_its_user_out(self) -> None:
        self.wall += YEAR
        for _ in range(12):
            self.outcome(USER, WRONG)
        self.wall -= YEAR
        self.now += 6
        self.assertEqual(self.outcome(USER, PASSWORD), "")

    def test_a_clock_that_is_set_does_not_forget_failures(self) -> None:
        for _ in range(10):
            self.outcome(USER, WRONG)
        self.wall += YEAR
        self.assertEqual(self.outcome(USER, WRONG), TOOMANYREQUESTS.code)

    def test_a_clock_that_goes_back_does_not_prolong_what_is_remembered(self) -> None:
        self.assertEqual(self.outcome(USER, PASSWORD), "")
        with self.database.write() as tx:
            tx.execute("UPDATE user SET hash = zeroblob(32)")
        self.wall -= YEAR
        self.now += 301
        self.assertEqual(self.outcome(USER, PASSWORD), UNAUTHORIZED.code)


class LongNames(UsersCase):
    """Names that are longer than the longest allowed."""

    def test_they_count_as_one_name_which_nobody_has(self) -> None:
        names = [chr(ord("a") + number) * 3000 for number in range(12)]
        outcomes = [self.outcome(name, PASSWORD) for name in names]
        self.assertEqual(outcomes, [UNAUTHORIZED.code] * 10 + [TOOMANYREQUESTS.code] * 2)
        self.assertEqual(self.outcome("b" * 64, PASSWORD), UNAUTHORIZED.code)

    def test_they_cost_the_time_of_others(self) -> None:
        self.users.limit_failures(1_000_000)
        ratios = []
        for number in range(10):
            took = {}
            for name in (USER, "n" * 3000) if number % 2 else ("n" * 3000, USER):
                started = time.thread_time()
                self.outcome(name, WRONG)
                took[name] = time.thread_time() - started
            ratios.append(took["n" * 3000] / took[USER])
        self.assertLess(abs(sorted(ratios)[5] - 1), 0.15, ratios)


class Order(unittest.TestCase):
    """Turns of attempts that wait, with verifications that tests let end."""

    def setUp(self) -> None:
        self.attempts = Attempts()
        self.verifying = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.verified: list[str] = []
        self.answered: list[str] = []
        self.threads: list[threading.Thread] = []

    def attempt(self, name: str, address: str = HERE, *, exists: bool = False, right: bool = False) -> None:
        """Send a login that waits, behind those that were sent before."""

        def verify() -> bool:
            self.verified.append(name)
            self.verifying.release()
            self.may_end.acquire()
            return right

        attempt = Attempt(address, exists=exists, verify=verify)

        def run() -> None:
            self.attempts.verify(attempt)
            self.answered.append(name)

        waiting = len(self.attempts._waiting.get(address, ()))
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
        while len(self.attempts._waiting.get(address, ())) == waiting:
            time.sleep(0.001)

    def finish(self, count: int) -> None:
        """Let verifications end, one after another, and wait for the answer that each gives."""
        for number in range(1, count + 1):
            self.verifying.acquire()
            self.assertEqual(len(self.answered), number - 1, "no answer without a verification")
            self.may_end.release()
            self._wait_for_answers(number)
        for thread in self.threads:
            thread.join(20)
            self.assertFalse(thread.is_alive())

    def _wait_for_answers(self, number: int) -> None:
        # Whose answer is known is one thing, when the system lets its thread run is another.
        until = time.monotonic() + 20
        while len(self.answered) < number:
            self.assertLess(time.monotonic(), until, f"no answer number {number}")
            time.sleep(0.001)

    def test_a_right_login_waits_for_one_verification_behind_any_number_of_guesses(self) -> None:
        for number in range(20):
            self.attempt(f"nobody-{number}")
        self.attempt(USER, exists=True, right=True)
        self.finish(21)
        self.assertEqual(self.verified[:2], ["nobody-0", USER])
        self.assertLess(self.answered.index(USER), 2)

    def test_wrong_logins_are_answered_in_their_order_whether_their_names_exist_or_not(self) -> None:
        names = [f"{'user' if number % 3 else 'nobody'}-{number}" for number in range(12)]
        for name in names:
            self.attempt(name, exists=name.startswith("user"))
        for count in range(1, 13):
            self.verifying.acquire()
            self.assertEqual(len(self.answered), count - 1, "one answer for each verification, and none before")
            self.may_end.release()
            self.threads[count - 1].join(20)
        self.assertEqual(self.answered, names)
        self.assertEqual(len(self.verified), 12)

    def test_addresses_take_turns(self) -> None:
        for number in range(10):
            self.attempt(f"here-{number}")
        self.attempt("there-0", THERE)
        self.attempt("there-1", THERE)
        self.finish(12)
        self.assertEqual(self.answered[:5], ["here-0", "there-0", "here-1", "there-1", "here-2"])

    def test_names_that_exist_take_turns_by_address(self) -> None:
        self.attempt("nobody")
        for number in range(5):
            self.attempt(f"here-{number}", exists=True)
        self.attempt(USER, THERE, exists=True, right=True)
        self.finish(7)
        self.assertLessEqual(self.verified.index(USER), 2)

    def test_an_attempt_that_cannot_be_verified_does_not_keep_the_others(self) -> None:
        def fail() -> bool:
            raise MemoryError

        self.attempt("nobody")
        failing = Attempt(HERE, exists=False, verify=fail)
        raised = []

        def run() -> None:
            try:
                self.attempts.verify(failing)
            except MemoryError as error:
                raised.append(error)

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
        while len(self.attempts._waiting[HERE]) == 1:
            time.sleep(0.001)
        self.attempt("behind")
        self.finish(2)
        self.assertEqual((self.answered, len(raised)), (["nobody", "behind"], 1))


class Guesses(unittest.TestCase):
    """A server while 120 connections guess."""

    def test_a_first_login_waits_for_a_few_of_the_guesses(self) -> None:
        with running("--auth-connections", "130") as server:
            alone = self._seconds(server, {"Authorization": basic("nobody", WRONG)}, 401)
            with self.guessing(server.addresses["auth"], 120):
                beside = self._seconds(server, {}, 200)
        self.assertLess(beside, 40 * alone, "it waited behind the guesses")

    def _seconds(self, server: Server, headers: dict[str, str], status: int) -> float:
        started = time.monotonic()
        self.assertEqual(server.auth.request("GET", "/v2/", headers=headers).status, status)
        return time.monotonic() - started

    @contextmanager
    def guessing(self, address: tuple[str, int], count: int) -> Iterator[None]:
        """Have connections with names that nobody has wait for their verification, for a block."""
        connections = []
        for number in range(count):
            connection = http.client.HTTPConnection(*address, timeout=60)
            connection.request("GET", "/v2/", headers={"Authorization": basic(f"nobody-{number}", WRONG)})
            connections.append(connection)
        # The first answer tells that those that were sent are being worked on.
        connections[0].getresponse().read()
        try:
            yield
        finally:
            for connection in connections:
                connection.close()


class Log(ServerTestCase):
    """What refused logins write."""

    flags = ("--failed-logins", "2")

    def test_refusals_are_one_line_when_they_begin(self) -> None:
        with closing(http.client.HTTPConnection(*self.server.addresses["auth"], timeout=60)) as connection:
            statuses = []
            for _ in range(300):
                connection.request("GET", "/v2/", headers={"Authorization": basic("eve", WRONG)})
                response = connection.getresponse()
                response.read()
                statuses.append(response.status)
        self.assertEqual((statuses.count(401), statuses.count(429)), (2, 298))
        lines = [line["message"] for line in lines_of(self.server.log) if line.get("user") == "eve"]
        self.assertEqual(lines, ["login failed"] * 3)


class LogOverTime(UsersCase):
    """Lines of refused logins, with the clock of a test."""

    def refuse(self, count: int) -> list[str]:
        """Have logins refused; returns what was logged."""
        with self.assertLogs("vex", "INFO") as logged:
            self.users.log_refusals()
            for _ in range(count):
                self.assertEqual(self.outcome(USER, WRONG), TOOMANYREQUESTS.code)
            # Before Python 3.10 nothing cannot be expected.
            logging.getLogger("vex").info("the end")
        return [
            f"{record.getMessage()} {record.__dict__.get('fields', {}).get('number', '')}".strip()
            for record in logged.records[:-1]
        ]

    def test_there_is_one_line_a_minute_with_a_number_while_it_goes_on_and_one_after_it(self) -> None:
        for _ in range(10):
            self.outcome(USER, WRONG)
        self.assertEqual(self.refuse(50), ["login failed"])
        self.now += 1
        self.assertEqual(self.refuse(50), [])
        for number in (99, 100, 100):
            self.now += 60
            for _ in range(10):
                self.outcome(USER, WRONG)
            self.assertEqual(self.refuse(100), [f"logins refused {number}"])
        self.now += 60
        self.assertEqual(self.refuse(0), ["logins refused 100"])
        self.now += 60
        self.assertEqual(self.refuse(0), [])
        for _ in range(10):
            self.outcome(USER, WRONG)
        self.assertEqual(self.refuse(2), ["login failed"])


if __name__ == "__main__":
    unittest.main()
