"""The audit trail: which changes of tags are in it, how long they stay, what `vex log` and the pages show of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import unittest
from typing import Any

from tests.support.in_process import DAY, HOUR, InProcessTestCase, Options
from tests.support.page import PagesTestCase
from tests.support.server import OCI_MANIFEST, TOP, ServerTestCase, digest_of, image, running, vex
from vex.commands.log import Wanted, show, wanted
from vex.names import RepositoryName, Tag
from vex.storage import audit

NAME, TAG = RepositoryName("app"), Tag("v1")


class TrailTestCase(InProcessTestCase):
    def trail(self, text: str = "", seconds: float = 0) -> list[dict[str, Any]]:
        """Return what `vex log --json` prints."""
        lines: list[str] = []
        show(self.site.directory, wanted(text, seconds, self.site.now), as_json=True, say=lines.append)
        return [json.loads(line) for line in lines]

    def changes(self, text: str = "") -> list[tuple[object, ...]]:
        return [
            tuple(line[key] for key in ("change", "repository", "tag", "before", "after")) for line in self.trail(text)
        ]


class Recording(TrailTestCase):
    def test_each_change_of_a_tag_is_recorded_with_everything_about_it(self) -> None:
        one = self.push_image("app", "v1", b"one").digest
        self.site.advance(HOUR)
        two = self.push_image("app", "v1", b"two").digest
        self.delete("app", "v1")
        self.assertEqual(
            self.changes(),
            [("set", "app", "v1", None, one), ("moved", "app", "v1", one, two), ("deleted", "app", "v1", two, None)],
        )
        first = self.trail()[0]
        self.assertEqual(
            (first["time"], first["user"], first["address"]), ("2023-11-14T22:13:20Z", "alice", "192.0.2.1")
        )

    def test_a_push_of_what_the_tag_points_to_already_is_no_change(self) -> None:
        self.push_image("app", "v1", b"one")
        self.push_image("app", "v1", b"one")
        self.assertEqual(len(self.trail()), 1)

    def test_a_push_by_digest_changes_only_the_tags_of_its_query(self) -> None:
        pushed = self.push_image("app", "", b"one").digest
        self.assertEqual(self.trail(), [])
        content = json.dumps(image(b"one")).encode()
        self.ok(201, "PUT", f"/v2/app/manifests/{pushed}?tag=a&tag=b&tag=a", content, {"Content-Type": OCI_MANIFEST})
        self.assertEqual(self.changes(), [("set", "app", "a", None, pushed), ("set", "app", "b", None, pushed)])

    def test_a_change_that_fails_leaves_no_trace(self) -> None:
        content = json.dumps(image(b"missing")).encode()
        self.ok(404, "PUT", "/v2/app/manifests/v1", content, {"Content-Type": OCI_MANIFEST})
        self.ok(404, "DELETE", "/v2/app/manifests/v1")
        self.assertEqual(self.trail(), [])

    def test_it_is_written_in_the_transaction_of_the_change(self) -> None:
        one = self.push_image("app", "v1", b"one").digest
        # From here on, nothing can be recorded.
        with self.site.database.write() as tx:
            tx.execute("CREATE TRIGGER full BEFORE INSERT ON tag_change BEGIN SELECT RAISE(ABORT, 'no room'); END")
        for method, body in (("DELETE", b""), ("PUT", json.dumps(image(b"one", annotations={"a": "b"})).encode())):
            with self.assertRaisesRegex(Exception, "no room"):
                self.site.request(method, "/v2/app/manifests/v1", body, {"Content-Type": OCI_MANIFEST})
        self.assertEqual(self.site.holdings().tags, {("app", "v1"): one})

    def test_what_is_removed_for_two_reasons_is_told_once(self) -> None:
        for name, order in (("forth", (0, 1)), ("back", (1, 0))):
            for blob in (b"{}", b"one"):
                self.push_blob(name, blob)
            subject = image(b"one")
            content = json.dumps(subject).encode()
            referrer = image(
                b"one", subject={"mediaType": OCI_MANIFEST, "digest": digest_of(content), "size": len(content)}
            )
            pushed = [self.push_manifest(name, "", (subject, referrer)[number]) for number in order]
            index = self.push_index(name, "v1", pushed)
            with self.assertLogs("vex", "INFO") as said:
                self.delete(name, "v1")
            removed = [record.fields["digest"] for record in said.records if record.getMessage() == "manifest removed"]  # type: ignore[attr-defined]
            self.assertEqual(sorted(removed), sorted([index.digest, *(one.digest for one in pushed)]))

    def test_it_outlives_the_repository(self) -> None:
        self.push_image("app", "v1", b"one")
        self.delete("app", "v1")
        self.site.advance(2 * DAY)
        self.site.advance(2 * DAY)
        self.assertEqual(self.site.holdings().repositories, {})
        self.assertEqual([change[0] for change in self.changes("app:v1")], ["set", "deleted"])


class Untagging(TrailTestCase):
    options = Options(delete_untags="yes")

    def test_tags_that_go_with_their_manifest_are_deleted_one_by_one(self) -> None:
        pushed = self.push_image("app", "a", b"one").digest
        self.push_image("app", "b", b"one")
        self.ok(202, "DELETE", f"/v2/app/manifests/{pushed}", user="bob")
        self.assertEqual(
            self.changes()[2:], [("deleted", "app", "a", pushed, None), ("deleted", "app", "b", pushed, None)]
        )
        self.assertEqual(self.trail()[-1]["user"], "bob")


class Keeping(TrailTestCase):
    options = Options(audit_keep=10 * DAY)

    def test_what_is_older_than_it_is_to_be_kept_is_removed(self) -> None:
        self.push_image("app", "old", b"one")
        self.site.advance(9 * DAY)
        self.push_image("app", "new", b"one")
        self.assertEqual(len(self.trail()), 2)
        self.site.advance(DAY)
        self.assertEqual([change[2] for change in self.changes()], ["new"])

    def test_a_long_trail_is_removed_in_small_batches(self) -> None:
        fill(self, 1000)
        sizes: list[int] = []
        self.addCleanup(setattr, audit, "delete_changes_before", audit.delete_changes_before)
        delete = audit.delete_changes_before

        def counted(*arguments: Any) -> None:
            before = len(self.trail())
            delete(*arguments)
            sizes.append(before)

        audit.delete_changes_before = counted  # type: ignore[assignment]
        self.site.advance(11 * DAY)
        self.assertEqual(self.trail(), [])
        self.assertEqual(len(sizes), 5)

    def test_where_nothing_is_due_nothing_is_written(self) -> None:
        self.push_image("app", "v1", b"one")
        self.site.advance(HOUR)
        with self.site.database.read() as tx:
            before = tx.value("SELECT total_changes()")
        self.site.housekeeping.sweep()
        with self.site.database.read() as tx:
            self.assertEqual(tx.value("SELECT total_changes()"), before)


class Looking(TrailTestCase):
    def test_a_repository_or_a_tag_is_chosen_exactly(self) -> None:
        for name in ("app", "app/sub", "other"):
            for tag in ("v1", "v10"):
                self.push_image(name, tag, b"one")
        self.assertEqual([change[1:3] for change in self.changes("app")], [("app", "v1"), ("app", "v10")])
        self.assertEqual([change[1:3] for change in self.changes("app:v1")], [("app", "v1")])
        self.assertEqual(len(self.trail()), 6)

    def test_since_leaves_out_what_is_older(self) -> None:
        self.push_image("app", "old", b"one")
        self.site.advance(2 * HOUR)
        self.push_image("app", "new", b"one")
        for text in ("", "app"):
            self.assertEqual([line["tag"] for line in self.trail(text, HOUR)], ["new"])
        self.assertEqual(self.trail("app:old", HOUR), [])

    def test_all_of_a_long_trail_is_shown_in_order(self) -> None:
        fill(self, 1234)
        for what in (Wanted(), Wanted(NAME), Wanted(NAME, TAG)):
            lines: list[str] = []
            self.assertEqual(show(self.site.directory, what, as_json=False, say=lines.append), 1234)
            self.assertEqual([line.split()[2] for line in lines], [f"user-{number}" for number in range(1234)])

    def test_looking_up_a_tag_and_removing_what_is_due_are_searches_in_an_index(self) -> None:
        seen: list[str] = []
        connection = self.site.database._connection
        connection.set_trace_callback(seen.append)
        with self.site.database.write() as tx:
            audit.latest_changes(tx, NAME, TAG, 0, 10)
            audit.count_changes(tx, NAME, TAG)
            audit.changes_after(tx, 0, 10, name=NAME, tag=TAG, since=0)
            audit.has_changes_before(tx, 0)
            audit.delete_changes_before(tx, 0, 10)
        connection.set_trace_callback(None)
        self.assertEqual(len(seen), 7)
        for sql in seen[1:-1]:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
            with self.subTest(sql):
                self.assertFalse([step for step in plan if "SCAN" in step or "TEMP B-TREE" in step], plan)


class Pages(PagesTestCase):
    def test_the_page_of_a_tag_has_its_history(self) -> None:
        one = self.push_image("app", "v1", b"one").digest
        self.push_image("app", "other", b"one")
        self.site.advance(2 * DAY)
        two = self.push_image("app", "v1", b"two").digest
        self.site.advance(DAY)
        page = self.page(f"/r/app/m/{two}/?tag=v1")
        self.assert_shows(
            page,
            "History",
            "alice",
            "1 day ago",
            one[:19],
            f"→ {two[:19]}",
            "alice",
            "3 days ago",
            "new",
            f"→ {one[:19]}",
        )
        self.assertIn(f"/r/app/m/{one}/", page.values)
        self.assertNotIn("192.0.2.1", page.text + page.values)

    def test_what_is_gone_is_no_link(self) -> None:
        one = self.push_image("app", "v1", b"one").digest
        two = self.push_image("app", "v1", b"two").digest
        page = self.page(f"/r/app/m/{two}/")
        self.assert_shows(page, "History", one[:19])
        self.assertNotIn(one, page.values)

    def test_a_long_history_is_on_pages_of_its_own(self) -> None:
        digest = self.push_image("app", "v1", b"one").digest
        fill(self, 250)
        page = self.page(f"/r/app/m/{digest}/?tag=v1")
        self.assertEqual(page.text.count("user-"), 10)
        self.assert_shows(page, "user-249", "user-240", "All 251 changes")
        self.assertIn("/r/app/history:v1/", page.values)
        self.assertIn(f"/r/app/m/{digest}/?tag=v1", self.page("/r/app/history:v1/").values)
        self.assert_shows(
            self.page("/r/app/history:v1/"), "History of app:v1", "user-249", "user-150", "1\u2013100 of 251"
        )
        self.assert_shows(self.page("/r/app/history:v1/?page=99"), "user-48", "alice", "new", "201\u2013251 of 251")

    def test_the_history_of_a_tag_that_is_gone_can_be_looked_up(self) -> None:
        self.push_image("app", "v1", b"one")
        self.delete("app", "v1")
        self.site.advance(3 * DAY)
        self.assert_shows(self.page("/r/app/history:v1/"), "alice", "→ deleted", "alice", "new →")
        self.assert_shows(self.page("/r/app/history:v2/", 404), "No change of app:v2 is known")
        self.page("/r/app/history:-/", 400)

    def test_a_name_of_a_user_is_shown_as_text(self) -> None:
        document = json.dumps(image(b"one")).encode()
        for blob in (b"{}", b"one"):
            self.push_blob("app", blob)
        self.ok(201, "PUT", "/v2/app/manifests/v1", document, {"Content-Type": OCI_MANIFEST}, user='<img src=x>"\u202e')
        self.assert_shows(self.page("/r/app/history:v1/"), '<img src=x>"\\u{202e}')


class Command(ServerTestCase):
    def test_it_shows_what_a_running_server_recorded(self) -> None:
        digest = self.server.auth.push_image("app", "v1", b"layer")
        for arguments, lines in ((("app:v1", "--since", "1h"), 1), (("app",), 1), (("app:v2",), 0)):
            result = vex("log", "--data-dir", str(self.server.data), *arguments)
            self.assertEqual((result.returncode, len(result.stdout.splitlines())), (0, lines), result)
            if not lines:
                self.assertIn("no change of a tag is recorded", result.stderr)
        self.assertRegex(
            vex("log", "--data-dir", str(self.server.data), "app").stdout,
            rf"^20\S+ \S+ alice 127\.0\.0\.1 set app:v1 {digest[7:19]}\n$",
        )

    def test_a_line_fits_on_a_terminal_and_json_has_whole_digests(self) -> None:
        digests = [self.server.auth.push_image("wide", "v1", layer) for layer in (b"one", b"two")]
        lines = vex("log", "--data-dir", str(self.server.data), "wide").stdout.splitlines()
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.assertLessEqual(len(line), 80, line)
        document = json.loads(vex("log", "--data-dir", str(self.server.data), "wide", "--json").stdout.splitlines()[1])
        self.assertEqual([document["before"], document["after"]], digests)

    def test_a_backup_has_it_too_and_a_check_finds_nothing_wrong(self) -> None:
        self.server.auth.push_image("saved", "v1", b"layer")
        backup = self.server.directory / "backup"
        self.assertEqual(vex("backup", "--data-dir", str(self.server.data), str(backup)).returncode, 0)
        logs = [vex("log", "--data-dir", str(directory), "saved").stdout for directory in (self.server.data, backup)]
        self.assertIn("set saved:v1", logs[0])
        self.assertEqual(logs[0], logs[1])
        self.assertIn("nothing is wrong", vex("check", "--data-dir", str(backup)).stdout)

    def test_what_is_no_repository_no_tag_and_no_time_is_refused(self) -> None:
        hosted = (
            "127.0.0.1:8201/app:v1",
            1,
            "127.0.0.1:8201 is the address of a registry; give the name without it: app:v1",
        )
        for argument, code, words in (
            ("APP", 1, "not a repository name"),
            ("app:", 1, "not a tag"),
            hosted,
            ("--since=3", 2, "is not a time such as"),
        ):
            result = vex("log", "--data-dir", str(self.server.data), argument)
            self.assertEqual((result.returncode, result.stdout), (code, ""), result)
            self.assertIn(words, result.stderr)

    def test_a_reader_that_has_seen_enough_is_no_error_to_speak_of(self) -> None:
        self.server.auth.push_image("app", "v1", b"layer")
        script = f'"{sys.executable}" "{TOP}/vex.py" log --data-dir "{self.server.data}" --json | true'
        for _ in range(3):
            result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual((result.stdout, result.stderr), ("", ""))

    def test_where_there_is_no_registry_none_is_made(self) -> None:
        nowhere = self.server.directory / "nowhere"
        result = vex("log", "--data-dir", str(nowhere))
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertIn("there is no registry in", result.stderr)
        self.assertFalse(nowhere.exists())


class Expiry(unittest.TestCase):
    def test_a_server_forgets_what_is_older_than_it_is_to_be_kept(self) -> None:
        with running("--audit-keep", "1s") as server:
            server.auth.push_image("app", "v1", b"layer")
            deadline = time.monotonic() + 30
            while vex("log", "--data-dir", str(server.data)).stdout:
                self.assertLess(time.monotonic(), deadline)


def fill(test: InProcessTestCase, count: int) -> None:
    """Record changes of app:v1 that never were, by as many users."""
    with test.site.database.write() as tx:
        for number in range(count):
            tx.execute(
                "INSERT INTO tag_change (time, user, address, repository, tag, before, after) VALUES (?, ?, '', 'app',"
                " 'v1', 'sha256:00', 'sha256:01')",
                (test.site.now, f"user-{number}"),
            )
