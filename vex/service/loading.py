"""What is loaded once the registry is ready, by the housekeeping thread: the web interface, a third of the time to
start.

This is the whole list: every other module that a server uses is loaded before it says `ready`. From then on nothing
is read from the program's files any more, whatever becomes of them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from vex.http.turns import HeavyWork
from vex.registry.registry import Registry
from vex.registry.storage import Storage
from vex.settings.config import Config

if TYPE_CHECKING:
    from vex.web.pages import Pages


class LaterPages:
    """The web interface; who asks before it is loaded loads it, or waits."""

    def __init__(
        self, config: Config, storage: Storage, registry: Registry, work: HeavyWork, push_port: int | None
    ) -> None:
        self._parts = config, storage, registry, work, push_port
        self._pages: Pages | None = None
        # Built once, also when several ask for the first page at once: what they keep is no limit if each has its own.
        self._loading = threading.Lock()

    def load(self) -> Pages:
        """Return the web interface."""
        if self._pages is None:
            with self._loading:
                self._pages = self._pages or _build(*self._parts)
        return self._pages


def _build(config: Config, storage: Storage, registry: Registry, work: HeavyWork, push_port: int | None) -> Pages:
    from vex.web.browsing import Browsing
    from vex.web.pages import Pages
    from vex.web.visit import Site

    url = config.public_url
    browsing = Browsing(storage.database, registry, work.large_manifests)
    return Pages(Site(browsing, registry, url, push_port, storage.clock, work, config.anonymous_read and bool(url)))
