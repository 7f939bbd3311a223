"""Certificates for HTTPS: an authority that clients are told to trust, and certificates of servers that it signs. ECDSA
on P-256.

Programs want different things of them (RFC 5280): OpenSSL, Python's strict checks, Go, NSS and rustls. Above all, that
the certificate of a server is no authority itself, and names who signed it.

An authority is good for the names of its server alone, which its certificate says (name constraints), so that whoever
steals its key cannot pass for anything else, not even to those who trust it for everything. The path length of 0
forbids authorities below it.

Not here: which files these are written to; other curves; certificates signed by somebody else.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Callable, NamedTuple

from vex.commands.p256 import encode_point, new_key, public_point, sign
from vex.errors import Failure
from vex.http import der
from vex.http.der import bit_string, element, integer, oid, sequence
from vex.http.x509 import read_certificate, read_key

# Clocks differ between machines, and one that took local time for UTC is off by up to 14 hours.
BACKDATED = timedelta(days=1)
# Clients are given an authority by hand, all of them again once it has expired.
AUTHORITY_VALIDITY = timedelta(days=3650)
# Programs that use Apple's own verifier refuse more than 825 days, the one before now included.
VALIDITY = timedelta(days=823)

# RFC 1123 section 2.1: the last label is never only digits, so that a name cannot be mistaken for an address.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
MAX_DNS_NAME = 253
# RFC 5280 appendix A.1, ub-common-name
MAX_COMMON_NAME = 64

TokenBytes = Callable[[int], bytes]


class PemPair(NamedTuple):
    """A certificate, with that of its authority behind it if it has one, and its private key (PKCS#8), both PEM."""

    certificate_pem: str
    key_pem: str


class _Body(NamedTuple):
    """What a certificate is to say; names as DER."""

    issuer: bytes
    subject: bytes
    key: int
    not_after: datetime
    extensions: Sequence[bytes]


def create_authority(hosts: Sequence[str], *, now: float, token_bytes: TokenBytes = secrets.token_bytes) -> PemPair:
    """Make a key and a certificate of an authority for the names of a server, see `hosts_of`; `now` in seconds since
    1970.
    """
    key = new_key(token_bytes)
    name = _name(f"{_common_name(hosts[0])[: MAX_COMMON_NAME - 14]} Vex authority")
    extensions = (
        _extension(
            "2.5.29.19", sequence(element(der.BOOLEAN, b"\xff"), integer(0)), critical=True
        ),  # basicConstraints: an authority, none below it
        # Bits 5, keyCertSign, and 6, cRLSign, without which some programs take none for an authority: RFC 5280 section
        # 4.2.1.3
        _extension("2.5.29.15", bit_string(b"\x06", unused=1), critical=True),
        _extension("2.5.29.30", _permitted(hosts), critical=True),
        _subject_key(key),
        _authority_key(key),
    )
    body = _Body(name, name, key, _moment(now) + AUTHORITY_VALIDITY, extensions)
    return PemPair(_signed(body, key, _moment(now), token_bytes), _key_pem(key))


def create_certificate(
    hosts: Sequence[str],
    authority: PemPair,
    *,
    now: float,
    key_pem: str = "",
    token_bytes: TokenBytes = secrets.token_bytes,
) -> PemPair:
    """Make a certificate of a server for its names, and a key unless there is one; raises ValueError if this is no
    authority or no key.

    It ends with its authority.
    """
    issuer, issuer_key = read_certificate(authority.certificate_pem.encode()), read_key(authority.key_pem.encode())
    if encode_point(public_point(issuer_key)) != issuer.public_key:
        raise ValueError("the key of the authority is not that of its certificate")
    key = read_key(key_pem.encode()) if key_pem else new_key(token_bytes)
    extensions = (
        _extension("2.5.29.19", sequence(), critical=True),  # basicConstraints: no authority
        # Bit 0, digitalSignature
        _extension("2.5.29.15", bit_string(b"\x80", unused=7), critical=True),
        _extension("2.5.29.37", sequence(_SERVER_AUTH)),
        _extension("2.5.29.17", sequence(*map(_general_name, hosts))),
        _subject_key(key),
        _authority_key(issuer_key),
    )
    end = min(_moment(now) + VALIDITY, _moment(issuer.not_after))
    body = _Body(issuer.subject, _name(_common_name(hosts[0])), key, end, extensions)
    return PemPair(_signed(body, issuer_key, _moment(now), token_bytes) + authority.certificate_pem, _key_pem(key))


def hosts_of(host: str) -> list[str]:
    """List the names that clients may use for a server: its own, and those of the machine itself, each once; raises
    Failure.
    """
    return list(dict.fromkeys([canonical_host(host), "localhost", "127.0.0.1", "::1"]))


def canonical_host(host: str) -> str:
    """Check a host name or IP address and give it the form it has in a certificate; raises Failure.

    A name is in lower case, and in ASCII if it is an international one.
    """
    address = _address(host)
    if address:
        return str(address)
    name = host.lower() if host.isascii() else _international_name(host)
    if len(name) > MAX_DNS_NAME or not _DNS_NAME.fullmatch(name):
        raise Failure(
            f"{host!r} is neither a DNS name nor an IP address; use letters, digits, '-' and '.', without port,"
            " wildcard or final dot"
        )
    return name


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an IP address; a zone, as in `fe80::1%eth0`, means nothing on another machine and makes it none."""
    try:
        return None if "%" in host else ipaddress.ip_address(host)
    except ValueError:
        return None


def _international_name(host: str) -> str:
    """Encode a name as IDNA; raises Failure unless all versions of IDNA agree on it.

    The standard library knows IDNA 2003 (RFC 3490), which turns `ß` into `ss` where browsers of today (RFC 5891) do
    not.
    """
    try:
        name = host.encode("idna")
        if name.decode("idna") == host.lower():
            return name.decode("ascii")
    except UnicodeError:
        pass
    raise Failure(
        f"the international name {host!r} cannot be encoded safely; give its ASCII form, which begins with 'xn--'"
    )


# The parts of a certificate

_ECDSA_WITH_SHA256 = sequence(oid("1.2.840.10045.4.3.2"))
_COMMON_NAME = oid("2.5.4.3")
_SERVER_AUTH = oid("1.3.6.1.5.5.7.3.1")


def _key_pem(key: int) -> str:
    """Write a private key: PKCS#8 (RFC 5208 section 5) around RFC 5915 section 3."""
    public_key = element(der.CONTEXT_AROUND | 1, bit_string(encode_point(public_point(key))))
    private_key = sequence(integer(1), element(der.OCTET_STRING, key.to_bytes(32, "big")), public_key)
    return der.to_pem(
        der.PRIVATE_KEY, sequence(integer(0), der.EC_PUBLIC_KEY_ON_P256, element(der.OCTET_STRING, private_key))
    )


def _signed(body: _Body, key: int, now: datetime, token_bytes: TokenBytes) -> str:
    """Write a certificate: RFC 5280 section 4.1."""
    # The top bit makes it positive and of 128 bits, whatever the rest is: RFC 5280 section 4.1.2.2
    serial = int.from_bytes(token_bytes(16), "big") | 1 << 127
    signed = sequence(
        element(der.CONTEXT_AROUND | 0, integer(2)),  # version 3
        integer(serial),
        _ECDSA_WITH_SHA256,
        body.issuer,
        sequence(der.time(now - BACKDATED), der.time(body.not_after)),
        body.subject,
        sequence(der.EC_PUBLIC_KEY_ON_P256, bit_string(encode_point(public_point(body.key)))),
        element(der.CONTEXT_AROUND | 3, sequence(*body.extensions)),
    )
    signature = sequence(*map(integer, sign(key, signed)))
    return der.to_pem(der.CERTIFICATE, sequence(signed, _ECDSA_WITH_SHA256, bit_string(signature)))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _common_name(host: str) -> str:
    # A longer name does not fit; clients look at the alternative names only.
    return host if len(host) <= MAX_COMMON_NAME else host.partition(".")[0]


def _name(common_name: str) -> bytes:
    return sequence(element(der.SET, sequence(_COMMON_NAME, element(der.UTF8_STRING, common_name.encode()))))


def _extension(identifier: str, value: bytes, *, critical: bool = False) -> bytes:
    """Write an extension: RFC 5280 section 4.2."""
    return sequence(
        oid(identifier), element(der.BOOLEAN, b"\xff") if critical else b"", element(der.OCTET_STRING, value)
    )


def _subject_key(key: int) -> bytes:
    return _extension("2.5.29.14", element(der.OCTET_STRING, _identifier(key)))


def _authority_key(key: int) -> bytes:
    return _extension("2.5.29.35", sequence(element(der.CONTEXT | 0, _identifier(key))))


def _identifier(key: int) -> bytes:
    # RFC 7093 section 2, method 1: SHA-1 is not available everywhere.
    return hashlib.sha256(encode_point(public_point(key))).digest()[:20]


def _general_name(host: str) -> bytes:
    """Encode a dNSName, [2], or an iPAddress, [7]."""
    address = _address(host)
    return element(der.CONTEXT | 7, address.packed) if address else element(der.CONTEXT | 2, host.encode())


def _permitted(hosts: Sequence[str]) -> bytes:
    """Encode nameConstraints: RFC 5280 section 4.2.1.10; an address has its mask behind it."""
    bases = []
    for host in hosts:
        address = _address(host)
        bases.append(
            element(der.CONTEXT | 7, address.packed + b"\xff" * len(address.packed)) if address else _general_name(host)
        )
    return sequence(element(der.CONTEXT_AROUND | 0, *map(sequence, bases)))
