"""`vex serve`: builds everything from the configuration, runs it until a signal, and takes it down in order."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, Callable

from vex import VERSION
from vex.access.tokens import Tokens
from vex.access.users import Users
from vex.errors import Failure, RegistryError
from vex.http.answers import Revisions
from vex.http.certificates import Certificates
from vex.http.server import Server
from vex.http.turns import HeavyWork
from vex.logs import AccessLog
from vex.registry.housekeeping import Housekeeping, Step
from vex.service.app import App
from vex.service.building import (
    build_access,
    build_api,
    build_listeners,
    build_registry,
    build_storage,
    clauses_of,
    listener_limits,
    open_sockets,
    push_port_of,
    rules_of,
    upload_limits,
)
from vex.service.first_user import Places, advise, make_first_user, places, wanted_name
from vex.service.loading import LaterControl, LaterPages
from vex.service.notify import Notifier
from vex.service.observations import Observations
from vex.service.readiness import Readiness
from vex.service.reload import reload
from vex.settings.config import Config
from vex.storage.database import Database
from vex.storage.directory import locked, open_data, try_out
from vex.storage.timekeeping import TimeOfDay

_log = logging.getLogger("vex")
# Python's default of 8 MiB a thread is address space only, but a host may limit that; less than 1 MiB is too little for
# deep JSON.
_STACK_BYTES = 1024 * 1024
# mallopt(3): its numbers, and its initial thresholds, which are fixed by setting them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 128 * 1024
_ENDINGS = {signal.SIGTERM, signal.SIGINT}
# How long the end may take beyond the shutdown timeout.
_END_SECONDS = 15
_ELSEWHERE = " (and all other addresses of this machine)"


def serve(config: Config, reread: Callable[[], Config], first_user: str = "") -> int:
    """Run the registry until SIGTERM or SIGINT; returns the exit code. Raises Failure when it cannot start.

    `reread` makes the configuration anew for SIGHUP; `first_user` is to be the first user, while there is none.
    """
    # Blocked and waited for: a handler that comes just before its thread waits for a lock would leave it waiting for
    # ever.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    sys.unraisablehook = _tell_unraisable
    threading.stack_size(_STACK_BYTES)
    give_memory_back = _give_memory_back()
    with contextlib.ExitStack() as held:
        with open_data(config.data_dir):
            held.enter_context(locked(config.data_dir))
            try_out(config.data_dir)
            service = _Service(config, reread, give_memory_back, held)
        return service.run(first_user)


def _tell_unraisable(found: sys.UnraisableHookArgs) -> None:
    """Log what nobody can catch: such as a TLS handshake for a name that is not ASCII, which any client can send, and
    which then fails.
    """
    level = logging.DEBUG if isinstance(found.exc_value, UnicodeDecodeError) else logging.ERROR
    _log.log(level, "%s: %s", found.err_msg or "an error was ignored", found.exc_value)


def _give_memory_back() -> Callable[[], None]:
    """Have the C library return freed memory at once; glibc learns to keep it, and stays as large as the largest crowd
    of connections made it.

    Returns what has it return, too, what is free in between: half of what a crowd of thousands leaves behind.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes  # not every Python has it

        library = ctypes.CDLL(None)
        trim = library.malloc_trim
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            library.mallopt(option, _KEPT_BYTES)
        return lambda: trim(0)
    return lambda: None


class _Service:
    def __init__(
        self,
        config: Config,
        reread: Callable[[], Config],
        give_memory_back: Callable[[], None],
        held: contextlib.ExitStack,
    ) -> None:
        """Build everything; what is open, also when the rest cannot be built, is closed with `held`."""
        self._config = config
        self._reread = reread
        self._notifier = Notifier(os.environ)
        readiness = self._readiness = Readiness()
        self._work = HeavyWork()
        database = Database(config.data_dir / "vex.db", on_failure=readiness.storage_failed)
        held.callback(database.close)
        self._users = Users(database, failures_per_minute=config.failed_logins)
        self._tokens = Tokens(database)
        revisions = Revisions()
        storage = self._storage = build_storage(config, database, revisions, owners=self._owners)
        rules = rules_of(config)
        registry = build_registry(storage, rules)
        certificates = self._certificates = Certificates(config.certificates())
        observations = Observations(storage, registry, certificates)
        authenticator, granting = build_access(config, self._users, self._tokens, observations.login_refused, database)
        sockets = open_sockets(config, held)
        push_port = push_port_of(sockets)
        self._control = LaterControl(config, storage, registry, self._work, observations)
        pages = LaterPages(config, storage, registry, revisions, self._work, push_port)
        chores = self._chores(pages, give_memory_back)
        self._housekeeping = Housekeeping(storage, registry, rules, chores, TimeOfDay(config.data_dir))
        app = App(
            build_api(config, storage, registry, revisions, self._work),
            pages.load,
            authenticator,
            granting,
            {"metrics": observations.response, "readyz": lambda: readiness.response(storage)},
            observations,
            push_port,
        )
        self._access_log = AccessLog(config.access_log, config.log_format) if config.access_log else None
        listeners = build_listeners(config, sockets, app, observations, revisions, certificates, self._access_log)
        self._server = Server(listeners, config.shutdown_timeout)
        observations.watch(listeners)
        observations.watch_steps(self._housekeeping)

    def _owners(self) -> list[str]:
        """List those whose credentials are valid."""
        return [identity.owner for identity in (*self._users.identities(), *self._tokens.identities())]

    def _chores(self, pages: LaterPages, give_memory_back: Callable[[], None]) -> Sequence[Step]:
        """List what housekeeping does for others than the registry."""
        return (
            Step("control", lambda: self._control.start(self._tell), once=True),
            Step("pages", pages.load, once=True),
            Step("tokens", self._tokens.save_uses),
            Step("logins", self._users.log_refusals),
            Step("memory", give_memory_back),
        )

    def run(self, first_user: str) -> int:
        """Serve until a signal; returns the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        # Asked before anything is served: what fails here ends the start.
        name = wanted_name(self._users, self._tokens, first_user, can_push=self._config.auth_addr is not None)
        # What was made so far lives as long as the process: the collector need not look at it again.
        gc.freeze()
        self._server.start()
        try:
            self._announce(name)
            while signal.sigwait({*_ENDINGS, signal.SIGHUP}) == signal.SIGHUP:
                self._reload()
        finally:
            # Whatever happened: with the accept loops at work, the process would not end.
            self._end()
        self._readiness.raise_failure()
        return 0

    def _announce(self, first_user: str | None) -> None:
        addresses = "".join(
            f"{listener.name:<8} {listener.url}{_ELSEWHERE if listener.everywhere else ''}\n"
            for listener in self._server.listeners
        )
        try:
            print(addresses, end="", flush=True)
            # Whoever reads `ready` finds it ready.
            self._readiness.ready()
            print("ready", flush=True)
        except OSError as error:
            raise Failure(
                f"cannot write to standard output: {error.strerror}; send it to a file, or to /dev/null"
            ) from error
        self._tell_ready()
        self._notifier.watch(self._check)
        self._housekeeping.start()
        if first_user:
            make_first_user(self._users, first_user, self._places())
        elif first_user is not None:
            advise(self._config.data_dir)

    def _end(self) -> None:
        self._readiness.stopping()
        self._notifier.stopping(self._config.shutdown_timeout + _END_SECONDS)
        self._work.end()
        self._server.stop()
        self._housekeeping.stop()
        self._control.stop()
        with contextlib.suppress(RegistryError):
            self._tokens.save_uses(at_once=True)
        with contextlib.suppress(RegistryError):
            self._storage.pulls.fetches.save(self._storage.database, at_once=True)

    def _reload(self) -> None:
        self._notifier.reloading()
        try:
            self._config = reload(self._config, self._reread, self._limit, self._certificates)
            if self._access_log:
                self._access_log.reopen()
        except Exception:  # whatever it is, the registry goes on
            _log.exception("the reload failed; restart vex to apply what changed")
        self._tell_ready()

    def _limit(self, config: Config) -> None:
        self._users.limit_failures(config.failed_logins)
        self._storage.uploads.limits = upload_limits(config)
        self._storage.policies.replace(clauses_of(config))
        self._server.shutdown_seconds = config.shutdown_timeout
        for listener in self._server.listeners:
            listener.limit(listener_limits(config, listener.name))

    def _tell_ready(self) -> None:
        listeners = ", ".join(f"{listener.name} {listener.url}" for listener in self._server.listeners)
        self._notifier.send("READY=1", f"STATUS=Serving {listeners}")

    def _tell(self) -> dict[str, Any]:
        """Tell commands what nobody can see from outside; times in seconds since 1970."""
        return {
            "pid": os.getpid(),
            "version": VERSION,
            "since": int(self._readiness.since),
            "listeners": {listener.name: listener.url for listener in self._server.listeners},
            "certificates": self._certificates.dates(),
        }

    def _check(self) -> None:
        self._storage.database.check()
        self._server.check()

    def _places(self) -> Places:
        urls = {listener.name: listener.url for listener in self._server.listeners if listener.port is not None}
        return places(urls, self._config.public_url, one_port=self._config.anonymous_read)
