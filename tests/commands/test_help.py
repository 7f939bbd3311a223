"""`vex help`: the manual on a terminal and elsewhere, from the zipapp too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.support.registries import run_on_terminal
from tests.support.server import TOP, vex
from vex.web.manual import SUBJECTS

MANUAL = TOP / "vex" / "manual"
VEX = (sys.executable, str(TOP / "vex.py"))


class HelpTest(unittest.TestCase):
    def test_it_lists_every_subject_with_its_sentence(self) -> None:
        listed = vex("help").stdout
        for subject in SUBJECTS:
            _, sentence, _ = (MANUAL / f"{subject}.md").read_text(encoding="utf-8").split("\n\n", 2)
            self.assertRegex(listed, rf"(?m)^  {subject} +{re.escape(' '.join(sentence.split()))}$")

    def test_it_prints_a_page_as_it_is_written(self) -> None:
        for subject in SUBJECTS:
            printed = vex("help", subject)
            self.assertEqual(
                (printed.returncode, printed.stdout), (0, (MANUAL / f"{subject}.md").read_text(encoding="utf-8"))
            )

    def test_on_a_terminal_a_page_goes_through_the_pager(self) -> None:
        paged = run_on_terminal(
            *VEX, "help", SUBJECTS[0], environment={"PAGER": "tr a-z A-Z", "MANPAGER": "", "TERM": "xterm"}
        )
        expected = (
            (MANUAL / f"{SUBJECTS[0]}.md")
            .read_text(encoding="utf-8")
            .translate({ord(small): small.upper() for small in map(chr, range(97, 123))})
        )
        self.assertEqual(paged.replace("\r\n", "\n"), expected)

    def test_an_unknown_subject_says_which_there_are(self) -> None:
        for subject in ("nothing", "../manual/service", "service.md"):
            asked = vex("help", subject)
            self.assertEqual((asked.returncode, asked.stdout), (1, ""))
            for known in SUBJECTS:
                self.assertIn(known, asked.stderr)

    def test_the_zipapp_has_the_manual(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "vex.pyz"
            build = ["sh", str(TOP / "zipapp.sh"), str(archive)]
            subprocess.run(build, capture_output=True, check=True, env={**os.environ, "PYTHON": sys.executable})
            for words in (("help",), ("help", SUBJECTS[0])):
                printed = subprocess.run(
                    [sys.executable, str(archive), *words], cwd=directory, capture_output=True, text=True, check=False
                )
                self.assertEqual((printed.returncode, printed.stdout), (0, vex(*words).stdout), printed.stderr)
