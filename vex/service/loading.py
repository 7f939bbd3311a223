"""What is loaded once the registry is ready, by the housekeeping thread: the web interface, a third of the time to
start, and what answers commands.

This is the whole list: every other module that a server uses is loaded before it says `ready`. From then on nothing
is read from the program's files any more, whatever becomes of them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable

from vex.http.answers import Revisions
from vex.http.observer import Observer
from vex.http.turns import HeavyWork
from vex.registry.registry import Registry
from vex.registry.storage import Storage
from vex.service.app import INTERNAL_LISTENER
from vex.service.building import listener_limits
from vex.settings.config import Config

if TYPE_CHECKING:
    from vex.service.control import Control
    from vex.web.pages import Pages


class LaterPages:
    """The web interface; who asks before it is loaded loads it, or waits."""

    def __init__(
        self,
        config: Config,
        storage: Storage,
        registry: Registry,
        revisions: Revisions,
        work: HeavyWork,
        push_port: int | None,
    ) -> None:
        self._parts = config, storage, registry, revisions, work, push_port
        self._pages: Pages | None = None
        # Built once, also when several ask for the first page at once: what they keep is no limit if each has its own.
        self._loading = threading.Lock()

    def load(self) -> Pages:
        """Return the web interface."""
        if self._pages is None:
            with self._loading:
                self._pages = self._pages or _build(*self._parts)
        return self._pages


class LaterControl:
    """The control socket, which is there from `start` on; `running` has the registry tell of itself."""

    def __init__(
        self, config: Config, storage: Storage, registry: Registry, work: HeavyWork, observer: Observer
    ) -> None:
        self._config = config
        self._parts = storage, registry
        self._work = work
        self._observer = observer
        self._control: Control | None = None

    def start(self, running: Callable[[], Mapping[str, Any]]) -> None:
        """Listen."""
        from vex.registry.parts import Parts
        from vex.service.control import Control

        self._control = Control(Parts(*self._parts), running, self._work.commands, self._observer)
        self._control.start(self._config.data_dir, listener_limits(self._config, INTERNAL_LISTENER))

    def stop(self) -> None:
        """Stop, if it listens; `start` has to have ended."""
        if self._control:
            self._control.stop()


def _build(
    config: Config,
    storage: Storage,
    registry: Registry,
    revisions: Revisions,
    work: HeavyWork,
    push_port: int | None,
) -> Pages:
    from vex.web.browsing import Browsing
    from vex.web.kept import KeptPages
    from vex.web.pages import Pages
    from vex.web.visit import Site

    url = config.public_url
    browsing = Browsing(storage.database, registry, work.large_manifests)
    site = Site(browsing, registry, url, push_port, storage.clock, work, config.anonymous_read and bool(url))
    return Pages(site, KeptPages(revisions))
