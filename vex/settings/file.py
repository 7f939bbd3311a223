"""The configuration file: read, checked, and written with every key and its default.

Flags of the command line are read here too: they are keys like those of a file, and beat it.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vex.errors import Failure
from vex.settings.config import KEYS, LISTENERS, Config, Key
from vex.settings.values import Listening, UnixAddress

DEFAULT_NAME = "vex.conf"
# Far more than any configuration; keeps a wrong path such as /dev/zero from filling the memory.
_MAX_FILE_BYTES = 1024 * 1024
_MAX_SHOWN = 80
_COMMENT_WIDTH = 100
_TITLE = """\
# Configuration of Vex: lines of key = value, and comments on lines of their own.
# Each key has a flag of the same name, which beats this file. Relative paths are relative to this file.
# Addresses are HOST:PORT, [IPV6]:PORT, :PORT for all interfaces, unix:PATH for a Unix socket, or off.
# Port 0 is any free one.
# Times are written 90s, 10m, 24h or 7d; sizes in bytes, or 256KiB, 4MiB or 64GiB; switches yes or no.
"""
_BY_NAME = {key.name: key for key in KEYS}


class _Setting(NamedTuple):
    where: str
    name: str
    text: str
    base: Path


def load(path: Path | None, flags: Mapping[str, str]) -> Config:
    """Read the file, if there is one, and the flags, which beat it; check all of it. Raises Failure.

    Relative paths of the file, and the defaults, are relative to the file's directory; those of flags to the current
    directory.
    """
    base = path.parent if path else Path()
    settings = [_Setting("default", key.name, key.default, base) for key in KEYS]
    if path:
        settings += _read(path)
    settings += [_Setting("", name, text, Path()) for name, text in flags.items()]
    config = Config(**dict(map(_parse, settings)))
    _check(config)
    return config


def default_path() -> Path | None:
    """Find `vex.conf` in the current directory; a link to nowhere counts, since someone meant it to be read."""
    return Path(DEFAULT_NAME) if os.path.lexists(DEFAULT_NAME) else None


def describe() -> str:
    """Write a configuration file with every key, its description and its default; keys without a default are commented
    out.
    """
    return "\n".join([_TITLE, *map(_describe, KEYS)])


def _describe(key: Key) -> str:
    import textwrap  # as the others within functions: not needed to start

    text = " ".join(
        [
            key.description,
            *([f"At least {key.least}."] if key.least else []),
            *(["Read again with SIGHUP."] if key.reloaded else []),
        ]
    )
    comment = textwrap.fill(text, _COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    return f"{comment}\n{key.name} = {key.default}\n" if key.default else f"{comment}\n#{key.name} =\n"


def _parse(setting: _Setting) -> tuple[str, Any]:
    where, name, text, base = setting
    label = f"{where}: {name}" if where else f"--{name}"
    key = _BY_NAME.get(name)
    if key is None:
        raise Failure(f"{label}: there is no such key; {_nearest(name)}")
    try:
        value = key.parse(text)
    except ValueError:
        raise Failure(f"{label}: {_shown(text)} is not {key.accepts}") from None
    if isinstance(value, UnixAddress):
        value = UnixAddress(base / value.path)
    return key.attribute, base / value if isinstance(value, Path) else value


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name.lower(), _BY_NAME, 1)
    return f"did you mean {near[0]}?" if near else "'vex describe' lists them all"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")


def _read(path: Path) -> Iterator[_Setting]:
    # Without indentation, configparser finds no continuation lines, so that each key is found again on its line.
    lines = [line.strip() for line in _text(path).split("\n")]
    for number, line in enumerate(lines, 1):
        if line.startswith("["):
            raise Failure(f"{path}, line {number}: {_shown(line)}: there are no sections; delete this line")
    numbers = {line.partition("=")[0].rstrip(): number for number, line in enumerate(lines, 1)}
    for name, text in _pairs(path, lines).items():
        where = f"{path}, line {numbers[name]}"
        if re.search(r"(^|\s)#", text):
            raise Failure(f"{where}: {name}: a value cannot hold a comment; put it on a line of its own")
        yield _Setting(where, name, text, path.parent)


def _pairs(path: Path, lines: list[str]) -> dict[str, str]:
    import configparser

    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",))
    # Keys are taken as they are written, without folding capitals.
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    try:
        # The section's line comes before line 1, and is not counted.
        parser.read_string("\n".join(["[vex]", *lines]))
    except configparser.DuplicateOptionError as error:
        raise Failure(
            f"{path}, line {(error.lineno or 1) - 1}: {error.option}: the key is there twice; delete one"
        ) from None
    except configparser.ParsingError as error:
        number = error.errors[0][0] - 1
        raise Failure(
            f"{path}, line {number}: {_shown(lines[number - 1])} is not a line of the form key = value"
        ) from None
    return dict(parser.items("vex"))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Failure(
            f"cannot read the configuration file {path}: {error.strerror}; check its path and permissions"
        ) from error
    if len(content) > _MAX_FILE_BYTES:
        raise Failure(f"{path}: too large for a configuration file; check its path")
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Failure(f"{path}, line 1: there is a byte order mark; save the file as UTF-8 without one")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Failure(f"{path}, line {_line_of(content, error.start)}: not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        raise Failure(f"{path}, line {_line_of(content, content.index(0))}: there is a NUL character; delete it")
    return text.replace("\r\n", "\n")


def _line_of(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1


def _check(config: Config) -> None:
    """Check what no key can tell alone; raises Failure."""
    listeners = {name: getattr(config, f"{name}_addr") for name in LISTENERS}
    for name in listeners:
        _check_pair(
            f"{name}-tls-cert",
            getattr(config, f"{name}_tls_cert"),
            f"{name}-tls-key",
            getattr(config, f"{name}_tls_key"),
        )
    on = {name: address for name, address in listeners.items() if address is not None}
    if not on:
        raise Failure("public-addr, auth-addr and internal-addr are all off: there is nothing to serve; turn one on")
    for (one, first), (other, second) in itertools.combinations(on.items(), 2):
        if _same(first, second):
            raise Failure(f"{one}-addr {first} and {other}-addr {second} are the same address; give each its own")
    if config.accel_redirect and not config.trusted_proxies:
        raise Failure("accel-redirect needs trusted-proxies: it is only for an nginx that is one of them")
    if config.page_size > config.page_limit:
        raise Failure(
            f"page-size {config.page_size} is more than page-limit {config.page_limit}; lower one or raise the other"
        )


def _same(first: Listening, second: Listening) -> bool:
    if isinstance(first, UnixAddress) or isinstance(second, UnixAddress):
        return first == second
    return first.port == second.port != 0 and (first.host == second.host or "" in (first.host, second.host))


def _check_pair(cert_key: str, cert: Path | None, key_key: str, key: Path | None) -> None:
    if (cert is None) != (key is None):
        given, missing = (cert_key, key_key) if key is None else (key_key, cert_key)
        raise Failure(f"{given} is given without {missing}; HTTPS needs both")
