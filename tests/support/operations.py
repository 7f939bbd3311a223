"""All operations of the listeners: their paths, and what each listener answers; written by hand."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.server import digest_of
from vex.web.frame import STATIC_FILES
from vex.web.manual import SUBJECTS

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UNKNOWN_METHODS = ("TRACE", "CONNECT", "BREW", "get", "PROPFIND")
READ = {"GET": 200, "HEAD": 200}
ALIVE = {**READ, "OPTIONS": 200}
# The status of each request that is allowed, by operation: the requests below are such that they change nothing but by
# opening an upload.
PUBLIC_ALLOWS: dict[str, dict[str, int]] = {
    "version": READ,
    "catalog": READ,
    "ping": READ,
    "search": READ,
    "tags": READ,
    "referrers": READ,
    "manifest": READ,
    "blob": READ,
    "uploads": {},
    "upload": {},
    "metrics": {},
    "healthz": ALIVE,
    "readyz": {},
    "help": READ,
    "help-page": READ,
    "index": READ,
    "static": READ,
}
AUTH_ALLOWS: dict[str, dict[str, int]] = {
    "version": READ,
    "catalog": READ,
    "ping": READ,
    "search": READ,
    "tags": READ,
    "referrers": READ,
    "manifest": {**READ, "PUT": 400, "DELETE": 404},
    "blob": {**READ, "DELETE": 404},
    "uploads": {"POST": 202},
    "upload": {"GET": 404, "PATCH": 404, "PUT": 404, "DELETE": 404},
    "metrics": {},
    "healthz": ALIVE,
    "readyz": {},
    "help": {},
    "help-page": {},
    "index": {},
    "static": {},
}
INTERNAL_ALLOWS: dict[str, dict[str, int]] = {
    **{operation: {} for operation in AUTH_ALLOWS},
    **dict.fromkeys(("metrics", "readyz", "index", "static"), READ),
    "healthz": ALIVE,
}
ABSENT = digest_of(b"never pushed")
LAYER = digest_of(b"layer")
PATHS = {
    "version": "/v2/",
    "catalog": "/v2/_catalog",
    "ping": "/v1/_ping",
    "search": "/v1/search?q=app",
    "tags": "/v2/team/app/tags/list",
    "referrers": f"/v2/team/app/referrers/{ABSENT}",
    "manifest": "/v2/team/app/manifests/v1",
    "blob": f"/v2/team/app/blobs/{LAYER}",
    "uploads": "/v2/team/app/blobs/uploads/",
    "upload": f"/v2/team/app/blobs/uploads/{'0' * 64}?digest={ABSENT}",
    "metrics": "/metrics",
    "healthz": "/healthz",
    "readyz": "/readyz",
    "help": "/help/",
    "help-page": f"/help/{SUBJECTS[0]}/",
    "index": "/",
    "static": f"/static/{next(iter(STATIC_FILES))}",
}
# What is deleted in these tests is not there.
DELETE_PATHS = {"manifest": "/v2/team/app/manifests/v2", "blob": f"/v2/team/app/blobs/{ABSENT}"}


def requests() -> Iterator[tuple[str, str, str]]:
    """Go through all operations and methods; gives operation, method and path."""
    for operation, path in PATHS.items():
        for method in (*METHODS, *UNKNOWN_METHODS):
            yield operation, method, DELETE_PATHS.get(operation, path) if method == "DELETE" else path
