"""The pages of the manual: each says what it is for, is in the Markdown that Vex reads, and links only to what is
there.
"""

from __future__ import annotations

import re
import unittest

from tests.support.manual import PAGES, README

_HEADING = re.compile(r"^#{1,3} (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]*)\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_PAGE = re.compile(r"(?:vex/manual/)?([a-z-]+)\.md(?:#(.*))?")
# What the reader of the subset does not know: pictures, HTML, nested lists, references, escapes, headings below the
# third.
_UNKNOWN = re.compile(r"!\[|<[a-z!/]|^ +[-*0-9]|^\[[^\]]+\]:|\\|^####|^[*+] ", re.MULTILINE)


def prose(text: str) -> str:
    """Take what is code out of a text."""
    return _CODE.sub("code", text)


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as code hosts make them."""
    return {
        re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(_CODE.sub("", text))
    }


class ManualTest(unittest.TestCase):
    def test_each_page_begins_with_its_title_and_a_sentence_that_says_what_it_is_for(self) -> None:
        for subject, text in PAGES.items():
            with self.subTest(subject):
                title, purpose = text.split("\n\n")[:2]
                self.assertRegex(title, r"\A# [A-Z][^\n]+\Z")
                self.assertRegex(purpose, r"\A[A-Z][^\n`\[]{20,160}\.\Z")
                self.assertEqual(len(re.findall(r"^# ", _CODE.sub("", text), re.MULTILINE)), 1)

    def test_pages_use_no_markdown_that_vex_does_not_read(self) -> None:
        for subject, text in PAGES.items():
            with self.subTest(subject):
                self.assertEqual(_UNKNOWN.findall(prose(text)), [])
                self.assertEqual(text.count("\n```") % 2, 0)

    def test_links_lead_to_what_is_there(self) -> None:
        for place, text in (("README", README), *PAGES.items()):
            for target in _LINK.findall(prose(text)):
                with self.subTest(place=place, target=target):
                    if re.match(r"https?://", target) or target == "vex/manual/web.png":
                        continue
                    page = _PAGE.fullmatch(target) if "/" in target or place != "README" else None
                    if target.startswith("#"):
                        self.assertIn(target[1:], anchors(text))
                        continue
                    assert page, target
                    self.assertEqual(target.startswith("vex/manual/"), place == "README")
                    self.assertIn(page[1], sorted(PAGES))
                    if page[2]:
                        self.assertIn(page[2], anchors(PAGES[page[1]]))
