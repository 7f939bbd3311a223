"""Pages of the web interface, parsed as a browser does, with all that no page may have; and a registry in this process
that makes them.
"""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Callable

from tests.support.in_process import InProcessTestCase
from vex.api.routes import match
from vex.errors import RegistryError
from vex.http.bodies import Input, body_of
from vex.http.heads import HeadLimits, parse_head
from vex.http.message import Request, Response
from vex.http.turns import HeavyWork
from vex.web.addresses import PAGES
from vex.web.browsing import Browsing
from vex.web.kept import KeptPages
from vex.web.pages import Pages
from vex.web.visit import Site

# Elements between which text goes on without a space.
_INLINE = {"a", "time", "data", "code", "del", "strong", "em"}
_VOID = {"meta", "link", "input", "path", "rect", "option"}
_ATTRIBUTES = {
    "html": {"lang"},
    "meta": {"charset", "name", "content"},
    "link": {"rel", "href", "type"},
    "script": {"src", "defer"},
    "a": {"href", "class", "rel", "download"},
    "svg": {"viewbox", "width", "height", "aria-hidden", "class"},
    "path": {"d"},
    "rect": {"class", "width", "height", "rx"},
    "form": {"class", "method", "action", "role"},
    "label": {"for"},
    "input": {
        "type",
        "id",
        "name",
        "value",
        "maxlength",
        "autocomplete",
        "autocapitalize",
        "spellcheck",
        "required",
        "list",
    },
    "option": {"value"},
    "datalist": {"id"},
    "time": {"datetime", "title"},
    "data": {"value", "title"},
    "code": {"title"},
    "span": {"class", "data-copy", "aria-current", "aria-hidden"},
    "div": {"class", "id", "role", "aria-live", "aria-label", "tabindex"},
    "p": {"class"},
    "nav": {"class", "aria-label"},
    "main": {"id"},
    "section": {"aria-labelledby", "aria-label"},
    "h1": {"id"},
    "h2": {"id"},
    "h3": {"id"},
    "dl": {"class"},
    "article": {"class"},
    "table": {"class"},
    "thead": {"class"},
    "tr": {"class"},
    "th": {"scope", "class", "aria-sort"},
    "td": {"class", "colspan"},
    "ol": {"class"},
    "li": {"class"},
    "pre": {"tabindex", "aria-label"},
    **{
        name: set()
        for name in (
            "head",
            "title",
            "body",
            "header",
            "footer",
            "button",
            "dt",
            "dd",
            "tbody",
            "del",
            "details",
            "summary",
            "ul",
            "strong",
            "em",
        )
    },
}


class Page(HTMLParser):
    """A page as it is parsed: its elements in order, its text, and everything in it that no page may have."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.values = ""
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{name}> is not closed" for name in self._open]
        self.faults += [
            f"raw {ord(character):#x}"
            for character in set(text)
            if character in "\0\x1b\u202e\u2066\u200f\u061c\u2028\ufeff"
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        self.elements.append((tag, tuple(sorted(names))))
        for name in sorted(set(names) - _ATTRIBUTES.get(tag, set())) if tag in _ATTRIBUTES else [f"<{tag}>"]:
            self.faults.append(f"{name} in <{tag}>")
        for name, value in attrs:
            self._check_value(tag, name, value or "", dict(attrs))
        if tag not in _VOID:
            self._open.append(tag)
        if tag not in _INLINE:
            self.text += " "

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")
        if tag not in _INLINE:
            self.text += " "

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            self.faults.append(f"script or style within the page: {data}")
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.faults.append(f"a comment: {data}")

    def handle_pi(self, data: str) -> None:
        self.faults.append(f"a processing instruction: {data}")

    def unknown_decl(self, data: str) -> None:
        self.faults.append(f"a declaration: {data}")

    def _check_value(self, tag: str, name: str, value: str, attributes: dict[str, str | None]) -> None:
        self.values += value
        if name not in ("href", "src", "action"):
            return
        local = value.startswith(("/", "#")) and not value.startswith(("//", "/\\"))
        outside = (
            tag == "a"
            and value.startswith(("http://", "https://"))
            and attributes.get("rel") == "noopener noreferrer nofollow"
        )
        if not local and not outside:
            self.faults.append(f"{tag} {name}={value!r}")


class PageAssertions(unittest.TestCase):
    """What tests of pages look for."""

    def assert_shows(self, page: Page, *texts: str) -> None:
        """Check for texts in their order on the page, white space aside."""
        text = " ".join(page.text.split())
        position = 0
        for wanted in texts:
            found = text.find(wanted, position)
            self.assertGreaterEqual(found, 0, f"{wanted!r} is not here: {text[position:]}")
            position = found + len(wanted)


class PagesTestCase(PageAssertions, InProcessTestCase):
    """The web interface on a registry in this process."""

    def setUp(self) -> None:
        super().setUp()
        registry = self.site.registry
        self.work = HeavyWork()
        browsing = Browsing(self.site.database, registry, self.work.large_manifests)
        kept = KeptPages(self.site.revisions)
        self.pages = Pages(Site(browsing, registry, "", 8201, self.site.clock, self.work), kept)

    def respond(
        self,
        target: str,
        host: str = "registry.test:8200",
        headers: Mapping[str, str] | None = None,
        left: Callable[[], bool] = lambda: False,
        scheme: str = "http",
    ) -> Response:
        """Ask for a page; `left` tells whether the client has gone."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in {"Host": host, **(headers or {})}.items())
        head = parse_head(f"GET {target} HTTP/1.1\r\n{fields}\r\n".encode(), HeadLimits())
        request = Request("public", head, body_of(head, Input(lambda _view: 0)), "192.0.2.1", scheme)
        request.left = left
        try:
            found = match(PAGES, request.path)
            self.assertIsNotNone(found, target)
            assert found
            return self.pages.handle(found[0], request, found[1])
        except RegistryError as error:
            return self.pages.error(request, error)

    def page(self, target: str, status: int = 200, host: str = "registry.test:8200") -> Page:
        """Ask for a page, and check that it is well-formed and safe."""
        response = self.respond(target, host)
        self.assertEqual(response.status, status, f"{target}: {response.body!r}")
        page = Page((b"".join(response.stream) if response.stream else response.body).decode())
        self.assertEqual(page.faults, [], target)
        return page
