"""What the registry works on, as one value: its parts always travel together."""

from __future__ import annotations

import time
from typing import Callable, NamedTuple, Protocol

from vex.errors import DISK_FULL, RegistryError
from vex.registry.policies import Policies
from vex.registry.pulls import Pulls
from vex.registry.uploads import Uploads
from vex.storage.blobs import BlobFiles
from vex.storage.database import Database


class Revised(Protocol):
    """What is told that something changes, before it can be seen and after, so that nothing older is answered."""

    def changed(self, repository: str) -> None:
        """Note a change in a repository."""

    def all_changed(self) -> None:
        """Note a change that may be in any."""


class Storage(NamedTuple):
    """Rows, files and uploads; what clients were told a short while ago, in memory alone; who is told of changes; what
    the operator wants of each repository; and the time of day.
    """

    database: Database
    files: BlobFiles
    uploads: Uploads
    pulls: Pulls
    revisions: Revised
    policies: Policies
    clock: Callable[[], float] = time.time

    def delete(self, work: Callable[[], None]) -> None:
        """Do what deletes; where it fails for want of space, let go of what is kept for deletions, and do it once more.

        Raises what the work raises. It is one transaction, or fails with its first, so that nothing is done twice.
        """
        try:
            work()
        except RegistryError as error:
            if error.kind is not DISK_FULL:
                raise
            # Another one that shared its commit may have let go of it a moment ago.
            self.files.let_ballast_go()
            work()
