"""`vex serve`: builds everything from the configuration, runs it until a signal, and takes it down in order."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import gc
import logging
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from vex.answers import Answers, Revisions
from vex.api import Api, Delivery, PageLimits
from vex.app import AUTH, INTERNAL_LISTENER, PUBLIC, App
from vex.blobs import FILE_MODE, BlobFiles, make_directory
from vex.config import Config
from vex.database import Database
from vex.errors import Failure
from vex.housekeeping import Housekeeping
from vex.message import Response
from vex.observations import Observations
from vex.pulls import Pulls
from vex.registry import Registry, Rules
from vex.server import Listener, Server, Timeouts
from vex.uploads import UploadLimits, Uploads
from vex.users import Users
from vex.wire import HeadLimits

if TYPE_CHECKING:
    from vex.forwarded import Proxies
    from vex.pages import Pages

_log = logging.getLogger("vex")
# Python's default of 8 MiB a thread is address space only, but a host may limit that; less than 1 MiB is too little for deep JSON.
_STACK_BYTES = 1024 * 1024
# mallopt(3): its numbers, and its initial thresholds, which are fixed by setting them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 128 * 1024
_ENDINGS = {signal.SIGTERM, signal.SIGINT}
_TEXT = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]


def serve(config: Config) -> int:
    """Run the registry until SIGTERM or SIGINT; returns the exit code. Raises Failure when it cannot start."""
    threading.stack_size(_STACK_BYTES)
    _give_memory_back()
    with open_data(config.data_dir), locked(config.data_dir):
        return _Service(config).run()


def _give_memory_back() -> None:
    """Have the C library return freed memory at once; glibc learns to keep it, and stays as large as the largest crowd of connections made it."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes  # not every Python has it

        library = ctypes.CDLL(None)
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            library.mallopt(option, _KEPT_BYTES)


@contextlib.contextmanager
def open_data(directory: Path) -> Iterator[None]:
    """Create the data directory if it is missing; problems with its files become a Failure."""
    try:
        make_directory(directory)
        yield
    except OSError as error:
        where = error.filename or directory
        raise Failure(f"cannot use the data directory {directory}: {where}: {error.strerror}; check its permissions and the disk") from error


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the data directory's lock, so that two servers never share it; raises Failure."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise Failure(f"another vex uses the data directory {directory}; end it first, or choose another with --data-dir") from error
        yield
    finally:
        os.close(descriptor)


class _Service:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._stopping = False
        self._storage_failure = ""
        database = self._database = Database(config.data_dir / "vex.db", on_failure=self._fail)
        files = BlobFiles(config.data_dir)
        limits = UploadLimits(config.blob_limit, config.free_space, config.upload_sessions, config.upload_expiry)
        uploads = Uploads(files, limits)
        pulls, revisions = Pulls(int(config.pull_grace)), Revisions()
        rules = Rules(
            int(config.upload_expiry),
            int(config.keep_replaced),
            config.delete_untags,
            config.manifest_limit,
            config.manifest_descriptors_limit,
            config.manifest_depth_limit,
        )
        registry = Registry(database, files, uploads, pulls, revisions, rules)
        self._users = Users(database, failures_per_minute=config.failed_logins)
        self._housekeeping = Housekeeping(database, files, uploads, pulls, revisions, registry, interval=_sweep_interval(config))
        delivery = Delivery(config.blob_redirect, config.accel_redirect)
        api = Api(registry, uploads, revisions, PageLimits(config.page_size, config.page_limit), config.manifest_limit, delivery)
        self._observations = Observations(registry, uploads)
        internal = {"metrics": self._observations.response, "healthz": lambda: Response(200, _TEXT, b"ok\n"), "readyz": self._ready}
        app = App(api, self._pages(registry), self._users, internal, self._observations)
        self._server = Server(_listeners(config, app, self._observations, revisions), config.shutdown_timeout)

    def run(self) -> int:
        """Serve until a signal; returns the exit code."""
        # Blocked and waited for: a handler that comes just before its thread waits for a lock would leave it waiting for ever.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        # What was made so far lives as long as the process: the collector need not look at it again.
        gc.freeze()
        self._server.start()
        for listener in self._server.listeners:
            print(f"{listener.name:<8} {listener.url}", flush=True)
        print("ready", flush=True)
        self._housekeeping.start()
        self._advise()
        signal.sigwait(_ENDINGS)
        self._stopping = True
        self._server.stop()
        self._housekeeping.stop()
        self._database.close()
        if self._storage_failure:
            raise Failure(f"storage failed ({self._storage_failure}): what was committed last is not certain; check the disk, then start again")
        return 0

    def _pages(self, registry: Registry) -> Callable[[], Pages]:
        @functools.cache
        def load() -> Pages:
            # Loaded once somebody browses: from the zipapp every module is compiled anew, which is a third of the time to start.
            from vex.browsing import Browsing
            from vex.pages import Pages
            from vex.pages.parts import Site

            return Pages(Site(Browsing(self._database, registry), registry, self._config.public_url, self._push_port, time.time))

        return load

    def _push_port(self) -> int | None:
        return next((int(listener.server_address[1]) for listener in self._server.listeners if listener.name == AUTH), None)

    def _advise(self) -> None:
        if self._config.auth_addr is not None and not self._users.names():
            command = f"{os.path.basename(sys.executable)} {sys.argv[0]} user add NAME"
            print(f"vex: no user can push yet; add one with: {command} --data-dir {self._config.data_dir}", file=sys.stderr, flush=True)

    def _ready(self) -> Response:
        if self._storage_failure or self._stopping:
            return Response(503, _TEXT, b"storage failed\n" if self._storage_failure else b"shutting down\n")
        return Response(200, _TEXT, b"ready\n")

    def _fail(self, reason: str) -> None:
        _log.critical("the outcome of a transaction is unknown: %s; stopping", reason)
        self._storage_failure = reason
        os.kill(os.getpid(), signal.SIGTERM)


def _sweep_interval(config: Config) -> float:
    # Soon enough that what expires is gone after at most one and a half times its time, but not all the time.
    shortest = min(time for time in (config.upload_expiry, config.pull_grace, config.keep_replaced) if time) if config.upload_expiry else 1
    return min(max(shortest / 2, 0.2), 60.0)


def _listeners(config: Config, app: App, observations: Observations, revisions: Revisions) -> list[Listener]:
    timeouts = Timeouts(
        config.handshake_timeout, config.head_timeout, config.idle_timeout, config.stall_timeout, config.minimum_rate, config.shutdown_timeout
    )
    proxies, listeners = _proxies(config), []
    for name, address, certificate, key, connections in (
        (PUBLIC, config.public_addr, config.public_tls_cert, config.public_tls_key, config.public_connections),
        (AUTH, config.auth_addr, config.auth_tls_cert, config.auth_tls_key, config.auth_connections),
        (INTERNAL_LISTENER, config.internal_addr, config.internal_tls_cert, config.internal_tls_key, config.internal_connections),
    ):
        if address is None:
            continue
        context = _tls_context(name, certificate, key)
        listener = Listener(
            name,
            (address.host, address.port),
            app.handle,
            head_limits=HeadLimits(config.request_line_limit, config.header_fields_limit, config.header_bytes_limit),
            timeouts=timeouts,
            connections=connections,
            backlog=config.backlog,
            observer=observations,
            tls_context=_always(context),
            # Only what needs no credentials is the same for everyone.
            answers=Answers(revisions) if name == PUBLIC else None,
            proxies=proxies,
        )
        listeners.append(listener)
    return listeners


def _proxies(config: Config) -> Proxies | None:
    if not config.trusted_proxies:
        return None
    from vex.forwarded import Proxies

    return Proxies(config.trusted_proxies)


def _always(context: ssl.SSLContext | None) -> Callable[[], ssl.SSLContext | None]:
    return lambda: context


def _tls_context(name: str, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None or key is None:
        return None
    for path, option in ((certificate, f"{name}-tls-cert"), (key, f"{name}-tls-key")):
        try:
            path.read_bytes()
        except OSError as error:
            raise Failure(f"cannot read {path} ({option}): {error.strerror}; check that it exists and that this user may read it") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise Failure(f"cannot use {certificate} with {key}: {reason}; they must be PEM files that belong together, the key not encrypted") from error
    return context


def _refuse_password() -> str:
    raise ValueError("the key is encrypted")
