"""DER (X.690), in which certificates and keys are written, and PEM, which is DER as text: written, and read as far as
is needed here.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

# Tags of DER: X.690 sections 8 and 10
BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OBJECT_IDENTIFIER, UTF8_STRING = 0x01, 0x02, 0x03, 0x04, 0x06, 0x0C
UTC_TIME, GENERALIZED_TIME, SEQUENCE, SET = 0x17, 0x18, 0x30, 0x31
# Context tags: [n] with a value, and [n] around further elements
CONTEXT, CONTEXT_AROUND = 0x80, 0xA0
# RFC 7468 section 2; OpenSSL takes other labels for certificates, too.
_PEM = r"-----BEGIN (?:{label})-----(.+?)-----END "
# RFC 7468 sections 5.1 and 10
CERTIFICATE, PRIVATE_KEY = "CERTIFICATE", "PRIVATE KEY"
_LABELS = {CERTIFICATE: "(?:X509 |TRUSTED )?CERTIFICATE", PRIVATE_KEY: PRIVATE_KEY}


class Element(NamedTuple):
    """An element as it was read: its tag, its content, and all of its bytes."""

    tag: int
    content: bytes
    encoded: bytes


def elements(der: bytes) -> Iterator[Element]:
    """Read elements that follow one another; raises ValueError where that is not what the bytes are."""
    at = 0
    while at < len(der):
        found = _element(der, at)
        yield found
        at += len(found.encoded)


def _element(der: bytes, at: int) -> Element:
    """Read one element: X.690 section 8.1."""
    if at + 2 > len(der):
        raise ValueError("an element ends before its length")
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2 : start], "big")
    if start + length > len(der):
        raise ValueError("an element is longer than what it is in")
    return Element(der[at], der[start : start + length], der[at : start + length])


def time_of(element: Element) -> datetime:
    """Read a moment: RFC 5280 section 4.1.2.5."""
    text = element.content.decode("ascii")
    if element.tag != GENERALIZED_TIME:
        # RFC 5280 section 4.1.2.5.1
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text[:14] + "+0000", "%Y%m%d%H%M%S%z")


def first_of(pem: bytes, label: str) -> bytes:
    """Read the first block with a label, which of certificates is the listener's own; raises ValueError where there is
    none.
    """
    found = re.search(_PEM.format(label=_LABELS[label]).encode(), pem, re.DOTALL)
    if found is None:
        raise ValueError(f"there is no {label}")
    return binascii.a2b_base64(found[1])


def element(tag: int, *contents: bytes) -> bytes:
    """Encode one element: X.690 section 8.1."""
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def sequence(*elements: bytes) -> bytes:
    """Encode a sequence of elements."""
    return element(SEQUENCE, *elements)


def integer(number: int) -> bytes:
    """Encode a number, 0 or more; its top bit is the sign."""
    return element(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def bit_string(content: bytes, unused: int = 0) -> bytes:
    """Encode bits; `unused` is how many at the end do not count."""
    return element(BIT_STRING, bytes([unused]), content)


def oid(dotted: str) -> bytes:
    """Encode an object identifier: X.690 section 8.19."""
    first, second, *rest = map(int, dotted.split("."))
    return element(OBJECT_IDENTIFIER, *map(_base128, (first * 40 + second, *rest)))


def _base128(number: int) -> bytes:
    """Encode a number in groups of seven bits, all but the last with the top bit set."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.insert(0, 0x80 | number & 0x7F)
    return bytes(groups)


def time(moment: datetime) -> bytes:
    """Encode a moment: two digits for the year before 2050, four from then on: RFC 5280 section 4.1.2.5."""
    if moment.year < 2050:
        return element(UTC_TIME, f"{moment:%y%m%d%H%M%SZ}".encode())
    return element(GENERALIZED_TIME, f"{moment:%Y%m%d%H%M%SZ}".encode())


# RFC 5480 section 2.1.1
EC_PUBLIC_KEY_ON_P256 = sequence(oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7"))


def to_pem(label: str, der: bytes) -> str:
    """Write DER as text: RFC 7468 section 2."""
    text = base64.b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
