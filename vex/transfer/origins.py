"""Addresses of registries: those that people write, and those that registries name.

What a registry names is whatever it likes: it is checked here before anything is asked there.
"""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from vex.errors import Refused

_URL = re.compile(r"(https?)://([A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?")
_MAX_PORT = 65535
_NO_ADDRESS = "the registry names an address that is none"
# RFC 3986 section 2: all else is escaped in an address.
_PRINTABLE = re.compile(r"[!-~]*")
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")


class Origin(NamedTuple):
    """Scheme, host and port."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine."""
        return _LOOPBACK.fullmatch(self.host) is not None


def parse_origin(text: str) -> Origin:
    """Read http://HOST:PORT, https://HOST[:PORT] or HOST[:PORT], which is HTTPS except on this machine; raises
    ValueError.
    """
    if "://" not in text:
        found = parse_origin(f"https://{text}")
        return parse_origin(f"http://{text}") if found.is_loopback else found
    match = _URL.fullmatch(text)
    if not match or int(match[3] or 0) > _MAX_PORT:
        raise ValueError(text)
    # What looks up a name encodes it so, and fails for one with a part that is empty or too long.
    match[2].encode("idna")
    return Origin(match[1], match[2].strip("[]"), int(match[3] or (443 if match[1] == "https" else 80)))


def resolved(base: str, address: str) -> str:
    """Return what an address that a registry names is, seen from another; raises Refused for one that is none."""
    with contextlib.suppress(ValueError):
        if _PRINTABLE.fullmatch(address):
            return urljoin(base, address)
    raise Refused(0, _NO_ADDRESS)


def split(url: str) -> tuple[Origin, str]:
    """Split an address that a registry names into its origin, and what to ask there; raises Refused."""
    try:
        parts = urlsplit(resolved("", url))
        origin = parse_origin(f"{parts.scheme}://{parts.netloc}")
    except ValueError:
        raise Refused(0, _NO_ADDRESS) from None
    return origin, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
