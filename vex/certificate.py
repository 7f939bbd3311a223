"""A self-signed ECDSA P-256 certificate for HTTPS, made with the standard library alone.

The certificate is its own root: a client trusts it by being given the file. It therefore is a server's certificate
and a certification authority's at once (RFC 5280): docker, podman and other Go programs, curl, openssl and Python's strict
default each want a part of that. The path length of 0 forbids authorities below it.

The arithmetic does not take constant time, which Python's integers cannot do. That is acceptable here: a key signs once,
when it is made, on the operator's machine, and nobody can ask for a second signature to measure. The handshakes of a server are
OpenSSL's work. Do not use `sign` for anything that a client can trigger.

Not here: writing files and renewing certificates; other curves; certificates signed by somebody else.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Callable, NamedTuple

from vex.errors import Failure

# Clocks differ between machines, and one that took local time for UTC is off by up to 14 hours.
BACKDATED = timedelta(days=1)
# Ten years: whoever renews it has to hand it out to every client again, and it would expire on a day that nobody remembers.
# Programs that use Apple's own verifier refuse more than 825 days, at once and with a clear message; docker, podman and curl do not.
VALIDITY = timedelta(days=3650)

# RFC 1123 section 2.1: the last label is never only digits, so that a name cannot be mistaken for an address.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
MAX_DNS_NAME = 253
# RFC 5280 appendix A.1, ub-common-name
MAX_COMMON_NAME = 64

# The curve P-256, which is y² = x³ - 3x + b: FIPS 186-4, section D.1.2.3. `P` is the prime of the field, `N` the order of the base point `G`.
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

# Tags of DER: X.690 sections 8 and 10
_BOOLEAN, _INTEGER, _BIT_STRING, _OCTET_STRING, _OBJECT_IDENTIFIER, _UTF8_STRING = 0x01, 0x02, 0x03, 0x04, 0x06, 0x0C
_UTC_TIME, _GENERALIZED_TIME, _SEQUENCE, _SET = 0x17, 0x18, 0x30, 0x31
# Context tags: [n] with a value, and [n] around further elements
_CONTEXT, _CONTEXT_AROUND = 0x80, 0xA0


class Certificate(NamedTuple):
    """A certificate and its private key (PKCS#8), both PEM."""

    certificate_pem: str
    key_pem: str


def create_certificate(host: str, *, now: float, token_bytes: Callable[[int], bytes] = secrets.token_bytes) -> Certificate:
    """Make a key and a certificate for a host name or an IP address; `now` in seconds since 1970.

    Valid for `host`, `localhost`, `127.0.0.1` and `::1`. Raises Failure for anything that is neither a DNS name nor an address.
    """
    host = canonical_host(host)
    # 64 bits more than the order has make the remainder even: FIPS 186-4 section B.4.1
    key = int.from_bytes(token_bytes(40), "big") % (N - 1) + 1
    # The top bit makes it positive and of 128 bits, whatever the rest is: RFC 5280 section 4.1.2.2
    serial = int.from_bytes(token_bytes(16), "big") | 1 << 127
    body = _certificate_body(host, encode_point(public_point(key)), serial, datetime.fromtimestamp(now, timezone.utc))
    signature = _sequence(*map(_integer, sign(key, body)))
    return Certificate(_pem("CERTIFICATE", _sequence(body, _ECDSA_WITH_SHA256, _bit_string(signature))), _pem("PRIVATE KEY", _private_key_info(key)))


def canonical_host(host: str) -> str:
    """Check a host name or IP address and give it the form it has in a certificate; raises Failure.

    A name is in lower case, and in ASCII if it is an international one.
    """
    address = _address(host)
    if address:
        return str(address)
    name = host.lower() if host.isascii() else _international_name(host)
    if len(name) > MAX_DNS_NAME or not _DNS_NAME.fullmatch(name):
        raise Failure(f"{host!r} is neither a DNS name nor an IP address; use letters, digits, '-' and '.', without port, wildcard or final dot")
    return name


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an IP address; a zone, as in `fe80::1%eth0`, means nothing on another machine and makes it none."""
    try:
        return None if "%" in host else ipaddress.ip_address(host)
    except ValueError:
        return None


def _international_name(host: str) -> str:
    """Encode a name as IDNA; raises Failure unless all versions of IDNA agree on it.

    The standard library knows IDNA 2003 (RFC 3490), which turns `ß` into `ss` where browsers of today (RFC 5891) do not.
    """
    try:
        name = host.encode("idna")
        if name.decode("idna") == host.lower():
            return name.decode("ascii")
    except UnicodeError:
        pass
    raise Failure(f"the international name {host!r} cannot be encoded safely; give its ASCII form, which begins with 'xn--'")


# The curve


def public_point(key: int) -> tuple[int, int]:
    """Multiply the base point by `key`, which is from 1 to N - 1.

    Jacobian coordinates (x = X/Z², y = Y/Z³) need one inversion in all. What is added to is at most N - 2 times the base point
    and at least twice, so that it is never infinity nor the base point or its opposite: the cases the formulas leave out.
    """
    x, y, z = *G, 1
    for bit in bin(key)[3:]:
        x, y, z = _double(x, y, z)
        if bit == "1":
            x, y, z = _add_base(x, y, z)
    inverse = pow(z, -1, P)
    return x * inverse**2 % P, y * inverse**3 % P


def _double(x: int, y: int, z: int) -> tuple[int, int, int]:
    """Double a point; from the tangent's slope for a curve with -3x."""
    slope = 3 * (x - z * z) * (x + z * z) % P
    square = y * y % P
    product = 4 * x * square % P
    doubled = (slope * slope - 2 * product) % P
    return doubled, (slope * (product - doubled) - 8 * square * square) % P, 2 * y * z % P


def _add_base(x: int, y: int, z: int) -> tuple[int, int, int]:
    """Add the base point."""
    square = z * z % P
    run, rise = (G[0] * square - x) % P, (G[1] * square * z - y) % P
    run2 = run * run % P
    run3, product = run2 * run % P, x * run2 % P
    added = (rise * rise - run3 - 2 * product) % P
    return added, (rise * (product - added) - y * run3) % P, run * z % P


def encode_point(point: tuple[int, int]) -> bytes:
    """Encode a point in the uncompressed form: RFC 5480 section 2.2."""
    return b"\x04" + b"".join(coordinate.to_bytes(32, "big") for coordinate in point)


# The signature


def sign(key: int, message: bytes) -> tuple[int, int]:
    """Sign with ECDSA and SHA-256: FIPS 186-4 section 6.4, with the nonce of RFC 6979, so that none can repeat or be guessed."""
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    for nonce in _nonces(key, digest):
        r = public_point(nonce)[0] % N
        s = pow(nonce, -1, N) * (digest + r * key) % N
        if r and s:
            return r, s
    raise AssertionError("the nonces never end")


def _nonces(key: int, digest: int) -> Iterator[int]:
    """Generate the candidates, most likely only one: RFC 6979 section 3.2, steps b to h."""
    seed = key.to_bytes(32, "big") + (digest % N).to_bytes(32, "big")
    k, v = bytes(32), b"\x01" * 32
    for separator in (b"\x00", b"\x01"):
        k = _hmac(k, v + separator + seed)
        v = _hmac(k, v)
    while True:
        v = _hmac(k, v)
        nonce = int.from_bytes(v, "big")
        if 0 < nonce < N:
            yield nonce
        k = _hmac(k, v + b"\x00")
        v = _hmac(k, v)


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


# DER


def _der(tag: int, *contents: bytes) -> bytes:
    """Encode one element: X.690 section 8.1."""
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _sequence(*elements: bytes) -> bytes:
    return _der(_SEQUENCE, *elements)


def _integer(number: int) -> bytes:
    """Encode a number, 0 or more; its top bit is the sign."""
    return _der(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _bit_string(content: bytes, unused: int = 0) -> bytes:
    """Encode bits; `unused` is how many at the end do not count."""
    return _der(_BIT_STRING, bytes([unused]), content)


def _oid(dotted: str) -> bytes:
    """Encode an object identifier: X.690 section 8.19."""
    first, second, *rest = map(int, dotted.split("."))
    return _der(_OBJECT_IDENTIFIER, *map(_base128, (first * 40 + second, *rest)))


def _base128(number: int) -> bytes:
    """Encode a number in groups of seven bits, all but the last with the top bit set."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.insert(0, 0x80 | number & 0x7F)
    return bytes(groups)


def _time(moment: datetime) -> bytes:
    """Encode a moment: two digits for the year before 2050, four from then on: RFC 5280 section 4.1.2.5."""
    if moment.year < 2050:
        return _der(_UTC_TIME, f"{moment:%y%m%d%H%M%SZ}".encode())
    return _der(_GENERALIZED_TIME, f"{moment:%Y%m%d%H%M%SZ}".encode())


def _pem(label: str, der: bytes) -> str:
    """Write DER as text: RFC 7468 section 2."""
    text = base64.b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


# The certificate

_ECDSA_WITH_SHA256 = _sequence(_oid("1.2.840.10045.4.3.2"))
_EC_PUBLIC_KEY_ON_P256 = _sequence(_oid("1.2.840.10045.2.1"), _oid("1.2.840.10045.3.1.7"))
_COMMON_NAME = _oid("2.5.4.3")
_SERVER_AUTH = _oid("1.3.6.1.5.5.7.3.1")
# Bits 0, digitalSignature, and 5, keyCertSign: RFC 5280 section 4.2.1.3
_KEY_USAGE_BITS = _bit_string(b"\x84", unused=2)


def _private_key_info(key: int) -> bytes:
    """Encode a private key: PKCS#8 (RFC 5208 section 5) around RFC 5915 section 3."""
    public_key = _der(_CONTEXT_AROUND | 1, _bit_string(encode_point(public_point(key))))
    private_key = _sequence(_integer(1), _der(_OCTET_STRING, key.to_bytes(32, "big")), public_key)
    return _sequence(_integer(0), _EC_PUBLIC_KEY_ON_P256, _der(_OCTET_STRING, private_key))


def _certificate_body(host: str, public_key: bytes, serial: int, now: datetime) -> bytes:
    """Encode what is signed: TBSCertificate of RFC 5280 section 4.1."""
    # A longer name does not fit; clients look at the alternative names only.
    common_name = host if len(host) <= MAX_COMMON_NAME else host.partition(".")[0]
    name = _sequence(_der(_SET, _sequence(_COMMON_NAME, _der(_UTF8_STRING, common_name.encode()))))
    return _sequence(
        _der(_CONTEXT_AROUND | 0, _integer(2)),  # version 3
        _integer(serial),
        _ECDSA_WITH_SHA256,
        name,
        _sequence(_time(now - BACKDATED), _time(now + VALIDITY)),
        name,
        _sequence(_EC_PUBLIC_KEY_ON_P256, _bit_string(public_key)),
        _der(_CONTEXT_AROUND | 3, _extensions(host, public_key)),
    )


def _extensions(host: str, public_key: bytes) -> bytes:
    """Encode the extensions: RFC 5280 section 4.2.1."""
    # RFC 7093 section 2, method 1: SHA-1 is not available everywhere.
    identifier = hashlib.sha256(public_key).digest()[:20]
    return _sequence(
        _extension("2.5.29.19", _sequence(_der(_BOOLEAN, b"\xff"), _integer(0)), critical=True),  # basicConstraints: an authority, none below it
        _extension("2.5.29.15", _KEY_USAGE_BITS, critical=True),
        _extension("2.5.29.37", _sequence(_SERVER_AUTH)),
        _extension("2.5.29.17", _alternative_names(host)),
        _extension("2.5.29.14", _der(_OCTET_STRING, identifier)),  # subjectKeyIdentifier
        _extension("2.5.29.35", _sequence(_der(_CONTEXT | 0, identifier))),  # authorityKeyIdentifier
    )


def _extension(oid: str, value: bytes, critical: bool = False) -> bytes:
    return _sequence(_oid(oid), _der(_BOOLEAN, b"\xff") if critical else b"", _der(_OCTET_STRING, value))


def _alternative_names(host: str) -> bytes:
    """Encode the names that clients may use, each once; `dict` keeps their order."""
    return _sequence(*map(_general_name, dict.fromkeys([host, "localhost", "127.0.0.1", "::1"])))


def _general_name(host: str) -> bytes:
    """Encode a dNSName, [2], or an iPAddress, [7]."""
    address = _address(host)
    return _der(_CONTEXT | 7, address.packed) if address else _der(_CONTEXT | 2, host.encode())
