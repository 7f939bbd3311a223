"""`vex completion`, in the shells themselves."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path

from tests.support.programs import require
from tests.support.server import vex
from vex.commands.arguments import ROWS


class CompletionTestCase(unittest.TestCase):
    shell: str

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        done = vex("completion", self.shell)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        (self.directory / "script").write_text(done.stdout, encoding="utf-8")
        (self.directory / "vex.conf").touch()

    def run_shell(self, *command: str) -> list[str]:
        """Run a shell; returns the lines that it prints."""
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()


class Bash(CompletionTestCase):
    shell = "bash"

    def completed(self, *words: str) -> list[str]:
        listed = " ".join(f"'{word}'" for word in ("vex", *words))
        script = f"source ./script; COMP_WORDS=({listed}); COMP_CWORD={len(words)}; _vex; echo ${{COMPREPLY[@]}}"
        return self.run_shell(require("bash", "bash"), "--norc", "-c", script)

    def test_commands_actions_and_flags_are_completed(self) -> None:
        self.assertEqual(self.completed("stat"), ["status"])
        self.assertEqual(self.completed("user", ""), ["add", "password", "delete", "list"])
        self.assertEqual(self.completed("serve", "--public-a"), ["--public-addr"])
        self.assertEqual(self.completed("token", "add", "--re"), ["--repository", "--read-only"])
        self.assertEqual(self.completed("completion", ""), ["bash", "zsh", "fish"])
        self.assertEqual(self.completed("help", "troub"), ["troubleshooting"])

    def test_every_command_is_there(self) -> None:
        self.assertEqual(set(self.completed("")), {name.partition(" ")[0] for name in ROWS})

    def test_where_nothing_is_known_the_shell_completes_files(self) -> None:
        self.assertEqual(self.completed("testconfig", "ve"), [])
        self.assertIn("complete -o default -F _vex vex", (self.directory / "script").read_text(encoding="utf-8"))


class Fish(CompletionTestCase):
    shell = "fish"

    def completed(self, line: str) -> list[str]:
        script = f"source script; complete -C {line!r}"
        environment = f"HOME={self.directory}"
        return self.run_shell("env", environment, require("fish", "fish"), "--no-config", "-c", script)

    def test_commands_actions_and_flags_are_completed(self) -> None:
        self.assertEqual(self.completed("vex stat")[0], "status")
        self.assertEqual({"add", "password", "delete", "list"} - set(self.completed("vex user ")), set())
        self.assertNotIn("serve", self.completed("vex user "))
        self.assertEqual(self.completed("vex serve --public-a")[0], "--public-addr")
        self.assertIn("--read-only", self.completed("vex token add --re"))
        self.assertIn("vex.conf", self.completed("vex testconfig ve"))


class Zsh(CompletionTestCase):
    shell = "zsh"

    def typed(self, *lines: str) -> str:
        """Type lines into a shell on a terminal, where vex says what it is given."""
        (self.directory / ".zshrc").write_text(
            "PS1='> '; unsetopt beep; autoload -U compinit; compinit -u -D; source ./script;"
            " vex() { print -r -- '<<'$*'>>' }\n"
        )
        ours, theirs = pty.openpty()
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, ours)
            process = subprocess.Popen(
                [require("zsh", "zsh"), "-i"],
                cwd=self.directory,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env={**os.environ, "ZDOTDIR": str(self.directory), "TERM": "dumb"},
                start_new_session=True,
            )
            os.close(theirs)
            shown = self._type(ours, lines)
            self.assertEqual(process.wait(timeout=60), 0, shown)
        return shown

    def _type(self, terminal: int, lines: Sequence[str]) -> str:
        waiting, shown = [*lines, "exit 0"], b""
        seen = 0
        # Linux says EIO when nobody has the other side any more.
        with contextlib.suppress(OSError):
            while piece := os.read(terminal, 65536):
                shown += piece
                # A line for each prompt.
                if waiting and shown.count(b"> ") > seen and shown.rstrip(b"\x1b[?2004hJK").endswith(b"> "):
                    seen = shown.count(b"> ")
                    os.write(terminal, waiting.pop(0).encode() + b"\n")
        return shown.decode(errors="replace")

    def test_commands_actions_and_flags_are_completed(self) -> None:
        shown = self.typed("vex stat\t", "vex user pass\t", "vex serve --public-a\t", "vex testconfig ve\t")
        for wanted in ("status", "user password", "serve --public-addr", "testconfig vex.conf"):
            self.assertIn(f"<<{wanted}>>", shown.replace(" >>", ">>"))
