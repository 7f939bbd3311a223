"""The parts of a running registry, each made of the configuration and of the parts below it.

What a part is told of the configuration is decided here and nowhere else, for the start, for a reload and for tests
that need no sockets.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterable
from typing import Callable

from vex.access.credentials import Authenticator, OnePort
from vex.access.tokens import Tokens
from vex.access.users import Users
from vex.api import routes
from vex.api.blobs import Blobs, Delivery
from vex.api.handlers import Api
from vex.api.lists import Discovery, PageLimits
from vex.api.locations import Locations
from vex.api.manifest_bodies import ManifestBodies
from vex.api.manifests import Manifests
from vex.api.uploads import BlobUploads
from vex.http.answers import Answers, GuardedAnswers, Revisions
from vex.http.certificates import Certificates
from vex.http.forwarded import Proxies
from vex.http.heads import HeadLimits
from vex.http.message import Request, Response
from vex.http.server import Listener, ListenerLimits, Timeouts
from vex.http.sockets import Sockets, listen, passed, port_of
from vex.http.turns import HeavyWork
from vex.logs import AccessLog
from vex.registry.listing import Lists
from vex.registry.policies import Clause, Policies
from vex.registry.pulls import Pulls
from vex.registry.registry import Registry, Rules
from vex.registry.storage import Storage
from vex.registry.uploads import UploadLimits, Uploads
from vex.service.app import AUTH, INTERNAL_LISTENER, PUBLIC, App
from vex.service.observations import Observations
from vex.settings.config import LOCATIONS, Config
from vex.settings.sections import REPOSITORIES
from vex.storage.blobs import BlobFiles
from vex.storage.database import Database


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
    return Storage(database, files, uploads, pulls, revisions, Policies(clauses_of(config)), clock)


def build_registry(storage: Storage, rules: Rules) -> Registry:
    """Build the registry, and put back the files that were set aside and are known again."""
    registry = Registry(storage, rules)
    registry.reconciler.put_back()
    return registry


def build_api(config: Config, storage: Storage, registry: Registry, revisions: Revisions, work: HeavyWork) -> Api:
    """Build the endpoints of the specification."""
    uploads = storage.uploads
    locations = Locations(LOCATIONS[config.locations], config.public_url, one_port=config.anonymous_read)
    delivery = Delivery(config.blob_redirect, config.accel_redirect)
    bodies = ManifestBodies(uploads.directory, config.manifest_limit)
    public = config.public_addr is not None or config.anonymous_read
    return Api(
        Discovery(Lists(storage.database), work, revisions, PageLimits(config.page_size, config.page_limit)),
        Manifests(registry, revisions, bodies, locations),
        Blobs(registry, revisions, delivery, public=public),
        BlobUploads(registry, uploads, locations, public=public),
    )


def build_access(
    config: Config, users: Users, tokens: Tokens, refused: Callable[[], None], database: Database
) -> tuple[Authenticator, Callable[[Request], Response] | None]:
    """Build what checks credentials, and with anonymous reading what answers at the token endpoint; a key that cannot
    be read or made is found out now.
    """
    if not config.anonymous_read:
        return Authenticator(users, tokens, None, refused, database.log_index), None
    # Loaded here, since a start does not need it otherwise.
    from vex.access.bearer import Signer
    from vex.api.tokens import Granting

    signer = Signer(config.data_dir)
    signer.key()
    one_port = OnePort(signer, config.public_url, routes.TOKEN.path(), config.identity_tokens)
    authenticator = Authenticator(users, tokens, one_port, refused, database.log_index)
    return authenticator, Granting(authenticator, one_port).handle


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
    proxies = Proxies(config.trusted_proxies) if config.trusted_proxies else None
    kept = {PUBLIC: Answers, AUTH: GuardedAnswers}
    return [
        Listener(
            name,
            listening,
            app.handle,
            app.in_clear,
            listener_limits(config, name),
            observations,
            tls_context=functools.partial(certificates.context, name),
            answers=kept[name](revisions) if name in kept else None,
            proxies=proxies,
            access=access_log.record if access_log else None,
        )
        for name, listening in sockets.items()
    ]


def rules_of(config: Config) -> Rules:
    """Return what the registry and its housekeeping go by."""
    return Rules(
        int(config.upload_expiry),
        int(config.keep_replaced),
        config.delete_untags,
        config.manifest_limit,
        config.manifest_descriptors_limit,
        config.manifest_depth_limit,
        config.audit_keep,
    )


def clauses_of(config: Config) -> list[Clause]:
    """Return what the sections of the configuration say of repositories."""
    return [
        Clause(section.argument, section.place, section.values)
        for section in config.sections
        if section.kind == REPOSITORIES.word
    ]


def upload_limits(config: Config) -> UploadLimits:
    """Return the limits of uploads."""
    return UploadLimits(config.blob_limit, config.free_space, config.upload_sessions, config.upload_expiry)


def listener_limits(config: Config, name: str) -> ListenerLimits:
    """Return what a listener holds its connections to."""
    connections = {
        PUBLIC: config.public_connections,
        AUTH: config.auth_connections,
        INTERNAL_LISTENER: config.internal_connections,
    }
    heads = HeadLimits(config.request_line_limit, config.header_fields_limit, config.header_bytes_limit)
    timeouts = Timeouts(
        handshake=config.handshake_timeout,
        head=config.head_timeout,
        idle=config.idle_timeout,
        stall=config.stall_timeout,
        rate=config.minimum_rate,
        shutdown=config.shutdown_timeout,
        upload=config.upload_timeout,
    )
    return ListenerLimits(heads, timeouts, connections[name], config.backlog)
