"""What is told to come free with tags is what comes free when they are deleted."""

from __future__ import annotations

import random

from tests.support.in_process import InProcessTestCase, Options, Pushed, section
from tests.support.server import OCI_EMPTY
from vex.errors import RegistryError
from vex.names import Tag, parse_image
from vex.registry.operations import operation
from vex.registry.parts import Parts, Row

_ROUNDS = 12


class Freeing(InProcessTestCase):
    """A registry where nothing is held for those who pull."""

    options = Options(pull_grace=0)

    def run_operation(self, name: str, **arguments: object) -> list[Row]:
        return list(operation(name, arguments)(Parts(self.site.storage, self.site.registry)))

    def planned(self, *images: str) -> list[int]:
        return [row["bytes"] for row in self.run_operation("rm-plan", images=list(images))]

    def stored(self) -> int:
        with self.site.database.read() as tx:
            return int(tx.value("SELECT coalesce(sum(size), 0) FROM blob"))

    def remove(self, *images: str) -> int:
        """Delete tags; returns the bytes that came free."""
        before = self.stored()
        for row in self.run_operation("rm-plan", images=list(images)):
            (done,) = self.run_operation("rm", images=[f"{row['repository']}:{row['tag']}@{row['digest']}"])
            self.assertNotIn("error", done)
        self.site.housekeeping.sweep()
        return before - self.stored()

    def test_what_others_share_stays(self) -> None:
        self.push_image("a", "v1", b"base" * 100, b"one")
        self.push_image("a", "v2", b"base" * 100, b"two")
        self.push_image("b", "v1", b"base" * 100, b"two")
        self.assertEqual(self.planned("a:v1"), [3])
        self.assertEqual(self.planned("a:v2"), [0])
        self.assertEqual(self.planned("a:v2", "b:v1"), [0, 3])
        self.assertEqual(self.planned("a:v1", "a:v2", "b:v1"), [3, 0, 400 + 3 + len(b"{}")])

    def test_a_tag_that_shares_its_digest_frees_nothing(self) -> None:
        self.push_image("a", "v1", b"layer")
        self.push_image("a", "v2", b"layer")
        (row,) = self.run_operation("rm-plan", images=["a:v1"])
        self.assertEqual((row["tags"], row["manifests"], row["bytes"]), (["v2"], 0, 0))
        self.assertEqual(self.planned("a:v1", "a:v1"), [0])
        self.assertEqual(self.planned("a:v1", "a:v2"), [0, 7])

    def test_what_is_held_for_a_push_stays(self) -> None:
        self.push_image("a", "v1", b"layer")
        self.push_blob("b", b"layer")
        self.assertEqual(self.planned("a:v1"), [2])

    def test_a_tag_that_has_moved_stays(self) -> None:
        old = self.push_image("a", "v1", b"old")
        self.push_image("a", "v1", b"new")
        self.push_image("a", "v2", b"new")
        (moved, gone) = self.run_operation("rm", images=[f"a:v1@{old.digest}", f"a:none@{old.digest}"])
        self.assertIn("points to", moved["error"])
        self.assertIn("no such manifest", gone["error"])
        self.ok(200, "GET", "/v2/a/manifests/v1")

    def test_a_protected_tag_is_refused_before_anything_is_deleted(self) -> None:
        self.site.options = Options(pull_grace=0, sections=(section("a", 3, protected="v1"),))
        self.site.restart()
        self.push_image("a", "v1", b"layer")
        self.push_image("a", "v2", b"layer")
        with self.assertRaisesRegex(RegistryError, "the tag v1, which points to .* is protected"):
            self.run_operation("rm-plan", images=["a:v2", "a:v1"])

    def test_it_is_what_comes_free_whatever_there_is(self) -> None:
        for seed in range(_ROUNDS):
            with self.subTest(seed):
                self._fill(random.Random(seed))
                with self.site.database.read() as tx:
                    tags = [
                        f"{name}:{tag}"
                        for name, tag in tx.rows(
                            "SELECT r.name, t.name FROM tag t JOIN repository r ON r.id = repository ORDER BY 1, 2"
                        )
                    ]
                chosen = random.Random(seed).sample(tags, min(len(tags), 4))
                planned = self.planned(*chosen)
                before = self.stored()
                for image in chosen:
                    name, tag = parse_image(image)
                    assert isinstance(tag, Tag)
                    # A tag of cosign may have gone with its image.
                    self.site.request("DELETE", f"/v2/{name}/manifests/{tag}")
                self.site.housekeeping.sweep()
                self.assertEqual(before - self.stored(), sum(planned), chosen)

    def _fill(self, chance: random.Random) -> None:
        """Push images that share layers, indexes, referrers, some of them with tags, and signatures as cosign does."""
        for number in range(4):
            name = chance.choice("ab")
            layers = [b"%d" % chance.randrange(12) * 10 for _ in range(chance.randrange(1, 4))]
            pushed: list[Pushed] = []
            for part in range(chance.randrange(1, 3)):
                tag = f"t{part}{chance.randrange(4)}" if chance.random() < 0.5 else ""
                pushed.append(self.push_image(name, tag, *layers, config=b"[%d]" % (part + chance.randrange(3))))
            top = self.push_index(name, f"i{number}", [*pushed]) if chance.random() < 0.6 else pushed[0]
            if chance.random() < 0.5:
                self._refer(name, chance, top)
            if chance.random() < 0.4:
                signature = f"{top.digest.replace(':', '-')}.{chance.choice(['sig', 'att'])}"
                self.push_image(name, signature, b"signature%d" % chance.randrange(3))
        # Uploads hold what nothing references for a day.
        self.site.advance(2 * 24 * 3600)

    def _refer(self, name: str, chance: random.Random, subject: Pushed) -> None:
        fields = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": subject.digest,
            "size": subject.size,
        }
        tag = chance.choice(["", "", "sbom"])
        layer = b"about %d" % chance.randrange(4)
        self.push_image(name, tag, layer, config=b"{}", subject=fields, artifactType=OCI_EMPTY)
