"""The manual in the web interface: what the reader of Markdown makes of it, that nothing gets past it, and that all
links lead somewhere.
"""

from __future__ import annotations

import re
import unittest
from html.parser import HTMLParser

from tests.support.page import Page, PagesTestCase
from tests.support.server import TOP
from vex.web.manual import SUBJECTS
from vex.web.markdown import html_of

MADE = (
    ("# A *b* `c`", '<h1 id="a-b-c">A <em>b</em> <code>c</code></h1>'),
    ("## One\n\n### One\n", '<h2 id="one">One</h2><h3 id="one-1">One</h3>'),
    ("## What's `a_b`, and why?", '<h2 id="whats-a_b-and-why">What&#x27;s <code>a_b</code>, and why?</h2>'),
    ("one\ntwo\n\nthree", "<p>one two</p><p>three</p>"),
    ("- a\n  b\n- c\n\nd", "<ul><li>a b</li><li>c</li></ul><p>d</p>"),
    ("Then:\n1. a\n2. b\n\n3. c\n", "<p>Then:</p><ol><li>a</li><li>b</li><li>c</li></ol>"),
    ("**a *b* `**c**`** *d*", "<p>**a <em>b</em> <code>**c**</code>** <em>d</em></p>"),
    ("**a `*` b**: 2 * 3 * 4", "<p><strong>a <code>*</code> b</strong>: 2 * 3 * 4</p>"),
    ("```sh\n# a\n\n  <b> *c*\n```\nd", '<pre tabindex="0" aria-label="Code"># a\n\n  &lt;b&gt; *c*</pre><p>d</p>'),
    ("[a `]` b](tls.md)", '<p><a href="/help/tls/">a <code>]</code> b</a></p>'),
    ("[a](tls.md#why-not)", '<p><a href="/help/tls/#why-not">a</a></p>'),
    ("[a](#why-not)", '<p><a href="#why-not">a</a></p>'),
    (
        "[a](https://example.org/a?b=c&d#e)",
        '<p><a href="https://example.org/a?b=c&amp;d#e" rel="noopener noreferrer nofollow">a</a></p>',
    ),
)
TABLE = "| a | `b` |\n|---|---:|\n| c \\| d | |\n"
# Each stays text, in full.
HOSTILE = (
    "<script>alert(1)</script>",
    "a <img src=x onerror=alert(1)> b",
    "`<b>`",
    "**<b>**",
    "# <b>",
    '## " onclick="alert(1)',
    "- <b>",
    "| <b> | \" |\n|---|---|\n| <b> | ' |",
    "```\n</pre><script>alert(1)</script>\n```",
    '``` " onload="\nopen',
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](data:text/html,<script>)",
    "[a](//evil.example)",
    "[a](../../v2/)",
    "[a](/v2/)",
    "[a](TLS.md)",
    '[a](tls.md#"onclick="alert)',
    '[a](https://example.org/"onclick="alert(1))',
    "[<b>](tls.md)",
    "[a](https://exa\u202emple.org/)",
    "&lt;script&gt; &#60;b>",
    "\x00 \x1b[31m \u202e",
    "$text ${url} $$",
    "<!-- template p -->",
)


class Reader(unittest.TestCase):
    """From Markdown to HTML."""

    def test_each_kind_of_markdown_becomes_its_html(self) -> None:
        for text, expected in MADE:
            with self.subTest(text):
                self.assertEqual(str(html_of(text)), expected)

    def test_a_table_has_a_head_unless_that_is_empty(self) -> None:
        page = str(html_of(TABLE))
        self.assertIn('<thead><tr><th scope="col">a</th><th scope="col"><code>b</code></th></tr></thead>', page)
        self.assertIn("<tbody><tr><td>c | d</td><td></td></tr></tbody>", page)
        headless = str(html_of(TABLE.replace("a", " ").replace("`b`", "")))
        self.assertIn('<table><tbody><tr><th scope="row">c | d</th><td></td></tr></tbody></table>', headless)

    def test_hostile_markdown_is_escaped(self) -> None:
        for text in HOSTILE:
            with self.subTest(text):
                made = str(html_of(text))
                page = Page(made)
                self.assertEqual(page.faults, [], made)
                self.assertNotRegex(made, r"(?i)<(script|img|b)\b|\son[a-z]+=\"|href=\"(?!/help/tls/|https://)")

    def test_what_would_take_time_by_going_back_does_not(self) -> None:
        for text in ("`a` " * 20_000, "| `" * 20_000, "**a" * 5_000, "[a" * 5_000, "- \n\n" * 5_000, "*a`" * 5_000):
            with self.subTest(text[:10]):
                self.assertTrue(str(html_of(text)))


class Manual(PagesTestCase):
    """The pages that there are."""

    def test_the_front_page_of_help_lists_every_subject(self) -> None:
        page = self.page("/help/")
        titles = [source(subject).partition("\n")[0][2:] for subject in SUBJECTS]
        self.assert_shows(page, "Help", *titles)
        self.assertIn("/help/", self.page("/").values)

    def test_every_page_is_shown_without_leftovers_of_markdown(self) -> None:
        for subject in SUBJECTS:
            with self.subTest(subject):
                page = self.page(f"/help/{subject}/")
                self.assert_shows(page, source(subject).partition("\n")[0][2:].replace("`", ""))
                prose = Prose(self.html(subject)).text
                self.assertNotRegex(prose, r"`|\*\*|\]\(|[^ ]\*|\*[^ ]|\||#")

    def test_every_link_leads_to_a_page_and_an_anchor_that_are_there(self) -> None:
        anchors = {subject: set(re.findall(r'<h[1-3] id="([^"]+)"', self.html(subject))) for subject in SUBJECTS}
        for subject in SUBJECTS:
            links = re.findall(r'href="/help/([^/"]+)/(?:#([^"]*))?"', self.html(subject))
            here = [
                (subject, anchor) for anchor in re.findall(r'href="#([^"]*)"', self.html(subject)) if anchor != "main"
            ]
            for page, anchor in (*links, *here):
                with self.subTest(f"{subject}: {page}#{anchor}"):
                    self.assertIn(page, anchors)
                    if anchor:
                        self.assertIn(anchor, anchors[page])

    def test_what_is_not_there_has_a_page_that_says_so_and_other_spellings_move(self) -> None:
        self.page("/help/nothing/", 404)
        self.page("/help/__init__/", 404)
        for path in ("/help", f"/help/{SUBJECTS[0]}"):
            moved = self.respond(path)
            self.assertEqual((moved.status, dict(moved.headers)["Location"]), (307, f"{path}/"))

    def html(self, subject: str) -> str:
        return self.respond(f"/help/{subject}/").body.decode()


class Prose(HTMLParser):
    """The text of a page outside code."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self._in_code = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_code += tag in ("code", "pre")

    def handle_endtag(self, tag: str) -> None:
        self._in_code -= tag in ("code", "pre")

    def handle_data(self, data: str) -> None:
        self.text += "" if self._in_code else data


def source(subject: str) -> str:
    return (TOP / "vex" / "manual" / f"{subject}.md").read_text(encoding="utf-8")
