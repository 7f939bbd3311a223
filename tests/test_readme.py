"""The README and the manual name only commands and keys that exist, and show the configuration that `vex describe`
prints.
"""

from __future__ import annotations

import re
import subprocess
import unittest

from tests.support.manual import PAGES, README, TEXT, blocks
from tests.support.server import TOP, vex
from vex.commands import arguments
from vex.settings.config import KEYS
from vex.settings.file import describe
from vex.settings.sections import KINDS

COMMANDS = sorted(set(re.findall(r"(?:python3 vex\.pyz?|`vex) ([a-z]+(?: (?:add|password|list|delete))?)", TEXT)))
KEY_LINES = set(re.findall(r"`([a-z-]+) = ", TEXT)) | set(
    re.findall(r"^#?([a-z-]+) =", "".join(blocks("")), re.MULTILINE)
)
_OF_OTHERS = {"--cacert", "--hosts-dir"}
# The benchmark has flags of its own.
_OF_VEX = "".join(text for name, text in PAGES.items() if name != "benchmark")


class ReadmeTest(unittest.TestCase):
    def test_every_command_that_it_names_exists(self) -> None:
        self.assertGreaterEqual(len(COMMANDS), 8, COMMANDS)
        for command in COMMANDS:
            with self.subTest(command):
                result = vex(*command.split(), "--help")
                self.assertEqual(result.returncode, 0, result.stderr)

    def test_every_key_that_it_names_exists(self) -> None:
        of_sections = {key.name for kind in KINDS for key in kind.keys}
        self.assertEqual(KEY_LINES, {key.name for key in KEYS} | of_sections)

    def test_every_flag_that_it_names_exists(self) -> None:
        flags = set(re.findall(r"`(--[a-z-]+)[ `]", README.partition("## Benchmark")[0] + _OF_VEX)) - _OF_OTHERS
        self.assertIn("--config", flags)
        known = {
            one.name for row in arguments.ROWS.values() for one in (*row.arguments, *arguments.COMMANDS.everywhere)
        } | {"--help"}
        for flag in flags:
            with self.subTest(flag):
                self.assertIn(flag, known)

    def test_it_shows_the_configuration_as_described(self) -> None:
        self.assertIn(f"```\n{describe()}```\n", TEXT)

    def test_its_map_names_every_room(self) -> None:
        inside = README.partition("## Inside")[2].partition("## Tests")[0]
        rooms = {path.parent.name for path in (TOP / "vex").glob("*/__init__.py")}
        self.assertLessEqual(rooms, set(re.findall(r"^\| `([a-z]+)/` \|", inside, re.MULTILINE)))

    def test_the_test_command_is_the_one_of_continuous_integration(self) -> None:
        self.assertIn("python3 -m unittest\n", README)
        self.assertIn("python3 -m unittest\n", (TOP / ".ci" / "run").read_text(encoding="utf-8"))

    def test_the_shell_blocks_are_shell(self) -> None:
        found = blocks("sh")
        self.assertGreaterEqual(len(found), 4)
        for block in found:
            result = subprocess.run(["sh", "-n"], input=block, capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, 0, result.stderr)
