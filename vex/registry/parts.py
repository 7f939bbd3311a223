"""What the operations of the command line work on (`operations.py`), whether the registry runs or not."""

from __future__ import annotations

import pwd
from collections.abc import Mapping
from typing import Any, NamedTuple

from vex.progress import UNHURRIED, Work
from vex.registry.references import NOBODY
from vex.registry.registry import Registry
from vex.registry.storage import Storage
from vex.storage.audit import Actor

# What the running registry listens at, in the data directory.
SOCKET = "control.sock"
# What an operation gives: one line of its answer, of what JSON knows.
Row = dict[str, Any]
_LOCAL = "local"


class Parts(NamedTuple):
    """The registry and what is below it, and who asks.

    `work` is told of each small piece of long work, and ends it when nobody waits for it any more. `running` is what a
    registry that runs tells of itself, None where none runs.
    """

    storage: Storage
    registry: Registry
    actor: Actor = NOBODY
    work: Work = UNHURRIED
    running: Mapping[str, Any] | None = None


def actor_of(number: int) -> Actor:
    """Return who a user of this machine is in the audit trail."""
    try:
        return Actor(pwd.getpwuid(number).pw_name, _LOCAL)
    except KeyError:
        # As in containers, whose users have no names.
        return Actor(str(number), _LOCAL)
