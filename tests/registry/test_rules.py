"""What the rules decide, as a table: without a database, on facts and a policy."""

from __future__ import annotations

import unittest
from typing import Any

from vex.names import Digest, Tag, TagPatterns
from vex.registry.policies import NOTHING, Policy
from vex.registry.rules import Verdict, verdicts
from vex.storage.rules import TagFacts

DAY = 24 * 3600
NOW = 1000 * DAY


def facts(name: str, pushed: float, pulled: float | None = None, **more: Any) -> TagFacts:
    """Make a tag that was pushed, and pulled, so many days ago."""
    seconds = None if pulled is None else int(NOW - pulled * DAY)
    made = TagFacts(Tag(name), 1, Digest("sha256:" + "0" * 64), int(NOW - pushed * DAY), seconds, None, None)
    return made._replace(**more)


def policy(**settings: Any) -> Policy:
    """Make a policy; patterns as they are written."""
    values: dict[str, Any] = {
        key: TagPatterns.parse(value) if isinstance(value, str) else value for key, value in settings.items()
    }
    return NOTHING._replace(**values)


class Rules(unittest.TestCase):
    def judged(self, wanted: Policy, *tags: TagFacts) -> dict[str, Verdict]:
        newest_first = sorted(tags, key=lambda tag: -tag.pushed)
        return {tag.name: verdict for tag, verdict in verdicts(newest_first, wanted, NOW)}

    def gone(self, wanted: Policy, *tags: TagFacts) -> dict[str, str]:
        """Tell which tags go, by which key."""
        return {name: verdict.key for name, verdict in self.judged(wanted, *tags).items() if verdict.goes}

    def test_what_no_rule_names_stays_whatever_its_age(self) -> None:
        tags = [facts("v1", 900), facts("dev-1", 900)]
        self.assertEqual(self.gone(NOTHING, *tags), {})
        self.assertEqual(self.gone(policy(expire="dev-*"), *tags), {})
        self.assertEqual(self.gone(policy(expire_after=DAY), *tags), {})
        self.assertEqual(self.gone(policy(expire="dev-*", expire_after=DAY), *tags), {"dev-1": "expire-after"})
        self.assertEqual(self.gone(policy(expire="*, !v*", expire_after=DAY), *tags), {"dev-1": "expire-after"})

    def test_the_age_is_that_of_the_later_of_pushed_pulled_and_asked_for(self) -> None:
        wanted = policy(expire="*", expire_after=30 * DAY)
        tags = [
            facts("never-pulled", 40),
            facts("pulled", 40, 29),
            facts("pulled-long-ago", 40, 31),
            facts("asked-for", 40, 31, asked=NOW - DAY),
            facts("pushed-again", 29, 40),
            facts("just-now", 30),
        ]
        self.assertEqual(set(self.gone(wanted, *tags)), {"never-pulled", "pulled-long-ago", "just-now"})
        self.assertEqual(self.judged(wanted, *tags)["pulled"].due, NOW + DAY)

    def test_protected_tags_never_go_and_take_no_place_among_the_newest(self) -> None:
        wanted = policy(expire="*", protected="v*", keep_newest=1, expire_label=True)
        tags = [facts("v2", 1, lifetime=1), facts("dev-2", 2), facts("v1", 3), facts("dev-1", 4)]
        self.assertEqual(self.gone(wanted, *tags), {"dev-1": "keep-newest"})

    def test_of_each_pattern_so_many_of_the_newest_stay_for_itself(self) -> None:
        tags = [facts(f"env{env}-{age}", age) for env in (18, 19) for age in (100, 200, 300)]
        wanted = policy(expire="env18-*, env19-*", keep_newest=1, expire_after=DAY)
        self.assertEqual(set(self.judged(wanted, *tags)) - set(self.gone(wanted, *tags)), {"env18-100", "env19-100"})

    def test_with_both_only_what_is_old_and_not_among_the_newest_goes(self) -> None:
        tags = [facts(f"dev-{age}", age) for age in (1, 2, 40, 50)]
        self.assertEqual(
            set(self.gone(policy(expire="*", keep_newest=1, expire_after=30 * DAY), *tags)), {"dev-40", "dev-50"}
        )
        self.assertEqual(set(self.gone(policy(expire="*", keep_newest=3, expire_after=30 * DAY), *tags)), {"dev-50"})
        self.assertEqual(set(self.gone(policy(expire="*", keep_newest=1), *tags)), {"dev-2", "dev-40", "dev-50"})

    def test_tags_of_signatures_are_neither_chosen_nor_counted(self) -> None:
        signature = f"sha256-{'0' * 64}.sig"
        wanted = policy(expire="*", keep_newest=1)
        self.assertEqual(set(self.gone(wanted, facts(signature, 1), facts("a", 2), facts("b", 3))), {"b"})
        self.assertEqual(self.gone(policy(expire="*", expire_after=DAY), facts(signature, 900)), {})

    def test_a_label_has_the_tags_of_expire_go_after_its_time_and_all_tags_where_the_section_says_so(self) -> None:
        tags = [
            facts("v1", 3, 0, lifetime=2 * DAY),
            facts("dev-1", 3, 0, lifetime=2 * DAY),
            facts("dev-2", 3, 0, lifetime=4 * DAY),
        ]
        self.assertEqual(self.gone(NOTHING, *tags), {})
        self.assertEqual(self.gone(policy(expire="dev-*"), *tags), {"dev-1": "quay.expires-after"})
        self.assertEqual(set(self.gone(policy(expire_label=True), *tags)), {"v1", "dev-1"})
        self.assertEqual(set(self.gone(policy(expire_label=True, protected="v1"), *tags)), {"dev-1"})
        due = self.judged(policy(expire_label=True), *tags)["dev-2"]
        self.assertEqual((due.goes, due.key, due.due), (False, "quay.expires-after", NOW + DAY))

    def test_a_tag_of_the_future_stays_and_so_does_one_that_was_pulled_then(self) -> None:
        wanted = policy(expire="*", expire_after=DAY)
        self.assertEqual(self.gone(wanted, facts("pushed", -365), facts("pulled", 900, -365)), {})
