"""A server with a directory for layouts and archives, which are exported and imported."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.support.server import PASSWORD, USER, ServerTestCase, vex


class LayoutTestCase(ServerTestCase):
    """A server, and a directory for files."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="vex-test-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def vex(self, *arguments: str, code: int = 0) -> str:
        """Run a command with the password of USER; returns what it printed."""
        ended = vex(*arguments, text=PASSWORD + "\n")
        self.assertEqual(ended.returncode, code, ended)
        self.assertNotIn("Traceback", ended.stderr)
        if code:
            self.assertRegex(ended.stderr.splitlines()[-1], "^vex: ")
        return ended.stdout + ended.stderr

    def import_files(self, path: Path, *arguments: str, code: int = 0) -> str:
        return self.vex(
            "import", str(path), "--username", USER, "--to", self.server.urls["auth"], *arguments, code=code
        )

    def export(self, name: str, directory: Path | None = None, code: int = 0) -> str:
        return self.vex(
            "export", name, str(directory or self.directory / "out"), "--data-dir", str(self.server.data), code=code
        )

    def manifest(self, repository: str, reference: str) -> bytes:
        answer = self.server.public.get(f"/v2/{repository}/manifests/{reference}")
        self.assertEqual(answer.status, 200, answer)
        return answer.body

    def index(self, directory: Path | None = None) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads(((directory or self.directory / "out") / "index.json").read_text())[
            "manifests"
        ]
        return entries
