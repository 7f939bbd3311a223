"""What requests say in the query and in single header fields: conditions, credentials (RFC 3986, 9110, 7617, 6750).
Pure functions.

What a client may get wrong without harm is ignored, as RFC 9110 demands for conditions. Credentials that are
not well-formed are none, and a query that is not is an error.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from vex.errors import BAD_REQUEST, BLOB_UPLOAD_INVALID, RegistryError

# OCI distribution specification 1.1, "Pushing a blob in chunks", with the size that clients add as in RFC 9110; 19
# digits hold 2^63 - 1.
_CONTENT_RANGE = re.compile(r"([0-9]{1,19})-([0-9]{1,19})(?:/(?:[0-9]{1,19}|\*))?")
# RFC 9110 section 8.8.3.
_ENTITY_TAG = re.compile(r'(W/)?("[!#-~\x80-\xff]*")')
# What means itself.
_PLAIN = re.compile("[A-Za-z0-9._/:=-]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_QUERY_PAIRS = 64
# RFC 9110 sections 12.4.2 and 12.5.3.
_CODING = re.compile(r"([a-z0-9!#$%&'*+.^_`|~-]+)(?:[ \t]*;[ \t]*q=([01](?:\.[0-9]{0,3})?))?")
_MAX_ACCEPT = 1024
_BASIC = re.compile(r"(?i:basic) +([A-Za-z0-9+/]+={0,2})")
_MAX_AUTHORIZATION = 4096
# RFC 6750 section 2.1; with room for several scopes.
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]{1,8192}=*)")


class Credentials(NamedTuple):
    """What HTTP Basic carries; the name is not empty."""

    name: str
    password: str


def parse_query(text: str) -> dict[str, list[str]]:
    """Decode a query as Go's net/url does, `+` being a space; what Go would drop in silence raises BAD_REQUEST."""
    if not text:
        return {}
    pairs = text.split("&")
    if len(pairs) > _MAX_QUERY_PAIRS:
        raise RegistryError(BAD_REQUEST, f"the query has more than {_MAX_QUERY_PAIRS} parameters")
    query: dict[str, list[str]] = {}
    for pair in filter(None, pairs):
        name, _, value = pair.partition("=")
        query.setdefault(_decode_component(name), []).append(_decode_component(value))
    return query


def parse_content_range(value: str) -> tuple[int, int]:
    """Return the first and the last offset of an uploaded chunk, whatever size stands behind them; raises
    BLOB_UPLOAD_INVALID.
    """
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None or int(match[1]) > int(match[2]):
        raise RegistryError(
            BLOB_UPLOAD_INVALID,
            "Content-Range must be FIRST-LAST, two offsets of which the first is not the larger; send the chunk again",
        )
    return int(match[1]), int(match[2])


def etag_matches(if_none_match: str, etag: str) -> bool:
    """Tell whether If-None-Match names the entity tag, or any, by weak comparison (RFC 9110 section 13.1.2)."""
    return if_none_match.strip() == "*" or etag[etag.index('"') :] in (
        opaque for _, opaque in _ENTITY_TAG.findall(if_none_match)
    )


def takes_gzip(accept_encoding: str | None) -> bool:
    """Tell whether a client takes gzip, and would not rather have none (RFC 9110 section 12.5.3)."""
    if not accept_encoding or len(accept_encoding) > _MAX_ACCEPT:
        return False
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        match = _CODING.fullmatch(part.strip(" \t"))
        if match:
            weights.setdefault(match[1], float(match[2] or 1))
    wanted = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0)))
    return wanted > 0 and wanted >= weights.get("identity", 0)


class Preconditions:
    """If-Match and If-None-Match of a request that writes (RFC 9110 sections 13.1.1 and 13.1.2)."""

    def __init__(self, if_match: str | None, if_none_match: str | None) -> None:
        """Take the values of the fields, None without; raises BAD_REQUEST, since what cannot be read must not be
        ignored here.
        """
        self._if_match, self._if_none_match = if_match, if_none_match
        for value in (if_match, if_none_match):
            if (
                value is not None
                and value.strip() != "*"
                and (_ENTITY_TAG.sub("", value).strip(" \t,") or '"' not in value)
            ):
                raise RegistryError(
                    BAD_REQUEST, 'If-Match and If-None-Match are *, or digests in quotation marks such as "sha256:..."'
                )

    def hold(self, target: str | None, *others: str | None) -> bool:
        """Tell whether the write may go on; given are the entity tags of its target and of what else it replaces, None
        for what is not there.

        If-Match is about the target, by strong comparison; of If-None-Match nothing may match.
        """
        if self._if_match is not None:
            strong = [opaque for weak, opaque in _ENTITY_TAG.findall(self._if_match) if not weak]
            if target is None or (self._if_match.strip() != "*" and target not in strong):
                return False
        found = filter(None, (target, *others))
        return self._if_none_match is None or not any(etag_matches(self._if_none_match, etag) for etag in found)


def if_range_matches(value: str | None, etag: str) -> bool:
    """Tell whether If-Range, if it is there, names the entity tag by strong comparison (RFC 9110 section 13.1.5); a
    date never does.
    """
    return value is None or (value == etag and not etag.startswith("W/"))


def parse_basic(value: str | None) -> Credentials | None:
    """Decode the Authorization field of HTTP Basic (RFC 7617); None for every other scheme and for what is not
    well-formed.
    """
    match = _BASIC.fullmatch(value or "")
    if match is None or len(match.group()) > _MAX_AUTHORIZATION:
        return None
    try:
        text = base64.b64decode(match[1], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    name, colon, password = text.partition(":")
    return Credentials(name, password) if name and colon and "\0" not in text else None


def parse_bearer(value: str) -> str | None:
    """Return the token of an Authorization field of the scheme Bearer (RFC 6750); None for every other scheme."""
    match = _BEARER.fullmatch(value)
    return match[1] if match else None


def _decode_component(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    if _BAD_ESCAPE.search(text):
        raise RegistryError(BAD_REQUEST, "the query has a % without two hex digits behind it; write %25")
    try:
        decoded = unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError:
        raise RegistryError(BAD_REQUEST, "the query is not UTF-8") from None
    if _CONTROL_CHARACTER.search(decoded):
        raise RegistryError(BAD_REQUEST, "the query holds control characters")
    return decoded
