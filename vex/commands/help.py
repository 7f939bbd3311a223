"""`vex help`: the subjects of the manual, and one page of it, as it is written; on a terminal through a pager. And
`vex` without a command.
"""

from __future__ import annotations

import os
import shlex
import sys

from vex.errors import Failure
from vex.web.manual import SUBJECTS, page_of, purpose_of


def introduction() -> str:
    """Say what Vex is, and the three commands that most people want."""
    program = shlex.join([os.path.basename(sys.executable), sys.argv[0]])
    return f"""\
Vex is a container registry in one file: docker, podman and others push images to it, and pull them from it.

Start one in this directory; on a terminal it begins with a user, and shows how to push:
  {program} serve
Set one up for a team, with HTTPS and as a service:
  {program} quickstart USERNAME HOSTNAME
Read the manual:
  {program} help

All commands: {program} --help
"""


def subjects() -> str:
    """List the subjects, with what each page is for."""
    width = max(map(len, SUBJECTS))
    lines = [f"  {subject.ljust(width)}  {purpose_of(page_of(subject))}" for subject in SUBJECTS]
    return "\n".join(["The manual; `vex help SUBJECT` shows one of these pages:", *lines, ""])


def show(subject: str) -> None:
    """Print a page; raises Failure where there is none."""
    if subject not in SUBJECTS:
        raise Failure(
            f"the manual has no page {subject!r}; it has {', '.join(SUBJECTS)}; what a command takes is told by that"
            " command with --help"
        )
    text = page_of(subject)
    if not sys.stdout.isatty():
        print(text, end="")
        return
    import pydoc  # much to load, for a terminal alone

    pydoc.pager(text)
