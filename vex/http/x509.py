"""What a certificate says (RFC 5280 section 4.1), and the key in a file: read, and not checked, since OpenSSL does that
where they are used.

`ssl` tells what is in the certificate of the other side of a connection only.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from vex.http import der

_BASIC_CONSTRAINTS, _ALTERNATIVE_NAMES = der.oid("2.5.29.19"), der.oid("2.5.29.17")


class Certificate(NamedTuple):
    """What is known of a certificate: names as DER, `not_after` in seconds since 1970, the names and addresses that it
    is for.
    """

    issuer: bytes
    subject: bytes
    not_after: float
    public_key: bytes
    is_authority: bool
    hosts: tuple[str, ...]


def read_certificate(pem: bytes) -> Certificate:
    """Read the first certificate of a PEM file; raises ValueError."""
    fields = list(der.elements(_only(_only(der.first_of(pem, der.CERTIFICATE)))))
    # The version may be left out, and nothing else before the key.
    _, _, issuer, validity, subject, key, *rest = fields[1:] if fields[0].tag == der.CONTEXT_AROUND else fields
    _, not_after = der.elements(validity.content)
    _, public_key = der.elements(key.content)
    extensions = _extensions(next((field.content for field in rest if field.tag == der.CONTEXT_AROUND | 3), b""))
    constraints = list(der.elements(_only(extensions.get(_BASIC_CONSTRAINTS, der.sequence()))))
    return Certificate(
        issuer.encoded,
        subject.encoded,
        der.time_of(not_after).timestamp(),
        # Behind the number of unused bits.
        public_key.content[1:],
        any(one.tag == der.BOOLEAN and one.content != b"\0" for one in constraints),
        tuple(filter(None, map(_host, der.elements(_only(extensions.get(_ALTERNATIVE_NAMES, der.sequence())))))),
    )


def read_key(pem: bytes) -> int:
    """Read a private key as `vex quickstart` writes it, PKCS#8 (RFC 5208 section 5) around RFC 5915 section 3; raises
    ValueError.
    """
    _, algorithm, wrapped, *_ = der.elements(_only(der.first_of(pem, der.PRIVATE_KEY)))
    if algorithm.encoded != der.EC_PUBLIC_KEY_ON_P256:
        raise ValueError("the key is not one of the curve P-256")
    _, key, *_ = der.elements(_only(wrapped.content))
    return int.from_bytes(key.content, "big")


def _only(encoded: bytes) -> bytes:
    """Return the content of the element that the bytes are."""
    first, *_ = der.elements(encoded)
    return first.content


def _extensions(encoded: bytes) -> dict[bytes, bytes]:
    """Return the values of extensions by the DER of their identifiers."""
    found = [list(der.elements(extension.content)) for extension in der.elements(_only(encoded))] if encoded else []
    return {identifier.encoded: rest[-1].content for identifier, *rest in found}


def _host(name: der.Element) -> str:
    """Read a dNSName, [2], or an iPAddress, [7]; "" for every other kind."""
    if name.tag == der.CONTEXT | 2:
        return name.content.decode("ascii")
    return str(ipaddress.ip_address(name.content)) if name.tag == der.CONTEXT | 7 else ""
