"""The certificates of the listeners: loaded at the start, and loaded again while connections are open.

A connection keeps the certificate that it began with; the next one gets what is current. A certificate or a key that
cannot be used never takes the place of one that can. Which listener has which files is for the configuration to say.
"""

from __future__ import annotations

import hashlib
import logging
import math
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vex.errors import Failure

if TYPE_CHECKING:
    from vex.http import x509

_log = logging.getLogger("vex")
_INSTEAD = "if `vex quickstart` made it, begin with `vex certificate authority`, which changes nothing for clients yet"


class _Loaded(NamedTuple):
    context: ssl.SSLContext
    certificate: bytes
    key_digest: bytes


class Certificates:
    """The current certificate of each listener that has one; any thread may use it."""

    def __init__(self, files: Mapping[str, tuple[Path, Path]]) -> None:
        """Load the files, certificate (with its chain) and key, by the name of the listener; raises Failure."""
        self._loaded = {name: _load(name, *pair) for name, pair in files.items()}
        for path, content in {pair[0]: self._loaded[name].certificate for name, pair in files.items()}.items():
            read = _read_certificate(content)
            if read and read.is_authority:
                _log.warning(
                    "%s is an authority and a server at once, which Firefox and clients built on rustls refuse; %s",
                    path,
                    _INSTEAD,
                )

    def context(self, name: str) -> ssl.SSLContext | None:
        """Return what the next connection to a listener is encrypted with; None for not at all."""
        loaded = self._loaded.get(name)
        return loaded and loaded.context

    def expiries(self) -> dict[str, float]:
        """Tell until when the certificates are valid, in seconds since 1970, by the name of the listener; NaN where
        that cannot be read.
        """
        return {name: _expiry(loaded.certificate) for name, loaded in self._loaded.items()}

    def dates(self) -> dict[str, int | None]:
        """As `expiries`, for programs: None where that cannot be read."""
        return {name: None if math.isnan(expiry) else int(expiry) for name, expiry in self.expiries().items()}

    def reload(self, files: Mapping[str, tuple[Path, Path]]) -> bool:
        """Load all files again, log what is new, keep what the new files cannot replace; returns whether anything was
        to be logged.
        """
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
        raise Failure(
            f"cannot use {certificate} with {key}: {reason}; they must be PEM files that belong together, the key not"
            " encrypted"
        ) from error
    return _Loaded(context, contents[0], hashlib.sha256(contents[1]).digest())


def _note_server_name(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    """Keep what the client calls the server, which `ssl` tells this callback alone."""
    if isinstance(connection, ssl.SSLSocket):
        connection.server_hostname = name


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(
            f"cannot read {path} ({option}): {error.strerror}; check that it exists and that this user may read it"
        ) from error


def _refuse_password() -> str:
    raise ValueError("the key is encrypted")


def _expiry(pem: bytes) -> float:
    """Find until when the first certificate of a PEM file is valid, in seconds since 1970; NaN where that cannot be
    read.
    """
    read = _read_certificate(pem)
    return read.not_after if read else math.nan


def _read_certificate(pem: bytes) -> x509.Certificate | None:
    """Read the first certificate of a PEM file, which OpenSSL took before; None where it says what is not understood
    here.
    """
    from vex.http import x509  # here, since a start without HTTPS does not need it

    try:
        return x509.read_certificate(pem)
    except ValueError:
        return None
