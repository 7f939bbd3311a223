"""The certificates of the listeners: loaded at the start, and loaded again while connections are open.

A connection keeps the certificate that it began with; the next one gets what is current. A certificate or a key that cannot be
used never takes the place of one that can. Which listener has which files is for the configuration to say.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vex.errors import Failure

_log = logging.getLogger("vex")
# RFC 7468 section 5.1, and the labels that OpenSSL takes besides; the first one in a file is the listener's own.
_PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END ", re.DOTALL)
# X.690: the tags of a version, [0] EXPLICIT, and of a time with four digits for the year
_VERSION, _GENERALIZED_TIME = 0xA0, 0x18


class _Loaded(NamedTuple):
    context: ssl.SSLContext
    certificate: bytes
    key_digest: bytes


class Certificates:
    """The current certificate of each listener that has one; any thread may use it."""

    def __init__(self, files: Mapping[str, tuple[Path, Path]]) -> None:
        """Load the files, certificate (with its chain) and key, by the name of the listener; raises Failure."""
        self._loaded = {name: _load(name, *pair) for name, pair in files.items()}

    def context(self, name: str) -> ssl.SSLContext | None:
        """Return what the next connection to a listener is encrypted with; None for not at all."""
        loaded = self._loaded.get(name)
        return loaded and loaded.context

    def expiries(self) -> dict[str, float]:
        """Tell until when the certificates are valid, in seconds since 1970, by the name of the listener; NaN where that cannot be read."""
        return {name: _expiry(loaded.certificate) for name, loaded in self._loaded.items()}

    def reload(self, files: Mapping[str, tuple[Path, Path]]) -> bool:
        """Load all files again, log what is new, keep what the new files cannot replace; returns whether anything was to be logged."""
        logged = [self._reload(name, *pair) for name, pair in files.items()]
        return any(logged)

    def _reload(self, name: str, certificate: Path, key: Path) -> bool:
        try:
            loaded = _load(name, certificate, key)
        except Failure as failure:
            _log.error("%s: the old certificate stays in use: %s", name, failure)
            return True
        if loaded[1:] == self._loaded[name][1:]:
            return False
        self._loaded[name] = loaded
        expiry = _expiry(loaded.certificate)
        until = "an unknown day" if math.isnan(expiry) else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expiry))
        _log.info("%s: new connections get the new certificate of %s, valid until %s", name, certificate, until)
        return True


def _load(name: str, certificate: Path, key: Path) -> _Loaded:
    contents = _read(certificate, f"{name}-tls-cert"), _read(key, f"{name}-tls-key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.sni_callback = _note_server_name
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise Failure(f"cannot use {certificate} with {key}: {reason}; they must be PEM files that belong together, the key not encrypted") from error
    return _Loaded(context, contents[0], hashlib.sha256(contents[1]).digest())


def _note_server_name(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    """Keep what the client calls the server, which `ssl` tells this callback alone."""
    if isinstance(connection, ssl.SSLSocket):
        connection.server_hostname = name


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {path} ({option}): {error.strerror}; check that it exists and that this user may read it") from error


def _refuse_password() -> str:
    raise ValueError("the key is encrypted")


def _expiry(pem: bytes) -> float:
    """Find notAfter of the first certificate of a PEM file (RFC 5280 section 4.1), in seconds since 1970.

    OpenSSL took the file before, so this checks nothing. `ssl` tells this of the other side's certificate only.
    """
    import binascii  # here, since a start needs neither
    from datetime import datetime

    try:
        der = binascii.a2b_base64(_PEM.findall(pem)[0])
        body, _ = _content(der, _content(der, 0)[0])
        start, end = _content(der, body)
        if der[body] == _VERSION:
            body = end
        for _field in ("serialNumber", "signature", "issuer"):
            body = _content(der, body)[1]
        after = _content(der, _content(der, body)[0])[1]
        start, end = _content(der, after)
        text = der[start:end].decode("ascii")
        if der[after] != _GENERALIZED_TIME:
            # RFC 5280 section 4.1.2.5.1
            text = ("19" if text >= "50" else "20") + text
        return datetime.strptime(text[:14] + "+0000", "%Y%m%d%H%M%S%z").timestamp()
    except (ValueError, IndexError):
        return math.nan


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Find where the content of the element at a place begins and ends: X.690 section 8.1."""
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2 : start], "big")
    return start, start + length
