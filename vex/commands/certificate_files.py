"""`vex certificate`: the files of a certificate that `vex quickstart` made, and of its authority; renewed, or given an
authority.

They are beside one another: the certificate and the key that the configuration names, `ca.crt.pem`, which clients
trust, and `ca.key.pem`, which the registry never reads: only `renew` does, so it can be kept elsewhere in between. A
certificate is replaced at once and as a whole, and its key stays, so that a registry that starts in that moment finds
two files that belong together.

A `vex quickstart` of before made certificates that are their own authorities. They go on as they are; `authority` makes
one beside them, and once clients trust that too, `renew` puts a certificate of it in their place.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vex.commands.certificate import PemPair, create_authority, create_certificate
from vex.errors import Failure
from vex.http.x509 import Certificate, read_certificate
from vex.settings.config import Config
from vex.storage.files import sync, sync_directory

AUTHORITY, AUTHORITY_KEY = "ca.crt.pem", "ca.key.pem"
# What every client is shown is no secret, and other programs may have to read it.
CERTIFICATE_MODE = 0o644
KEY_MODE = 0o600
# Who renews in time has this left to do it, and to hand out a new authority.
_LEAST_SECONDS = 30 * 24 * 3600


class _Files(NamedTuple):
    """A certificate and its key, and what the certificate says."""

    certificate: Path
    key: Path
    contents: Certificate


def renew(config: Config, now: float) -> Iterator[str]:
    """Put a new certificate in the place of each of the configuration; returns what was done, a line each. Raises
    Failure.
    """
    for found in _all(config):
        authority = _authority_of(found)
        try:
            made = create_certificate(found.contents.hosts, authority, now=now, key_pem=_text(found.key))
        except ValueError as error:
            raise Failure(
                f"cannot renew {found.certificate} with {found.key} and {AUTHORITY_KEY}: {error}; put back the files of"
                " `vex quickstart`"
            ) from None
        end = read_certificate(made.certificate_pem.encode()).not_after
        if end - now < _LEAST_SECONDS:
            raise Failure(
                f"{AUTHORITY} ends on {_day(end)}: move it and {AUTHORITY_KEY} away, and make another with `vex"
                " certificate authority`"
            )
        _replace(found.certificate, made.certificate_pem)
        yield (
            f"{found.certificate} is new, and valid until {_day(end)}; have the registry read it: `sudo systemctl"
            " reload vex`, or SIGHUP"
        )


def begin_authority(config: Config, now: float) -> Iterator[str]:
    """Make an authority beside the certificates of the configuration; returns what is to be done next, a line each.
    Raises Failure.
    """
    by_directory: dict[Path, list[str]] = {}
    for found in _all(config):
        by_directory.setdefault(found.certificate.parent, []).extend(found.contents.hosts)
    for path in (directory / name for directory in by_directory for name in (AUTHORITY, AUTHORITY_KEY)):
        _refuse_existing(path)
    for directory, hosts in by_directory.items():
        made = create_authority(list(dict.fromkeys(hosts)), now=now)
        write_new(directory / AUTHORITY_KEY, made.key_pem, KEY_MODE)
        write_new(directory / AUTHORITY, made.certificate_pem, CERTIFICATE_MODE)
        yield f"{directory / AUTHORITY} is a new authority; nothing has changed for clients yet"
    yield (
        "have all clients trust it beside what they trust now, and then put a certificate of it in place: `vex"
        " certificate renew`"
    )


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a file with exactly this mode, where there is none; raises Failure where there is."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, KEY_MODE)
    except FileExistsError:
        raise _existing(path) from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(descriptor, mode)
        sync(descriptor)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise _existing(path)


def _existing(path: Path) -> Failure:
    return Failure(f"{path} is there already, and nothing is overwritten; move it away if it is no longer needed")


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_new(new, text, CERTIFICATE_MODE)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    sync_directory(path.parent)


def _all(config: Config) -> list[_Files]:
    """Find the certificates of all listeners, each once; raises Failure if there are none, or one is not ours to
    replace.
    """
    pairs = dict.fromkeys(config.certificates().values())
    if not pairs:
        raise Failure(
            "no listener has a certificate: the configuration names none; run this where vex.conf is, or give --config"
        )
    return [_Files(certificate, key, _contents(certificate)) for certificate, key in pairs]


def _contents(path: Path) -> Certificate:
    contents = _read(path)
    authority = path.with_name(AUTHORITY)
    signed_here = contents.subject == contents.issuer or (
        authority.exists() and _read(authority).subject == contents.issuer
    )
    if not contents.hosts or not signed_here:
        reason = f"was not made by `vex quickstart`, or not with the {AUTHORITY} that is beside it"
        raise Failure(f"{path} {reason}; bring that back, or have the certificate renewed by whoever made it")
    return contents


def _read(path: Path) -> Certificate:
    try:
        return read_certificate(_text(path).encode())
    except ValueError as error:
        raise Failure(
            f"cannot read the certificate in {path}: {error}; put back the one that the registry began with"
        ) from None


def _authority_of(found: _Files) -> PemPair:
    certificate, key = (found.certificate.with_name(name) for name in (AUTHORITY, AUTHORITY_KEY))
    if not certificate.exists() and found.contents.is_authority:
        raise Failure(
            f"{found.certificate} is its own authority, so clients would not trust another; begin with `vex certificate"
            " authority`"
        )
    return PemPair(_text(certificate), _text(key))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Failure(f"{path} is not a PEM file; put back the one that `vex quickstart` made") from None
    except OSError as error:
        raise Failure(
            f"cannot read {path}: {error.strerror}; bring it back for this, if it is kept elsewhere, as a user who may"
            " read it"
        ) from error


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
