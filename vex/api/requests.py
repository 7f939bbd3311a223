"""What the handlers of content read of a request, into value types: references, digests, ranges, conditions."""

from __future__ import annotations

from vex.access.identity import PULL, identity_of
from vex.api.headers import etag
from vex.errors import DIGEST_INVALID, RegistryError
from vex.http.fields import Preconditions, parse_content_range
from vex.http.message import Request
from vex.names import Digest, Tag
from vex.registry.finding import MayPull, Reference
from vex.registry.registry import Condition
from vex.storage.audit import Actor


def actor_of(request: Request) -> Actor:
    """Say who asks, for the record of changes."""
    return Actor(request.user, request.client)


def reference_of(text: str) -> Reference:
    """Read what names a manifest; raises TAG_INVALID and DIGEST_INVALID."""
    # A tag has no colon, a digest has one.
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def digest_parameter(request: Request) -> Digest:
    """Read the digest of an upload; raises DIGEST_INVALID."""
    text = request.parameter("digest")
    if text is None:
        raise RegistryError(DIGEST_INVALID, "the query needs digest=, the digest of the whole blob")
    return Digest.parse(text)


def sent_range(request: Request) -> tuple[int, int] | tuple[None, None]:
    """Read which bytes of an upload the body holds; None where it is not said. Raises BLOB_UPLOAD_INVALID."""
    value = request.header("content-range")
    return (None, None) if value is None else parse_content_range(value)


def condition_of(request: Request) -> Condition | None:
    """Read what has to hold of the tags for a push to be taken (RFC 9110 section 13.1); None for anything."""
    if_match, if_none_match = request.header("if-match"), request.header("if-none-match")
    if if_match is None and if_none_match is None:
        return None
    preconditions = Preconditions(if_match, if_none_match)
    return lambda before: preconditions.hold(*(digest and etag(digest) for digest in before))


def may_pull(request: Request, *, public: bool) -> MayPull:
    """Say which repositories a client may pull from, at this listener or where nobody is asked who they are."""
    return lambda repository: public or not identity_of(request).denial(repository, PULL)
