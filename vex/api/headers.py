"""The headers that answers with content have in common, and what a client says of the content that it has."""

from __future__ import annotations

from vex.http.fields import etag_matches
from vex.http.message import Request
from vex.names import Digest

FOREVER = ("Cache-Control", "public, max-age=31536000, immutable")
REVALIDATE = ("Cache-Control", "no-cache")


def etag(digest: Digest) -> str:
    """Write the entity tag of content, which is its digest."""
    return f'"{digest}"'


def not_modified(request: Request, digest: Digest) -> bool:
    """Tell whether a client has the content already (RFC 9110 section 13.1.2)."""
    tags = request.header("if-none-match")
    return tags is not None and etag_matches(tags, etag(digest))


def content_headers(digest: Digest, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """Say which content an answer is about."""
    return [("Docker-Content-Digest", digest), ("ETag", etag(digest)), *more]
