"""Clients at work on a server that is about to crash: they push images that share layers, move and delete tags, pull,
and upload in chunks.

Each tag has one owner at a time, so that the journal tells what it may point at. What a client sees that must not be,
it notes in `failures`; that the server goes away is no failure.
"""

from __future__ import annotations

import functools
import http.client
import itertools
import queue
import random
import threading
from typing import Callable

from tests.proof.crash.content import blob_of, digest_of_image, image_of
from tests.proof.crash.journal import Image, Journal
from tests.support.server import OCI_MANIFEST, Answer, Client, Server, digest_of

PUSHERS = 3
TAGS = 4
_CHUNK = 30_000


class Clients:
    """The threads; `seed` makes each cycle's content different."""

    def __init__(self, server: Server, journal: Journal, seed: str) -> None:
        self._server = server
        self._journal = journal
        self._seed = seed
        self._given: queue.Queue[str] = queue.Queue()
        self._stop = False
        self.failures: list[str] = []
        self.acknowledged = 0
        works: list[Callable[[str], None]] = [*[self._push] * PUSHERS, self._pull, self._delete, self._upload]
        self._threads = [
            threading.Thread(target=self._run, args=(work, f"client {number}"), daemon=True)
            for number, work in enumerate(works)
        ]

    def start(self) -> None:
        """Let them work."""
        for thread in self._threads:
            thread.start()

    def expect_the_end(self) -> None:
        """From now on, the server may fail: what it answers is an answer, but no failure."""
        self._stop = True

    def join(self) -> None:
        """Wait until all of them have seen that the server is gone."""
        self._stop = True
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a client hangs"

    def push_one(self, tag: str) -> None:
        """Push one image, in this thread."""
        choose = random.Random(self._seed)
        self._change("alone", tag, self._seed, lambda client, tag: self._push_image(client, tag, self._seed, choose))

    def _run(self, work: Callable[[str], None], name: str) -> None:
        try:
            work(name)
        except (OSError, http.client.HTTPException):
            pass  # the server is gone
        except Exception as error:
            self.failures.append(f"{name}: {error!r}")

    def _expect(self, answer: Answer, *statuses: int) -> Answer:
        if answer.status not in statuses and not self._stop:
            self.failures.append(f"{answer.status} instead of {statuses}: {answer.body[:500]!r}")
        if answer.status not in statuses:
            raise ConnectionError("not what was expected")
        return answer

    def _change(self, client: str, tag: str, image: Image, work: Callable[[Client, str], None]) -> None:
        """Write down what is intended, do it, and write down that it was acknowledged."""
        self._journal.add("intend", client, tag, image)
        work(self._server.auth, tag)
        self._journal.add("done", client)
        self.acknowledged += 1

    def _push(self, name: str) -> None:
        choose = random.Random(f"{self._seed} {name}")
        for number in itertools.count():
            if self._stop:
                return
            seed = f"{self._seed} {name} {number}"
            given = number % 3 == 2
            tag = f"given/{name[-1]}:{number}" if given else f"app/{name[-1]}:{choose.randrange(TAGS)}"
            if not given and choose.random() < 0.25:
                self._change(name, tag, None, self._delete_tag)
            else:
                push = functools.partial(self._push_image, seed=seed, choose=choose)
                self._change(name, tag, seed, push)
            if given:
                self._given.put(tag)

    def _push_image(self, client: Client, tag: str, seed: str, choose: random.Random) -> None:
        repository, _, reference = tag.partition(":")
        image = image_of(seed)
        for content in image.blobs:
            if client.request("HEAD", f"/v2/{repository}/blobs/{digest_of(content)}").status != 200:
                self._push_blob(client, repository, content, choose)
        headers = {"Content-Type": OCI_MANIFEST}
        self._expect(client.request("PUT", f"/v2/{repository}/manifests/{reference}", image.manifest, headers), 201)

    def _push_blob(self, client: Client, repository: str, content: bytes, choose: random.Random) -> None:
        path, digest = f"/v2/{repository}/blobs/uploads/", digest_of(content)
        if choose.random() < 0.3:
            self._expect(client.request("POST", f"{path}?digest={digest}", content), 201)
            return
        answer = self._expect(client.request("POST", f"{path}?mount={digest}"), 201, 202)
        if answer.status == 202:
            location = answer.headers["Location"]
            half = len(content) // 2 if choose.random() < 0.5 else 0
            if half:
                self._expect(client.request("PATCH", location, content[:half]), 202)
            self._expect(client.request("PUT", f"{location}?digest={digest}", content[half:]), 201)

    def _delete_tag(self, client: Client, tag: str) -> None:
        repository, _, reference = tag.partition(":")
        self._expect(client.request("DELETE", f"/v2/{repository}/manifests/{reference}"), 202, 404)

    def _delete(self, name: str) -> None:
        while not self._stop:
            try:
                tag = self._given.get(timeout=0.05)
            except queue.Empty:
                continue
            self._change(name, tag, None, self._delete_tag)

    def _pull(self, name: str) -> None:
        choose = random.Random(f"{self._seed} {name}")
        while not self._stop:
            repository = f"app/{choose.randrange(PUSHERS)}"
            client = self._server.public
            answer = self._expect(client.get(f"/v2/{repository}/manifests/{choose.randrange(TAGS)}"), 200, 404)
            if answer.status == 404:
                continue
            self._check(answer, answer.headers["Docker-Content-Digest"])
            manifest = answer.json
            for blob in (manifest["config"], *manifest["layers"]):
                # Also when the tag has been moved meanwhile: what was just fetched stays for a while.
                self._check(self._expect(client.get(f"/v2/{repository}/blobs/{blob['digest']}"), 200), blob["digest"])

    def _check(self, answer: Answer, digest: str) -> None:
        if digest_of(answer.body) != digest:
            self.failures.append(f"{digest} came as {len(answer.body)} other bytes")

    def _upload(self, name: str) -> None:
        for number in itertools.count():
            if self._stop:
                return
            seed = f"{self._seed} {name} {number}"
            client = self._server.auth
            location = self._expect(client.request("POST", "/v2/chunked/blobs/uploads/"), 202).headers["Location"]
            self._journal.add("begin", location, seed)
            content = upload_of(seed)
            for start in range(0, len(content), _CHUNK):
                chunk = content[start : start + _CHUNK]
                self._expect(client.request("PATCH", location, chunk), 202)
                self._journal.add("chunk", location, start + len(chunk))
            self._journal.add("end", location)
            self._expect(client.request("PUT", f"{location}?digest={digest_of(content)}"), 201)


def upload_of(seed: str) -> bytes:
    """Make what an upload in chunks sends."""
    return blob_of(f"upload {seed}", 150_000)


def tag_target(client: Client, tag: str, allowed: set[Image]) -> tuple[Image, str]:
    """Look where a tag points; returns the image, and a sentence if it is none that is allowed."""
    repository, _, reference = tag.partition(":")
    answer = client.get(f"/v2/{repository}/manifests/{reference}")
    if answer.status == 404:
        return None, "" if None in allowed else f"{tag} is gone, which should be one of {sorted(map(str, allowed))}"
    for seed in allowed - {None}:
        assert seed is not None
        if digest_of_image(seed) == answer.headers["Docker-Content-Digest"] and answer.body == image_of(seed).manifest:
            return seed, ""
    return (
        None,
        f"{tag} is {answer.status} {answer.headers['Docker-Content-Digest']}, not one of {sorted(map(str, allowed))}",
    )
