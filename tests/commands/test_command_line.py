"""What the command line says to a person: examples, groups, versions, and what was meant perhaps."""

from __future__ import annotations

import re
import shlex
import unittest

from tests.support.server import vex
from vex import VERSION
from vex.commands.arguments import COMMANDS, ROWS, parser
from vex.settings.config import KEYS


class Help(unittest.TestCase):
    def test_every_command_ends_with_examples_that_it_takes(self) -> None:
        for name in ("", *COMMANDS.groups, *ROWS):
            with self.subTest(name):
                self.assertIn(name, COMMANDS.examples)
                shown = vex(*name.split(), "--help").stdout
                examples = shown.partition("\nexamples:\n")[2].splitlines()
                self.assertEqual(examples, [f"  {line}" for line in COMMANDS.examples[name]])
                for example in examples:
                    command = shlex.split(re.split("[<>]", example)[0])
                    self.assertTrue(parser("").parse_args(command[1:]).command.startswith(name))

    def test_that_of_serve_has_every_key_in_a_group(self) -> None:
        shown = vex("serve", "--help").stdout
        first, *groups = re.split(r"\n\n(?=[a-z][a-z, ]+:\n)", shown)
        self.assertNotIn("--public-addr", first)
        headings = [group.partition(":")[0] for group in groups]
        self.assertIn("what is kept, and for how long", headings)
        for key in KEYS:
            if key.name != "data-dir":
                holders = [group for group in groups[1:] if re.search(rf"(?m)^  --{key.name} ", group)]
                self.assertEqual(len(holders), 1, key.name)

    def test_the_version_is_told_both_ways(self) -> None:
        for words in (("--version",), ("version",)):
            done = vex(*words)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertRegex(done.stdout, rf"^vex {re.escape(VERSION)} \(Python \S+, SQLite \S+\)\n$")


class Mistakes(unittest.TestCase):
    def test_what_was_meant_is_said(self) -> None:
        for words, text in (
            ("srve", "there is no command 'srve'; did you mean serve? see 'vex --help'"),
            ("user ad bob", "there is no action 'ad'; did you mean add? see 'vex user --help'"),
            ("serve --publik-addr x", "there is no --publik-addr; did you mean --public-addr? see 'vex serve --help'"),
            ("ls --jsn=1", "there is no --jsn; did you mean --json? see 'vex ls --help'"),
            ("completion tcsh", "there is no shell 'tcsh'; see 'vex completion --help'"),
            ("xyzzy", "there is no command 'xyzzy'; see 'vex --help'"),
            ("user list bob", "there is no place for 'bob'; see 'vex user list --help'"),
        ):
            with self.subTest(words):
                done = vex(*words.split())
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertTrue(done.stderr.endswith(f": error: {text}\n"), done.stderr)
