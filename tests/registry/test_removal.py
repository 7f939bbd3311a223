"""Removal in pieces: however much hangs on what is removed, nobody waits for long, what can be fetched is whole, and a
crash in between loses nothing.

And what an answer is worth that was made while a removal was committed.
"""

from __future__ import annotations

import json
import time
from typing import Callable

from tests.support.in_process import MINUTE, InProcess, InProcessTestCase, Options, Pushed
from tests.support.server import OCI_INDEX, digest_of, image
from vex.http.answers import Answer, Answers
from vex.names import Digest, RepositoryName, Tag
from vex.registry.policies import Policies
from vex.registry.pulls import Notes, Pulls
from vex.registry.references import Release, untag
from vex.storage import manifest_rows, repository_rows

APP = RepositoryName("app")
# A piece takes some 5 ms; a machine that does much else takes longer for the same.
_PIECE_SECONDS = 0.025
LAYERS = 120
IMAGES = 24


class RemovalTestCase(InProcessTestCase):
    """Removes by hand, to see what is there after each transaction."""

    def push_large_index(self, *, held: bool = False) -> list[Pushed]:
        """Push an index of many images of many layers, under a tag; returns the images."""
        layers = [b"%d" % number for number in range(LAYERS)]
        for content in (b"{}", *layers):
            self.push_blob("app", content)
        images = [
            self.push_manifest("app", "", image(*layers, annotations={"number": str(number)}))
            for number in range(IMAGES)
        ]
        self.push_index("app", "1", images)
        return images

    def remove_tag(self, most: int = 10**6, *, checked: bool = True) -> list[float]:
        """Delete the tag in transactions of their own, so many at most; returns the processor time of each."""
        release, now = Release(Pulls(0), Policies()), self.site.now
        spent: list[float] = []
        with self.site.database.write() as tx:
            repository = repository_rows.find_repository(tx, APP)
            assert repository is not None
            found = manifest_rows.find_tagged_manifest(tx, repository, Tag("1"))
            assert found is not None
            untag(tx, release, repository, Tag("1"), found.id, now)
            release.drop(tx, repository, found.id, now)
        while release.pending and len(spent) < most:
            with self.site.database.write() as tx:
                started = time.thread_time()
                release.work(tx, now)
                spent.append(time.thread_time() - started)
            self.site.registry.reconciler.remove(row.digest for row in release.take_gone() if row.what == "blob")
            if checked:
                self.assert_whole()
        return spent

    def assert_whole(self) -> None:
        """Check that all that can be fetched has what it references."""
        with self.site.database.read() as tx:
            rows = tx.rows(
                "SELECT repository, manifest, content FROM repository_manifest JOIN manifest ON id = manifest WHERE"
                " state < 3"
            )
            for repository, manifest, content in rows:
                document = json.loads(content)
                expected = len(
                    {
                        part["digest"]
                        for part in (
                            *document.get("layers", []),
                            *document.get("manifests", []),
                            document.get("config"),
                        )
                        if part
                    }
                )
                found = tx.value(
                    "SELECT (SELECT count(*) FROM manifest_blob WHERE repository = ? AND manifest = ?)"
                    " + (SELECT count(*) FROM manifest_child WHERE repository = ? AND parent = ?)",
                    (repository, manifest, repository, manifest),
                )
                self.assertEqual(found, expected)

    def assert_empty(self) -> None:
        """Check that there is nothing any more."""
        held = self.site.holdings()
        self.assertEqual(
            (held.manifests, held.contents, held.blobs, held.files, held.listed), (set(), set(), set(), set(), 0)
        )


class LargeRemovals(RemovalTestCase):
    def test_an_index_of_many_images_of_many_layers_goes_in_small_pieces(self) -> None:
        self.push_large_index()
        spent = self.remove_tag()
        self.assertGreater(len(spent), 5)
        self.assertLess(max(spent), _PIECE_SECONDS)
        self.assert_empty()

    def test_a_request_answers_before_all_of_it_is_gone_and_housekeeping_does_the_rest(self) -> None:
        self.push_large_index()
        self.delete("app", "1")
        self.ok(404, "GET", "/v2/app/manifests/1", user="")
        self.site.housekeeping.sweep()
        self.assert_empty()
        self.assertEqual(self.ok(200, "GET", "/v2/_catalog").json["repositories"], [])

    def test_a_start_goes_on_where_a_crash_left_it(self) -> None:
        images = self.push_large_index()
        for pieces in (1, 2, 5):
            with self.subTest(pieces=pieces):
                if not self.site.holdings().manifests:
                    images = self.push_large_index()
                self.remove_tag(pieces)
                self.ok(404, "GET", "/v2/app/manifests/1", user="")
                self.site.restart()
                self.assert_whole()
                self.site.housekeeping.sweep()
                self.assert_empty()
        self.assertEqual(len(images), IMAGES)

    def test_what_is_pushed_again_in_between_stays_and_is_whole(self) -> None:
        images = self.push_large_index()
        self.remove_tag(3)
        layers = [b"%d" % number for number in range(LAYERS)]
        for content in (b"{}", *layers):
            self.push_blob("app", content)
        again = self.push_manifest("app", "kept", image(*layers, annotations={"number": "7"}))
        self.assertEqual(again, images[7])
        self.site.housekeeping.sweep()
        self.assert_whole()
        self.assertEqual(self.site.holdings().manifests, {("app", again.digest)})

    def test_a_subject_with_many_referrers_goes_in_small_pieces(self) -> None:
        subject = self.push_image("app", "1", b"layer")
        referrer = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        with self.site.database.write() as tx:
            for number in range(5000):
                content = json.dumps({**referrer, "annotations": {"number": str(number)}}).encode()
                row = manifest_rows.save_manifest(tx, Digest(digest_of(content)), content, "", "{}")
                manifest_rows.add_manifest(tx, 1, row, OCI_INDEX, Digest(subject.digest), self.site.now)
        spent = self.remove_tag(checked=False)
        self.assertGreater(len(spent), 20)
        self.assertLess(max(spent), _PIECE_SECONDS)
        self.assert_empty()


class Interrupted(InProcess):
    """A registry that does something else each time it looks at the clock, which writes do once they have begun."""

    between: Callable[[], None] = staticmethod(lambda: None)

    def clock(self) -> float:
        """Tell the time."""
        self.between()
        return self.now


class AnswersBesideWrites(InProcessTestCase):
    """An answer that was made of what a write was just about to change."""

    def test_an_answer_made_of_the_old_state_between_the_begin_and_the_commit_of_a_write_is_not_given_again(
        self,
    ) -> None:
        self.push_image("app", "1", b"layer")
        # The reader has a connection of its own: it sees what is committed, as one without the lock would.
        reader, self.site = self.site, Interrupted(self.site.directory, Options(), self.site.now)
        self.addCleanup(reader.close)
        answers, made = Answers(self.site.revisions), []

        def read() -> None:
            basis = self.site.revisions.basis("app")
            if reader.request("HEAD", "/v2/app/manifests/1").status == 200:
                made.append(Answer(b"", b"", "HEAD", "", "manifest", 200, 0, basis))
                answers.keep(b"head", made[-1])

        self.site.between = read
        self.delete("app", "1")
        self.assertTrue(made)
        self.assertIsNone(answers.find(b"head"))


class Remembered(InProcessTestCase):
    """What was told is remembered within bounds, and never forgotten too early."""

    def test_past_the_limit_everything_counts_as_told(self) -> None:
        notes = Notes(600, limit=10)
        for number in range(100):
            notes.note(number, 1000 + number)
        self.assertLessEqual(len(notes._newer) + len(notes._older), 12)
        self.assertEqual({notes.until(number, 1100) > 0 for number in range(100)}, {True})
        self.assertGreaterEqual(notes.until(0, 1100), 1600)
        self.assertEqual(notes.until(99, 1100), 1699)
        self.assertFalse(notes.knows(0, 1100))
        self.assertEqual(notes.until(0, 1100 + 600), 0)

    def test_what_is_too_old_is_dropped(self) -> None:
        pulls = Pulls(10 * MINUTE, clock=self.site.clock, steady=self.site.steady)
        pulls.note(1, "sha256:x")
        self.assertEqual(pulls.hold(1, "sha256:x"), self.site.now + 10 * MINUTE)
        self.site.now += 10 * MINUTE
        self.assertEqual(pulls.hold(1, "sha256:x"), 0)
        for _ in range(2):
            pulls.forget_old()
            self.site.now += 10 * MINUTE
        self.assertEqual((len(pulls._pulled._newer), len(pulls._pulled._older)), (0, 0))
