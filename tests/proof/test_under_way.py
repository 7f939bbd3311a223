"""Pulls and pushes under way while the same tags are moved and deleted: whatever was answered can be relied on until
its pull or push has ended.

Ten kinds of clients at once, in this process, without sockets, with threads that are switched as often as Python can,
beside a clock that goes on and housekeeping. VEX_TEST_RACES says how many times each client works.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import unittest
from pathlib import Path
from typing import Any, Callable

from tests.support.in_process import DAY, HOUR, MINUTE, InProcess, Options, directory_in_memory
from tests.support.server import OCI_INDEX, OCI_MANIFEST, Answer, digest_of, image, index
from vex.http import answers
from vex.http.message import Response

ROUNDS = int(os.environ.get("VEX_TEST_RACES") or 50)
SEED = os.environ.get("VEX_TEST_SEED") or str(random.SystemRandom().randrange(10**9))
TAGS = ("1", "latest", "stable")
LAYERS = 4
CONFIG = b"{}"
_SWITCH_SECONDS = 1e-5
_TICK_SECONDS = 7


class UnderWay(unittest.TestCase):
    """One repository, `app`, that everybody works on, and another with the same layers."""

    def setUp(self) -> None:
        directory = directory_in_memory()
        self.addCleanup(directory.cleanup)
        self.site = InProcess(Path(directory.name), Options(), 1_700_000_000)
        self.addCleanup(self.site.close)
        self.answers = answers.Answers(self.site.revisions)
        self.failures: list[str] = []
        self.ended = 0
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(_SWITCH_SECONDS)

    def test_ten_kinds_of_clients_on_the_same_tags(self) -> None:
        pulls = (
            self.pull_by_tag,
            self.pull_after_head,
            self.pull_index,
            self.pull_repeated,
            self.pull_unchanged,
            self.pull_referrers,
        )
        pushes = (self.push_after_head, self.push_with_mount, self.push_index_of_children, self.push_in_chunks)
        for number in range(LAYERS):
            self.push_image(random.Random(f"{SEED} {number}"), "app", TAGS[number % len(TAGS)], *_image(number))
        with self.subTest(VEX_TEST_SEED=SEED):
            works: list[Callable[[random.Random], object]] = [
                *pulls,
                *pushes,
                self.delete_tag,
                self.delete_tag,
                self.tick,
            ]
            threads = [threading.Thread(target=self.repeat, args=(work, number)) for number, work in enumerate(works)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(self.failures[:5], [])
            self.assertGreater(self.ended, ROUNDS)
            self.check_what_is_left()

    def repeat(self, work: Callable[[random.Random], object], number: int) -> None:
        """Work again and again."""
        choose = random.Random(f"{SEED} {number}")
        for _ in range(ROUNDS):
            if self.failures:
                return
            try:
                work(choose)
            except _TooLate:
                continue
            except Exception as error:
                self.failures.append(f"{getattr(work, '__name__', work)}: {error!r}")

    def check_what_is_left(self) -> None:
        """Let go of everything, and see that rows and files are those that tags lead to, and none without them."""
        self.site.advance(2 * DAY)
        held = self.site.holdings()
        self.assertEqual(held.files, held.blobs)
        self.assertEqual((held.leases, set(held.states.values()) - {"live"}), ({}, set()))
        self.assertEqual(held.blobs, self.needed())
        for tag in TAGS:
            self.site.request("DELETE", f"/v2/app/manifests/{tag}")
        self.site.advance(HOUR)
        self.site.advance(2 * DAY)
        held = self.site.holdings()
        self.assertEqual((held.files, held.blobs, held.manifests, held.repositories), (set(), set(), set(), {}))

    def needed(self) -> set[str]:
        """Find the blobs that tags lead to, by reading manifests as one who only looks."""
        found: set[str] = set()
        todo = [f"{name}:{tag}" for name in ("app", "other") for tag in TAGS]
        for name, _, reference in (reference.partition(":") for reference in todo):
            answer = self.site.request("GET", f"/v2/{name}/manifests/{reference}", user="")
            if answer.status == 200:
                found |= _blobs(answer.json)
                todo += [f"{name}:{child['digest']}" for child in answer.json.get("manifests", [])]
                subject = answer.headers["Docker-Content-Digest"]
                todo += [
                    f"{name}:{row['digest']}"
                    for row in self.site.request("GET", f"/v2/{name}/referrers/{subject}", user="").json["manifests"]
                ]
        return found

    # Pulls: each begins with a tag, and must come to its end

    def pull_by_tag(self, choose: random.Random) -> None:
        """GET of the tag, then the same by digest, then what it needs."""
        self.pull_rest(self.read(choose.choice(TAGS)))

    def pull_after_head(self, choose: random.Random) -> None:
        """HEAD of the tag, then GET by digest, as containerd does."""
        begun = self.site.now
        head = self.site.request("HEAD", f"/v2/app/manifests/{choose.choice(TAGS)}", user="")
        if head.status == 200:
            self.pull_rest((begun, self.must_read(begun, f"manifests/{head.headers['Docker-Content-Digest']}")))

    def pull_index(self, choose: random.Random) -> None:
        """GET of the tag, and of all that an index leads to, the last first."""
        self.pull_rest(self.read(choose.choice(TAGS)), backwards=True)

    def pull_repeated(self, choose: random.Random) -> None:
        """The tag from answers that were given before."""
        begun, tag = self.site.now, choose.choice(TAGS)
        head = f"GET /v2/app/manifests/{tag}".encode()
        kept = self.answers.find(head)
        if kept is not None:
            digest = json.loads(kept.after_date)["digest"]
        else:
            response = self.site.respond("GET", f"/v2/app/manifests/{tag}", user="")
            if response.status != 200:
                return
            digest = dict(response.headers)["Docker-Content-Digest"]
            self.answers.keep(head, _kept(response, digest))
        self.pull_rest((begun, self.must_read(begun, f"manifests/{digest}")))

    def pull_unchanged(self, choose: random.Random) -> None:
        """304 for the digest that the client knows, and then by it."""
        begun, tag = self.site.now, choose.choice(TAGS)
        known = self.site.request("HEAD", f"/v2/app/manifests/{tag}", user="").headers["ETag"]
        if not known:
            return
        answer = self.site.request("GET", f"/v2/app/manifests/{tag}", headers={"If-None-Match": known}, user="")
        if answer.status in (200, 304):
            self.pull_rest((begun, self.must_read(begun, f"manifests/{answer.headers['Docker-Content-Digest']}")))

    def pull_referrers(self, choose: random.Random) -> None:
        """What refers to what a tag points to, and what that needs."""
        read = self.read(choose.choice(TAGS))
        if read is None:
            return
        begun, subject = read
        rows = self.must_read(begun, f"referrers/{subject.headers['Docker-Content-Digest']}").json["manifests"]
        for row in rows:
            self.pull_rest((begun, self.must_read(begun, f"manifests/{row['digest']}")))

    def read(self, tag: str) -> tuple[int, Answer] | None:
        """Begin a pull; None where there is nothing to pull."""
        begun = self.site.now
        answer = self.site.request("GET", f"/v2/app/manifests/{tag}", user="")
        return (begun, answer) if answer.status == 200 else None

    def pull_rest(self, read: tuple[int, Answer] | None, *, backwards: bool = False) -> None:
        """Pull what a manifest needs."""
        if read is None:
            return
        begun, answer = read
        digest = answer.headers["Docker-Content-Digest"]
        self.assertEqual(self.must_read(begun, f"manifests/{digest}").body, answer.body)
        for child in answer.json.get("manifests", [])[:: -1 if backwards else 1]:
            self.pull_rest((begun, self.must_read(begun, f"manifests/{child['digest']}")), backwards=backwards)
        for blob in sorted(_blobs(answer.json), reverse=backwards):
            self.assertEqual(digest_of(self.must_read(begun, f"blobs/{blob}").body), blob)
        self.ended += 1

    def must_read(self, begun: int, path: str) -> Answer:
        """Go on with a pull that began not longer than the grace ago."""
        answer = self.site.request("GET", f"/v2/app/{path}", user="")
        if answer.status != 200 and self.site.now - begun >= 10 * MINUTE:
            raise _TooLate
        self.assertEqual(answer.status, 200, f"{path}: {answer.body!r}")
        return answer

    # Pushes: what they are told is there, they do not send

    def push_after_head(self, choose: random.Random) -> None:
        """HEAD of each blob."""
        self.push_image(choose, "app", choose.choice(TAGS), *_image(choose.randrange(LAYERS)))

    def push_with_mount(self, choose: random.Random) -> None:
        """A mount of each blob from another repository, where it comes and goes."""
        number = choose.randrange(LAYERS)
        self.push_image(choose, "other", "1", *_image(number))
        for content in _image(number):
            answer = self.site.request("POST", f"/v2/app/blobs/uploads/?mount={digest_of(content)}&from=other")
            if answer.status == 202:
                self.finish(answer.headers["Location"], content)
        self.put("app", choose.choice(TAGS), image(*_image(number)))
        self.site.request("DELETE", "/v2/other/manifests/1")

    def push_index_of_children(self, choose: random.Random) -> None:
        """An index whose children are not sent where they are there, and something that refers to it."""
        children = []
        for number in choose.sample(range(LAYERS), 2):
            content = json.dumps(image(*_image(number))).encode()
            digest = digest_of(content)
            if self.site.request(choose.choice(["HEAD", "GET"]), f"/v2/app/manifests/{digest}").status != 200:
                self.push_image(choose, "app", digest, *_image(number))
            children.append((digest, len(content)))
        document = json.dumps(index(children)).encode()
        self.put("app", choose.choice(TAGS), index(children), OCI_INDEX)
        subject = {"mediaType": OCI_INDEX, "digest": digest_of(document), "size": len(document)}
        self.push_image(choose, "app", "", b"signature", subject=subject)

    def push_in_chunks(self, choose: random.Random) -> None:
        """Blobs that are sent in chunks where they are not there."""
        number = choose.randrange(LAYERS)
        for content in (CONFIG, *_image(number)):
            if self.site.request("GET", f"/v2/app/blobs/{digest_of(content)}").status != 200:
                location = self.site.request("POST", "/v2/app/blobs/uploads/").headers["Location"]
                self.assertEqual(self.site.request("PATCH", location, content[:3]).status, 202)
                self.finish(location, content[3:], digest_of(content))
        self.put("app", choose.choice(TAGS), image(*_image(number)))

    def push_image(self, choose: random.Random, name: str, reference: str, *layers: bytes, **fields: Any) -> None:
        """Push an image: what is there is not sent."""
        for content in (CONFIG, *layers):
            digest = digest_of(content)
            if self.site.request(choose.choice(["HEAD", "GET"]), f"/v2/{name}/blobs/{digest}").status != 200:
                self.assertEqual(
                    self.site.request("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", content).status, 201
                )
        self.put(name, reference, image(*layers, **fields))

    def put(self, name: str, reference: str, document: dict[str, Any], media_type: str = OCI_MANIFEST) -> None:
        """Push a manifest, whose content is there; "" for its digest."""
        content = json.dumps(document).encode()
        answer = self.site.request(
            "PUT", f"/v2/{name}/manifests/{reference or digest_of(content)}", content, {"Content-Type": media_type}
        )
        self.assertEqual(answer.status, 201, answer.body)
        self.ended += 1

    def finish(self, location: str, content: bytes, digest: str = "") -> None:
        """End an upload."""
        answer = self.site.request(
            "PUT", f"{location}{'&' if '?' in location else '?'}digest={digest or digest_of(content)}", content
        )
        self.assertEqual(answer.status, 201, answer.body)

    # What happens meanwhile

    def delete_tag(self, choose: random.Random) -> None:
        """Delete a tag."""
        self.assertIn(self.site.request("DELETE", f"/v2/app/manifests/{choose.choice(TAGS)}").status, (202, 404))

    def tick(self, _choose: random.Random) -> None:
        """Let a little time go by, and what is due happen."""
        self.site.now += _TICK_SECONDS
        self.site.housekeeping.sweep()


class _TooLate(Exception):
    """A pull that lasted longer than the grace: nobody promised anything."""


def _image(number: int) -> tuple[bytes, ...]:
    """Make the layers of one of a few images; each shares one with the next."""
    return (b"layer %d" % number, b"layer %d" % ((number + 1) % LAYERS))


def _blobs(document: dict[str, Any]) -> set[str]:
    return {part["digest"] for part in (*document.get("layers", []), *filter(None, [document.get("config")]))}


def _kept(response: Response, digest: str) -> answers.Answer:
    assert response.basis
    return answers.Answer(b"", json.dumps({"digest": digest}).encode(), "GET", "", "manifest", 200, 0, response.basis)
