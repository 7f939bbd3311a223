"""What lists of the web interface show: kept right by every change, and made once for what a Vex before them stored."""

from __future__ import annotations

import functools
import json
import operator
import sqlite3
import unittest
from pathlib import Path
from typing import Any

from tests.support.in_process import InProcess, InProcessTestCase, Options, directory_in_memory
from tests.support.server import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    TOP,
    descriptor,
    digest_of,
    image,
)
from vex.http.turns import HeavyWork
from vex.names import RepositoryName
from vex.storage.listings import NAME, PUSHED, SIZE, ManifestEntry, RepositoryEntry, View
from vex.web.browsing import Browsing

ALL = View("", NAME, descending=False, offset=0, limit=100)


def config(architecture: str, **fields: Any) -> bytes:
    return json.dumps({"os": "linux", "architecture": architecture, **fields}).encode()


def child(content: bytes, **platform: str) -> dict[str, Any]:
    return {**descriptor(content, OCI_MANIFEST), "platform": platform}


class SummariesTestCase(InProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.browsing = Browsing(self.site.database, self.site.registry, HeavyWork().large_manifests)

    def repository(self, name: str) -> RepositoryEntry:
        entry = self.browsing.repository(RepositoryName(name))
        assert entry
        return entry

    def tag(self, name: str, tag: str) -> ManifestEntry:
        listing, _ = self.browsing.tags(RepositoryName(name), ALL)
        return next(entry for entry in listing.entries if entry.name == tag)

    def tags(self, view: View, name: str = "app") -> list[str]:
        return [entry.name for entry in self.browsing.tags(RepositoryName(name), view)[0].entries]

    def unheld(self, name: str = "app") -> list[str]:
        return [entry.digest for entry in self.browsing.unheld(RepositoryName(name), 0, 100).entries]


class Sizes(SummariesTestCase):
    def test_an_image_has_the_size_of_its_config_and_layers(self) -> None:
        self.push_image("app", "v1", b"x" * 1000, b"y" * 500, config=b"{}")
        self.assertEqual(self.tag("app", "v1").size, 1502)

    def test_a_blob_that_is_listed_twice_counts_once(self) -> None:
        self.push_image("app", "v1", b"x" * 1000, b"x" * 1000, config=b"{}")
        self.assertEqual(self.tag("app", "v1").size, 1002)

    def test_an_index_has_the_size_of_all_its_images_with_shared_blobs_once(self) -> None:
        pushed = [self.push_image("app", "", b"base" * 100, own, config=b"{}") for own in (b"a" * 10, b"b" * 20)]
        self.push_index("app", "v1", pushed)
        self.assertEqual(self.tag("app", "v1").size, 400 + 10 + 20 + 2)

    def test_an_index_of_indexes_counts_what_is_below(self) -> None:
        inner = self.push_index("app", "", [self.push_image("app", "", b"a" * 10, config=b"{}")])
        self.push_index("app", "v1", [inner])
        self.assertEqual(self.tag("app", "v1").size, 12)

    def test_a_repository_counts_each_blob_once_and_follows_deletions(self) -> None:
        self.push_image("app", "v1", b"base" * 100, b"1" * 10, config=b"{}")
        self.push_image("app", "v2", b"base" * 100, b"2" * 20, config=b"{}")
        self.push_image("other", "v1", b"base" * 100, config=b"{}")
        self.assertEqual((self.repository("app").size, self.repository("app").tags), (432, 2))
        self.delete("app", "v1")
        self.assertEqual((self.repository("app").size, self.repository("app").tags), (422, 1))
        self.push_image("app", "v2", b"new" * 10, config=b"{}")
        self.assertEqual((self.repository("app").size, self.repository("app").tags), (32, 1))
        self.assertEqual(self.repository("other").size, 402)

    def test_a_tag_that_is_moved_has_the_size_of_what_it_points_to_now(self) -> None:
        self.push_image("app", "v1", b"x" * 1000, config=b"{}")
        self.push_image("app", "v1", b"y" * 500, config=b"{}")
        self.assertEqual(self.tag("app", "v1").size, 502)


class Costs(SummariesTestCase):
    def test_a_push_changes_as_many_rows_however_many_repositories_hold_the_manifest(self) -> None:
        changed = []
        for number in range(12):
            before = self.total_changes()
            self.push_image(f"copy-{number}", "v1", b"layer")
            changed.append(self.total_changes() - before)
        self.assertEqual(len(set(changed[1:])), 1, changed)

    def total_changes(self) -> int:
        with self.site.database.read() as tx:
            changes: int = tx.value("SELECT total_changes()")
        return changes


class Kinds(SummariesTestCase):
    def test_an_image_has_the_platform_of_its_config(self) -> None:
        self.push_image("app", "v1", b"x", config=config("arm", variant="v7"))
        self.assertEqual(self.tag("app", "v1").summary[:2], ("image", ("linux/arm/v7",)))

    def test_an_image_of_docker_is_one(self) -> None:
        content = config("amd64")
        self.push_blob("app", content)
        document = {
            **image(),
            "mediaType": DOCKER_MANIFEST,
            "config": descriptor(content, "application/vnd.docker.container.image.v1+json"),
        }
        self.push_manifest("app", "v1", document, DOCKER_MANIFEST)
        self.assertEqual(self.tag("app", "v1").summary[:2], ("image", ("linux/amd64",)))

    def test_an_index_has_the_platforms_of_its_children_without_attestations(self) -> None:
        images = [json.dumps(image(b"x", config=config(name))).encode() for name in ("amd64", "arm64", "unknown")]
        for name, content in zip(("amd64", "arm64", "unknown"), images):
            self.push_blob("app", config(name))
            self.push_blob("app", b"x")
            self.push_manifest("app", "", json.loads(content))
        attestation = {
            **child(images[2], os="unknown", architecture="unknown"),
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        }
        children = [
            child(images[0], os="linux", architecture="amd64"),
            child(images[1], os="linux", architecture="arm64", variant="v8"),
            attestation,
        ]
        self.push_manifest("app", "v1", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}, OCI_INDEX)
        self.assertEqual(self.tag("app", "v1").summary[:2], ("index", ("linux/amd64", "linux/arm64/v8")))

    def test_an_index_without_platforms_has_those_of_the_configs(self) -> None:
        pushed = [self.push_image("app", "", b"x", config=config(name)) for name in ("s390x", "amd64")]
        self.push_index("app", "v1", pushed)
        self.assertEqual(self.tag("app", "v1").summary[:2], ("index", ("linux/amd64", "linux/s390x")))

    def test_what_is_no_image_is_an_artifact(self) -> None:
        signature = b'{"critical":{}}'
        for tag, config_type, layer_type, artifact_type in (
            (
                "helm",
                "application/vnd.cncf.helm.config.v1+json",
                "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
                "",
            ),
            ("cosign", OCI_CONFIG, "application/vnd.dev.cosign.simplesigning.v1+json", ""),
            ("oras", OCI_EMPTY, "text/plain", "application/vnd.example"),
        ):
            self.push_blob("app", signature)
            self.push_blob("app", b"{}")
            layers = [descriptor(signature, layer_type)]
            document = {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": descriptor(b"{}", config_type),
                "layers": layers,
            }
            self.push_manifest("app", tag, {**document, **({"artifactType": artifact_type} if artifact_type else {})})
            self.assertEqual(self.tag("app", tag).summary[:2], ("artifact", ()), tag)


class Lists(SummariesTestCase):
    def push_three(self) -> None:
        for tag, size in (("b", 300), ("a", 200), ("C", 100)):
            self.push_image("app", tag, tag.encode() * size, config=b"{}")
            self.site.advance(60)

    def test_tags_are_sorted_by_name_date_or_size(self) -> None:
        self.push_three()
        expected = {NAME: ["C", "a", "b"], PUSHED: ["b", "a", "C"], SIZE: ["C", "a", "b"]}
        for order, tags in expected.items():
            self.assertEqual(self.tags(ALL._replace(order=order)), tags)
            self.assertEqual(self.tags(ALL._replace(order=order, descending=True)), tags[::-1])

    def test_tags_are_filtered_without_regard_to_case_and_without_wildcards(self) -> None:
        for tag in ("v1.0-RC", "v1.0", "a_b", "axb"):
            self.push_image("app", tag, tag.encode(), config=b"{}")
        self.assertEqual(self.tags(ALL._replace(text="rc")), ["v1.0-RC"])
        self.assertEqual(self.tags(ALL._replace(text="A_B")), ["a_b"])
        for text in ("%", "!", "v%"):
            self.assertEqual(self.tags(ALL._replace(text=text)), [])

    def test_pages_of_equal_dates_and_sizes_neither_overlap_nor_leave_out(self) -> None:
        for number in range(10):
            self.push_image("app", f"t{number}", b"same", config=b"{}")
        for order in (NAME, PUSHED, SIZE):
            for descending in (False, True):
                parts = [self.tags(View("", order, descending, offset, 3)) for offset in (0, 3, 6, 9)]
                self.assertEqual(
                    sorted(functools.reduce(operator.iadd, parts, [])), [f"t{number}" for number in range(10)]
                )

    def test_repositories_are_sorted_filtered_and_found_below_a_name(self) -> None:
        for name, size in (("team/b", 300), ("team/a", 200), ("team", 250), ("teams/x", 100), ("team-x", 50)):
            self.push_image(name, "v1", name.encode()[:1] * size, config=b"{}")
            self.site.advance(60)

        def names(prefix: str, **fields: Any) -> list[str]:
            listing = self.browsing.repositories(prefix, ALL._replace(**fields))
            self.assertEqual(listing.total, len(listing.entries))
            return [entry.name for entry in listing.entries]

        self.assertEqual(names(""), ["team", "team-x", "team/a", "team/b", "teams/x"])
        self.assertEqual(names("", order=SIZE), ["team-x", "teams/x", "team/a", "team", "team/b"])
        self.assertEqual(names("", order=PUSHED, descending=True), ["team-x", "teams/x", "team", "team/a", "team/b"])
        self.assertEqual(names("", text="X"), ["team-x", "teams/x"])
        self.assertEqual(names("team/"), ["team/a", "team/b"])
        self.assertEqual(names("team/", order=SIZE, text="team/"), ["team/a", "team/b"])

    def test_a_repository_is_listed_while_it_holds_something(self) -> None:
        self.push_image("app", "v1", b"x", config=b"{}")
        self.delete("app", "v1")
        self.assertIsNone(self.browsing.repository(RepositoryName("app")))
        self.assertEqual(self.browsing.repositories("", ALL).total, 0)

    def test_the_newest_push_of_a_repository_counts(self) -> None:
        started = self.site.now
        self.push_image("app", "v1", b"x", config=b"{}")
        self.site.advance(60)
        self.push_image("app", "v2", b"y", config=b"{}")
        self.site.advance(60)
        self.assertEqual(self.repository("app").pushed, started + 60)
        self.push_image("app", "v1", b"x", config=b"{}")
        self.assertEqual(self.repository("app").pushed, started + 120)

    def test_manifests_without_tag_and_index_are_listed_for_themselves(self) -> None:
        first = self.push_image("app", "", b"1", config=b"{}")
        second = self.push_image("app", "", b"2", config=b"{}")
        self.assertEqual(set(self.unheld()), {first.digest, second.digest})
        self.push_index("app", "v1", [first])
        self.push_image("app", "v2", b"2", config=b"{}")
        self.assertEqual(self.unheld(), [])
        subject = {"mediaType": OCI_MANIFEST, "digest": second.digest, "size": second.size}
        referrer = self.push_image("app", "", b"3", config=b"{}", subject=subject)
        self.assertEqual(self.unheld(), [referrer.digest])
        self.push_image("app", "v2", b"4", config=b"{}")
        # Whoever pushed it by its digest may still send an index that names it.
        self.site.advance(3601)
        self.assertEqual(self.unheld(), [])


class KeptManifests(SummariesTestCase):
    options = Options(keep_replaced=3600)

    def test_a_replaced_manifest_that_is_kept_is_listed_without_its_tag(self) -> None:
        replaced = self.push_image("app", "v1", b"1", config=b"{}")
        self.push_image("app", "v1", b"2", config=b"{}")
        self.assertEqual(self.unheld(), [replaced.digest])
        self.site.advance(3601)
        self.assertEqual(self.unheld(), [])

    def test_the_former_child_of_an_index_is_listed_once_it_has_no_tag_either(self) -> None:
        child = self.push_image("app", "v1", b"1", config=b"{}")
        self.push_index("app", "index", [child])
        self.delete("app", "index")
        self.push_image("app", "v1", b"2", config=b"{}")
        self.assertEqual(self.unheld(), [child.digest])


class Migration(unittest.TestCase):
    """A database of the first schema, as a Vex without a web interface left it."""

    def setUp(self) -> None:
        context = directory_in_memory()
        self.addCleanup(context.__exit__, None, None, None)
        self.directory = Path(context.__enter__())
        self.database = sqlite3.connect(self.directory / "vex.db")
        self.database.executescript((TOP / "vex/storage/sql/001-registry.sql").read_text())
        self.database.executescript(
            "INSERT INTO repository (id, name) VALUES (1, 'app'), (2, 'empty'); UPDATE repository SET emptied = 5 WHERE"
            " id = 2;"
        )
        self.addCleanup(self.database.close)

    def insert_blob(self, content: bytes) -> int:
        path = self.directory / "blobs/sha256"
        path.mkdir(parents=True, exist_ok=True)
        (path / digest_of(content).partition(":")[2]).write_bytes(content)
        return self.insert("blob (digest, size, created)", digest_of(content), len(content), 1)

    def insert(self, columns: str, *values: object) -> int:
        marks = ", ".join("?" * len(values))
        return self.database.execute(f"INSERT INTO {columns} VALUES ({marks})", values).lastrowid or 0

    def insert_manifest(self, document: dict[str, Any], pushed: int, blobs: list[int], children: list[int]) -> int:
        content = json.dumps(document).encode()
        manifest = self.insert(
            "manifest (digest, size, artifact_type, annotations, content)",
            digest_of(content),
            len(content),
            "",
            "{}",
            content,
        )
        self.insert(
            "repository_manifest (repository, manifest, media_type, pushed)", 1, manifest, document["mediaType"], pushed
        )
        for blob in blobs:
            self.insert("manifest_blob (repository, blob, manifest)", 1, blob, manifest)
        for number in children:
            self.insert("manifest_child (repository, child, parent)", 1, number, manifest)
        return manifest

    def open(self) -> tuple[InProcess, Browsing]:
        self.database.execute("PRAGMA user_version = 1")
        self.database.commit()
        self.database.close()
        site = InProcess(self.directory, Options(), 1000)
        self.addCleanup(site.close)
        return site, Browsing(site.database, site.registry, HeavyWork().large_manifests)

    def test_what_was_stored_is_listed_as_if_it_were_pushed_now(self) -> None:
        layer, settings = b"x" * 100, config("riscv64")
        blobs = [self.insert_blob(layer), self.insert_blob(settings)]
        document = image(layer, config=settings)
        single = self.insert_manifest(document, 10, blobs, [])
        index = self.insert_manifest(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child(json.dumps(document).encode())]},
            20,
            [],
            [single],
        )
        loose = self.insert_manifest({**document, "annotations": {"a": "b"}}, 15, blobs, [])
        for tag, manifest in (("one", single), ("two", index), ("three", index)):
            self.insert("tag (repository, name, manifest, updated)", 1, tag, manifest, 30)
        site, browsing = self.open()
        size = len(layer) + len(settings)
        self.assertEqual(browsing.repositories("", ALL).entries, [RepositoryEntry(RepositoryName("app"), 3, 20, size)])
        site.housekeeping.fill_in_summaries()
        entries = {entry.name: entry for entry in browsing.tags(RepositoryName("app"), ALL)[0].entries}
        self.assertEqual(
            {name: entry.size for name, entry in entries.items()}, {"one": size, "two": size, "three": size}
        )
        self.assertEqual(entries["one"].summary[:2], ("image", ("linux/riscv64",)))
        self.assertEqual(entries["two"].summary[:2], ("index", ("linux/riscv64",)))
        self.assertEqual([entry.manifest for entry in browsing.unheld(RepositoryName("app"), 0, 10).entries], [loose])

    def test_a_manifest_that_cannot_be_read_stops_nothing(self) -> None:
        blob = self.insert_blob(b"x")
        broken = self.insert_manifest({"schemaVersion": 1, "mediaType": OCI_MANIFEST}, 10, [blob], [])
        missing = self.insert_manifest(image(config=b"not here"), 10, [], [])
        for tag, manifest in (("broken", broken), ("missing", missing)):
            self.insert("tag (repository, name, manifest, updated)", 1, tag, manifest, 30)
        site, browsing = self.open()
        site.housekeeping.fill_in_summaries()
        entries = {entry.name: entry for entry in browsing.tags(RepositoryName("app"), ALL)[0].entries}
        self.assertEqual((entries["broken"].summary[:2], entries["broken"].size), (("artifact", ()), 1))
        self.assertEqual((entries["missing"].summary[:2], entries["missing"].size), (("image", ()), 0))
