"""Vex commands in processes that begin as copies of one that has loaded the program, which takes ten times as long as
what most commands do.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vex.commands.cli import main

_STREAMS = (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY | os.O_CREAT), ("stderr", os.O_WRONLY | os.O_CREAT))
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


def run_command(command: Sequence[str], cwd: Path, text: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command, the path of the program and its arguments, to its end with this text as its standard input."""
    with tempfile.TemporaryDirectory(prefix="vex-test-") as directory:
        streams = Path(directory)
        (streams / "stdin").write_text(text, encoding="utf-8")
        process = _CONTEXT.Process(target=_run, args=(command, cwd, streams))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(command), timeout, *_outputs(streams))
        ended = subprocess.CompletedProcess(list(command), process.exitcode, *_outputs(streams))
        process.close()
        return ended


def _outputs(streams: Path) -> tuple[str, str]:
    return (streams / "stdout").read_text(encoding="utf-8"), (streams / "stderr").read_text(encoding="utf-8")


def _run(command: Sequence[str], cwd: Path, streams: Path) -> None:
    for number, (name, flags) in enumerate(_STREAMS):
        os.dup2(os.open(streams / name, flags, 0o600), number)
    # multiprocessing has put another in its place.
    sys.stdin = os.fdopen(0, encoding="utf-8")
    sys.argv = list(command)
    os.chdir(cwd)
    sys.exit(main())
