"""Sections of the configuration: what they can say, and what each mistake in them is answered with."""

from __future__ import annotations

import re

from tests.support.configuration import ConfigTestCase
from vex.errors import Failure
from vex.settings.config import KEYS
from vex.settings.file import Mistakes, describe, load
from vex.settings.sections import KINDS

SECTIONS = """\
backlog = 7

[repositories team/*]
immutable = v*, !*-rc*
protected = latest
expire = dev-*
expire-after = 30d
keep-newest = 3

# of all others
[ repositories  * ]
expire-untagged-after = 12h
expire-label = yes
quota = 10GiB
"""


class SectionsTest(ConfigTestCase):
    def test_sections_are_read_in_their_order_with_their_lines(self) -> None:
        config = self.load(SECTIONS)
        self.assertEqual(config.backlog, 7)
        first, second = config.sections
        self.assertEqual((first.kind, first.argument, first.line), ("repositories", "team/*", 3))
        self.assertEqual((second.kind, second.argument, second.line), ("repositories", "*", 11))
        self.assertEqual(
            first.values,
            {
                "immutable": ("v*", "!*-rc*"),
                "protected": ("latest",),
                "expire": ("dev-*",),
                "expire_after": 30 * 86400,
                "keep_newest": 3,
            },
        )
        self.assertEqual(second.values, {"expire_untagged_after": 12 * 3600, "expire_label": True, "quota": 10 * 2**30})

    def test_a_section_names_its_place(self) -> None:
        self.assertEqual(self.load(SECTIONS).sections[0].place, "[repositories team/*], line 3 of the configuration")

    def test_an_empty_list_is_a_value_of_its_own(self) -> None:
        self.assertEqual(self.load("[repositories a]\nimmutable =\n").sections[0].values, {"immutable": ()})

    def test_without_a_section_there_is_none(self) -> None:
        self.assertEqual(self.load("backlog = 7").sections, ())

    def test_all_that_describe_shows_of_sections_can_be_written_so(self) -> None:
        sections = self.load(re.sub(r"^#(?=[a-z\[])", "", describe(), flags=re.MULTILINE)).sections
        self.assertEqual([section.kind for section in sections], [kind.word for kind in KINDS])
        for section, kind in zip(sections, KINDS):
            self.assertEqual({*section.values}, {key.attribute for key in kind.keys})

    def test_describe_shows_sections_in_comments(self) -> None:
        self.assertEqual(self.load(describe()).sections, ())

    def test_a_section_key_is_never_a_key_of_the_top_too(self) -> None:
        self.assertFalse({key.name for kind in KINDS for key in kind.keys} & {key.name for key in KEYS})


class MistakesTest(ConfigTestCase):
    def mistakes(self, content: str) -> list[str]:
        """Return all that is wrong with a file."""
        with self.assertRaises(Mistakes) as caught:
            self.load(content)
        self.assertEqual(str(caught.exception), caught.exception.all[0])
        return [mistake.replace(f"{self.path}, ", "") for mistake in caught.exception.all]

    def test_every_mistake_is_found_with_its_line_and_key(self) -> None:
        found = self.mistakes(
            "back-log = 7\n"
            "blob-limit = 64 GB\n"
            "no value\n"
            "[repositories Team/*]\n"
            "immutable = v*\n"
            "[repositories team/*]\n"
            "imutable = v*\n"
            "expire-after = 0\n"
            "expire = dev-*\n"
            "expire = x\n"
            "keep-newest = 0\n"
            "quota = 0\n"
            "[repositorys team/*]\n"
            "expire-label = maybe\n"
            "[repositories *\n"
            "quota = lots\n"
            "[vex]\n"
            "anything = 1\n"
        )
        expected = (
            ("line 1: back-log: ", "did you mean backlog?"),
            ("line 2: blob-limit: ", "'64 GB' is not a size"),
            ("line 3: ", "key = value"),
            ("line 4: ", "'Team/*' is not a name such as team/app"),
            ("line 7: imutable: ", "did you mean immutable?"),
            ("line 8: expire-after: ", "leave the key out"),
            ("line 10: expire: ", "twice"),
            ("line 11: keep-newest: ", "at least 1"),
            ("line 12: quota: ", "at least 1"),
            ("line 13: ", "did you mean [repositories PATTERN]?"),
            ("line 14: expire-label: ", "yes or no"),
            ("line 15: ", "does not begin a section"),
            ("line 16: quota: ", "'lots' is not a size"),
            ("line 17: ", "no such kind of section; 'vex describe' shows them all"),
        )
        self.assertEqual(len(found), len(expected), found)
        for start, words in expected:
            with self.subTest(start):
                self.assertTrue(any(mistake.startswith(start) and words in mistake for mistake in found), found)

    def test_they_are_in_the_order_of_their_lines(self) -> None:
        found = self.mistakes("[repositories a]\nx = 1\nno value\n[other]\n[repositories b]\nquota = x\ny\n")
        self.assertEqual([mistake.partition(":")[0] for mistake in found], [f"line {line}" for line in (2, 3, 4, 6, 7)])

    def test_a_duration_of_0_is_a_mistake_that_says_what_to_do(self) -> None:
        for key in ("expire-after", "expire-untagged-after"):
            for text in ("0", "0s", "0.5s"):
                with self.subTest(key=key, text=text):
                    self.refused(
                        f"[repositories *]\n{key} = {text}\n", f"line 2: {key}: ", f"'{text}'", "leave the key out"
                    )

    def test_a_key_on_the_wrong_side_of_a_header_is_told_where_it_belongs(self) -> None:
        self.refused("immutable = v*\n", "line 1: immutable: ", "[repositories PATTERN]")
        self.refused("[repositories *]\nbacklog = 7\n", "line 2: backlog: ", "before the first section")

    def test_a_misspelt_key_on_the_wrong_side_of_a_header_is_recognized(self) -> None:
        self.refused("imutable = v*\n", "line 1: imutable: ", "did you mean immutable?")
        self.refused("[repositories *]\nfree-spase = 7\n", "line 2: free-spase: ", "did you mean free-space?")

    def test_a_section_that_is_there_twice_is_a_mistake(self) -> None:
        self.refused("[repositories a]\n[repositories b]\n[repositories a]\n", "line 3: ", "twice")

    def test_a_header_that_is_none_says_what_one_looks_like(self) -> None:
        for header in ("[", "[]", "[repositories a] # b", "[repositories a", "[repositories a]]", "[[repositories a]]"):
            with self.subTest(header):
                self.refused(f"\n{header}\n", "line 2: ", "[repositories PATTERN]")

    def test_a_section_without_a_pattern_is_a_mistake(self) -> None:
        for header in ("[repositories]", "[repositories ]", "[repositories a b]", "[repositories a,b]"):
            with self.subTest(header):
                self.refused(f"{header}\n", "line 1: ", "such as team/*")

    def test_a_long_line_is_cut(self) -> None:
        self.assertLess(len(self.refused(f"[repositories {'A' * 10_000}]\n", "line 1: ", "...")), 500)

    def test_what_one_key_cannot_tell_is_told_with_the_other_mistakes(self) -> None:
        found = self.mistakes("page-size = 5\npage-limit = 4\nbacklog = x\naccel-redirect = /blobs/\n")
        self.assertEqual(len(found), 3, found)

    def test_of_what_is_wrong_already_nothing_else_is_said(self) -> None:
        self.assertEqual(len(self.mistakes("page-size = 20000\npage-limit = x\n")), 1)

    def test_a_pattern_that_matches_nothing_today_is_none(self) -> None:
        self.assertEqual(len(self.load("[repositories nothing/like/this]\nquota = 1\n").sections), 1)

    def test_a_file_that_cannot_be_read_is_no_list_of_mistakes(self) -> None:
        with self.assertRaises(Failure) as caught:
            load(self.directory / "missing.conf", {})
        self.assertNotIsInstance(caught.exception, Mistakes)
