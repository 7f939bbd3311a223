"""What Vex measures about itself: the one place that names its metrics."""

from __future__ import annotations

import sys
from typing import Callable

from vex import VERSION, routes
from vex.addresses import PAGES
from vex.app import Incidents
from vex.connection import Observer
from vex.errors import (
    BAD_REQUEST,
    BLOB_TOO_LARGE,
    DISK_FULL,
    HEADERS_TOO_LARGE,
    MANIFEST_TOO_COMPLEX,
    MANIFEST_TOO_LARGE,
    REQUEST_TIMEOUT,
    TOO_MANY_UPLOADS,
    TOOMANYREQUESTS,
    URI_TOO_LONG,
    VERSION_NOT_SUPPORTED,
    Kind,
)
from vex.message import Response
from vex.metrics import Buckets, Metrics, Sample, Value, process_metrics
from vex.registry import Registry
from vex.tls import Certificates
from vex.uploads import Uploads

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_CODES = tuple(str(code) for code in (200, 201, 202, 204, 206, 304, 307, 400, 401, 403, 404, 405, 408, 413, 414, 416, 429, 431, 500, 501, 503, 505, 507))
_LISTENERS = ("public", "auth", "internal")
_ENDS = ("handshake", "idle", "head", "transfer", "linger", "stall", "rate", "limit", "shutdown")
# Errors that say something about clients or about limits; others, such as 404, are part of everyday use.
_REFUSALS: dict[Kind, str] = {
    BAD_REQUEST: "malformed",
    VERSION_NOT_SUPPORTED: "version",
    URI_TOO_LONG: "request_line",
    HEADERS_TOO_LARGE: "header",
    REQUEST_TIMEOUT: "head_timeout",
    MANIFEST_TOO_LARGE: "manifest_size",
    MANIFEST_TOO_COMPLEX: "manifest_complexity",
    BLOB_TOO_LARGE: "blob_size",
    DISK_FULL: "free_space",
    TOO_MANY_UPLOADS: "upload_sessions",
    TOOMANYREQUESTS: "failed_logins",
}
_OPS = tuple(route.op for route in (*routes.REGISTRY, *routes.INTERNAL, *PAGES))
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Observations(Observer, Incidents):
    """Counts what happens, and measures what is there when somebody asks."""

    def __init__(self, registry: Registry, uploads: Uploads, certificates: Certificates) -> None:
        self._registry = registry
        self._uploads = uploads
        self._certificates = certificates
        metrics = self._metrics = Metrics()
        self._duration = metrics.histogram(
            "vex_request_duration_seconds", "Requests by method, operation and status code.", {"method": _METHODS, "op": _OPS, "code": _CODES}
        )
        self._durations: dict[tuple[str, str, int], Buckets] = {}
        self._refused: Callable[..., Value] = metrics.labelled_counter(
            "vex_requests_refused_total", "Requests that were malformed or past a limit.", {"listener": _LISTENERS, "reason": tuple(_REFUSALS.values())}
        )
        self._ended: Callable[..., Value] = metrics.labelled_counter(
            "vex_connections_ended_total", "Connections that the registry ended, by reason.", {"listener": _LISTENERS, "reason": _ENDS}
        )
        self._panics = metrics.counter("vex_panic_total", "Requests that failed in a way nobody foresaw.")
        self._received = metrics.counter("vex_received_bytes_total", "Bytes of request bodies.")
        self._sent = metrics.counter("vex_sent_bytes_total", "Bytes of bodies of answers.")
        self._logins = metrics.counter("vex_logins_refused_total", "Requests with a wrong user name or password, or too many of those.")
        metrics.collect(self._holdings)
        metrics.collect(self._expiries)
        metrics.collect(process_metrics)

    def request_done(self, method: str, op: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Note a request that was answered; sizes in bytes of bodies."""
        key = (method, op, status)
        buckets = self._durations.get(key)
        if buckets is None:
            buckets = self._duration(method, op, str(status))
            # Methods come from clients: only those that are known may stay in the table.
            if method in _METHODS:
                self._durations[key] = buckets
        buckets.observe(seconds)
        if received:
            self._received.add(received)
        if sent:
            self._sent.add(sent)

    def login_refused(self) -> None:
        """Note a request with a wrong user name or password, or too many of those."""
        self._logins.add()

    def request_refused(self, listener: str, kind: Kind) -> None:
        """Note a request that was answered with an error; counted if it was malformed or past a limit."""
        reason = _REFUSALS.get(kind)
        if reason:
            self._refused(listener, reason).add()

    def connection_ended(self, listener: str, reason: str) -> None:
        """Note a connection that the server ended."""
        self._ended(listener, reason).add()

    def panic(self) -> None:
        """Note a request that failed in a way nobody foresaw."""
        self._panics.add()

    def response(self) -> Response:
        """Answer with all metrics."""
        return Response(200, [("Content-Type", _TEXT), ("X-Content-Type-Options", "nosniff")], self._metrics.render().encode())

    def _holdings(self) -> list[Sample]:
        totals = self._registry.totals()
        build = {"version": VERSION, "python": sys.version.split(" ", 1)[0]}
        return [
            Sample("vex_build_info", "gauge", "Always 1; the labels tell what runs.", 1, build),
            Sample("vex_repositories", "gauge", "Repositories that hold a manifest.", totals.repositories),
            Sample("vex_tags", "gauge", "Tags.", totals.tags),
            Sample("vex_manifests", "gauge", "Manifests, each counted once.", totals.manifests),
            Sample("vex_blobs", "gauge", "Blobs, each counted once.", totals.blobs),
            Sample("vex_stored_bytes", "gauge", "Bytes of all blobs, each counted once.", totals.blob_bytes),
            Sample("vex_damaged_blobs", "gauge", "Blobs whose file is missing or short; a push heals them.", totals.damaged_blobs),
            Sample("vex_leases", "gauge", "Blobs held for a while although no manifest may reference them.", totals.leases),
            Sample("vex_uploads_open", "gauge", "Upload sessions.", len(self._uploads)),
        ]

    def _expiries(self) -> list[Sample]:
        name, text = "vex_tls_certificate_expiry_timestamp_seconds", "Until when the certificate of a listener is valid, in seconds since 1970."
        return [Sample(name, "gauge", text, expiry, {"listener": listener}) for listener, expiry in self._certificates.expiries().items()]
