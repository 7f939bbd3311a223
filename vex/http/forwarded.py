"""What trusted proxies say of a request: who the client is, and with which scheme and host it came (RFC 7239, and the
X-Forwarded fields).

Each proxy adds itself on the right. From there, trusted proxies are passed over; the first address that is none of them
is the client, and what stands to its left is hearsay. What is malformed, and what the two kinds of fields say
differently, is taken as not said. Loaded only where `trusted-proxies` names some. Which connections may say anything is
asked of `trusts`, once for each.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Union

if TYPE_CHECKING:
    from vex.http.heads import Head

# What the configuration, and a connection through a Unix socket, have for an address.
UNIX = "unix"
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_SCHEMES = ("http", "https")
# RFC 7239 section 4; ports and addresses without quotation marks are common, and harmless.
_PAIR = re.compile(r"(?:([A-Za-z0-9!#$%&'*+.^_`|~-]+)=(\"(?:[^\"\\]|\\.)*\"|[^\s\",;\\]*))?[ \t]*([;,]|\Z)[ \t]*")
# RFC 7239 section 6; X-Forwarded-For has IPv6 addresses without brackets.
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15}))(?::[0-9]{1,5})?|([0-9A-Fa-f:.]{2,45})")
# More than any chain of proxies; looking up addresses takes time.
_MAX_HOPS = 16


class Forwarded(NamedTuple):
    """Where a request came from; "" for what nobody said."""

    client: str
    scheme: str
    host: str


class Proxies:
    """The trusted proxies: addresses and networks, and `UNIX` for all who use a Unix socket."""

    def __init__(self, trusted: Sequence[Network | str]) -> None:
        self._networks = [network for network in trusted if not isinstance(network, str)]
        self._unix = UNIX in trusted

    def trusts(self, peer: str) -> bool:
        """Tell whether a peer is one of them."""
        if peer == UNIX:
            return self._unix
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def origin(self, head: Head) -> Forwarded:
        """Tell where a request that a trusted proxy passed on came from."""
        elements = _elements(head.get("forwarded") or "")
        standard = self._select(*([element.get(name, "") for element in elements] for name in ("for", "proto", "host")))
        common = self._select(*(_listed(head.get(f"x-forwarded-{name}")) for name in ("for", "proto", "host")))
        return Forwarded(*map(_agreed, standard, common))

    def _select(self, nodes: Sequence[str], schemes: Sequence[str], hosts: Sequence[str]) -> Forwarded:
        """Take what the outermost trusted proxy said: it is as far from the right in each list as there are trusted
        proxies behind it.
        """
        hops, client = 0, ""
        for node in reversed(nodes[-_MAX_HOPS:]):
            client = _address(node)
            if not self.trusts(client):
                break
            hops += 1
        scheme, host = _from_right(schemes, hops).lower(), _from_right(hosts, hops)
        return Forwarded(client, scheme if scheme in _SCHEMES else "", host if HOST.fullmatch(host) else "")


def _elements(text: str) -> list[dict[str, str]]:
    """Split a Forwarded field into its elements, names in lower case; none if it is malformed."""
    elements: list[dict[str, str]] = [{}]
    at, more = 0, bool(text)
    while more:
        match = _PAIR.match(text, at)
        if match is None or (match[1] or "").lower() in elements[-1]:
            return []
        if match[1]:
            value = match[2]
            elements[-1][match[1].lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        if match[3] == ",":
            elements.append({})
        at, more = match.end(), bool(match[3])
    return [element for element in elements if element]


def _listed(text: str | None) -> list[str]:
    return [value for value in map(str.strip, (text or "").split(",")) if value]


def _address(node: str) -> str:
    """Return the address of a node in its usual form, without a port; "" for what has none."""
    match = _NODE.fullmatch(node)
    if match is None:
        return ""
    try:
        address = ipaddress.ip_address(match[1] or match[2] or match[3])
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


def _from_right(values: Sequence[str], hops: int) -> str:
    return values[max(len(values) - 1 - hops, 0)] if values else ""


def _agreed(one: str, other: str) -> str:
    return "" if one and other and one != other else one or other


def addressable(host: str, scheme: str) -> str:
    """Make sure that clients take the first part of a name for a host: without a full stop or a port they do not."""
    if ":" in host or "." in host or host == "localhost":
        return host
    return f"{host}:{443 if scheme == 'https' else 80}"
