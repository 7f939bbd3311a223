"""The configuration file: read, checked, and written with every key and its default.

Flags of the command line are read here too: they are keys like those of a file, and beat it. Whatever is wrong is found
in one go, since who corrects a file wants to know all of it.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vex.errors import Failure, VexError
from vex.settings.config import KEYS, LISTENERS, Config, Key, Section
from vex.settings.sections import KINDS, SectionKind, parse_header
from vex.settings.values import Listening, UnixAddress, shown

DEFAULT_NAME = "vex.conf"
# Far more than any configuration; keeps a wrong path such as /dev/zero from filling the memory.
_MAX_FILE_BYTES = 1024 * 1024
_COMMENT_WIDTH = 100
_TITLE = """\
# Configuration of Vex: lines of key = value, and comments on lines of their own.
# Each key has a flag of the same name, which beats this file. Relative paths are relative to this file.
# Addresses are HOST:PORT, [IPV6]:PORT, :PORT for all interfaces, unix:PATH for a Unix socket, or off.
# Port 0 is any free one.
# Times are written 90s, 10m, 24h or 7d; sizes in bytes, or 256KiB, 4MiB or 64GiB; switches yes or no.
"""
# Behind all lines: what is wrong with flags, and with several keys.
_NO_LINE = 10**9
_ALL = "'vex describe' lists them all"
_BY_NAME = {key.name: key for key in KEYS}


class Mistakes(Failure):
    """What is wrong with a configuration: `all` of it, a line each; as an error, the first."""

    def __init__(self, found: Sequence[str]) -> None:
        super().__init__(found[0])
        self.all = tuple(found)


class _Mistake(NamedTuple):
    line: int
    text: str


class _Setting(NamedTuple):
    line: int
    where: str
    name: str
    text: str
    base: Path


class _Part(NamedTuple):
    """Lines of a file that belong together: those of a section, or those before the first, which has no header."""

    line: int
    header: str
    settings: dict[str, _Setting]


def load(path: Path | None, flags: Mapping[str, str]) -> Config:
    """Read the file, if there is one, and the flags, which beat it; check all of it. Raises Mistakes, and Failure for
    what is no file of the kind.

    Relative paths of the file, and the defaults, are relative to the file's directory; those of flags to the current
    directory.
    """
    mistakes: list[_Mistake] = []
    base = path.parent if path else Path()
    top, *parts = _read(path, mistakes) if path else [_Part(0, "", {})]
    values: dict[str, Any] = {"sections": tuple(_sections(path, parts, mistakes))}
    wrong = set()
    defaults = (_Setting(0, "default", key.name, key.default, base) for key in KEYS)
    for setting in (
        *defaults,
        *top.settings.values(),
        *(_Setting(_NO_LINE, "", name, text, Path()) for name, text in flags.items()),
    ):
        try:
            attribute, value = _parse(setting, _BY_NAME)
        except _Unfit as error:
            wrong.add(setting.name)
            mistakes.append(_Mistake(setting.line, str(error)))
        else:
            values[attribute] = value
    config = Config(**values)
    mistakes += [_Mistake(_NO_LINE, text) for names, text in _contradictions(config) if not wrong.intersection(names)]
    if mistakes:
        raise Mistakes([mistake.text for mistake in sorted(mistakes, key=lambda mistake: mistake.line)])
    return config


def default_path() -> Path | None:
    """Find `vex.conf` in the current directory; a link to nowhere counts, since someone meant it to be read."""
    return Path(DEFAULT_NAME) if os.path.lexists(DEFAULT_NAME) else None


def describe() -> str:
    """Write a configuration file with every key, its description and its default; keys without a default are commented
    out, and so are examples of sections.
    """
    return "\n".join([_TITLE, *map(_describe, KEYS), *itertools.chain.from_iterable(map(_describe_section, KINDS))])


def _describe(key: Key) -> str:
    text = " ".join(
        [
            key.description,
            *([f"At least {key.least}."] if key.least else []),
            *(["Read again with SIGHUP."] if key.reloaded else []),
        ]
    )
    return f"{_comment(text)}\n{key.name} = {key.default}\n" if key.default else f"{_comment(text)}\n#{key.name} =\n"


def _describe_section(kind: SectionKind) -> Iterator[str]:
    text = (
        f"{kind.header} begins a section, which comes behind all keys above. Read again with SIGHUP. {kind.description}"
    )
    yield f"{_comment(text)}\n#[{kind.word} {kind.example}]\n"
    for key in kind.keys:
        yield f"{_comment(key.description)}\n#{key.name} = {key.default}\n"


def _comment(text: str) -> str:
    import textwrap  # within a function: not needed to start

    return textwrap.fill(text, _COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


class _Unfit(VexError):
    """A key or its value is none."""


def _parse(setting: _Setting, keys: Mapping[str, Key]) -> tuple[str, Any]:
    _, where, name, text, base = setting
    label = f"{where}: {name}" if where else f"--{name}"
    key = keys.get(name)
    if key is None:
        raise _Unfit(f"{label}: {_unknown(name, keys)}")
    try:
        value = key.parse(text)
    except ValueError:
        raise _Unfit(f"{label}: {shown(text)} is not {key.accepts}") from None
    if isinstance(value, UnixAddress):
        value = UnixAddress(base / value.path)
    return key.attribute, base / value if isinstance(value, Path) else value


def _unknown(name: str, keys: Mapping[str, Key]) -> str:
    if name in _BY_NAME:
        return "this key belongs before the first section; move it there"
    for kind in KINDS:
        if keys is _BY_NAME and any(key.name == name for key in kind.keys):
            return f"this key belongs in a section that begins with {kind.header}"
    import difflib  # as above

    # Also those of the other side of a header: once it is written rightly, it is told where it belongs.
    known = [*_BY_NAME, *(key.name for kind in KINDS for key in kind.keys)]
    near = difflib.get_close_matches(name.lower(), known, 1)
    return f"there is no such key; {f'did you mean {near[0]}?' if near else _ALL}"


def _sections(path: Path | None, parts: Iterable[_Part], mistakes: list[_Mistake]) -> Iterator[Section]:
    """Check sections; what is wrong with them is added to the mistakes."""
    seen = set()
    for part in parts:
        kind, argument, wrong = parse_header(part.header)
        if not wrong and (kind, argument) in seen:
            wrong = "the section is there twice; make one of both"
        if wrong:
            mistakes.append(_Mistake(part.line, f"{path}, line {part.line}: {shown(part.header)}: {wrong}"))
        if kind:
            seen.add((kind, argument))
            yield Section(kind.word, argument, part.line, _values(kind, part, mistakes))


def _values(kind: SectionKind, part: _Part, mistakes: list[_Mistake]) -> dict[str, Any]:
    values, keys = {}, {key.name: key for key in kind.keys}
    for setting in part.settings.values():
        try:
            attribute, values[attribute] = _parse(setting, keys)
        except _Unfit as error:
            mistakes.append(_Mistake(setting.line, str(error)))
    return values


def _read(path: Path, mistakes: list[_Mistake]) -> list[_Part]:
    """Take a file apart: what is before the first section, and each section. What is wrong with lines is added to the
    mistakes.
    """
    parts = [_Part(0, "", {})]
    for number, line in enumerate(map(str.strip, _text(path).split("\n")), 1):
        if line.startswith("["):
            parts.append(_Part(number, line, {}))
        elif line and not line.startswith("#"):
            name, equals, text = (word.strip() for word in line.partition("="))
            where, settings = f"{path}, line {number}", parts[-1].settings
            wrong = ""
            if not (name and equals):
                wrong = f"{shown(line)} is not a line of the form key = value"
            elif name in settings:
                wrong = f"{name}: the key is there twice; delete one"
            elif re.search(r"(^|\s)#", text):
                wrong = f"{name}: a value cannot hold a comment; put it on a line of its own"
            if wrong:
                mistakes.append(_Mistake(number, f"{where}: {wrong}"))
            else:
                settings[name] = _Setting(number, where, name, text, path.parent)
    return parts


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


def _contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find what no key can tell alone; gives the names of the keys, and what is wrong."""
    listeners = {f"{name}-addr": getattr(config, f"{name}_addr") for name in LISTENERS}
    for name in LISTENERS:
        yield from _half_pair(config, f"{name}-tls-cert", f"{name}-tls-key")
    on = {name: address for name, address in listeners.items() if address is not None}
    if not on:
        yield (
            (*listeners,),
            "public-addr, auth-addr and internal-addr are all off: there is nothing to serve; turn one on",
        )
    for (one, first), (other, second) in itertools.combinations(on.items(), 2):
        if _same(first, second):
            yield (one, other), f"{one} {first} and {other} {second} are the same address; give each its own"
    if config.accel_redirect and not config.trusted_proxies:
        yield (
            ("accel-redirect", "trusted-proxies"),
            "accel-redirect needs trusted-proxies: it is only for an nginx that is one of them",
        )
    if config.page_size > config.page_limit:
        yield (
            ("page-size", "page-limit"),
            f"page-size {config.page_size} is more than page-limit {config.page_limit}; lower one or raise the other",
        )


def _same(first: Listening, second: Listening) -> bool:
    if isinstance(first, UnixAddress) or isinstance(second, UnixAddress):
        return first == second
    return first.port == second.port != 0 and (first.host == second.host or "" in (first.host, second.host))


def _half_pair(config: Config, *names: str) -> Iterator[tuple[tuple[str, ...], str]]:
    given = [name for name in names if getattr(config, _BY_NAME[name].attribute) is not None]
    if len(given) == 1:
        missing = next(name for name in names if name not in given)
        yield names, f"{given[0]} is given without {missing}; HTTPS needs both"
