"""The routes, one table: a path is parsed and built from the same template, so that the two cannot drift apart.

Endpoint ids are those of the OCI distribution specification 1.1, "Endpoints"; end-4c, end-7b and end-14 are of its main
branch. Which listener allows what is decided in `app.py`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

GET, HEAD, POST, PUT, PATCH, DELETE = "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"
READS = frozenset({GET, HEAD})
# RFC 3986 section 3.3: what a segment can hold as it is.
_SEGMENT_CHARACTER = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_SLASH = "%2F"
# Fields that are more, or less, than any one segment. In addresses of pages, where names stand in front, a colon tells
# digests from names.
_FIELDS = {"name": ".+", "manifest": "[^/:]+:[^/]+", "manifests": "[^/:]+:[^/]+:[^/]+", "layer": "[^/:]+:[^/]+"}


# The fields in a path, not yet checked.
PathFields = dict[str, str]


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
    # A repository name may hold slashes; what it must look like is checked once the route is known. "/?" at the end:
    # with and without.
    pattern = re.sub(r"<(\w+)>", lambda field: f"(?P{field[0]}{_FIELDS.get(field[1], '[^/]+')})", re.escape(template))
    return Route(op, template, endpoints, re.compile(re.sub(r"(?<=.)/$", "/?", pattern)))


MANIFEST = route(
    "manifest", "/v2/<name>/manifests/<reference>", GET="end-3", HEAD="end-3", PUT="end-7a end-7b", DELETE="end-9"
)
UPLOADS = route("uploads", "/v2/<name>/blobs/uploads/", POST="end-4a end-4b end-4c end-11")
UPLOAD = route("upload", "/v2/<name>/blobs/uploads/<token>", GET="end-13", PATCH="end-5", PUT="end-6", DELETE="end-14")
BLOB = route("blob", "/v2/<name>/blobs/<digest>", GET="end-2", HEAD="end-2", DELETE="end-10")
TAGS = route("tags", "/v2/<name>/tags/list", GET="end-8a end-8b", HEAD="end-8a end-8b")
REFERRERS = route("referrers", "/v2/<name>/referrers/<digest>", GET="end-12a end-12b", HEAD="end-12a end-12b")
VERSION = route("version", "/v2/", GET="end-1", HEAD="end-1")
CATALOG = route("catalog", "/v2/_catalog", GET="Docker", HEAD="Docker")

# What `docker search` and `podman search` ask ("Docker Registry API v1", Search).
PING = route("ping", "/v1/_ping", GET="Docker", HEAD="Docker")
SEARCH = route("search", "/v1/search", GET="Docker", HEAD="Docker")

# Where Bearer tokens are given out; no repository is called _token.
TOKEN = route("token", "/v2/_token", GET="Docker", POST="Docker")

REGISTRY = (MANIFEST, UPLOADS, UPLOAD, BLOB, TAGS, REFERRERS, VERSION, CATALOG, PING, SEARCH)

# Of every listener, for those who balance load.
HEALTHZ = route("healthz", "/healthz", GET="", HEAD="", OPTIONS="")

INTERNAL = (
    route("metrics", "/metrics", GET="", HEAD=""),
    route("readyz", "/readyz", GET="", HEAD=""),
)


def canonical(path: str) -> str:
    """Decode each escape of a path once (RFC 3986 section 2.4), but for those that would separate segments, or could
    not stand in one.

    What stays escaped fits no grammar but that of a repository's name, which may hold slashes.
    """
    return _ESCAPE.sub(_decoded, path) if "%" in path else path


def match(routes: tuple[Route, ...], path: str) -> tuple[Route, PathFields] | None:
    """Find the route of a canonical path, and the fields in it, not yet checked."""
    for route in routes:
        found = route.pattern.fullmatch(path)
        if found:
            fields = found.groupdict()
            if "%" in path and "name" in fields:
                fields["name"] = fields["name"].replace(_SLASH, "/")
            return route, fields
    return None


def _decoded(escape: re.Match[str]) -> str:
    if escape[1] is None:
        # It begins no escape, and must not become the beginning of one.
        return "%25"
    character = chr(int(escape[1], 16))
    return character if _SEGMENT_CHARACTER.fullmatch(character) else escape[0].upper()
