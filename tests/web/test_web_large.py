"""Pages of manifests and configs that are as large as can be: in little memory, of a size that can be read, and saying
what they leave out.
"""

from __future__ import annotations

import json
import tracemalloc
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.support.memory import peak_bytes
from tests.support.page import PagesTestCase
from tests.support.server import OCI_INDEX, OCI_MANIFEST, descriptor, image, index, running
from vex.web.markup import external

AT_ONCE, ANNOTATIONS = 16, 60_000
PEAK_BYTES = 96 * 2**20
PAGE_BYTES = 2**20
LONG = "x" * 2**20


class Crowd(unittest.TestCase):
    def test_pages_of_a_large_manifest_are_made_a_few_at_once(self) -> None:
        with running() as server, ThreadPoolExecutor(AT_ONCE) as pool:
            server.auth.push_blob("app", b"{}")
            manifest = image(annotations={f"{number:x}": "" for number in range(ANNOTATIONS)})
            digest = server.auth.push_manifest("app", "v1", manifest)
            page = f"/r/app/m/{digest}/"
            for path in (page, f"{page}json/", f"{page}image.tar", f"/r/app/diff/{digest}...{digest}/"):
                with self.subTest(path):
                    answers = list(pool.map(server.public.get, [path] * AT_ONCE))
                    self.assertLessEqual({answer.status for answer in answers}, {200, 503})
                    self.assertIn(200, {answer.status for answer in answers})
                    self.assertLess(peak_bytes(server), PEAK_BYTES)


class Contents(PagesTestCase):
    """Each kind of thing of which there can be many, or which can be long."""

    def small(self, target: str) -> str:
        """Ask for a page, and check its size; returns its text."""
        page = self.page(target)
        self.assertLess(len(page.text) + len(page.values), PAGE_BYTES)
        return page.text

    def pushed(self, tag: str = "v1", **fields: Any) -> str:
        return self.push_image("app", tag, b"layer", **fields).digest

    def test_annotations(self) -> None:
        text = self.small(
            f"/r/app/m/{self.pushed(annotations={f'key {number:04}': 'value' for number in range(1000)})}/"
        )
        self.assertIn("key 0199", text)
        self.assertNotIn("key 0200", text)
        self.assertIn("And 800 more.", text)
        text = self.small(f"/r/app/m/{self.pushed(annotations={'b': 'short', 'a': LONG, LONG: 'c'})}/")
        self.assertIn(f"{'x' * 4096}… and {2**20 - 4096:,} more characters", text)
        self.assertIn("short", text)

    def test_settings_labels_variables_and_steps_of_a_config(self) -> None:
        for settings, fields, shown in (
            ({"Labels": {f"label {number:05}": "x" * 20 for number in range(10_000)}}, {}, "And 9,800 more."),
            ({"Env": [f"NAME{number}={number}" for number in range(10_000)]}, {}, "And 9,800 more."),
            ({f"field {number:05}": number + 1 for number in range(10_000)}, {}, "And 9,800 more."),
            ({"Cmd": ["x" * 100_000]}, {}, "more characters"),
            ({}, {"author": "x" * 100_000}, "more characters"),
            ({}, {"created": "x" * 100_000}, "more characters"),
            ({}, {"history": [{"created_by": "x" * 100_000}]}, "more characters"),
            ({}, {"history": [{"created_by": "step", "empty_layer": True}] * 10_000}, "And 9,501 more."),
        ):
            with self.subTest(shown=str((settings, fields))[:60]):
                config = json.dumps({"os": "linux", "architecture": "amd64", "config": settings, **fields}).encode()
                digest = self.pushed(config=config)
                self.assertIn(shown, self.small(f"/r/app/m/{digest}/"))
                self.small(f"/r/app/diff/{digest}...{self.pushed('other')}/")
                self.small(f"/r/app/m/{digest}/layer/{descriptor(b'layer', '')['digest']}/")

    def test_layers(self) -> None:
        layers = [b"%d" % number for number in range(600)]
        digest = self.push_image("app", "v1", *layers).digest
        self.assertIn("And 100 more.", self.small(f"/r/app/m/{digest}/"))
        self.assertIn("And 101 more.", self.small(f"/r/app/diff/{digest}...{self.pushed('other')}/"))

    def test_files_of_an_artifact_and_its_types(self) -> None:
        self.push_blob("app", b"{}")
        files = [
            {**descriptor(b"{}", f"text/{'y' * 1000}"), "annotations": {"org.opencontainers.image.title": "t" * 1000}}
            for _ in range(600)
        ]
        document = {**image(), "artifactType": f"application/{LONG}", "layers": files}
        digest = self.push_manifest("app", "v1", document).digest
        self.assertIn("And 100 more.", self.small(f"/r/app/m/{digest}/"))
        for _ in range(3):
            self.push_manifest("app", "", {**document, "annotations": {"number": str(_)}})
        self.small("/r/app/")
        self.small(f"/r/app/m/{digest}/json/")

    def test_children_of_an_index(self) -> None:
        self.push_blob("app", b"{}")
        children = [self.push_manifest("app", "", image(annotations={"number": str(number)})) for number in range(600)]
        self.push_index("app", "v1", children)
        digest = self.push_manifest("app", "v2", {**index(children), "annotations": {}}, OCI_INDEX).digest
        self.assertIn("And 100 more.", self.small(f"/r/app/m/{digest}/"))

    def test_what_referrers_say_of_themselves(self) -> None:
        subject = self.push_image("app", "v1", b"layer")
        named = {"mediaType": OCI_MANIFEST, "digest": subject.digest, "size": subject.size}
        for number in range(8):
            self.push_manifest("app", "", {**image(), "subject": named, "artifactType": f"application/{number}{LONG}"})
        self.small(f"/r/app/m/{subject.digest}/")
        self.small("/r/app/")
        self.assertLess(len(self.ok(200, "GET", f"/v2/app/referrers/{subject.digest}").body), 4 * 2**20)


class Addresses(unittest.TestCase):
    def test_a_text_that_is_too_long_for_an_address_is_not_remembered(self) -> None:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20):
            self.assertIsNone(external(f"https://host.example/{number}{LONG}"))
            self.assertIsNone(external(f"text {number} {LONG}"))
        self.assertLess(tracemalloc.get_traced_memory()[0] - before, 2**20)

    def test_an_address_is_one_in_upper_and_lower_case(self) -> None:
        for text in ("https://host.example/a", "HTTP://host.example/a"):
            found = external(text)
            self.assertEqual(found and found.text, text)
        for text in ("ftp://host.example/", "https:/", "http://", "host.example", "https//x"):
            self.assertIsNone(external(text), text)


if __name__ == "__main__":
    unittest.main()
