"""Plans of the rules, made, applied and explained: what goes, what is left out, and the accidents of others."""

from __future__ import annotations

import threading
from typing import Any

from tests.support.in_process import DAY, HOUR, InProcessTestCase, Options, Pushed
from vex.errors import RegistryError
from vex.names import TagPatterns
from vex.registry.operations import operation
from vex.registry.parts import Parts, Row
from vex.registry.policies import Clause
from vex.storage.audit import Actor

PLACE = "[repositories app], line 2 of the configuration"


class RulesCase(InProcessTestCase):
    """A registry where nothing is held for those who pull."""

    options = Options(pull_grace=0)

    def rule(self, **settings: Any) -> None:
        """Have one section, for app; patterns as they are written."""
        values = {key: TagPatterns.parse(value) if isinstance(value, str) else value for key, value in settings.items()}
        self.site.policies.replace([Clause("app", PLACE, values)])

    def run_operation(self, name: str, **arguments: object) -> list[Row]:
        parts = Parts(self.site.storage, self.site.registry, Actor("root", "local"))
        return [row for row in operation(name, arguments)(parts) if row.keys() != {"progress"}]

    def plan(self, *repositories: str) -> tuple[int, list[Row]]:
        (made,) = self.run_operation("rules-plan", repositories=list(repositories))
        rows = self.run_operation("rules-planned", plan=made["plan"], last=0, limit=2000)
        self.assertEqual((made["count"], made["bytes"]), (len(rows), sum(row["bytes"] for row in rows)))
        return made["plan"], rows

    def planned(self, plan: int) -> list[Row]:
        """Read a plan to its end."""
        rows: list[Row] = []
        while True:
            more = self.run_operation("rules-planned", plan=plan, last=len(rows), limit=2000)
            rows += more
            if len(more) < 2000:
                return rows

    def apply(self, plan: int) -> dict[str, str]:
        """Apply a plan; returns why each tag stays, "" for those that do not."""
        return {
            row["tag"] or row["digest"]: row.get("error", "") for row in self.run_operation("rules-apply", plan=plan)
        }

    def explain(self, tag: str) -> Row:
        (row,) = self.run_operation("rules-explain", image=f"app:{tag}")
        return row

    def tags(self) -> set[str]:
        return {tag for _, tag in self.site.holdings().tags}

    def assert_consistent(self) -> None:
        """Applied to its end, a plan leaves nothing that it would not have kept."""
        self.assertEqual(self.plan()[1], [])


class Plans(RulesCase):
    def test_a_plan_names_what_goes_with_its_rule_and_what_comes_free_and_is_applied_just_so(self) -> None:
        self.rule(expire="dev-*", expire_after=30 * DAY)
        shared, own = b"s" * 500, b"o" * 1000
        old = self.push_image("app", "dev-1", shared, own)
        pushed = self.site.now
        self.push_image("app", "v1", shared)
        self.site.advance(30 * DAY)
        self.push_image("app", "dev-2", shared, b"n" * 1000)
        number, rows = self.plan()
        self.assertEqual(
            rows,
            [
                {
                    "number": 1,
                    "repository": "app",
                    "tag": "dev-1",
                    "digest": old.digest,
                    "rule": "[repositories app] expire-after",
                    "pushed": pushed,
                    "pulled": None,
                    "bytes": 1000,
                }
            ],
        )
        self.assertEqual(self.tags(), {"dev-1", "dev-2", "v1"})
        self.assertEqual(self.apply(number), {"dev-1": ""})
        self.assertEqual(self.tags(), {"dev-2", "v1"})
        self.assertEqual(self.apply(number), {}, "nothing is left of it")
        with self.site.database.read() as tx:
            user = tx.value("SELECT user FROM tag_change WHERE after IS NULL")
        self.assertEqual(user, "rule [repositories app] expire-after")
        self.assert_consistent()

    def test_what_moved_was_pushed_again_pulled_or_deleted_since_stays_and_is_named(self) -> None:
        self.rule(expire="*", expire_after=DAY)
        for tag in ("moved", "again", "pulled", "asked", "deleted", "goes"):
            self.push_image("app", tag, tag.encode())
        child = self.push_image("app", "", b"child")
        self.push_index("app", "index", [child])
        self.site.advance(DAY)
        number, rows = self.plan("a*")
        self.assertEqual(len(rows), 7)
        self.site.now += 1
        self.push_image("app", "moved", b"other")
        self.push_image("app", "again", b"again")
        self.ok(200, "GET", "/v2/app/manifests/pulled")
        self.ok(200, "HEAD", "/v2/app/manifests/asked")
        self.ok(200, "GET", f"/v2/app/manifests/{child.digest}")
        self.delete("app", "deleted")
        self.assertEqual(
            self.apply(number),
            {
                "moved": "it has moved",
                "again": "it was pushed again",
                "pulled": "it was pulled since",
                "asked": "it was pulled since",
                "index": "it was pulled since",
                "deleted": "it is gone",
                "goes": "",
            },
        )
        self.assertEqual(self.tags(), {"moved", "again", "pulled", "asked", "index"})

    def test_a_plan_from_before_the_sections_changed_or_of_no_number_is_refused(self) -> None:
        self.rule(expire="*", expire_after=DAY)
        self.push_image("app", "1", b"one")
        self.site.advance(DAY)
        number = self.plan()[0]
        self.rule(expire="*", expire_after=2 * DAY)
        for plan, said in ((number, "have changed since"), (number + 1, "there is no plan")):
            with self.assertRaisesRegex(RegistryError, said):
                self.apply(plan)
        self.assertEqual(self.tags(), {"1"})

    def test_a_plan_that_was_interrupted_is_applied_again_from_there(self) -> None:
        self.rule(expire="*", expire_after=DAY)
        for tag in range(5):
            self.push_image("app", str(tag), b"%d" % tag)
        self.site.advance(DAY)
        number = self.plan()[0]
        parts = Parts(self.site.storage, self.site.registry, Actor("root", "local"))
        rows = operation("rules-apply", {"plan": number})(parts)
        done = {next(rows)["tag"], next(rows)["tag"]}
        rows.close()  # type: ignore[attr-defined]
        self.assertEqual(len(self.tags()), 3)
        self.assertEqual(set(self.apply(number)), {"0", "1", "2", "3", "4"} - done)
        self.assertEqual(self.tags(), set())

    def test_of_two_that_apply_a_plan_at_once_one_waits_and_finds_nothing_left(self) -> None:
        self.rule(expire="*", expire_after=DAY)
        for tag in range(20):
            self.push_image("app", str(tag), b"%d" % tag)
        self.site.advance(DAY)
        number = self.plan()[0]
        results: list[dict[str, str]] = []
        threads = [threading.Thread(target=lambda: results.append(self.apply(number))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(map(len, results)), [0, 20])

    def test_a_section_that_matches_nothing_is_a_warning_and_a_repository_that_is_not_there_a_failure(self) -> None:
        self.rule(expire="*")
        (made,) = self.run_operation("rules-plan", repositories=[])
        self.assertEqual(made["warnings"], [f"{PLACE} matches no repository"])
        for repository, said in (("other", "there is no repository other"), ("A B", "no name of a repository")):
            with self.assertRaisesRegex(RegistryError, said):
                self.plan(repository)

    def test_manifests_that_were_pushed_by_digest_go_after_their_own_time_unless_something_needs_them(self) -> None:
        self.rule(expire_untagged_after=7 * DAY)
        alone, other, child, tagged = (self.push_image("app", "", layer * 10) for layer in (b"1", b"2", b"3", b"4"))
        index = self.push_index("app", "index", [child])
        self.push_image("app", "tag", b"4" * 10)
        subject = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": index.digest,
            "size": index.size,
        }
        referrer = self.push_image("app", "", b"5", subject=subject, artifactType="application/example")
        self.site.advance(7 * DAY)
        pulled = self.push_image("app", "", b"6")
        number, rows = self.plan()
        self.assertEqual(
            [(row["tag"], row["rule"], row["bytes"]) for row in rows],
            [(None, "[repositories app] expire-untagged-after", 10)] * 2,
        )
        self.assertEqual({row["digest"] for row in rows}, {alone.digest, other.digest})
        self.site.now += 1
        self.ok(200, "GET", f"/v2/app/manifests/{other.digest}")
        self.assertEqual(self.apply(number), {alone.digest: "", other.digest: "it was pulled since"})
        self.ok(404, "GET", f"/v2/app/manifests/{alone.digest}")
        for kept in (other, child, tagged, index, referrer, pulled):
            self.ok(200, "GET", f"/v2/app/manifests/{kept.digest}")

    def test_plans_are_forgotten_but_for_the_last_ones(self) -> None:
        self.rule(expire="*", expire_after=DAY)
        self.push_image("app", "1", b"one")
        self.site.advance(DAY)
        first = self.plan()[0]
        for _ in range(20):
            last = self.plan()[0]
        with self.assertRaisesRegex(RegistryError, "there is no plan"):
            self.apply(first)
        self.assertEqual(self.apply(last), {"1": ""})


class Large(RulesCase):
    """More tags than are looked at, written or counted at once."""

    def test_a_plan_of_many_is_that_of_few_and_the_tags_of_one_second_are_judged_together(self) -> None:
        self.rule(expire="*", keep_newest=5)
        self.push_image("app", "first", b"one")
        with self.site.database.write() as tx:
            for number in range(4100):
                for into, values in (
                    (
                        "tag (name, updated, repository, manifest)",
                        f"SELECT 't{number}', {self.site.now - number // 1000}",
                    ),
                    (
                        "tag_change (tag, time, user, address, repository, after)",
                        f"SELECT 't{number}', 0, '', '', 'app', ''",
                    ),
                ):
                    rest = ", repository, manifest FROM tag WHERE name = 'first'" if into.startswith("tag (") else ""
                    tx.execute(f"INSERT INTO {into} {values}{rest}")
        (made,) = self.run_operation("rules-plan", repositories=[])
        self.assertEqual(made["count"], 4101 - 5)
        stays = {f"t{number}" for number in range(995, 1000)}
        self.assertEqual(stays & {row["tag"] for row in self.planned(made["plan"])}, set())


class Explained(RulesCase):
    def test_a_tag_is_told_why_it_goes_or_stays_and_when(self) -> None:
        self.rule(expire="dev-*", expire_after=30 * DAY, keep_newest=1, protected="v*")
        for tag in ("v1", "other", "dev-1", "dev-2", "dev-3"):
            self.push_image("app", tag, tag.encode())
            self.site.advance(HOUR)
        for tag, goes, rule, place in (
            ("v1", False, "[repositories app] protected", None),
            ("other", False, None, None),
            ("dev-3", False, "[repositories app] keep-newest", 1),
            ("dev-2", False, "[repositories app] expire-after", 2),
        ):
            row = self.explain(tag)
            self.assertEqual((row["goes"], row["rule"], row["place"]), (goes, rule, place), tag)
        row = self.explain("dev-1")
        self.assertEqual(row["due"], row["pushed"] + 30 * DAY)
        self.assertEqual(row["settings"]["keep_newest"], PLACE)
        self.site.advance(30 * DAY)
        self.assertTrue(self.explain("dev-1")["goes"])
        with self.assertRaisesRegex(RegistryError, "there is no app:none"):
            self.explain("none")


class Labels(RulesCase):
    def test_labels_and_annotations_have_tags_expire_from_their_push_on(self) -> None:
        self.rule(expire="dev-*")
        config = b'{"config": {"Labels": {"quay.expires-after": "2h"}}}'
        labelled = self.push_image("app", "dev-label", b"1", config=config)
        self.push_image("app", "dev-annotation", b"2", annotations={"quay.expires-after": "1d"})
        self.push_index("app", "dev-index", [labelled])
        self.push_index("app", "dev-own", [labelled], annotations={"quay.expires-after": "1w"})
        self.push_image("app", "v1", b"1", config=config)
        for wrong in ("0d", "1", "1m", "1D", "-1d", "1.5d", "1d ", "1000000d", "d"):
            self.push_image("app", f"dev-wrong-{wrong.strip()}", b"3", annotations={"quay.expires-after": wrong})
        gone = []
        for seconds in (2 * HOUR - 1, 1, 22 * HOUR, 6 * DAY):
            self.site.advance(seconds)
            gone.append({row["tag"] for row in self.plan()[1]})
        first = {"dev-label", "dev-index"}
        self.assertEqual(gone, [set(), first, {*first, "dev-annotation"}, {*first, "dev-annotation", "dev-own"}])
        self.push_image("app", "dev-label", b"1", config=config)
        self.assertEqual({row["tag"] for row in self.plan()[1]}, gone[-1] - {"dev-label"})
        self.rule(expire_label=True)
        number, rows = self.plan()
        self.assertIn(("v1", "[repositories app] quay.expires-after"), [(row["tag"], row["rule"]) for row in rows])
        self.apply(number)
        self.assert_consistent()


class Accidents(RulesCase):
    """What went wrong in other registries."""

    def push_aged(self, *tags: str) -> dict[str, Pushed]:
        pushed = {}
        for tag in tags:
            pushed[tag] = self.push_image("app", tag, tag.encode())
            self.site.now += 1
        return pushed

    def test_of_tags_on_one_digest_only_those_go_that_a_rule_names(self) -> None:
        self.rule(expire="dev-*", expire_after=DAY)
        for tag in ("dev-1", "dev-2", "v1"):
            digest = self.push_image("app", tag, b"the same").digest
        self.site.advance(DAY)
        number, rows = self.plan()
        self.assertEqual([row["bytes"] for row in rows], [0, 0])
        self.apply(number)
        self.assertEqual(self.tags(), {"v1"})
        self.ok(200, "GET", f"/v2/app/manifests/{digest}")

    def test_children_and_referrers_are_neither_counted_nor_chosen_and_go_with_the_last_parent(self) -> None:
        self.rule(expire="*", keep_newest=1, expire_untagged_after=DAY)
        child = self.push_image("app", "", b"child")
        indexes = []
        for tag in ("old", "new"):
            indexes.append(self.push_index("app", tag, [child], annotations={"tag": tag}))
            self.site.now += 1
        for index in indexes:
            subject = {
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "digest": index.digest,
                "size": index.size,
            }
            self.push_image("app", "", index.digest.encode(), subject=subject, artifactType="application/example")
        self.push_image("app", f"{indexes[1].digest.replace(':', '-')}.sig", b"signature")
        self.site.advance(DAY)
        number, rows = self.plan()
        self.assertEqual([row["tag"] for row in rows], ["old"])
        self.apply(number)
        self.ok(200, "GET", f"/v2/app/manifests/{child.digest}")
        self.assertEqual(len(self.ok(200, "GET", f"/v2/app/referrers/{indexes[1].digest}").json["manifests"]), 1)
        self.assertEqual(len(self.site.holdings().manifests), 4)

    def test_each_pattern_keeps_its_own_newest(self) -> None:
        self.rule(expire="env18-*, env19-*", keep_newest=1)
        self.push_aged("env18-1", "env18-2", "env19-1", "env19-2", "other")
        self.apply(self.plan()[0])
        self.assertEqual(self.tags(), {"env18-2", "env19-2", "other"})

    def test_newest_is_the_order_of_pushes_also_within_a_second_and_not_what_the_image_says(self) -> None:
        self.rule(expire="*", keep_newest=2)
        for tag, created in (("z", "2030"), ("a", "1970"), ("m", "2020"), ("b", "1970")):
            self.push_image("app", tag, config=b'{"created": "%s-01-01T00:00:00Z"}' % created.encode())
        self.apply(self.plan()[0])
        self.assertEqual(self.tags(), {"m", "b"})

    def test_what_nobody_pulled_since_the_upgrade_counts_as_pulled_then(self) -> None:
        self.rule(expire="*", expire_after=30 * DAY)
        self.push_image("app", "1", b"one")
        self.site.advance(300 * DAY)
        with self.site.database.write() as tx:
            # As the migration does, with the time of this clock.
            tx.execute("UPDATE repository_manifest SET pulled = ?", (self.site.now,))
        self.assertEqual(self.plan()[1], [])
        self.site.advance(30 * DAY)
        self.assertEqual(len(self.plan()[1]), 1)

    def test_what_was_pushed_or_pulled_while_the_clock_was_ahead_stays_and_ages_from_its_next_push_or_pull(
        self,
    ) -> None:
        self.rule(expire="*", expire_after=30 * DAY)
        self.push_aged("before")
        self.site.jump(365 * DAY)
        self.push_aged("ahead")
        self.ok(200, "GET", "/v2/app/manifests/before")
        self.site.storage.pulls.fetches.save(self.site.database, at_once=True)
        self.site.jump(-365 * DAY)
        self.site.advance(31 * DAY)
        self.assertEqual(self.plan()[1], [])
        self.ok(200, "GET", "/v2/app/manifests/before")
        self.push_aged("ahead")
        self.site.advance(31 * DAY)
        self.assertEqual({row["tag"] for row in self.plan()[1]}, {"before", "ahead"})

    def test_immutable_tags_go_by_a_rule_and_protected_ones_do_not(self) -> None:
        self.rule(expire="*", expire_after=DAY, immutable="v*", protected="*-keep")
        self.push_aged("v1", "v2-keep")
        self.site.advance(DAY)
        self.apply(self.plan()[0])
        self.assertEqual(self.tags(), {"v2-keep"})
