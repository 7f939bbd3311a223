"""The registry of a command, where none runs: the parts of a running one, built on the data directory and under its
lock, for as long as one operation takes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from vex.http.answers import Revisions
from vex.registry.parts import Parts, actor_of
from vex.service.building import build_registry, build_storage, rules_of
from vex.settings.config import Config
from vex.storage.database import Database
from vex.storage.directory import database_in, locked, open_data


@contextlib.contextmanager
def alone(config: Config) -> Iterator[Parts]:
    """Hold a data directory; an older database is brought up to date, as by a start. Raises InUse and Failure."""
    path = database_in(config.data_dir)
    with (
        open_data(config.data_dir),
        locked(config.data_dir, briefly=True),
        contextlib.closing(Database(path, create=False)) as database,
    ):
        storage = build_storage(config, database, Revisions())
        yield Parts(storage, build_registry(storage, rules_of(config)), actor_of(os.geteuid()))
