"""What is around the content of all pages: the head, the foot, the headers of the answer, sections and warnings."""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Sequence
from typing import NamedTuple

from vex.http.message import NOSNIFF, PLAIN_TEXT, Response
from vex.web.addresses import STATIC
from vex.web.markup import EMPTY, Markup, Templates, Url, join, local
from vex.web.visit import Visit

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'"
)
REVALIDATED = ("Cache-Control", "no-cache")
# What is found by digests alone stays as it is, until another version of Vex shows it in another way.
LASTING = ("Cache-Control", "public, max-age=86400, immutable")
_HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    NOSNIFF,
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", _POLICY),
)
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}

_page = Templates("page.html")
_FOOTER = _page("footer")


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
    caching: tuple[str, str] = REVALIDATED,
) -> Response:
    """Answer with a page."""
    text = str(join((page_start(seen, title), body, page_end(footer))))
    return Response(status, [*_HEADERS, caching, *headers], text.encode())


def redirect(url: Url) -> Response:
    """Send the browser to another page of this registry."""
    return Response(307, [("Location", url.text), *PLAIN_TEXT])


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
