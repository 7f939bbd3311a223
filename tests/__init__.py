"""The tests; `python3 -m unittest` at the top runs all of them, side by side."""

from __future__ import annotations

import unittest
from pathlib import Path

from tests.support.side_by_side import SideBySide


def load_tests(loader: unittest.TestLoader, _tests: unittest.TestSuite, pattern: str | None) -> unittest.TestSuite:
    """Find the tests in all rooms, as the standard library has a package do."""
    return SideBySide([loader.discover(str(Path(__file__).parent), pattern or "test*.py")])
