"""HTML from the Markdown that the manual uses: headings, paragraphs, lists of one level, tables, code, links and
emphasis.

Nothing is lost: what is none of that is a paragraph, or text as it stands. All of it is escaped by `markup.py`, and
links lead to pages of the manual and to addresses with http or https alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Callable

from vex.web.addresses import HELP_PAGE
from vex.web.markup import EMPTY, Markup, Templates, escape, external, join, local, within

_BLOCK = re.compile(
    r"""
      ^```[^\n]*\n(?P<code>.*?)^```[ ]*$
    | ^(?P<marks>\#{1,3})[ ]+(?P<heading>[^\n]+)$
    | (?P<table>^\|[^\n]*\n\|[ :|-]+\n?(?:^\|[^\n]*\n?)*)
    | (?P<bullets>^-[ ][^\n]*\n?(?:\n*^(?:-[ ]|[ ]+(?=\S))[^\n]*\n?)*)
    | (?P<numbers>^[0-9]+\.[ ][^\n]*\n?(?:\n*^(?:[0-9]+\.[ ]|[ ]+(?=\S))[^\n]*\n?)*)
    | (?P<paragraph>^[^\n]*\S[^\n]*\n?(?:^(?!```|\#{1,3}[ ]|\||-[ ]|[0-9]+\.[ ])[^\n]*\S[^\n]*\n?)*)
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_INLINE = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|\[(?P<text>(?:`[^`]*`|[^\]`])+)\]\((?P<target>[^()\s]+)\)"
    r"|\*\*(?P<strong>[^\s*](?:`[^`]*`|[^*`])*)\*\*"
    r"|(?<!\*)\*(?P<emphasis>[^\s*](?:`[^`]*`|[^*`])*)\*(?!\*)"
)
_PAGE = re.compile(r"(?P<subject>[a-z0-9-]+)\.md(?:#(?P<anchor>[a-z0-9_-]+))?|#(?P<here>[a-z0-9_-]+)")
_ITEM = re.compile(r"^(?:-|[0-9]+\.) ", re.MULTILINE)
_BAR = re.compile(r"(?<!\\)\|")

_made = Templates("markdown.html")


def html_of(text: str) -> Markup:
    """Make HTML of a page."""
    seen: dict[str, int] = {}
    return join(_BLOCKS[found.lastgroup or ""](found, seen) for found in _BLOCK.finditer(text))


def anchor_of(heading: str, seen: dict[str, int]) -> str:
    """Name a heading as code hosts do: letters, digits, hyphens; what `seen` had before gets a number."""
    anchor = re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")
    count = seen[anchor] = seen.get(anchor, -1) + 1
    return f"{anchor}-{count}" if count else anchor


# Blocks; `seen` are the anchors of the headings before.


def _code(found: re.Match[str], _seen: dict[str, int]) -> Markup:
    return _made("code_block", text=found["code"].rstrip("\n"))


def _heading(found: re.Match[str], seen: dict[str, int]) -> Markup:
    return _made(
        f"h{'i' * len(found['marks'])}", id=anchor_of(found["heading"], seen), text=inline_of(found["heading"])
    )


def _paragraph(found: re.Match[str], _seen: dict[str, int]) -> Markup:
    return _made("p", text=inline_of(_joined(found["paragraph"])))


def _bullets(found: re.Match[str], _seen: dict[str, int]) -> Markup:
    return _made("ul", items=_items(found["bullets"]))


def _numbers(found: re.Match[str], _seen: dict[str, int]) -> Markup:
    return _made("ol", items=_items(found["numbers"]))


def _items(text: str) -> Markup:
    return join(_made("li", text=inline_of(_joined(item))) for item in _ITEM.split(text)[1:])


def _table(found: re.Match[str], _seen: dict[str, int]) -> Markup:
    head, _, *rows = (_BAR.split(line.strip().removesuffix("|"))[1:] for line in found["table"].splitlines())
    # Without a head, the first of each row says what the others are.
    heading, first = (
        (_made("head", cells=_cells("th", "th", head)), "td") if any(map(str.strip, head)) else (EMPTY, "row_head")
    )
    return _made("table", head=heading, rows=join(_made("row", cells=_cells(first, "td", row)) for row in rows))


def _cells(first: str, template: str, cells: list[str]) -> Markup:
    return join(
        _made(template if index else first, text=inline_of(cell.strip().replace("\\|", "|")))
        for index, cell in enumerate(cells)
    )


_BLOCKS: dict[str, Callable[[re.Match[str], dict[str, int]], Markup]] = {
    "code": _code,
    "heading": _heading,
    "table": _table,
    "bullets": _bullets,
    "numbers": _numbers,
    "paragraph": _paragraph,
}


# Within a line


def _joined(text: str) -> str:
    return " ".join(text.split())


def inline_of(text: str) -> Markup:
    """Make HTML of text without blocks."""
    return join(_pieces(text))


def _pieces(text: str) -> Iterator[Markup]:
    end = 0
    for found in _INLINE.finditer(text):
        yield escape(text[end : found.start()])
        yield _piece(found)
        end = found.end()
    yield escape(text[end:])


def _piece(found: re.Match[str]) -> Markup:
    if found["code"]:
        return _made("code", text=found["code"])
    if found["target"]:
        return _link(found)
    kind = "strong" if found["strong"] else "emphasis"
    return _made(kind, text=inline_of(found[kind]))


def _link(found: re.Match[str]) -> Markup:
    page, outside = _PAGE.fullmatch(found["target"]), external(found["target"])
    if page:
        here, anchor = page["here"], page["anchor"] or ""
        url = within(here) if here else local(HELP_PAGE.path(subject=page["subject"]), fragment=anchor)
        return _made("link", url=url, text=inline_of(found["text"]))
    return _made("outside", url=outside, text=inline_of(found["text"])) if outside else escape(found[0])
