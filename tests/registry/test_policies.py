"""Patterns of tags, and which section says what of a repository."""

from __future__ import annotations

import time
import unittest

from vex.names import TagPatterns, is_repository_pattern
from vex.registry.policies import NOTHING, Clause, Policies

FIRST, SECOND, LAST = (f"[repositories {pattern}]" for pattern in ("team/app", "team/*", "*"))


def clauses() -> list[Clause]:
    """Give three sections, from the narrowest to the widest."""
    return [
        Clause("team/app", FIRST, {"immutable": TagPatterns.parse(""), "quota": 10}),
        Clause("team/*", SECOND, {"immutable": TagPatterns.parse("v*"), "keep_newest": 3}),
        Clause("*", LAST, {"protected": TagPatterns.parse("latest"), "quota": 99}),
    ]


class TagPatternsTest(unittest.TestCase):
    def test_the_last_pattern_that_a_tag_matches_decides(self) -> None:
        for text, covered, left_out in (
            ("*", ("1", "latest"), ()),
            ("latest", ("latest",), ("latest1", "1latest", "Latest")),
            ("v*", ("v", "v1", "v1-rc1"), ("1v", "V1")),
            ("v*, !*-rc*", ("v1",), ("v1-rc1", "1")),
            ("v*,!*-rc*,v*-rc9", ("v1", "v2-rc9"), ("v1-rc1",)),
            ("*.*.*, !*-*", ("1.2.3",), ("1.2", "1.2.3-a")),
            ("", (), ("1", "latest")),
        ):
            patterns = TagPatterns.parse(text)
            for tag in (*covered, *left_out):
                with self.subTest(patterns=text, tag=tag):
                    self.assertEqual(patterns.covers(tag), tag in covered)

    def test_they_are_shown_as_they_are_written(self) -> None:
        self.assertEqual(str(TagPatterns.parse("v*,!*-rc*")), "v*, !*-rc*")

    def test_what_is_no_list_of_patterns_is_refused(self) -> None:
        for text in ("v*,", ",", "!v*", "!", "v*, !", "v*, !!x", "v[0-9]", "v?", "a b", "a/b", "v*;x", "ü", "x" * 129):
            with self.subTest(text), self.assertRaises(ValueError):
                TagPatterns.parse(text)

    def test_a_pattern_that_tries_much_ends_soon(self) -> None:
        started = time.thread_time()
        self.assertFalse(TagPatterns.parse("*a" * 30 + "*b").covers("a" * 128))
        self.assertLess(time.thread_time() - started, 1)

    def test_patterns_of_repositories_are_names_with_stars(self) -> None:
        for text in ("*", "team/*", "team/app", "*/app", "a*b"):
            self.assertTrue(is_repository_pattern(text), text)
        for text in ("", "Team/*", "team/?", "[a]", "a b", "x" * 256):
            self.assertFalse(is_repository_pattern(text), text)


class PoliciesTest(unittest.TestCase):
    def test_each_setting_comes_from_the_first_section_that_matches_and_has_it(self) -> None:
        policies = Policies(clauses())
        app, other, last = policies.of("team/app"), policies.of("team/other"), policies.of("hello")
        self.assertEqual((app.immutable, app.quota, app.keep_newest), ((), 10, 3))
        self.assertEqual((other.immutable, other.quota, other.keep_newest), (("v*",), 99, 3))
        self.assertEqual((last.immutable, last.quota, last.keep_newest), ((), 99, None))
        self.assertEqual({policy.protected for policy in (app, other, last)}, {("latest",)})

    def test_each_setting_tells_its_section(self) -> None:
        self.assertEqual(
            Policies(clauses()).of("team/app").places,
            {"immutable": FIRST, "quota": FIRST, "keep_newest": SECOND, "protected": LAST},
        )

    def test_a_star_stands_for_slashes_too(self) -> None:
        self.assertEqual(Policies(clauses()).of("team/a/b/c").keep_newest, 3)
        self.assertIsNone(Policies(clauses()).of("teams/a").keep_newest)

    def test_nothing_holds_without_a_section_or_where_none_matches(self) -> None:
        self.assertIs(Policies().of("team/app"), NOTHING)
        self.assertIs(Policies(clauses()[:1]).of("hello"), NOTHING)

    def test_other_sections_count_at_once(self) -> None:
        policies = Policies(clauses())
        self.assertEqual(policies.of("team/app").quota, 10)
        policies.replace([Clause("*", LAST, {"quota": 5})])
        self.assertEqual(policies.of("team/app").quota, 5)
        policies.replace([])
        self.assertIs(policies.of("team/app"), NOTHING)
