"""The table of the configuration's keys: the class `Config`.

A field gives a key's default as it is written in a file, the kind of its value and its description; files, flags,
`vex describe` and the manual are made from that. A `Config` that `load` of `file.py` returned is consistent and never
changes. Nothing is opened here: that certificates and directories can be used is for those who use them to find out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
    Listening,
    ValueKind,
    choice,
)

T = TypeVar("T")

# What `locations` may be; see locations.py.
# Whether a location is absolute; None where scheme and host are certain.
LOCATIONS = {"auto": None, "absolute": True, "relative": False}
LISTENERS = ("public", "auth", "internal")


class Key(NamedTuple):
    """One row of the table; `default` and `least` are texts as in a file, `reloaded` says that SIGHUP has a new value
    count at once.
    """

    name: str
    default: str
    kind: ValueKind[Any]
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


class Section(NamedTuple):
    """A section of the file: the two words of its header, such as `repositories` and `team/*`, the line of that, and
    its values by the names of attributes.
    """

    kind: str
    argument: str
    line: int
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return f"[{self.kind} {self.argument}]"

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self}, line {self.line} of the configuration"


_rows: list[tuple[str, ValueKind[Any], str, str, bool]] = []


def _key(default: str, kind: ValueKind[T], description: str, least: str = "", *, reloaded: bool = False) -> T:
    _rows.append((default, kind, description, least, reloaded))
    return kind.parse(default)


# A dataclass of this size, and the modules that make one, would take a tenth of the time to start.
class Config(NamedTuple):
    """The configuration, and the table of its keys, in groups by who uses them: `public_addr` is the key `public-addr`.
    Times are seconds, sizes bytes.
    """

    # Where it listens, and with which certificates: http/sockets.py, http/certificates.py.
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

    # How clients come here, and who sends blobs: api/locations.py, access/credentials.py, http/forwarded.py, web/.
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
        choice(tuple(LOCATIONS)),
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

    # What is kept, and for how long: storage/, registry/.
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

    # What is logged: logs.py, storage/audit.py.
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

    # Limits of requests: http/heads.py.
    request_line_limit: int = _key("8KiB", SIZE, "The longest request line.", "1KiB", reloaded=True)
    header_fields_limit: int = _key("64", NUMBER, "The most header fields in a request.", "16", reloaded=True)
    header_bytes_limit: int = _key("32KiB", SIZE, "The largest header section of a request.", "1KiB", reloaded=True)

    # Limits of contents and of uploads: formats/manifest.py, registry/uploads.py.
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

    # Limits of lists: api/lists.py.
    page_size: int = _key("1000", NUMBER, "Referrers on a page.", "1")
    page_limit: int = _key(
        "10000", NUMBER, "The most entries on a page of a list for a client that asks for a number.", "1"
    )

    # Limits of logins: access/throttle.py.
    failed_logins: int = _key(
        "10",
        NUMBER,
        "Failed logins in a minute, per address and user name, after which more are refused.",
        "1",
        reloaded=True,
    )

    # Limits of connections: http/server.py.
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

    # No key: see sections.py.
    sections: tuple[Section, ...] = ()

    def certificates(self) -> dict[str, tuple[Path, Path]]:
        """Return the certificate and the key of each listener that has them, by its name."""
        pairs = {name: (getattr(self, f"{name}_tls_cert"), getattr(self, f"{name}_tls_key")) for name in LISTENERS}
        return {name: pair for name, pair in pairs.items() if None not in pair}


KEYS: tuple[Key, ...] = tuple(Key(name.replace("_", "-"), *row) for name, row in zip(Config._fields, _rows))
