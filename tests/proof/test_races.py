"""Two requests at once, again and again: whatever the order, both are answered as one order or the other would have it,
and nothing is lost.

In this process, without sockets, with threads that are switched as often as Python can. VEX_TEST_RACES says how many
rounds each.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import Callable

from tests.support.in_process import DAY, InProcess, Options, directory_in_memory
from tests.support.server import OCI_MANIFEST, Answer, digest_of, image

ROUNDS = int(os.environ.get("VEX_TEST_RACES") or 50)
NOW = 1_700_000_000
LAYER, CONFIG = b"layer", b"{}"
BLOB = digest_of(LAYER)
_SWITCH_SECONDS = 1e-6
# About as long as the push of a manifest takes.
_WHILE_SECONDS = 0.002


class RaceTest(unittest.TestCase):
    """Each test has a registry of its own, for all its rounds."""

    def setUp(self) -> None:
        directory = directory_in_memory()
        self.addCleanup(directory.cleanup)
        self.site = InProcess(Path(directory.name), Options(), NOW)
        self.addCleanup(self.site.close)
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(_SWITCH_SECONDS)

    def race(self, *works: Callable[[], Answer]) -> list[Answer]:
        """Do all at once; returns their answers, in the order of the works."""
        answers: list[Answer | BaseException] = [RuntimeError("it did not end")] * len(works)
        barrier = threading.Barrier(len(works))

        def run(number: int, work: Callable[[], Answer]) -> None:
            barrier.wait()
            try:
                answers[number] = work()
            except BaseException as error:  # for the thread that looks at them
                answers[number] = error

        threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failed = next((answer for answer in answers if isinstance(answer, BaseException)), None)
        if failed is not None:
            raise failed
        return [answer for answer in answers if isinstance(answer, Answer)]

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Callable[[], Answer]:
        """Prepare a request; an underscore in the name of a field stands for a hyphen."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return lambda: self.site.request(method, path, body, fields)

    def push(self, repository: str, content: bytes = LAYER) -> Callable[[], Answer]:
        """Prepare the push of a blob."""
        return self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest_of(content)}", content)

    def put(self, repository: str, tag: str, *layers: bytes, **fields: object) -> Callable[[], Answer]:
        """Prepare the push of a manifest."""
        content = json.dumps(image(*layers, config=CONFIG, **fields)).encode()
        return self.ask("PUT", f"/v2/{repository}/manifests/{tag}", content, Content_Type=OCI_MANIFEST)

    def must(self, status: int, work: Callable[[], Answer]) -> Answer:
        """Do it, alone."""
        answer = work()
        self.assertEqual(answer.status, status, answer)
        return answer

    def assert_sound(self) -> None:
        """Compare rows with files, and see that no upload is left."""
        held = self.site.holdings()
        self.assertEqual(held.files, held.blobs)
        self.assertEqual(list((self.site.directory / "uploads").iterdir()), [])

    def assert_read(self, repository: str, content: bytes) -> None:
        """Read a blob, as one who only reads: for one who may push it would be held."""
        answer = self.must(
            200, lambda: self.site.request("GET", f"/v2/{repository}/blobs/{digest_of(content)}", user="")
        )
        self.assertEqual(answer.body, content)

    def empty(self, *repositories: str) -> None:
        """Remove the layer from repositories."""
        for repository in repositories:
            self.site.request("DELETE", f"/v2/{repository}/blobs/{BLOB}")
        self.assertEqual(self.site.holdings().files, set())

    def test_a_push_and_the_deletion_of_the_same_blob_elsewhere(self) -> None:
        for _ in range(ROUNDS):
            self.must(201, self.push("one"))
            deleted, pushed = self.race(self.ask("DELETE", f"/v2/one/blobs/{BLOB}"), self.push("two"))
            self.assertEqual((deleted.status, pushed.status), (202, 201))
            self.assert_read("two", LAYER)
            self.assert_sound()
            self.empty("two")

    def test_a_push_and_the_deletion_of_the_same_blob_in_one_repository(self) -> None:
        for _ in range(ROUNDS):
            self.must(201, self.push("one"))
            deleted, pushed = self.race(self.ask("DELETE", f"/v2/one/blobs/{BLOB}"), self.push("one"))
            self.assertEqual((deleted.status, pushed.status), (202, 201))
            read = self.site.request("GET", f"/v2/one/blobs/{BLOB}")
            self.assertIn((read.status, read.body if read.status == 200 else LAYER), [(200, LAYER), (404, LAYER)])
            self.assert_sound()
            self.empty("one")

    def test_a_mount_and_the_deletion_of_the_blob(self) -> None:
        for _ in range(ROUNDS):
            self.must(201, self.push("one"))
            deleted, mounted = self.race(
                self.ask("DELETE", f"/v2/one/blobs/{BLOB}"),
                self.ask("POST", f"/v2/two/blobs/uploads/?mount={BLOB}&from=one"),
            )
            self.assertEqual(deleted.status, 202)
            if mounted.status == 201:
                self.assert_read("two", LAYER)
            else:
                self.assertEqual(mounted.status, 202)
                self.must(204, self.ask("DELETE", mounted.headers["Location"]))
            self.assert_sound()
            self.empty("two")

    def test_a_head_that_holds_a_blob_and_the_deletion_of_the_manifest_that_has_it(self) -> None:
        for _ in range(ROUNDS):
            for content in (LAYER, CONFIG):
                self.must(201, self.push("one", content))
            self.must(201, self.put("one", "1", LAYER))
            deleted, held = self.race(
                self.ask("DELETE", "/v2/one/manifests/1"), self.ask("HEAD", f"/v2/two/blobs/{BLOB}")
            )
            self.assertEqual(deleted.status, 202)
            self.assertIn(held.status, (200, 404))
            if held.status == 200:
                # What the client was told that it need not send can be used.
                self.must(201, self.push("two", CONFIG))
                self.must(201, self.put("two", "1", LAYER))
                self.assert_read("two", LAYER)
                self.must(202, self.ask("DELETE", "/v2/two/manifests/1"))
            self.assert_sound()
            self.empty()

    def test_two_pushes_of_one_blob(self) -> None:
        for _ in range(ROUNDS):
            statuses = [answer.status for answer in self.race(self.push("one"), self.push("two"), self.push("one"))]
            self.assertEqual(statuses, [201, 201, 201])
            self.assert_read("one", LAYER)
            self.assert_read("two", LAYER)
            self.assert_sound()
            self.empty("one", "two")

    def test_a_pull_of_a_tag_that_is_moved(self) -> None:
        for content in (CONFIG, b"layer 0"):
            self.must(201, self.push("app", content))
        self.must(201, self.put("app", "latest", b"layer 0"))
        for number in range(1, ROUNDS + 1):
            layer = b"layer %d" % number
            for content in (CONFIG, layer):
                self.must(201, self.push("app", content))
            moved, pulled = self.race(self.put("app", "latest", layer), self.pull)
            self.assertEqual((moved.status, pulled.status), (201, 200))
            self.assertIn(pulled.body, (layer, b"layer %d" % (number - 1)))
            held = self.site.holdings()
            self.assertEqual(held.files, held.blobs)

    def pull(self) -> Answer:
        """Get the manifest that the tag points at, then its layer."""
        manifest = self.must(200, self.ask("GET", "/v2/app/manifests/latest"))
        return self.site.request("GET", f"/v2/app/blobs/{manifest.json['layers'][0]['digest']}")

    def test_the_expiry_of_the_blobs_of_a_manifest_that_is_put(self) -> None:
        for number in range(ROUNDS):
            layer = b"layer %d" % number
            for content in (CONFIG, layer):
                self.must(201, self.push("app", content))
            put, _ = self.race(self.put("app", "1", layer), self.expire)
            self.assertIn(put.status, (201, 404))
            if put.status == 201:
                self.assert_read("app", layer)
                self.must(202, self.ask("DELETE", "/v2/app/manifests/1"))
            else:
                self.assertEqual(put.codes, ["MANIFEST_BLOB_UNKNOWN"])
            self.assert_sound()
            self.empty()

    def expire(self) -> Answer:
        """Have a day go by at some moment of what else is done, and remove what is due."""
        time.sleep(random.uniform(0, _WHILE_SECONDS))
        self.site.now += DAY
        return self.sweep()

    def sweep(self) -> Answer:
        """Remove what is due."""
        self.site.housekeeping.sweep()
        return self.site.request("GET", "/v2/")

    def test_two_chunks_for_one_session(self) -> None:
        for _ in range(ROUNDS):
            location = self.must(202, self.ask("POST", "/v2/app/blobs/uploads/")).headers["Location"]
            chunks = (b"first", b"other")
            answers = self.race(*(self.ask("PATCH", location, chunk, Content_Range="0-4") for chunk in chunks))
            self.assertEqual(sorted(answer.status for answer in answers), [202, 416])
            refused = next(answer for answer in answers if answer.status == 416)
            self.assertEqual(refused.codes, ["RANGE_INVALID"])
            self.assertRegex(refused.headers["Range"], "^0-[04]$")
            taken = next(chunk for chunk, answer in zip(chunks, answers) if answer.status == 202)
            self.must(201, self.ask("PUT", f"{location}?digest={digest_of(taken)}"))
            self.assert_read("app", taken)
            self.must(202, self.ask("DELETE", f"/v2/app/blobs/{digest_of(taken)}"))
            self.assert_sound()

    def test_the_removal_of_an_empty_repository_and_a_push_to_it(self) -> None:
        for number in range(ROUNDS):
            layer = b"layer %d" % number
            for content in (CONFIG, layer):
                self.must(201, self.push("app", content))
            self.must(201, self.put("app", "old", layer))
            deleted, pushed = self.race(self.ask("DELETE", "/v2/app/manifests/old"), self.push("app", CONFIG))
            self.assertEqual((deleted.status, pushed.status), (202, 201))
            self.assert_read("app", CONFIG)
            self.must(202, self.ask("DELETE", f"/v2/app/blobs/{digest_of(CONFIG)}"))
            self.site.now += 2 * DAY
            _, pushed = self.race(self.sweep, self.push("app", layer))
            self.assertEqual(pushed.status, 201)
            self.assert_read("app", layer)
            self.must(202, self.ask("DELETE", f"/v2/app/blobs/{digest_of(layer)}"))
            self.assert_sound()
