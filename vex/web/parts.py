"""What all pages are made of: the page around them, links, times, sizes, digests, commands, sorting and paging."""

from __future__ import annotations

import datetime
import hashlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Callable, NamedTuple, TypeVar

from vex.api import routes
from vex.http.forwarded import HOST, addressable
from vex.http.message import Request, Response
from vex.http.turns import HeavyWork
from vex.names import Digest, RepositoryName, Tag
from vex.progress import UNHURRIED, Work
from vex.registry.registry import Registry
from vex.storage.listings import NAME, PUSHED, SIZE, View
from vex.web.addresses import MANIFEST, REPOSITORY, STATIC
from vex.web.browsing import Browsing
from vex.web.markup import Markup, Templates, Url, escape, external, join, local

Entry = TypeVar("Entry")

PAGE_ENTRIES = 100
EMPTY = Markup.empty()
NOSNIFF = ("X-Content-Type-Options", "nosniff")
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    NOSNIFF,
    ("Cache-Control", "no-cache"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", _POLICY),
)
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_PAGE = re.compile(r"[0-9]{1,9}")
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
# 0001-01-01T00:00:00Z.
_ZERO_TIME = -62135596800.0
# What a page shows of what pushers write: rows of a table, characters of a text, and of all texts of a table.
MOST_ROWS = 200
_MOST_CHARACTERS = 4096
_MOST_IN_TABLE = 128 * 1024
_SHORT_DIGITS = 12
MINUS = "\u2212"
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_AGES = (
    (365 * 86400, "year"),
    (30 * 86400, "month"),
    (7 * 86400, "week"),
    (86400, "day"),
    (3600, "hour"),
    (60, "minute"),
)

_page = Templates("page.html")
_FOOTER = _page("footer")


class Site(NamedTuple):
    """What the pages need: the data, and how commands address this registry.

    `push_port` gives the port for pushing, None when that is off; with `one_port`, it is that of `public_url`.
    """

    browsing: Browsing
    registry: Registry
    public_url: str
    push_port: Callable[[], int | None]
    clock: Callable[[], float]
    work: HeavyWork
    one_port: bool = False


class Visit(NamedTuple):
    """A request with what every page shows: `host` is how commands address the registry, `plain` whether it speaks HTTP
    without TLS.

    `work` is told of each small piece of work.
    """

    site: Site
    request: Request
    host: str
    plain: bool
    now: float
    work: Work = UNHURRIED

    @property
    def push_host(self) -> str:
        """How commands address the registry for pushing; "" when that is off."""
        port = self.site.push_port()
        if port and self.site.one_port:
            return self.host
        return f"{_without_port(self.host)}:{port}" if port else ""

    def parameter(self, name: str) -> str:
        """Return a query parameter; "" when it is missing."""
        return self.request.parameter(name) or ""

    def during(self, work: Work) -> Visit:
        """Return the same for one piece of work, which is told of all that is done."""
        return self._replace(site=self.site._replace(browsing=self.site.browsing.during(work)), work=work)

    def paced(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Give entries, of which rows are made, one by one."""
        for entry in entries:
            yield entry
            self.work.step()

    def number(self, name: str) -> int:
        """Return the number of a page, 1 for whatever is none."""
        text = self.parameter(name)
        return max(int(text), 1) if _PAGE.fullmatch(text) else 1


def visit(site: Site, request: Request) -> Visit:
    """Look at a request: how does it address this registry?"""
    if site.public_url:
        scheme, _, host = site.public_url.partition("://")
    else:
        scheme, host = request.scheme, request.host
    return Visit(
        site,
        request,
        addressable(host if HOST.fullmatch(host) else "localhost", scheme),
        scheme == "http",
        site.clock(),
    )


def _without_port(host: str) -> str:
    return re.sub(r":[0-9]+$", "", host)


# The page


class _Static(NamedTuple):
    content: bytes
    media_type: str


def _static(file: str) -> tuple[str, _Static]:
    content = pkgutil.get_data("vex.web", f"static/{file}")
    if content is None:
        raise FileNotFoundError(file)
    stem, _, ending = file.partition(".")
    return f"{stem}.{hashlib.sha256(content).hexdigest()[:16]}.{ending}", _Static(content, _TYPES[ending])


_STYLE, _SCRIPT, _ICON = _static("vex.css"), _static("vex.js"), _static("vex.svg")
STATIC_FILES = dict((_STYLE, _SCRIPT, _ICON))


def page_start(seen: Visit, title: str) -> Markup:
    """Make a page up to its content."""
    style, script, icon = (local(STATIC.path(file=name)) for name, _ in (_STYLE, _SCRIPT, _ICON))
    return _page("start", title=title, style=style, script=script, icon=icon, host=seen.host)


def page_end(footer: Markup | str = _FOOTER) -> Markup:
    """Make what comes behind the content."""
    return _page("end", footer=footer)


def page(
    seen: Visit,
    title: str,
    body: Markup,
    status: int = 200,
    headers: Sequence[tuple[str, str]] = (),
    footer: Markup | str = _FOOTER,
) -> Response:
    """Answer with a page."""
    return Response(
        status, [*_HEADERS, *headers], str(join((page_start(seen, title), body, page_end(footer)))).encode()
    )


def redirect(url: Url) -> Response:
    """Send the browser to another page of this registry."""
    return Response(307, [("Location", url.text), NOSNIFF, ("Content-Type", "text/plain; charset=utf-8")])


# Addresses


def repository_url(name: str) -> Url:
    """Link to a repository, or to those below a part of a name."""
    return local(REPOSITORY.path(name=name))


def manifest_url(name: RepositoryName, digest: Digest, tag: str = "") -> Url:
    """Link to a manifest."""
    return local(MANIFEST.path(name=name, manifest=digest), {"tag": tag})


def blob_url(name: RepositoryName, digest: Digest) -> Url:
    """Link to the bytes of a blob."""
    return local(routes.BLOB.path(name=name, digest=digest))


def link(url: Url, text: str) -> Markup:
    """Make a link."""
    return _page("link", url=url, text=text)


def crumbs(name: str, *places: str | tuple[Url, str]) -> Markup:
    """Show the way to a repository, and on to a place in it; the last step is where one is."""
    parts = name.split("/")
    steps: list[str | tuple[Url, str]] = [
        (repository_url("/".join(parts[: index + 1])), part) for index, part in enumerate(parts)
    ]
    *before, last = [*steps, *places]
    shown = [
        _page("crumb", url=step[0], text=step[1]) if isinstance(step, tuple) else _page("here", text=step)
        for step in before
    ]
    return _page("crumbs", parts=join((*shown, _page("here", text=last[1] if isinstance(last, tuple) else last))))


def path_links(name: str) -> Markup:
    """Show the name of a repository as a path, each part of which can be followed."""
    parts = name.split("/")
    return join(
        (
            _page(
                "segment" if index + 1 < len(parts) else "segment_last",
                url=repository_url("/".join(parts[: index + 1])),
                text=part,
            )
            for index, part in enumerate(parts)
        ),
        "/",
    )


def text_or_link(text: str) -> Markup:
    """Show text that a pusher wrote; an address becomes a link."""
    url = external(text)
    return _page("outside", url=url, text=text) if url else escape(text)


# Times, sizes, digests, commands


def when(seconds: float, now: float) -> Markup:
    """Show a time as its age, with the exact time on hover."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return _page(
        "time",
        machine=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        exact=moment.strftime("%Y-%m-%d %H:%M:%S UTC"),
        age=_age(now - seconds),
    )


def pushed(seconds: float, now: float) -> Markup:
    """Say when something was pushed."""
    return join((escape("pushed "), when(seconds, now)))


def when_written(text: str, now: float) -> Markup:
    """Show a time that a pusher wrote (RFC 3339); what is none is shown as it is, and Go's zero time, which programs
    write for none, not at all.
    """
    match = _TIMESTAMP.fullmatch(text)
    try:
        zone = match[3].upper().replace("Z", "+00:00") if match else ""
        seconds = datetime.datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}").timestamp() if match else None
        if seconds == _ZERO_TIME:
            return EMPTY
        return escape(shorten(text)) if seconds is None else when(seconds, now)
    except (ValueError, OverflowError):
        return escape(shorten(text))


def _age(seconds: float) -> str:
    for length, unit in _AGES:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now" if seconds > -60 else "in the future"


def size(count: int) -> Markup:
    """Show a size in binary units, with the exact bytes on hover."""
    return _page("size", bytes=count, exact=f"{count:,} bytes", text=size_text(count))


def size_text(count: int) -> str:
    """Write a size in binary units, with three digits."""
    value, unit = float(abs(count)), 0
    while value >= 1000 and unit + 1 < len(_UNITS):
        value, unit = value / 1024, unit + 1
    digits = f"{value:.0f}" if unit == 0 or value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"{MINUS if count < 0 else ''}{digits} {'byte' if count == 1 else _UNITS[unit]}"


def short_digest(digest: Digest) -> str:
    """Shorten a digest for people."""
    return f"{digest.algorithm}:{digest.encoded[:_SHORT_DIGITS]}"


def copy_digest(digest: Digest) -> Markup:
    """Show a digest at full length."""
    return _page("copy", text=digest)


def copy_short_digest(digest: Digest) -> Markup:
    """Show a digest shortened; what is copied is all of it."""
    return _page("copy_other", all=digest, text=short_digest(digest))


def copy_command(text: str) -> Markup:
    """Show a command on a line of its own."""
    return _page("command", text=text)


def copy_inline(text: str) -> Markup:
    """Show a command within a line."""
    return _page("copy", text=text)


def reference(seen: Visit, name: RepositoryName, digest: Digest, tag: Tag | str = "") -> str:
    """Write what clients call an image: by tag, or by digest."""
    return f"{seen.host}/{name}:{tag}" if tag else f"{seen.host}/{name}@{digest}"


# Lists


def listing_view(seen: Visit, usual: str) -> View:
    """Read from the query which part of a list is wanted: `q`, `sort` (a name, with - in front for the other direction)
    and `page`.
    """
    sort = seen.parameter("sort")
    order = sort[1:] if sort.startswith("-") else sort
    if order not in (NAME, PUSHED, SIZE):
        sort, order = usual, usual.lstrip("-")
    return View(
        seen.parameter("q")[:128].strip(),
        order,
        sort.startswith("-"),
        (seen.number("page") - 1) * PAGE_ENTRIES,
        PAGE_ENTRIES,
    )


def sort_value(view: View) -> str:
    """Write the order of a list as it stands in the query."""
    return ("-" if view.descending else "") + view.order


def column(path: str, view: View, order: str, text: str, style: str = "") -> Markup:
    """Head a column by which a list can be sorted."""
    current = view.order == order
    # Names are first sorted from A to Z, dates from the newest, sizes from the largest.
    descending = not view.descending if current else order != NAME
    return _page(
        "column",
        style=style,
        sorted=("descending" if view.descending else "ascending") if current else "none",
        arrow=("↓" if view.descending else "↑") if current else "",
        url=local(path, {"q": view.text, "sort": ("-" if descending else "") + order}),
        text=text,
    )


def pager(
    path: str,
    label: str,
    offset: int,
    total: int,
    query: dict[str, str],
    parameter: str = "page",
    *,
    heavy: bool = False,
) -> Markup:
    """Link to the part of a list before and after this one; nothing when there is one part only. To `heavy` pages no
    crawler shall go.
    """
    if total <= PAGE_ENTRIES:
        return EMPTY
    number = offset // PAGE_ENTRIES + 1
    follow = " nofollow" if heavy else ""
    before = (
        _page("before", follow=follow, url=local(path, {**query, parameter: str(number - 1)})) if number > 1 else EMPTY
    )
    after = (
        _page("after", follow=follow, url=local(path, {**query, parameter: str(number + 1)}))
        if offset + PAGE_ENTRIES < total
        else EMPTY
    )
    last = min(offset + PAGE_ENTRIES, total)
    return _page(
        "pager", label=label, before=before, after=after, first=f"{offset + 1:,}", last=f"{last:,}", total=f"{total:,}"
    )


def filter_form(path: str, label: str, view: View) -> Markup:
    """Make the field that narrows a list down."""
    return _page("filter", action=local(path), label=label, text=view.text, sort=sort_value(view))


# Facts


def facts(rows: Iterable[tuple[str, Markup]]) -> Markup:
    """List names and values; those without a value are left out."""
    made = [_page("fact", name=name, value=value) for name, value in rows if value]
    return _page("dl", rows=join(made)) if made else EMPTY


def pairs(name: str, value: str, rows: Sequence[tuple[str, str]], total: int | None = None) -> Markup:
    """Make a table of names and values that a pusher wrote, the first of them; `total` is how many there are, unless
    `rows` are all.
    """
    made, left = [], _MOST_IN_TABLE
    for key, text in ((shorten(key), shorten(text)) for key, text in rows[:MOST_ROWS]):
        left -= len(key) + len(text)
        if left < 0:
            break
        made.append(_page("pair", name=key, value=text_or_link(text)))
    more = (len(rows) if total is None else total) - len(made)
    return join((_page("pairs", name=name, value=value, rows=join(made)), and_more(more))) if made or more else EMPTY


def and_more(count: int) -> Markup:
    """Say how many entries of a list are not shown; nothing when all are."""
    return _page("and_more", count=f"{count:,}") if count else EMPTY


def shorten(text: str, limit: int = _MOST_CHARACTERS) -> str:
    """Cut a text that a pusher wrote, saying how much is left out."""
    return text if len(text) <= limit else f"{text[:limit]}… and {len(text) - limit:,} more characters"


def section(title: str, identifier: str, body: Markup) -> Markup:
    """Make a section with a heading; nothing when there is nothing in it."""
    return _page("section", title=title, id=identifier, body=body) if body else EMPTY


def warning(text: str) -> Markup:
    """Show a sentence that has to be noticed; nothing when there is none."""
    return _page("warning", text=text) if text else EMPTY


def error_page(
    seen: Visit, title: str, message: str, back: Url, place: str, status: int, headers: Sequence[tuple[str, str]] = ()
) -> Response:
    """Answer with a page that says what is wrong, and has a way back."""
    return page(seen, title, _page("error", title=title, message=message, back=back, place=place), status, headers)
