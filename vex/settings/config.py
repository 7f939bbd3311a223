"""The configuration: load, check, describe.

The class `Config` is the one table of keys. A field gives a key's default as it is written in a file, the kind of its
value and its description; files, flags, `vex describe` and the manual are made from that. A `Config` that `load`
returned is consistent and never changes. Nothing is opened here but the configuration file itself: that certificates
and directories can be used is for those who use them to find out.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vex.errors import Failure
from vex.logs import FORMATS, LEVELS
from vex.settings.values import (
    ADDRESS,
    DEPTH,
    DIRECTORY,
    DURATION,
    FILE,
    LOG_FILE,
    NUMBER,
    PREFIX,
    PROXIES,
    SIZE,
    SWITCH,
    TEMPLATE,
    URL,
    Kind,
    Listening,
    UnixAddress,
    choice,
)

T = TypeVar("T")

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
# What `locations` may be; see locations.py.
LOCATIONS = ("auto", "absolute", "relative")
_LISTENERS = ("public", "auth", "internal")


class Key(NamedTuple):
    """One row of the table; `default` and `least` are texts as in a file, `reloaded` says that SIGHUP has a new value
    count at once.
    """

    name: str
    default: str
    kind: Kind[Any]
    description: str
    least: str = ""
    reloaded: bool = False

    @property
    def attribute(self) -> str:
        """The name of the attribute of `Config`."""
        return self.name.replace("-", "_")

    @property
    def metavar(self) -> str:
        """What stands for the value in help texts."""
        return self.kind.metavar

    @property
    def accepts(self) -> str:
        """What the key takes, in words."""
        bounds = [f"at least {self.least}" if self.least else "", f"at most {self.kind.most}" if self.kind.most else ""]
        return ", ".join([self.kind.accepts, *filter(None, bounds)])

    def parse(self, text: str) -> Any:
        """Turn a text into the value; raises ValueError."""
        value = self.kind.parse(text)
        if (self.least and value < self.kind.parse(self.least)) or (
            self.kind.most and value > self.kind.parse(self.kind.most)
        ):
            raise ValueError(text)
        return value


_rows: list[tuple[str, Kind[Any], str, str, bool]] = []


def _key(default: str, kind: Kind[T], description: str, least: str = "", *, reloaded: bool = False) -> T:
    _rows.append((default, kind, description, least, reloaded))
    return kind.parse(default)


# A dataclass of this size, and the modules that make one, would take a tenth of the time to start.
class Config(NamedTuple):
    """The configuration, and the table of its keys: `public_addr` is the key `public-addr`. Times are seconds, sizes
    bytes.
    """

    public_addr: Listening | None = _key(
        "localhost:8200",
        ADDRESS,
        "Where anonymous, read-only access and the web interface are served; off for nowhere.",
    )
    auth_addr: Listening | None = _key(
        "localhost:8201", ADDRESS, "Where the whole registry is served to users with a password; off for nowhere."
    )
    internal_addr: Listening | None = _key(
        "localhost:8202", ADDRESS, "Where metrics and health are served, for your own network only; off for nowhere."
    )

    public_tls_cert: Path | None = _key(
        "",
        FILE,
        "The certificate of the public listener, PEM, with its chain. With a certificate and a key it serves HTTPS.",
        reloaded=True,
    )
    public_tls_key: Path | None = _key(
        "", FILE, "The private key of that certificate, PEM, not encrypted.", reloaded=True
    )
    auth_tls_cert: Path | None = _key(
        "",
        FILE,
        "The certificate of the auth listener. Passwords travel in the clear without it, or a proxy that serves HTTPS.",
        reloaded=True,
    )
    auth_tls_key: Path | None = _key("", FILE, "The private key of that certificate.", reloaded=True)
    internal_tls_cert: Path | None = _key("", FILE, "The certificate of the internal listener.", reloaded=True)
    internal_tls_key: Path | None = _key("", FILE, "The private key of that certificate.", reloaded=True)
    public_url: str = _key(
        "",
        URL,
        "Where people reach the public listener, for the commands that the web interface shows; with anonymous-read,"
        " where they reach the auth listener. "
        "Empty: what the browser or client asked for.",
    )
    anonymous_read: bool = _key(
        "no",
        SWITCH,
        "Whether everyone can pull at the auth listener too, so that one address is enough; pushing needs a password.",
    )
    identity_tokens: bool = _key(
        "no",
        SWITCH,
        "With anonymous-read: whether docker login stores a token and not the password, which only docker can use.",
    )
    trusted_proxies: tuple[Any, ...] = _key(
        "",
        PROXIES,
        "Proxies whose Forwarded and X-Forwarded-For, -Proto, -Host are believed: addresses, networks, unix.",
    )
    locations: str = _key(
        "auto",
        choice(LOCATIONS),
        "Whether Location fields hold scheme and host, which some clients need. auto: where they are certain, that is"
        " with public-url, where a trusted proxy "
        "tells both, or with TLS here for the name that the client asked for; relative elsewhere, which every proxy"
        " passes on rightly.",
    )
    blob_redirect: str = _key(
        "",
        TEMPLATE,
        "Where public pulls of blobs go, such as https://cdn.example/{digest}; a file is at"
        " blobs/{algorithm}/{encoded}.",
    )
    accel_redirect: str = _key(
        "",
        PREFIX,
        "The internal location, such as /blobs/, from which an nginx among the trusted proxies sends the files in"
        " blobs/.",
    )

    data_dir: Path = _key(
        "data", DIRECTORY, "Where everything is stored: the database, blobs, and uploads in progress."
    )
    upload_expiry: float = _key(
        "24h",
        DURATION,
        "How long an idle upload can be resumed, and how long an uploaded blob waits for its manifest.",
        "1s",
    )
    pull_grace: float = _key(
        "10m",
        DURATION,
        "How long an image can still be pulled by digest after it was asked for, also when it is removed: a pull under"
        " way ends well.",
    )
    keep_replaced: float = _key(
        "0s", DURATION, "How long a manifest can still be pulled by digest after its last tag was moved to another."
    )
    delete_untags: str = _key(
        "no",
        choice(("no", "one", "yes")),
        "Whether deleting a manifest by digest deletes its tags too, as skopeo delete expects, instead of being"
        " refused. one: if it has one tag; yes: all.",
    )

    log_format: str = _key(
        "auto",
        choice(FORMATS),
        "How log lines look: text, or JSON objects. auto: text on a terminal, and JSON elsewhere.",
    )
    log_level: str = _key(
        "info",
        choice(LEVELS),
        "The least important lines that are logged; pushes, removals and failed logins are info.",
    )
    access_log: Path | str | None = _key(
        "", LOG_FILE, "Where each request is logged in a line: a file, or stderr. Empty: nowhere."
    )
    audit_keep: float = _key("365d", DURATION, "How long changes of tags are kept, for vex log and the web interface.")

    request_line_limit: int = _key("8KiB", SIZE, "The longest request line.", "1KiB", reloaded=True)
    header_fields_limit: int = _key("64", NUMBER, "The most header fields in a request.", "16", reloaded=True)
    header_bytes_limit: int = _key("32KiB", SIZE, "The largest header section of a request.", "1KiB", reloaded=True)
    manifest_limit: int = _key("4MiB", SIZE, "The largest manifest. Clients rely on 4MiB.", "1KiB")
    manifest_descriptors_limit: int = _key("20000", NUMBER, "The most descriptors in a manifest.", "1")
    manifest_depth_limit: int = _key("64", DEPTH, "The deepest nesting of a manifest's JSON.", "8")
    blob_limit: int = _key("64GiB", SIZE, "The largest blob.", "1", reloaded=True)
    free_space: int = _key(
        "256MiB", SIZE, "Disk space to keep free: uploads that would leave less are refused.", reloaded=True
    )
    upload_sessions: int = _key(
        "256",
        NUMBER,
        "The most uploads in progress. A user or token has at most half; the one idle for longest, and for five"
        " minutes, gives way to a new one.",
        "1",
        reloaded=True,
    )
    page_size: int = _key("1000", NUMBER, "Referrers on a page.", "1")
    page_limit: int = _key(
        "10000", NUMBER, "The most entries on a page of a list for a client that asks for a number.", "1"
    )
    failed_logins: int = _key(
        "10",
        NUMBER,
        "Failed logins in a minute, per address and user name, after which more are refused.",
        "1",
        reloaded=True,
    )

    handshake_timeout: float = _key("5s", DURATION, "Time for a TLS handshake.", "0.1s", reloaded=True)
    head_timeout: float = _key(
        "10s", DURATION, "Time for a request's line and header fields to arrive.", "0.1s", reloaded=True
    )
    idle_timeout: float = _key(
        "60s", DURATION, "How long a connection may wait between requests.", "0.1s", reloaded=True
    )
    stall_timeout: float = _key(
        "30s",
        DURATION,
        "How long a body may make no progress; one that is read at minimum-rate always does.",
        "0.1s",
        reloaded=True,
    )
    upload_timeout: float = _key(
        "5m", DURATION, "How long an upload of somebody who has logged in may make no progress.", "0.1s", reloaded=True
    )
    minimum_rate: int = _key(
        "1KiB", SIZE, "The slowest transfer of a body, in bytes per second over 60 s. 0: any.", reloaded=True
    )
    public_connections: int = _key("512", NUMBER, "The most connections to the public listener; more wait.", "1")
    auth_connections: int = _key("128", NUMBER, "The most connections to the auth listener.", "1")
    internal_connections: int = _key("16", NUMBER, "The most connections to the internal listener.", "1")
    backlog: int = _key("128", NUMBER, "The most connections that wait, for each listener; more are answered 503.", "1")
    shutdown_timeout: float = _key(
        "30s", DURATION, "Time for requests under way to end when the server is stopped.", reloaded=True
    )

    def certificates(self) -> dict[str, tuple[Path, Path]]:
        """Return the certificate and the key of each listener that has them, by its name."""
        pairs = {name: (getattr(self, f"{name}_tls_cert"), getattr(self, f"{name}_tls_key")) for name in _LISTENERS}
        return {name: pair for name, pair in pairs.items() if None not in pair}


KEYS: tuple[Key, ...] = tuple(Key(name.replace("_", "-"), *row) for name, row in zip(Config._fields, _rows))
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
    listeners = {name: getattr(config, f"{name}_addr") for name in _LISTENERS}
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
