"""The parts of a running registry, each made of the configuration and of the parts below it.

What a part is told of the configuration is decided here and nowhere else, for the start, for a reload and for tests
that need no sockets.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Callable

from vex.access.credentials import OnePort
from vex.api import routes
from vex.api.blobs import Blobs, Delivery
from vex.api.handlers import Api
from vex.api.lists import Discovery, PageLimits
from vex.api.locations import Locations
from vex.api.manifest_bodies import ManifestBodies
from vex.api.manifests import Manifests
from vex.api.uploads import BlobUploads
from vex.http.answers import Answers, Revisions
from vex.http.certificates import Certificates
from vex.http.forwarded import Proxies
from vex.http.heads import HeadLimits
from vex.http.server import Listener, Timeouts
from vex.http.sockets import Sockets, listen, passed, port_of
from vex.http.turns import HeavyWork
from vex.logs import AccessLog
from vex.registry.housekeeping import Housekeeping, Step
from vex.registry.listing import Lists
from vex.registry.pulls import Pulls
from vex.registry.registry import Registry, Rules
from vex.registry.storage import Storage
from vex.registry.uploads import UploadLimits, Uploads
from vex.service.app import AUTH, INTERNAL_LISTENER, PUBLIC, App
from vex.service.observations import Observations
from vex.settings.config import Config
from vex.storage.blobs import BlobFiles
from vex.storage.database import Database
from vex.storage.timekeeping import TimeOfDay

if TYPE_CHECKING:
    from vex.web.pages import Pages


def build_storage(
    config: Config,
    database: Database,
    revisions: Revisions,
    *,
    owners: Callable[[], Iterable[str]] | None = None,
    clock: Callable[[], float] = time.time,
    steady: Callable[[], float] = time.monotonic,
) -> Storage:
    """Build what the registry works on; `owners` lists whose uploads go on, None for everybody's."""
    files = BlobFiles(config.data_dir)
    uploads = Uploads(files, upload_limits(config), owners=owners, clock=clock)
    pulls = Pulls(int(config.pull_grace), clock=clock, steady=steady)
    return Storage(database, files, uploads, pulls, revisions, clock)


def build_registry(config: Config, storage: Storage) -> Registry:
    """Build the registry, and put back the files that were set aside and are known again."""
    rules = Rules(
        int(config.upload_expiry),
        int(config.keep_replaced),
        config.delete_untags,
        config.manifest_limit,
        config.manifest_descriptors_limit,
        config.manifest_depth_limit,
    )
    registry = Registry(storage, rules)
    registry.reconciler.put_back()
    return registry


def build_housekeeping(
    config: Config,
    storage: Storage,
    registry: Registry,
    chores: Sequence[Step] = (),
    time_of_day: TimeOfDay | None = None,
) -> Housekeeping:
    """Build what is done by itself; `chores` are steps of other parts."""
    return Housekeeping(
        storage,
        registry,
        audit_keep=config.audit_keep,
        interval=_sweep_interval(config),
        chores=chores,
        time_of_day=time_of_day,
    )


def _sweep_interval(config: Config) -> float:
    # Soon enough that what expires is gone after at most one and a half times its time, but not all the time.
    shortest = (
        min(time for time in (config.upload_expiry, config.pull_grace, config.keep_replaced, config.audit_keep) if time)
        if config.upload_expiry
        else 1
    )
    return min(max(shortest / 2, 0.2), 60.0)


def build_api(config: Config, storage: Storage, registry: Registry, revisions: Revisions, work: HeavyWork) -> Api:
    """Build the endpoints of the specification."""
    uploads = storage.uploads
    locations = Locations(config.locations, config.public_url, one_port=config.anonymous_read)
    delivery = Delivery(config.blob_redirect, config.accel_redirect)
    bodies = ManifestBodies(uploads.directory, config.manifest_limit)
    public = config.public_addr is not None or config.anonymous_read
    return Api(
        Discovery(Lists(storage.database), work, revisions, PageLimits(config.page_size, config.page_limit)),
        Manifests(registry, revisions, bodies, locations),
        Blobs(registry, revisions, delivery, public=public),
        BlobUploads(registry, uploads, locations, public=public),
    )


def build_pages(
    config: Config, storage: Storage, registry: Registry, work: HeavyWork, push_port: int | None
) -> Callable[[], Pages]:
    """Build what loads the web interface once somebody browses: that would be a third of the time to start."""
    # Made once, also when several ask for the first page at once: what they keep is no limit if each has its own.
    loading = threading.Lock()

    @functools.cache
    def load() -> Pages:
        from vex.web.browsing import Browsing
        from vex.web.pages import Pages
        from vex.web.visit import Site

        url = config.public_url
        one_port = config.anonymous_read and bool(url)
        browsing = Browsing(storage.database, registry, work.large_manifests)
        return Pages(Site(browsing, registry, url, push_port, storage.clock, work, one_port))

    def pages() -> Pages:
        with loading:
            return load()

    return pages


def build_one_port(config: Config) -> OnePort | None:
    """Build what anonymous reading at the auth listener needs; None without it. A key that cannot be read or made is
    found out now.
    """
    if not config.anonymous_read:
        return None
    # Loaded here, since it is not needed otherwise.
    from vex.access.bearer import Signer

    signer = Signer(config.data_dir)
    signer.key()
    return OnePort(signer, config.public_url, routes.TOKEN.path(), config.identity_tokens)


def open_sockets(config: Config, held: contextlib.ExitStack) -> Sockets:
    """Listen for each listener that is on, at its address or with the socket that was passed for it; closed with
    `held`.
    """
    addresses = {PUBLIC: config.public_addr, AUTH: config.auth_addr, INTERNAL_LISTENER: config.internal_addr}
    wanted = {name: address for name, address in addresses.items() if address is not None}
    given = passed(os.environ, [*wanted])
    return {
        name: held.enter_context(contextlib.closing(given.get(name) or listen(name, address, config.backlog)))
        for name, address in wanted.items()
    }


def push_port_of(sockets: Sockets) -> int | None:
    """Return the port for pushes; None where there is none."""
    return port_of(sockets[AUTH].getsockname()) if AUTH in sockets else None


def build_listeners(
    config: Config,
    sockets: Sockets,
    app: App,
    observations: Observations,
    revisions: Revisions,
    certificates: Certificates,
    access_log: AccessLog | None,
) -> list[Listener]:
    """Build the listeners of sockets that listen."""
    connections = {
        PUBLIC: config.public_connections,
        AUTH: config.auth_connections,
        INTERNAL_LISTENER: config.internal_connections,
    }
    proxies = Proxies(config.trusted_proxies) if config.trusted_proxies else None
    return [
        Listener(
            name,
            listening,
            app.handle,
            app.in_clear,
            head_limits=head_limits(config),
            timeouts=timeouts(config),
            connections=connections[name],
            queue=config.backlog,
            observer=observations,
            tls_context=functools.partial(certificates.context, name),
            # Only what needs no credentials is the same for everyone.
            answers=Answers(revisions) if name == PUBLIC else None,
            proxies=proxies,
            access=access_log.record if access_log else None,
        )
        for name, listening in sockets.items()
    ]


def upload_limits(config: Config) -> UploadLimits:
    """Return the limits of uploads."""
    return UploadLimits(config.blob_limit, config.free_space, config.upload_sessions, config.upload_expiry)


def head_limits(config: Config) -> HeadLimits:
    """Return the limits of request heads."""
    return HeadLimits(config.request_line_limit, config.header_fields_limit, config.header_bytes_limit)


def timeouts(config: Config) -> Timeouts:
    """Return how long connections may take."""
    return Timeouts(
        handshake=config.handshake_timeout,
        head=config.head_timeout,
        idle=config.idle_timeout,
        stall=config.stall_timeout,
        rate=config.minimum_rate,
        shutdown=config.shutdown_timeout,
        upload=config.upload_timeout,
    )
