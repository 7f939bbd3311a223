"""The table of all metrics: name, type, labels with their values, and meaning.

What is not in it cannot be exposed, and the manual shows it whole. Counting and measuring are not here: see
`observations.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vex.api import routes
from vex.errors import (
    BAD_REQUEST,
    BLOB_TOO_LARGE,
    BODY_TIMEOUT,
    DISK_FULL,
    HEADERS_TOO_LARGE,
    MANIFEST_TOO_COMPLEX,
    MANIFEST_TOO_LARGE,
    QUOTA_EXCEEDED,
    REQUEST_TIMEOUT,
    TOO_MANY_UPLOADS,
    TOOMANYREQUESTS,
    UNAVAILABLE,
    URI_TOO_LONG,
    VERSION_NOT_SUPPORTED,
    Kind,
)
from vex.metrics import COUNTER, GAUGE, HISTOGRAM
from vex.web.addresses import INDEX, PAGES

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Errors that say something about clients or about limits; others, such as 404, are part of everyday use.
REFUSALS: dict[Kind, str] = {
    BAD_REQUEST: "malformed",
    VERSION_NOT_SUPPORTED: "version",
    URI_TOO_LONG: "request_line",
    HEADERS_TOO_LARGE: "header",
    REQUEST_TIMEOUT: "head_timeout",
    BODY_TIMEOUT: "body_timeout",
    MANIFEST_TOO_LARGE: "manifest_size",
    MANIFEST_TOO_COMPLEX: "manifest_complexity",
    BLOB_TOO_LARGE: "blob_size",
    DISK_FULL: "free_space",
    QUOTA_EXCEEDED: "quota",
    TOO_MANY_UPLOADS: "upload_sessions",
    TOOMANYREQUESTS: "failed_logins",
    UNAVAILABLE: "unavailable",
}
_CODES = tuple(
    str(code)
    for code in (
        200,
        201,
        202,
        204,
        206,
        304,
        307,
        308,
        400,
        401,
        403,
        404,
        405,
        408,
        409,
        412,
        413,
        414,
        416,
        429,
        431,
        500,
        501,
        503,
        505,
        507,
    )
)
_ENDS = ("handshake", "idle", "head", "linger", "stall", "rate", "limit", "shutdown")
# The listener of commands, and its one operation.
CONTROL = "control"
_ROUTES = (*routes.REGISTRY, routes.TOKEN, routes.HEALTHZ, *routes.INTERNAL, INDEX, *PAGES)
_OPS = (*(route.op for route in _ROUTES), CONTROL)
_LISTENER = {"listener": ("public", "auth", "internal", CONTROL)}


class Measure(NamedTuple):
    """A metric; a label without values has whatever the program itself puts there, and never what a client sent but
    for the names of ten repositories.
    """

    name: str
    kind: str
    help: str
    labels: Mapping[str, Sequence[str]] = {}


MEASURES = (
    Measure(
        "vex_request_duration_seconds",
        HISTOGRAM,
        "Requests, with the time until their answer was sent, by listener, method, operation and status code.",
        {**_LISTENER, "method": METHODS, "op": _OPS, "code": _CODES},
    ),
    Measure("vex_requests_in_flight", GAUGE, "Requests that are being answered.", _LISTENER),
    Measure(
        "vex_requests_refused_total",
        COUNTER,
        "Requests that were malformed or past a limit.",
        {**_LISTENER, "reason": tuple(REFUSALS.values())},
    ),
    Measure("vex_panic_total", COUNTER, "Requests that failed in a way nobody foresaw."),
    Measure("vex_logins_refused_total", COUNTER, "Requests with a wrong user name or password, or too many of those."),
    Measure("vex_received_bytes_total", COUNTER, "Bytes of request bodies."),
    Measure("vex_sent_bytes_total", COUNTER, "Bytes of bodies of answers."),
    Measure(
        "vex_answer_cache_hits_total",
        COUNTER,
        "Requests that were answered with an answer that was given before.",
        _LISTENER,
    ),
    Measure(
        "vex_answer_cache_misses_total", COUNTER, "Requests that were not, at a listener that keeps answers.", _LISTENER
    ),
    Measure("vex_connections_open", GAUGE, "Connections that were accepted and are open.", _LISTENER),
    Measure(
        "vex_connections_limit", GAUGE, "The most connections that are accepted at once; past it they wait.", _LISTENER
    ),
    Measure(
        "vex_connections_waiting",
        GAUGE,
        "Connections that wait for one of the others to end, where the platform tells.",
        _LISTENER,
    ),
    Measure(
        "vex_connections_ended_total",
        COUNTER,
        "Connections that the registry ended; limit: idle ones, to make room.",
        {**_LISTENER, "reason": _ENDS},
    ),
    Measure(
        "vex_connections_refused_total",
        COUNTER,
        "Connections that were answered 503: too many waited, or the system gave no thread.",
        _LISTENER,
    ),
    Measure("vex_database_wait_seconds", HISTOGRAM, "How long transactions waited for those before them."),
    Measure("vex_database_commit_seconds", HISTOGRAM, "How long commits took, the sync of the disk included."),
    Measure("vex_blobs_uploaded_total", COUNTER, "Uploads that became a blob."),
    Measure("vex_blobs_uploaded_bytes_total", COUNTER, "Bytes of those."),
    Measure("vex_blobs_removed_total", COUNTER, "Blob files that were removed, because nothing needed them any more."),
    Measure("vex_blobs_removed_bytes_total", COUNTER, "Bytes of those."),
    Measure("vex_build_info", GAUGE, "Always 1; the labels tell what runs.", {"version": (), "python": ()}),
    Measure("vex_repositories", GAUGE, "Repositories that hold a manifest."),
    Measure("vex_tags", GAUGE, "Tags."),
    Measure("vex_manifests", GAUGE, "Manifests, each counted once."),
    Measure("vex_blobs", GAUGE, "Blobs, each counted once."),
    Measure("vex_stored_bytes", GAUGE, "Bytes of all blobs, each counted once."),
    Measure("vex_damaged_blobs", GAUGE, "Blobs whose file is missing or short; a push heals them."),
    Measure("vex_leases", GAUGE, "Blobs held for a while although no manifest may reference them."),
    Measure(
        "vex_quota_used_bytes",
        GAUGE,
        "What a repository with a quota holds: of the ten that use most of theirs.",
        {"repository": ()},
    ),
    Measure("vex_quota_allowed_bytes", GAUGE, "The quota of these.", {"repository": ()}),
    Measure("vex_uploads_open", GAUGE, "Uploads in progress: sessions, and blobs that arrive in one request."),
    Measure(
        "vex_disk_free_bytes", GAUGE, "Space that the file system of the data directory has left for the registry."
    ),
    Measure("vex_disk_kept_bytes", GAUGE, "Space that uploads leave free: free-space."),
    Measure(
        "vex_housekeeping_success_timestamp_seconds",
        GAUGE,
        "When each step of housekeeping was last done to its end, in seconds since 1970; pages, summaries and files are"
        " steps of the start.",
        {"step": ()},
    ),
    Measure(
        "vex_tls_certificate_expiry_timestamp_seconds",
        GAUGE,
        "Until when the certificate of a listener is valid, in seconds since 1970.",
        _LISTENER,
    ),
    Measure("process_cpu_seconds_total", COUNTER, "CPU time in seconds."),
    Measure("process_max_fds", GAUGE, "How many file descriptors may be open."),
    Measure("process_open_fds", GAUGE, "Open file descriptors."),
    Measure("process_resident_memory_bytes", GAUGE, "Resident memory in bytes."),
    Measure("process_virtual_memory_bytes", GAUGE, "Virtual memory in bytes."),
    Measure("process_threads", GAUGE, "Threads of the operating system."),
    Measure("process_start_time_seconds", GAUGE, "When the process started, in seconds since 1970."),
)
BY_NAME = {measure.name: measure for measure in MEASURES}
