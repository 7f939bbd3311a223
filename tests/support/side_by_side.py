"""Runs test classes side by side, in as many processes as there are processors, under any runner of `unittest`.

A class runs in one process from its set-up to its end, and while no other class runs if it says `alone = True`. Its
process sends what each test tells its result, and the result of the runner is told the same, by one test after the
other.
"""

# ruff: noqa: N802 -- the names of unittest

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import unittest
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

# Each test may have servers and clients of its own.
_MAX_PROCESSES = 4
_END_SECONDS = 10


class SideBySide(unittest.TestSuite):
    """Test classes of modules, to be run side by side."""

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        """Run them, those last that have to be alone."""
        classes = [list(tests) for _, tests in itertools.groupby(_flat(self), type)]
        count = min(_processors(), _MAX_PROCESSES, len(classes))
        if count < 2:
            return super().run(result, debug)
        shared: deque[list[str]] = deque()
        alone: deque[list[str]] = deque()
        for tests in classes:
            if type(tests[0]).__module__.startswith("unittest."):
                # A module that cannot be imported, or that skips itself.
                unittest.TestSuite(tests).run(result)
            else:
                (alone if getattr(tests[0], "alone", False) else shared).append([test.id() for test in tests])
        with _processes(count, result.buffer, result.tb_locals) as processes:
            # What tests print is printed there.
            result.buffer = False
            _share(shared, processes, result)
            _share(alone, processes[:1], result)
        return result


def _flat(suite: Iterable[Any]) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class _Process(NamedTuple):
    """A process that runs the classes that it is sent."""

    process: SpawnProcess
    channel: Connection[Any, Any]


@contextlib.contextmanager
def _processes(count: int, buffer: bool, tb_locals: bool) -> Iterator[list[_Process]]:
    """Have processes for a block, which end by themselves when it ends in order."""
    context = multiprocessing.get_context("spawn")
    processes = []
    for _ in range(count):
        channel, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, buffer, tb_locals))
        process.start()
        theirs.close()
        processes.append(_Process(process, channel))
    try:
        yield processes
    finally:
        for _, channel in processes:
            channel.close()
        for process, _ in processes:
            process.join(_END_SECONDS)
            if process.is_alive():
                # Who presses Ctrl-C interrupts all of them; who signals one process does not.
                os.kill(process.pid or 0, signal.SIGINT)
                process.join()


def _share(classes: deque[list[str]], processes: list[_Process], result: unittest.TestResult) -> None:
    """Have processes run classes until there are none left, or the result wants no more."""
    idle = [channel for _, channel in processes]
    busy: dict[Connection[Any, Any], list[str]] = {}
    while busy or (classes and not result.shouldStop):
        while idle and classes and not result.shouldStop:
            channel = idle.pop()
            busy[channel] = classes.popleft()
            channel.send(busy[channel])
        for channel in busy.keys() & wait(list(busy)):
            try:
                told = channel.recv()
            except EOFError:
                if result.shouldStop:
                    return
                raise ChildProcessError(f"a process ended while it ran {busy[channel]}") from None
            if told is None:
                idle.append(channel)
                del busy[channel]
            elif not result.shouldStop:
                for method, test, *rest in told:
                    getattr(result, method)(test, *rest)


class _Test:
    """A test of another process, as results look at one."""

    failureException = AssertionError

    def __init__(self, test: unittest.TestCase) -> None:
        self._id, self._text, self._description = test.id(), str(test), test.shortDescription()

    def id(self) -> str:
        """Return the name under which the test can be run."""
        return self._id

    def shortDescription(self) -> str | None:
        """Return the first line of its docstring."""
        return self._description

    def __str__(self) -> str:
        return self._text


class _Teller(unittest.TestResult):
    """Sends what a test told when the test has ended: calls of methods of a result, with texts for what was raised."""

    def __init__(self, channel: Connection[Any, Any]) -> None:
        super().__init__()
        self._channel = channel
        self._told: list[tuple[Any, ...]] = []

    def send(self) -> None:
        """Send what was told since the last time."""
        self._channel.send(self._told)
        self._told = []

    def _tell(self, method: str, test: unittest.TestCase, *details: object) -> None:
        self._told.append((method, _Test(test), *details))

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._tell("startTest", test)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._tell("stopTest", test)
        self.send()

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._tell("addSuccess", test)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._tell("addSkip", test, reason)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._tell("addUnexpectedSuccess", test)

    def addDuration(self, test: unittest.TestCase, elapsed: float) -> None:
        self._tell("addDuration", test, elapsed)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self._tell("addError", test, _raised(self.errors))

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self._tell("addFailure", test, _raised(self.failures))

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self._tell("addExpectedFailure", test, _raised(self.expectedFailures))

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            (self.addFailure if issubclass(err[0], AssertionError) else self.addError)(subtest, err)


def _raised(errors: list[tuple[Any, str]]) -> tuple[type[Exception], Exception, None]:
    """Make what stands for an exception of another process, which tells all of it."""
    return Raised, Raised(f"in another process\n\n{errors[-1][1]}"), None


class Raised(Exception):
    """What a test in another process raised."""


def _work(channel: Connection[Any, Any], buffer: bool, tb_locals: bool) -> None:
    """Run the classes that come, each as the names of its tests, until there are no more."""
    if not sys.warnoptions:
        # As the runner of the standard library does.
        warnings.simplefilter("default")
    result = _Teller(channel)
    result.buffer, result.tb_locals = buffer, tb_locals
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            unittest.defaultTestLoader.loadTestsFromNames(channel.recv()).run(result)
            result.send()
            channel.send(None)
