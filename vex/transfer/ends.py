"""The two ends of an import: the registry that images go to, and the place that they come from, found and asked whether
they are there.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from vex.errors import Failure, Refused
from vex.settings.config import Config
from vex.settings.values import Address
from vex.transfer.endpoints import Endpoints
from vex.transfer.origins import Origin, parse_origin
from vex.transfer.remote import Login, Remote, client_context
from vex.transfer.replies import Unreachable
from vex.transfer.sources import Selection

_ADDRESS = re.compile(r"https?://.*|localhost(:[0-9]+)?|[^/]*[.:][^/]*")
_ADVICE = "start the registry there with 'vex serve', or give its auth address with --to"


def target_address(config: Config, to: str) -> Origin:
    """Find the address of the registry to import into: the one that is given, or else the auth listener of the
    configuration; raises Failure.
    """
    if to:
        try:
            return parse_origin(to)
        except ValueError:
            raise Failure(f"--to {to!r} is not http:// or https:// with a host and perhaps a port") from None
    address = config.auth_addr
    if not isinstance(address, Address) or not address.port:
        raise Failure(
            "auth-addr has no host and port that are known; give the address of the running registry with --to"
        )
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104  # where it listens, not we
    return Origin("https" if config.auth_tls_cert else "http", host, address.port)


def target_registry(config: Config, to: str, credentials: Login) -> Remote:
    """Prepare to talk with the registry to import into, whose own certificate is trusted; raises Failure."""
    remote = _target(config, to, credentials)
    remote.authenticate()
    return remote


def _target(config: Config, to: str, credentials: Login | None) -> Remote:
    origin = target_address(config, to)
    try:
        context = client_context(origin, str(config.auth_tls_cert) if config.auth_tls_cert else None)
    except OSError as error:
        raise Failure(
            f"cannot read {config.auth_tls_cert} (auth-tls-cert): {error}; check that it is a PEM file that this user"
            " may read"
        ) from error
    return Remote(origin, credentials, context)


def check_ends(config: Config, to: str, wanted: Selection) -> None:
    """Find out that there is something to import from and to, before anybody is asked for a password; raises
    Failure.
    """
    if reason := _silence_of(_target(config, to, None)):
        raise Failure(f"{reason}; {_ADVICE}")
    if Path(wanted.source).exists():
        return
    if reason := _silence_of(Remote(source_origin(wanted.source))):
        is_file = "://" not in wanted.source
        raise Failure(
            f"there is no file {wanted.source}, and {reason}; check its path, or the address"
            if is_file
            else f"{reason}; check the address"
        )


def _silence_of(remote: Remote) -> str:
    """Say why a registry does not answer; "" if it does, whatever that is."""
    try:
        with contextlib.closing(remote):
            remote.reach()
    except Unreachable as error:
        return str(error)
    return ""


def check_target(target: Remote, endpoints: Endpoints) -> None:
    """Ask whether what answers is a registry, and takes the password; raises Failure."""
    try:
        endpoints.version()
    except Unreachable as error:
        raise Failure(str(error) if "refuses" in str(error) else f"{error}; {_ADVICE}") from error
    except Refused as error:
        raise Failure(
            f"{target.origin} is no registry: {error}; give the auth address of a running vex with --to"
        ) from error


def source_origin(text: str) -> Origin:
    """Read the address of the registry to import from; raises Failure."""
    if not _ADDRESS.fullmatch(text):
        raise Failure(f"{text} is not there; give a layout's directory, an archive, or a registry as https://HOST")
    try:
        return parse_origin(text)
    except ValueError:
        raise Failure(f"{text!r} is neither a file nor https://HOST; choose repositories with --repository") from None
