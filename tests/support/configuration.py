"""A configuration that a test writes, and what is said of it."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from vex.errors import Failure
from vex.settings.config import Config
from vex.settings.file import load


class ConfigTestCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / "vex.conf"

    def load(self, content: str | bytes, **flags: str) -> Config:
        self.path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load(self.path, {name.replace("_", "-"): text for name, text in flags.items()})

    def refused(self, content: str | bytes, *words: str, **flags: str) -> str:
        """Check that loading fails with one line that holds all words."""
        with self.assertRaises(Failure) as caught:
            self.load(content, **flags)
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        for word in words:
            self.assertIn(word, message)
        return message
