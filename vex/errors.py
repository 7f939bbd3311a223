"""Every error that Vex raises on purpose, and the table of those that a client can receive.

The table is transcribed from the OCI distribution specification 1.1, "Error Codes", with what Docker's registry adds
and what HTTP itself demands. A message says what happened and what to do about it; it never holds a path, SQL or a
secret. Turning an error into bytes is not here: `message.py` does it.
"""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One row of the table: the code that clients compare, the HTTP status, and the message unless a better one is
    given.
    """

    code: str
    status: int
    message: str


# OCI distribution specification 1.1, "Error Codes"
BLOB_UNKNOWN = Kind("BLOB_UNKNOWN", 404, "this repository has no such blob")
BLOB_UPLOAD_INVALID = Kind("BLOB_UPLOAD_INVALID", 400, "the blob upload is not valid; start it again")
BLOB_UPLOAD_UNKNOWN = Kind("BLOB_UPLOAD_UNKNOWN", 404, "no such upload: it ended or expired; start it again")
DIGEST_INVALID = Kind("DIGEST_INVALID", 400, "the digest is not valid or not that of the content")
MANIFEST_BLOB_UNKNOWN = Kind(
    "MANIFEST_BLOB_UNKNOWN", 404, "the manifest references content that is not in this repository; push that first"
)
MANIFEST_INVALID = Kind("MANIFEST_INVALID", 400, "the manifest is not valid")
MANIFEST_UNKNOWN = Kind("MANIFEST_UNKNOWN", 404, "this repository has no such manifest")
NAME_INVALID = Kind(
    "NAME_INVALID",
    400,
    "not a repository name: lower-case letters and digits, joined by '.', '_', '__', '-' or '/', at most 255"
    " characters",
)
NAME_UNKNOWN = Kind("NAME_UNKNOWN", 404, "there is no such repository")
SIZE_INVALID = Kind("SIZE_INVALID", 400, "the length is not that of the content")
UNAUTHORIZED = Kind("UNAUTHORIZED", 401, "a user name and a password are needed; log in first")
DENIED = Kind("DENIED", 403, "this is not allowed")
UNSUPPORTED = Kind("UNSUPPORTED", 405, "this operation is not supported")
TOOMANYREQUESTS = Kind("TOOMANYREQUESTS", 429, "too many requests; wait and try again")

# Docker's registry
RANGE_INVALID = Kind("RANGE_INVALID", 416, "the range is not valid here")
TAG_INVALID = Kind(
    "TAG_INVALID", 400, "not a tag: use letters, digits, '_', '.' and '-', at most 128, not '.' or '-' first"
)
PAGINATION_NUMBER_INVALID = Kind("PAGINATION_NUMBER_INVALID", 400, "n must be a whole number, 0 or more")
BLOB_TOO_LARGE = Kind("SIZE_INVALID", 413, "the blob is larger than this registry takes")
TOO_MANY_UPLOADS = Kind("TOOMANYREQUESTS", 429, "too many uploads are open; finish or cancel some, or try again later")
MANIFEST_TOO_LARGE = Kind("MANIFEST_INVALID", 413, "the manifest is larger than this registry takes")
MANIFEST_TOO_COMPLEX = Kind(
    "MANIFEST_INVALID", 400, "the manifest has more descriptors, or is nested deeper, than this registry takes"
)
REFERENCED = Kind("DENIED", 405, "it is still referenced")
IMMUTABLE = Kind("DENIED", 409, "the tag is immutable; push under another tag")
PROTECTED = Kind("DENIED", 405, "the tag is protected; nothing was deleted")
QUOTA_EXCEEDED = Kind("DENIED", 403, "the repository has no room for this; delete tags of it that are not needed")
READ_ONLY = Kind("UNSUPPORTED", 405, "this address only reads; push and delete at the registry's authenticated address")

PRECONDITION_FAILED = Kind(
    "PRECONDITION_FAILED",
    412,
    "what is here is not what If-Match or If-None-Match demands; look at it again, then decide whether to push",
)

# HTTP itself (RFC 9110 and 9112, RFC 4918 section 11.5)
BAD_REQUEST = Kind("BAD_REQUEST", 400, "the request is not well-formed HTTP")
NOT_FOUND = Kind("NOT_FOUND", 404, "there is nothing at this path")
METHOD_NOT_ALLOWED = Kind("UNSUPPORTED", 405, "this path does not support this method")
REQUEST_TIMEOUT = Kind("REQUEST_TIMEOUT", 408, "the request did not arrive in time")
BODY_TIMEOUT = Kind(
    "REQUEST_TIMEOUT",
    408,
    "the rest of the body did not arrive in time; go on with the upload where it stands, or send it again",
)
URI_TOO_LONG = Kind("URI_TOO_LONG", 414, "the request line is too long")
HEADERS_TOO_LARGE = Kind("HEADERS_TOO_LARGE", 431, "the request has too many or too large header fields")
INTERNAL = Kind("INTERNAL_ERROR", 500, "the registry failed on this request; its log says more")
NOT_IMPLEMENTED = Kind("UNSUPPORTED", 501, "this method is not implemented")
UNAVAILABLE = Kind("UNAVAILABLE", 503, "the registry cannot do this now; try again")
BUSY = Kind("UNAVAILABLE", 503, "the registry makes as many large pages as it does at once; try again in a moment")
VERSION_NOT_SUPPORTED = Kind("VERSION_NOT_SUPPORTED", 505, "use HTTP/1.1")
DISK_FULL = Kind(
    "INSUFFICIENT_STORAGE",
    507,
    "the registry's disk is full; delete tags that are not needed or add space, then push again",
)
# A command that the running registry cannot do; the message says why.
FAILED = Kind("FAILED", 400, "this cannot be done")


class VexError(Exception):
    """Base of the errors below; its text is for a person."""


class Failure(VexError):
    """A command cannot go on; the text says why and what to do, in one line. Exit code 1."""


class RegistryError(VexError):
    """What a client asked for cannot be done; becomes the OCI error document of its `kind`.

    `headers` are added to the answer; `detail` must be JSON-serialisable.
    """

    def __init__(
        self, kind: Kind, message: str = "", *, detail: object = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message or kind.message)
        self.kind = kind
        self.detail = detail
        self.headers: tuple[tuple[str, str], ...] = tuple((headers or {}).items())

    @property
    def message(self) -> str:
        """The sentence for the client."""
        return str(self.args[0])


class MalformedRequest(RegistryError):
    """The bytes of the request cannot be trusted to end where they seem to: answered, and the connection is closed."""


class Disconnected(VexError):
    """The client went away, or was too slow, in the middle of a body: nothing can be answered."""


class Refused(VexError):
    """Another registry, or a file in its place, answered with something else than what was asked for; `status` is 0 for
    a file.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def of(self, name: str) -> Refused:
        """Say of what: the same refusal, with a name in front."""
        return type(self)(self.status, f"{name}: {self}")
