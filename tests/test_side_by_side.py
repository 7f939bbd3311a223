"""Running tests side by side tells the same as running them in one process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from tests.support.server import TOP

_PACKAGE = """\
import os, sys, pathlib
def load_tests(loader, _tests, pattern):
    found = loader.discover(str(pathlib.Path(__file__).parent), pattern or "test*.py")
    if os.environ.get("ONE_PROCESS"):
        return found
    from tests.support.side_by_side import SideBySide
    return SideBySide([found])
"""
_HEAD = """\
import os, pathlib, time, unittest
"""
_KINDS = """\
class Broken(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise ValueError("no set-up")
    def test_never(self):
        pass
class Skipped(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise unittest.SkipTest("nothing here")
    def test_never(self):
        pass
class Kinds(unittest.TestCase):
    def test_right(self):
        '''It has a description.'''
    def test_failure(self):
        self.assertEqual(1, 2, "not one")
    def test_error(self):
        print("printed")
        {}["missing"]
    def test_skip(self):
        self.skipTest("not today")
    @unittest.expectedFailure
    def test_expected(self):
        self.fail()
    @unittest.expectedFailure
    def test_unexpected(self):
        pass
    def test_parts(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertEqual(number, 1)
class Last(unittest.TestCase):
    alone = True
    def test_right(self):
        pass
"""
_BESIDE = """\
def meet(mine, other):
    pathlib.Path(mine).touch()
    until = time.monotonic() + 60
    while not pathlib.Path(other).exists():
        assert time.monotonic() < until, f"no {other}"
        time.sleep(0.01)
class A(unittest.TestCase):
    alone = True
    def test_all_others_have_ended(self):
        self.assertTrue(pathlib.Path("left").exists() and pathlib.Path("right").exists())
class B(unittest.TestCase):
    def test_left(self):
        meet("left", "right")
class C(unittest.TestCase):
    def test_right(self):
        meet("right", "left")
"""
_ENDS = """\
class Ends(unittest.TestCase):
    def test_end(self):
        os._exit(3)
class Other(unittest.TestCase):
    def test_right(self):
        pass
"""
_WAITS = """\
class Waits(unittest.TestCase):
    def test_long(self):
        pathlib.Path("waits").write_text(str(os.getpid()))
        time.sleep(60)
class Other(unittest.TestCase):
    def test_right(self):
        pass
"""


@unittest.skipIf((os.cpu_count() or 1) < 2, "needs two processors")
class SideBySideTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        (self.directory / "sample").mkdir()
        (self.directory / "sample" / "__init__.py").write_text(_PACKAGE)

    def start(self, text: str, *flags: str, **environment: str) -> subprocess.Popen[str]:
        """Have unittest run a module of this text."""
        (self.directory / "sample" / "test_sample.py").write_text(_HEAD + text)
        return subprocess.Popen(
            [sys.executable, "-m", "unittest", *flags],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(TOP), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def told(self, text: str, *flags: str, **environment: str) -> tuple[list[str], int]:
        """Return what is told of the tests, without what was raised and how long it took, and the exit code."""
        with self.start(text, *flags, **environment) as process:
            output = process.communicate(timeout=120)[0]
        found = re.findall(r"^(?:(?:FAIL|ERROR|UNEXPECTED SUCCESS): .*|Ran \d+ tests?|OK.*|FAILED .*)", output, re.M)
        raised = re.findall(r"^(?:\w*Error: .*|Stdout:)$", output, re.MULTILINE)
        return sorted(found + raised), process.returncode

    def test_results_are_those_of_one_process(self) -> None:
        for flags in (("-v", "-b"), ("-k", "test_parts", "-k", "test_right")):
            with self.subTest(flags):
                told = self.told(_KINDS, *flags)
                self.assertEqual(told, self.told(_KINDS, *flags, ONE_PROCESS="1"))
                self.assertEqual(told[1], 1)

    def test_classes_run_side_by_side_and_those_that_are_alone_behind_them(self) -> None:
        self.assertEqual(self.told(_BESIDE), (["OK", "Ran 3 tests"], 0))

    def test_a_process_that_ends_is_an_error(self) -> None:
        told, code = self.told(_ENDS)
        self.assertEqual((code, [line.partition(":")[0] for line in told]), (1, ["ChildProcessError"]))
        self.assertIn("sample.test_sample.Ends.test_end", told[0])

    def test_an_interrupt_ends_all(self) -> None:
        # Whoever runs the tests may ignore it, as a shell has those do that it runs in the background; the processes
        # would inherit that.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        with self.start(_WAITS) as process:
            until = time.monotonic() + 60
            while not (self.directory / "waits").exists() or not (self.directory / "waits").read_text():
                self.assertLess(time.monotonic(), until)
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=30)
        self.assertNotEqual(process.returncode, 0)
        with self.assertRaises(ProcessLookupError):
            os.kill(int((self.directory / "waits").read_text()), 0)


if __name__ == "__main__":
    unittest.main()
