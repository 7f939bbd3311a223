"""Turns at heavy work: how many at once, in which order, and when they end."""

from __future__ import annotations

import contextlib
import threading
import time
import unittest
from collections.abc import Iterator
from typing import Callable

from vex.errors import BUSY, Disconnected, RegistryError
from vex.http.turns import HeavyWork, Turn, Turns

WORK_SECONDS = 0.02


def here() -> bool:
    """Be a client that waits for its answer."""
    return False


class Worker(threading.Thread):
    """Takes a turn, and holds it until it is told to let go."""

    def __init__(self, turns: Turns, begun: list[int], number: int = 0) -> None:
        super().__init__(daemon=True)
        self.turns, self.begun, self.number = turns, begun, number
        self.looks = 0
        self.waits, self.has, self.may_end = threading.Event(), threading.Event(), threading.Event()

    def left(self) -> bool:
        """Be there; asked once at the beginning, and then by who waits."""
        self.looks += 1
        if self.looks > 1:
            self.waits.set()
        return False

    def run(self) -> None:
        """Take a turn and hold it."""
        with self.turns.take(self.left):
            self.begun.append(self.number)
            self.has.set()
            self.may_end.wait(10)


class TurnsTests(unittest.TestCase):
    @contextlib.contextmanager
    def held(self, turns: Turns, count: int = 1) -> Iterator[list[Worker]]:
        """Have that many workers hold turns."""
        workers = [Worker(turns, []) for _ in range(count)]
        try:
            for worker in workers:
                worker.start()
                self.assertTrue(worker.has.wait(10))
            yield workers
        finally:
            for worker in workers:
                worker.may_end.set()
                worker.join(10)

    def refused(self, turns: Turns) -> RegistryError:
        """Ask for a turn, and be refused."""
        with self.assertRaises(RegistryError) as caught, turns.take(here):
            self.fail("there was a turn")
        return caught.exception

    def test_two_work_at_once_and_a_third_waits_for_one_of_them(self) -> None:
        turns = Turns()
        with self.held(turns, 2) as workers:
            third = Worker(turns, [])
            third.start()
            self.assertTrue(third.waits.wait(10))
            self.assertFalse(third.has.is_set())
            workers[0].may_end.set()
            self.assertTrue(third.has.wait(10))
            third.may_end.set()
            third.join(10)

    def test_turns_are_given_in_the_order_of_asking(self) -> None:
        turns = Turns(at_once=1)
        begun: list[int] = []
        with self.held(turns):
            waiting = [Worker(turns, begun, number) for number in range(3)]
            for worker in waiting:
                worker.may_end.set()
                worker.start()
                self.assertTrue(worker.waits.wait(10))
        for worker in waiting:
            worker.join(10)
        self.assertEqual(begun, [0, 1, 2])

    def test_past_the_queue_one_is_told_to_come_back(self) -> None:
        turns = Turns(at_once=1, places=0)
        with self.held(turns):
            error = self.refused(turns)
        self.assertEqual((error.kind, error.kind.status, dict(error.headers)), (BUSY, 503, {"Retry-After": "10"}))
        with turns.take(here):
            pass

    def test_nobody_waits_longer_than_the_patience_allows(self) -> None:
        turns = Turns(at_once=1, patience=0)
        with self.held(turns):
            self.assertIs(self.refused(turns).kind, BUSY)
        with turns.take(here):
            pass

    def test_who_leaves_the_queue_holds_up_nobody(self) -> None:
        turns = Turns(at_once=1, places=1)
        answers = iter([False, True])
        with self.held(turns), self.assertRaises(Disconnected), turns.take(lambda: next(answers)):
            self.fail("there was a turn")
        with self.held(turns):
            pass

    def test_work_ends_when_the_client_has_left(self) -> None:
        turns = Turns(at_once=1)
        gone = threading.Event()
        with self.assertRaises(Disconnected), turns.take(gone.is_set) as turn:
            gone.set()
            while True:
                turn.step()
        with turns.take(here):
            pass

    def test_one_who_is_alone_rests_as_long_as_it_works_and_four_rest_much_longer(self) -> None:
        work = HeavyWork()
        with work.pages.take(here) as turn:
            self.assertGreater(self.rested(turn, turn.step), 0.9)
            with self.held(work.pages), self.held(work.layers, 2):
                self.assertGreater(self.rested(turn, turn.step), 9)
                self.assertGreater(self.rested(turn, turn.resume), 5)

    def rested(self, turn: Turn, told: Callable[[], None]) -> float:
        """Work for a while in small pieces, each of which the turn is told of; returns how many times as long it
        rested.
        """
        started, used = time.monotonic(), time.thread_time()
        while time.thread_time() - used < WORK_SECONDS:
            told()
        worked = time.thread_time() - used
        return (time.monotonic() - started - worked) / worked

    def test_at_the_end_nobody_works_waits_or_begins(self) -> None:
        turns = Turns(at_once=1)
        with self.assertRaises(RegistryError) as caught, turns.take(here) as turn:
            turns.end()
            while True:
                turn.step()
        self.assertEqual(caught.exception.kind.status, 503)
        self.refused(turns)
