"""The kinds of values that the configuration has: addresses, paths, times, sizes, numbers, switches, and how each is
written.

A parser takes the text of a value and returns it, or raises ValueError; what the text must look like is said by its
`ValueKind`.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, Callable, Generic, NamedTuple, TypeVar, Union

from vex.logs import STANDARD_ERROR

T = TypeVar("T")

_MAX_SHOWN = 80
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})")
_PORT = re.compile(r"[0-9]{1,5}")
_MAX_PORT = 65535
_UNIX = "unix:"
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"([0-9]{1,18})(|KiB|MiB|GiB|TiB)")
_BYTES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_NUMBER = re.compile(r"[0-9]{1,9}")
_SWITCHES = {"yes": True, "no": False}
# RFC 3986: what the path of a URL may hold, and placeholders.
_TEMPLATE = re.compile(r"(https?://[^/?#{]+)/(?:[A-Za-z0-9._~:/?@!$&'()*+,;=%-]|\{(?:digest|algorithm|encoded)\})*")
# Nothing that nginx would decode or take for a query.
_PREFIX = re.compile(r"/([A-Za-z0-9_-][A-Za-z0-9._-]*/)+")


class Address(NamedTuple):
    """Where to listen: a host name or IP address, empty for all interfaces, and a port, 0 for any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(NamedTuple):
    """Where to listen: the path of a Unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}"


Listening = Union[Address, UnixAddress]


class ValueKind(Generic[T]):
    """A kind of values: its name in help texts, what it accepts in words, the parser, and the largest value if there is
    one.

    The parser raises ValueError.
    """

    def __init__(self, metavar: str, accepts: str, parse: Callable[[str], T], most: str = "") -> None:
        self.metavar = metavar
        self.accepts = accepts
        self.parse = parse
        self.most = most


def _parse_host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        return str(ipaddress.IPv6Address(text[1:-1]))
    if text and not _HOST.fullmatch(text):
        raise ValueError(text)
    return text


def _parse_listener(text: str) -> Listening | None:
    if text.startswith(_UNIX):
        return UnixAddress(_parse_path(text[len(_UNIX) :]))
    return None if text == "off" else _parse_address(text)


def _parse_address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if ":" not in text or not _PORT.fullmatch(port) or int(port) > _MAX_PORT:
        raise ValueError(text)
    return Address(_parse_host(host), int(port))


def _parse_path(text: str) -> Path:
    if not text or text[0] in "\"'":
        raise ValueError(text)
    return Path(text)


def _parse_optional_path(text: str) -> Path | None:
    return _parse_path(text) if text else None


def _parse_duration(text: str) -> float:
    match = _DURATION.fullmatch("0s" if text == "0" else text)
    if not match:
        raise ValueError(text)
    return float(match[1]) * _SECONDS[match[2]]


def _parse_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(text)
    return int(match[1]) * _BYTES[match[2]]


def _parse_number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _parse_switch(text: str) -> bool:
    if text not in _SWITCHES:
        raise ValueError(text)
    return _SWITCHES[text]


def _parse_log(text: str) -> Path | str | None:
    return STANDARD_ERROR if text == STANDARD_ERROR else _parse_optional_path(text)


def _parse_url(text: str) -> str:
    if not text:
        return text
    scheme, separator, authority = text.partition("://")
    if scheme not in ("http", "https") or not separator:
        raise ValueError(text)
    # A port of the URL's own scheme may be left out.
    bracketed = authority.endswith("]")
    address = _parse_address(authority if ":" in authority and not bracketed else f"{authority}:80")
    if not address.host or not address.port:
        raise ValueError(text)
    return text


def _parse_proxies(text: str) -> tuple[Any, ...]:
    return tuple(
        entry if entry == "unix" else ipaddress.ip_network(entry) for entry in map(str.strip, text.split(",")) if text
    )


def _parse_template(text: str) -> str:
    if not text:
        return text
    match = _TEMPLATE.fullmatch(text)
    if match is None or not ("{digest}" in text or "{encoded}" in text):
        raise ValueError(text)
    _parse_url(match[1])
    return text


def _parse_prefix(text: str) -> str:
    if text and not _PREFIX.fullmatch(text):
        raise ValueError(text)
    return text


ADDRESS = ValueKind("HOST:PORT", "HOST:PORT, [IPV6]:PORT, :PORT for all interfaces, unix:PATH, or off", _parse_listener)
FILE = ValueKind("FILE", "a path without quotes, or nothing", _parse_optional_path)
DIRECTORY = ValueKind("DIR", "a path without quotes", _parse_path)
DURATION = ValueKind("TIME", "a time such as 90s, 10m, 24h or 7d", _parse_duration, most="3650d")
SIZE = ValueKind("SIZE", "a size in bytes, or such as 256KiB, 4MiB or 64GiB", _parse_size, most="1024TiB")
NUMBER = ValueKind("NUMBER", "a whole number", _parse_number, most="1000000")
# Python's JSON parser recurses, on the small stacks of the connections' threads.
DEPTH = ValueKind("NUMBER", "a whole number", _parse_number, most="500")
SWITCH = ValueKind("yes|no", "yes or no", _parse_switch)
LOG_FILE = ValueKind("FILE", "a path without quotes, stderr, or nothing", _parse_log)
URL = ValueKind("URL", "http:// or https:// with a host and perhaps a port, and no path; or nothing", _parse_url)

PROXIES = ValueKind(
    "ADDRESSES",
    "addresses and networks such as 127.0.0.1, 10.0.0.0/8 and fd00::/8, or the word unix, with commas between them",
    _parse_proxies,
)
TEMPLATE = ValueKind(
    "URL",
    "http:// or https:// with a host and a path that has {digest} or {encoded} in it, and perhaps {algorithm}; or"
    " nothing",
    _parse_template,
)
PREFIX = ValueKind("PATH", "a path that begins and ends with /, such as /blobs/; or nothing", _parse_prefix)


def shown(text: str) -> str:
    """Quote a text of the configuration, escaped, and cut where it is long."""
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")


def choice(words: tuple[str, ...]) -> ValueKind[str]:
    """Make the kind of values that are one of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return ValueKind("|".join(words), f"{', '.join(words[:-1])} or {words[-1]}", parse)
