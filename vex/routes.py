"""The routes, one table: a path is parsed and built from the same template, so that the two cannot drift apart.

Endpoint ids are those of the OCI distribution specification 1.1, "Endpoints"; end-4c, end-7b and end-14 are of its main branch.
Which listener allows what is decided in `app.py`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

GET, HEAD, POST, PUT, PATCH, DELETE = "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"
READS = frozenset({GET, HEAD})
# Fields that are more, or less, than any one segment. In addresses of pages, where names stand in front, a colon tells digests from names.
_FIELDS = {"name": ".+", "manifest": "[^/:]+:[^/]+", "manifests": "[^/:]+:[^/]+:[^/]+", "layer": "[^/:]+:[^/]+"}


class Route(NamedTuple):
    """A path template with the methods that it takes, each with its endpoint ids; `op` names it in metrics and logs."""

    op: str
    template: str
    endpoints: dict[str, str]
    pattern: re.Pattern[str]

    def path(self, **fields: str) -> str:
        """Build a path of checked fields."""
        path = self.template
        for name, value in fields.items():
            path = path.replace(f"<{name}>", value)
        return path


def route(op: str, template: str, **endpoints: str) -> Route:
    """Make a route; endpoints are given by method."""
    # A repository name may hold slashes; what it must look like is checked once the route is known. "/?" at the end: with and without.
    pattern = re.sub(r"<(\w+)>", lambda field: f"(?P{field[0]}{_FIELDS.get(field[1], '[^/]+')})", re.escape(template))
    return Route(op, template, endpoints, re.compile(re.sub(r"(?<=.)/$", "/?", pattern)))


MANIFEST = route("manifest", "/v2/<name>/manifests/<reference>", GET="end-3", HEAD="end-3", PUT="end-7a end-7b", DELETE="end-9")
UPLOADS = route("uploads", "/v2/<name>/blobs/uploads/", POST="end-4a end-4b end-4c end-11")
UPLOAD = route("upload", "/v2/<name>/blobs/uploads/<token>", GET="end-13", PATCH="end-5", PUT="end-6", DELETE="end-14")
BLOB = route("blob", "/v2/<name>/blobs/<digest>", GET="end-2", HEAD="end-2", DELETE="end-10")
TAGS = route("tags", "/v2/<name>/tags/list", GET="end-8a end-8b", HEAD="end-8a end-8b")
REFERRERS = route("referrers", "/v2/<name>/referrers/<digest>", GET="end-12a end-12b", HEAD="end-12a end-12b")
VERSION = route("version", "/v2/", GET="end-1", HEAD="end-1")
CATALOG = route("catalog", "/v2/_catalog", GET="Docker", HEAD="Docker")

# Where Bearer tokens are given out; no repository is called _token.
TOKEN = route("token", "/v2/_token", GET="Docker", POST="Docker")

REGISTRY = (MANIFEST, UPLOADS, UPLOAD, BLOB, TAGS, REFERRERS, VERSION, CATALOG)

INTERNAL = (
    route("metrics", "/metrics", GET="", HEAD=""),
    route("healthz", "/healthz", GET="", HEAD=""),
    route("readyz", "/readyz", GET="", HEAD=""),
)


def match(routes: tuple[Route, ...], path: str) -> tuple[Route, dict[str, str]] | None:
    """Find the route of a path, and the fields in it, not yet checked."""
    for route in routes:
        found = route.pattern.fullmatch(path)
        if found:
            return route, found.groupdict()
    return None
