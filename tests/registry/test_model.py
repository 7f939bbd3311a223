"""Random operations against the registry and against a small model of the reference rules, which must agree after each.

The model is written from the design: plain sets and dicts, and for blobs no bookkeeping at all, but a definition of
which are held. A failure shows the seed; VEX_TEST_SEED repeats it, and VEX_TEST_OPERATIONS says how many operations to
do.
"""

from __future__ import annotations

import contextlib
import copy
import http.client
import itertools
import json
import math
import os
import random
import sqlite3
import threading
import time
import unittest
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple

from tests.support.in_process import (
    DAY,
    HOUR,
    MINUTE,
    Holdings,
    InProcess,
    Options,
    directory_in_memory,
    read_holdings,
    section,
)
from tests.support.server import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    USER,
    Answer,
    configured,
    digest_of,
    running,
)

SEED = int(os.environ.get("VEX_TEST_SEED") or random.SystemRandom().randrange(10**9))
OPERATIONS = int(os.environ.get("VEX_TEST_OPERATIONS") or 6000)
REPOSITORIES = ("app", "team/app", "mirror")
TAGS = ("1", "latest", "stable")
# How many manifests the operations are about at a time, so that they meet, and for how many operations.
TOPICAL, TOPICAL_STEPS = 8, 120
# What the operator forbids where sections count, as the configuration says it, and what that means, by hand.
SECTIONS = (
    section("team/*", 1, immutable="1, sta*", protected="stable"),
    section("*p", 4, immutable="*, !latest", protected="latest"),
    section("mirror", 7, quota="900"),
)
FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar"


class Document(NamedTuple):
    """A manifest that may be pushed, and what it references; `optional` blobs are those that need not be there."""

    digest: str
    content: bytes
    media_type: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    subject: str = ""


class Forbidden(NamedTuple):
    """Which tags of which repositories are never moved, which are never deleted, and how many bytes are the most."""

    moves: frozenset[tuple[str, str]] = frozenset()
    deletions: frozenset[tuple[str, str]] = frozenset()
    quotas: Mapping[str, int] = {}


FREE = Forbidden()
FORBIDDEN = Forbidden(
    moves=frozenset({("team/app", "1"), ("team/app", "stable"), ("app", "1"), ("app", "stable")}),
    deletions=frozenset({("team/app", "stable"), ("app", "latest")}),
    quotas={"mirror": 900},
)


class Expected(NamedTuple):
    """What an operation has to return."""

    status: int
    code: str = ""
    body: Any = None


class Held:
    """A manifest in a repository; `expires` is when it goes on leaving it."""

    def __init__(self) -> None:
        self.blobs: set[str] = set()
        self.children: set[str] = set()
        self.state = "live"
        self.expires: int | None = None

    def put(self, state: str, expires: int | None) -> None:
        """Change how far it is on its way out."""
        self.state, self.expires = state, expires

    @property
    def listed(self) -> bool:
        """Whether it is there for everyone to see."""
        return self.state in ("live", "kept")


class Repository:
    """A repository of the model; `emptied` is when the last thing left it, and the notes are when clients were told of
    what.
    """

    def __init__(self, now: int) -> None:
        self.manifests: dict[str, Held] = {}
        self.tags: dict[str, str] = {}
        self.leases: dict[str, int] = {}
        self.forget()
        self.emptied = now
        self.listed = False

    def forget(self) -> None:
        """Forget what was only noted."""
        self.pulled: dict[str, int] = {}
        self.pushed: dict[str, int] = {}
        self.pushed_blobs: dict[str, int] = {}
        self.lost: dict[str, int] = {}

    def references(self, blob: str) -> list[str]:
        """Return the manifests that reference a blob."""
        return [digest for digest, held in self.manifests.items() if blob in held.blobs]

    def parents(self, digest: str) -> list[str]:
        """Return the indexes that reference a manifest."""
        return [parent for parent, held in self.manifests.items() if digest in held.children]

    def referenced(self, digest: str) -> bool:
        """Tell whether a tag or an index references a manifest."""
        return digest in self.tags.values() or bool(self.parents(digest))

    def has_manifest(self, digest: str) -> bool:
        """Tell whether a manifest can be fetched."""
        return digest in self.manifests and self.manifests[digest].state != "gone"

    def has_blob(self, blob: str) -> bool:
        """Tell whether a blob is in the repository."""
        return blob in self.leases or bool(self.references(blob))

    def hold(self, blob: str, until: int) -> None:
        """Take a lease."""
        self.leases[blob] = max(until, self.leases.get(blob, 0))

    def hold_for_push(self, blob: str, now: int, seconds: int) -> None:
        """Take a lease that a manifest ends; a second push beside the first relies on the blob after that."""
        if blob in self.leases:
            self.pushed_blobs[blob] = now
        self.hold(blob, now + seconds)


class Model:
    """The rules of the design; each operation returns what the registry has to answer."""

    def __init__(
        self,
        documents: Mapping[str, Document],
        contents: Mapping[str, bytes],
        options: Options,
        now: int,
        forbidden: Forbidden = FREE,
    ) -> None:
        self.forbidden = forbidden
        self.documents = documents
        self.contents = contents
        self.options = options
        self.now = now
        self.repositories: dict[str, Repository] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        other = Model(self.documents, self.contents, self.options, self.now, self.forbidden)
        other.repositories = copy.deepcopy(self.repositories, memo)
        return other

    # Pushing

    def push_blob(self, name: str, blob: str) -> Expected:
        """An upload was finished."""
        self._repository(name).hold_for_push(blob, self.now, self.options.upload_expiry)
        return Expected(201)

    def mount(self, name: str, blob: str) -> Expected:
        """A blob of any repository, or else an upload."""
        if blob not in self.blobs():
            return Expected(202)
        counted = self._counted(name)
        if blob not in counted and self._bytes({*counted, blob}) > self.forbidden.quotas.get(name, math.inf):
            return Expected(403, "DENIED")
        return self.push_blob(name, blob)

    def put_manifest(self, name: str, document: Document, tags: tuple[str, ...]) -> Expected:
        """Everything it references must be in the repository; a child may have been deleted, as long as it is whole. A
        tag that is not to be moved stays, and with it all others.
        """
        found = self.repositories.get(name) or Repository(self.now)
        if any(
            (name, tag) in self.forbidden.moves and found.tags.get(tag, document.digest) != document.digest
            for tag in tags
        ):
            return Expected(409, "DENIED")
        children = {
            digest for digest, held in found.manifests.items() if held.state != "gone" or (held.expires or 0) > self.now
        }
        if not all(map(found.has_blob, document.required)) or not children >= set(document.children):
            return Expected(404, "MANIFEST_BLOB_UNKNOWN")
        before, used = copy.deepcopy(found), self._bytes(self._counted(name))
        self._store(name, document, tags)
        if self._bytes(self._counted(name)) > max(self.forbidden.quotas.get(name, math.inf), used):
            # What was noted is not taken back.
            before.pulled, before.pushed = self.repositories[name].pulled, self.repositories[name].pushed
            self.repositories[name] = before
            return Expected(403, "DENIED")
        return Expected(201)

    def _counted(self, name: str) -> set[str]:
        """Return the blobs that count for a quota: those of everything that is not deleted."""
        manifests = self.repositories[name].manifests.values() if name in self.repositories else ()
        return set().union(*(held.blobs for held in manifests if held.state != "gone"))

    def _bytes(self, blobs: set[str]) -> int:
        return sum(len(self.contents[blob]) for blob in blobs)

    def _store(self, name: str, document: Document, tags: tuple[str, ...]) -> None:
        repository = self._repository(name)
        repository.listed = True
        waits = document.subject and not repository.has_manifest(document.subject)
        known = repository.manifests.get(document.digest)
        if known and known.state == "live" and not repository.referenced(document.digest):
            # Two pushes rely on it, and only one of them takes it up first.
            repository.pulled[document.digest] = repository.pushed[document.digest] = self.now
        held = repository.manifests.setdefault(document.digest, Held())
        held.blobs |= {*document.required, *filter(repository.has_blob, document.optional)}
        held.children |= set(document.children)
        held.put("live", self.now + self.options.upload_expiry if waits else None)
        for child in document.children:
            if repository.manifests[child].expires is not None:
                repository.manifests[child].put("live", None)
        for digest, other in repository.manifests.items():
            if (
                self.documents[digest].subject == document.digest
                and other.state == "live"
                and not repository.referenced(digest)
            ):
                other.expires = None
        for blob in held.blobs & {*document.required, *document.optional}:
            repository.leases.pop(blob, None)
        for tag in tags:
            self._point(repository, tag, document.digest)

    def _point(self, repository: Repository, tag: str, digest: str) -> None:
        replaced = repository.tags.get(tag, digest)
        repository.tags[tag] = digest
        if replaced == digest:
            return
        if not self.options.keep_replaced:
            self._release(repository, replaced)
        elif not repository.referenced(replaced):
            repository.manifests[replaced].put("kept", self.now + self.options.keep_replaced)

    # Deleting

    def delete_tag(self, name: str, tag: str) -> Expected:
        """The manifest goes with its last reference."""
        repository = self.repositories.get(name)
        if repository is None or tag not in repository.tags:
            return Expected(404, "MANIFEST_UNKNOWN")
        if (name, tag) in self.forbidden.deletions:
            return Expected(405, "DENIED")
        self._release(repository, repository.tags.pop(tag))
        return Expected(202)

    def delete_manifest(self, name: str, digest: str) -> Expected:
        """Not while something references it that can be seen; what went by itself just now is deleted already."""
        repository = self.repositories.get(name)
        if repository is None:
            return Expected(404, "MANIFEST_UNKNOWN")
        if not repository.has_manifest(digest):
            lost = repository.lost.pop(digest, None)
            return (
                Expected(202)
                if lost is not None and lost + self.options.pull_grace > self.now
                else Expected(404, "MANIFEST_UNKNOWN")
            )
        tags = [tag for tag, target in repository.tags.items() if target == digest]
        allowed = {"no": 0, "one": 1, "yes": len(tags)}[self.options.delete_untags]
        if any(repository.manifests[parent].listed for parent in repository.parents(digest)) or len(tags) > allowed:
            return Expected(405, "DENIED")
        if any((name, tag) in self.forbidden.deletions for tag in tags):
            return Expected(405, "DENIED")
        for tag in tags:
            del repository.tags[tag]
        self._hide(repository, digest)
        self._settle(repository)
        return Expected(202)

    def _hide(self, repository: Repository, digest: str) -> None:
        for parent in repository.parents(digest):
            if repository.manifests[parent].state == "held":
                self._hide(repository, parent)
        repository.manifests[digest].put("gone", max(self._hold(repository, digest), self.now))

    def delete_blob(self, name: str, blob: str) -> Expected:
        """Drop the lease."""
        repository = self.repositories.get(name)
        if repository is None or not repository.has_blob(blob):
            return Expected(404, "BLOB_UNKNOWN")
        if repository.references(blob):
            return Expected(405, "DENIED")
        del repository.leases[blob]
        repository.pushed_blobs.pop(blob, None)
        self._mark_if_empty(repository)
        return Expected(202)

    def _release(self, repository: Repository, digest: str) -> None:
        self._drop(repository, digest)
        self._settle(repository)

    def _drop(self, repository: Repository, digest: str) -> None:
        held = repository.manifests.get(digest)
        if held and not repository.referenced(digest) and (held.listed or held.expires is None):
            held.put("kept" if held.listed else held.state, self.now)

    def _settle(self, repository: Repository) -> None:
        """Have everything go on that is due."""
        while due := [
            digest
            for digest, held in repository.manifests.items()
            if held.expires is not None and held.expires <= self.now
        ]:
            self._go_on(repository, due[0], repository.manifests[due[0]])
        self._mark_if_empty(repository)

    def _go_on(self, repository: Repository, digest: str, held: Held) -> None:
        subject = self.documents[digest].subject
        if held.state == "gone":
            self._go(repository, digest, held)
        elif repository.referenced(digest) or (held.state == "live" and subject and repository.has_manifest(subject)):
            held.put("live", None)
        elif until := self._hold(repository, digest):
            held.put("held", until)
        else:
            held.put("gone", self.now)
            repository.lost[digest] = self.now

    def _go(self, repository: Repository, digest: str, held: Held) -> None:
        if repository.parents(digest):
            held.expires = None
            return
        del repository.manifests[digest]
        for other in [
            *held.children,
            *(other for other in repository.manifests if self.documents[other].subject == digest),
        ]:
            self._drop(repository, other)
        for blob in held.blobs:
            if repository.pushed_blobs.get(blob, -HOUR) + HOUR > self.now:
                repository.hold(blob, repository.pushed_blobs[blob] + HOUR)

    def _hold(self, repository: Repository, digest: str) -> int:
        """Return until when somebody relies on a manifest, 0 for nobody."""
        pulled = repository.pulled.get(digest, -DAY) + self.options.pull_grace
        until = max(pulled, repository.pushed.get(digest, -DAY) + HOUR)
        return until if until > self.now else 0

    def _mark_if_empty(self, repository: Repository) -> None:
        """A repository is empty without tags, and without a manifest that nothing references; a referrer only counts
        while it waits.
        """
        roots = [
            digest for digest, held in repository.manifests.items() if held.listed and not repository.referenced(digest)
        ]
        if repository.tags or any(
            not self.documents[digest].subject or repository.manifests[digest].expires is not None for digest in roots
        ):
            return
        repository.listed, repository.emptied = False, self.now

    # Reading

    def head_blob(self, name: str, blob: str, user: str = USER) -> Expected:
        """What another repository references is held for an hour, for one who may push."""
        if self._told_blob(name, blob, user):
            return Expected(200)
        if not user or not any(repository.references(blob) for repository in self.repositories.values()):
            return Expected(404)
        self._repository(name).hold_for_push(blob, self.now, HOUR)
        return Expected(200)

    def get_blob(self, name: str, blob: str, user: str) -> Expected:
        """Only what is in this repository."""
        if self._told_blob(name, blob, user):
            return Expected(200, body=self.contents[blob])
        return Expected(404, "BLOB_UNKNOWN")

    def _told_blob(self, name: str, blob: str, user: str) -> bool:
        """Tell whether a blob is in a repository; that is remembered for one who may push."""
        if name not in self.repositories or not self.repositories[name].has_blob(blob):
            return False
        if user:
            self.repositories[name].pushed_blobs[blob] = self.now
        return True

    def get_manifest(self, name: str, reference: str, user: str, method: str = "GET") -> Expected:
        """What is answered is remembered."""
        repository = self.repositories.get(name) or Repository(self.now)
        digest = repository.tags.get(reference, reference)
        if not repository.has_manifest(digest):
            return Expected(404, "MANIFEST_UNKNOWN" if method == "GET" else "")
        repository.pulled[digest] = self.now
        if user:
            repository.pushed[digest] = self.now
        return Expected(200, body=self.documents[digest].content if method == "GET" else None)

    def list_tags(self, name: str) -> Expected:
        """In ASCII order."""
        if name not in self.repositories:
            return Expected(404, "NAME_UNKNOWN")
        return Expected(200, body={"name": name, "tags": sorted(self.repositories[name].tags)})

    def list_repositories(self) -> Expected:
        """Those that hold a manifest."""
        return Expected(
            200,
            body={"repositories": sorted(name for name, repository in self.repositories.items() if repository.listed)},
        )

    def referrers(self, name: str, subject: str) -> list[str]:
        """Return the digests of what refers to a subject."""
        held = self.repositories[name].manifests if name in self.repositories else {}
        return sorted(digest for digest in held if held[digest].listed and self.documents[digest].subject == subject)

    def blobs(self) -> set[str]:
        """Define what is held: what a manifest references, and what is leased."""
        held: set[str] = set()
        for repository in self.repositories.values():
            held |= repository.leases.keys()
            held.update(*(manifest.blobs for manifest in repository.manifests.values()))
        return held

    # Time

    def advance(self, seconds: int) -> None:
        """Let time pass: leases end, then what is on its way out goes on, then empty repositories."""
        self.now += seconds
        for repository in self.repositories.values():
            for blob in [blob for blob, expires in repository.leases.items() if expires <= self.now]:
                until = repository.pushed_blobs.get(blob, -HOUR) + HOUR
                if until > self.now:
                    repository.hold(blob, until)
                    continue
                del repository.leases[blob]
                self._mark_if_empty(repository)
        for repository in self.repositories.values():
            if any(held.expires is not None and held.expires <= self.now for held in repository.manifests.values()):
                self._settle(repository)
        for name, repository in list(self.repositories.items()):
            if not repository.manifests and not repository.leases and repository.emptied + DAY <= self.now:
                del self.repositories[name]

    def restart(self) -> None:
        """Start again: what clients were told of is forgotten, everything else stays."""
        for repository in self.repositories.values():
            repository.forget()

    def _repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository(self.now))

    def check(self, test: unittest.TestCase, held: Holdings, context: str, *, timed: bool = True) -> None:
        """Compare with rows and files; with the ends of leases too if time is the model's."""
        leases = {
            (name, blob): until
            for name, repository in self.repositories.items()
            for blob, until in repository.leases.items()
        }
        manifests = {
            (name, digest) for name, repository in self.repositories.items() for digest in repository.manifests
        }
        tags = {
            (name, tag): digest
            for name, repository in self.repositories.items()
            for tag, digest in repository.tags.items()
        }
        test.assertEqual(set(held.repositories), set(self.repositories), context)
        test.assertEqual(held.manifests, manifests, context)
        states = {
            (name, digest): held.state
            for name, repository in self.repositories.items()
            for digest, held in repository.manifests.items()
        }
        test.assertEqual(held.states, states, context)
        test.assertEqual(held.listed, sum(repository.listed for repository in self.repositories.values()), context)
        test.assertEqual(held.contents, {digest for _, digest in manifests}, context)
        test.assertEqual(held.tags, tags, context)
        test.assertEqual(held.leases if timed else set(held.leases), leases if timed else set(leases), context)
        test.assertEqual(held.blobs, self.blobs(), context)
        test.assertEqual(held.files, self.blobs(), context)


class Step(NamedTuple):
    """An operation: a request, and what it does to the model."""

    method: str
    path: str
    apply: Callable[[Model], Expected]
    body: bytes = b""
    content_type: str = ""
    user: str = USER

    def __str__(self) -> str:
        return f"{self.method} {self.path} by {self.user or 'anyone'}"


class Pool:
    """Blobs and manifests that refer to each other in every way that is allowed, made from a seed."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.contents: dict[str, bytes] = {}
        self.documents: dict[str, Document] = {}
        for number in range(18):
            content = b"blob %d " % number * choose.randrange(1, 50)
            self.contents[digest_of(content, "sha512" if number % 6 == 0 else "sha256")] = content
        for number in range(14):
            self._add_image(number)
        for number in range(6):
            self._add_index(number)
        for number in range(8):
            self._add_image(number, subject=choose.choice([*self.documents, digest_of(b"dangling")]))
        for number in range(5):
            self._add_index(number, subject=choose.choice(["", *self.documents]))
        for number in range(3):
            self._add_cache(number)

    def _add_image(self, number: int, subject: str = "") -> None:
        config, *layers = self.choose.sample(sorted(self.contents), self.choose.randrange(1, 5))
        foreign = layers.pop() if layers and number % 4 == 0 else ""
        listed = [self._descriptor(layer, OCI_LAYER) for layer in layers] + (
            [self._descriptor(foreign, FOREIGN_LAYER)] if foreign else []
        )
        document = {"config": self._descriptor(config, OCI_CONFIG), "layers": listed}
        self._add(
            number,
            document,
            Document("", b"", OCI_MANIFEST, (config, *layers), (foreign,) if foreign else (), (), subject),
        )

    def _add_index(self, number: int, subject: str = "") -> None:
        children = tuple(self.choose.sample(sorted(self.documents), self.choose.randrange(0, 4)))
        listed = [
            {"mediaType": self.documents[child].media_type, "digest": child, "size": len(self.documents[child].content)}
            for child in children
        ]
        self._add(number, {"manifests": listed}, Document("", b"", OCI_INDEX, children=children, subject=subject))

    def _add_cache(self, number: int) -> None:
        blobs = tuple(self.choose.sample(sorted(self.contents), 3))
        self._add(
            number,
            {"manifests": [self._descriptor(blob, OCI_LAYER) for blob in blobs]},
            Document("", b"", OCI_INDEX, blobs),
        )

    def _add(self, number: int, fields: dict[str, Any], document: Document) -> None:
        subject = (
            {"subject": {"mediaType": OCI_MANIFEST, "digest": document.subject, "size": 7}} if document.subject else {}
        )
        whole = {
            "schemaVersion": 2,
            "mediaType": document.media_type,
            "annotations": {"number": f"{len(self.documents)}"},
            **fields,
            **subject,
        }
        content = json.dumps(whole).encode()
        digest = digest_of(content, "sha512" if number % 5 == 4 else "sha256")
        self.documents[digest] = document._replace(digest=digest, content=content)

    def _descriptor(self, blob: str, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": blob, "size": len(self.contents[blob])}


class Steps:
    """Chooses operations, so that much of what is pushed is complete, and a part is not."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._choose = pool.choose
        self._planned: list[Step] = []
        self._topical: list[Document] = []
        self._count = 0
        self._kinds: list[Callable[[str], Step]] = [
            *[self._plan_push] * 8,
            *[self._put_manifest] * 3,
            *[self._delete_tag] * 5,
            *[self._delete_manifest] * 3,
            *[self._delete_blob] * 3,
            *[self._get_manifest] * 6,
            *[self._push_blob] * 2,
            self._mount,
            self._head_blob,
            self._get_blob,
            self._list_tags,
            self._list_repositories,
        ]

    def next(self) -> Step:
        """Return the next operation."""
        if self._count % TOPICAL_STEPS == 0:
            self._topical = self._choose.sample(list(self._pool.documents.values()), TOPICAL)
        self._count += 1
        if self._planned:
            return self._planned.pop()
        return self._choose.choice(self._kinds)(self._choose.choice(REPOSITORIES))

    def _blob(self) -> str:
        return self._choose.choice(list(self._pool.contents))

    def _document(self) -> Document:
        return self._choose.choice(self._topical)

    def _plan_push(self, name: str) -> Step:
        self._plan(name, self._document(), top=True)
        return self._planned.pop()

    def _plan(self, name: str, document: Document, *, top: bool) -> None:
        """Plan a push the way clients do it: blobs, children, then the manifest. What is planned last comes first."""
        self._planned.append(self._put(name, document, tagged=top))
        for child in document.children:
            self._plan(name, self._pool.documents[child], top=False)
        for blob in document.required:
            kind = self._choose.choice(
                [self._push_blob, self._push_blob, self._push_blob, self._mount, self._head_blob]
            )
            self._planned.append(kind(name, blob))

    def _put_manifest(self, name: str) -> Step:
        return self._put(name, self._document(), tagged=True)

    def _put(self, name: str, document: Document, *, tagged: bool) -> Step:
        tags = tuple(self._choose.sample(TAGS, self._choose.choice([0, 1, 1, 1, 2]))) if tagged else ()
        if len(tags) == 1 and document.digest.startswith("sha256:"):
            path = f"/v2/{name}/manifests/{tags[0]}"
        else:
            path = f"/v2/{name}/manifests/{document.digest}" + (
                "?" + "&".join(f"tag={tag}" for tag in tags) if tags else ""
            )
        return Step(
            "PUT", path, lambda model: model.put_manifest(name, document, tags), document.content, document.media_type
        )

    def _push_blob(self, name: str, blob: str = "") -> Step:
        chosen = blob or self._blob()
        return Step(
            "POST",
            f"/v2/{name}/blobs/uploads/?digest={chosen}",
            lambda model: model.push_blob(name, chosen),
            self._pool.contents[chosen],
        )

    def _mount(self, name: str, blob: str = "") -> Step:
        chosen = blob or self._blob()
        return Step(
            "POST", f"/v2/{name}/blobs/uploads/?mount={chosen}&from=elsewhere", lambda model: model.mount(name, chosen)
        )

    def _head_blob(self, name: str, blob: str = "") -> Step:
        chosen = blob or self._blob()
        return Step("HEAD", f"/v2/{name}/blobs/{chosen}", lambda model: model.head_blob(name, chosen))

    def _get_blob(self, name: str) -> Step:
        blob, user = self._blob(), self._user()
        return Step("GET", f"/v2/{name}/blobs/{blob}", lambda model: model.get_blob(name, blob, user), user=user)

    def _get_manifest(self, name: str) -> Step:
        reference, user, method = (
            self._choose.choice([*TAGS, self._document().digest]),
            self._user(),
            self._choose.choice(["GET", "HEAD"]),
        )
        return Step(
            method,
            f"/v2/{name}/manifests/{reference}",
            lambda model: model.get_manifest(name, reference, user, method),
            user=user,
        )

    def _user(self) -> str:
        """Choose who reads: mostly one who may do nothing else."""
        return self._choose.choice(["", "", USER])

    def _delete_tag(self, name: str) -> Step:
        tag = self._choose.choice(TAGS)
        return Step("DELETE", f"/v2/{name}/manifests/{tag}", lambda model: model.delete_tag(name, tag))

    def _delete_manifest(self, name: str) -> Step:
        digest = self._document().digest
        return Step("DELETE", f"/v2/{name}/manifests/{digest}", lambda model: model.delete_manifest(name, digest))

    def _delete_blob(self, name: str) -> Step:
        blob = self._blob()
        return Step("DELETE", f"/v2/{name}/blobs/{blob}", lambda model: model.delete_blob(name, blob))

    def _list_tags(self, name: str) -> Step:
        return Step("GET", f"/v2/{name}/tags/list", lambda model: model.list_tags(name))

    def _list_repositories(self, _name: str) -> Step:
        return Step("GET", "/v2/_catalog", lambda model: model.list_repositories())


class ModelTestCase(unittest.TestCase):
    """What both runs share."""

    def check_answer(self, answer: Answer, expected: Expected, context: str) -> None:
        """Compare an answer with what the model says."""
        self.assertEqual(answer.status, expected.status, f"{context}: {answer.body!r}")
        if expected.code:
            self.assertEqual(answer.codes, [expected.code], context)
        if expected.body is not None:
            self.assertEqual(answer.body if isinstance(expected.body, bytes) else answer.json, expected.body, context)

    def check_listed(self, model: Model, get: Callable[[str], Answer], context: str) -> None:
        """Compare what the API lists."""
        self.check_answer(get("/v2/_catalog"), model.list_repositories(), context)
        for name in REPOSITORIES:
            self.check_answer(get(f"/v2/{name}/tags/list"), model.list_tags(name), context)
            for subject in {document.subject for document in model.documents.values()} - {""}:
                listed = get(f"/v2/{name}/referrers/{subject}").json["manifests"]
                self.assertEqual([entry["digest"] for entry in listed], model.referrers(name, subject), context)


class InProcessModelTest(ModelTestCase):
    """Thousands of operations with a clock that jumps, compared after each with rows and files."""

    def test_the_default_rules(self) -> None:
        self.play(SEED, OPERATIONS // 2, Options())

    def test_keep_replaced_and_delete_untags(self) -> None:
        self.play(SEED + 1, OPERATIONS // 4, Options(keep_replaced=HOUR, delete_untags="yes"))

    def test_deletion_with_one_tag(self) -> None:
        self.play(SEED + 4, OPERATIONS // 8, Options(delete_untags="one"))

    def test_no_pull_grace_and_short_leases(self) -> None:
        self.play(SEED + 2, OPERATIONS // 4, Options(upload_expiry=HOUR, pull_grace=0))

    def test_immutable_and_protected_tags(self) -> None:
        self.play(SEED + 5, OPERATIONS // 8, Options(sections=SECTIONS), FORBIDDEN)

    def test_immutable_and_protected_tags_with_keep_replaced_and_delete_untags(self) -> None:
        options = Options(keep_replaced=HOUR, delete_untags="yes", sections=SECTIONS)
        self.play(SEED + 6, OPERATIONS // 8, options, FORBIDDEN)

    def play(self, seed: int, operations: int, options: Options, forbidden: Forbidden = FREE) -> None:
        """Play one game."""
        choose = random.Random(seed)
        pool = Pool(choose)
        steps = Steps(pool)
        with self.subTest(VEX_TEST_SEED=SEED), directory_in_memory() as directory:
            site = InProcess(Path(directory), options, int(time.time()))
            with contextlib.closing(site):
                model = Model(pool.documents, pool.contents, options, site.now, forbidden)
                for number in range(operations):
                    self._play_step(site, model, steps.next(), number)
                    self._pass_time(site, model, choose)
                    model.check(self, site.holdings(), f"step {number}, time")

    def _play_step(self, site: InProcess, model: Model, step: Step, number: int) -> None:
        context = f"step {number}: {step}"
        answer = site.request(
            step.method,
            step.path,
            step.body,
            {"Content-Type": step.content_type} if step.content_type else {},
            user=step.user,
        )
        self.check_answer(answer, step.apply(model), context)
        if answer.status == 202 and step.method == "POST":
            self.assertEqual(site.request("DELETE", answer.headers["Location"]).status, 204, context)
        model.check(self, site.holdings(), context)
        if number % 50 == 0:
            self.check_listed(model, lambda path: site.request("GET", path), context)

    def _pass_time(self, site: InProcess, model: Model, choose: random.Random) -> None:
        if choose.random() < 0.05:
            seconds = choose.choice(
                [1, MINUTE, MINUTE, 5 * MINUTE, 5 * MINUTE, 10 * MINUTE, HOUR - 1, HOUR, 7 * HOUR, DAY, 2 * DAY]
            )
            site.advance(seconds)
            model.advance(seconds)
        if choose.random() < 0.005:
            site.restart()
            model.restart()


class ServerModelTest(ModelTestCase):
    """Fewer operations with the real program, which is killed now and then in the middle of one."""

    def test_the_program_agrees_with_the_model_also_when_it_is_killed(self) -> None:
        choose = random.Random(SEED + 3)
        pool = Pool(choose)
        steps = Steps(pool)
        model = Model(pool.documents, pool.contents, Options(), int(time.time()), FORBIDDEN)
        with (
            self.subTest(VEX_TEST_SEED=SEED),
            running("--shutdown-timeout", "1s", prepare=configured(_written())) as server,
        ):
            for number in range(OPERATIONS // 20):
                step = steps.next()
                context = f"step {number}: {step}"
                headers = {"Content-Type": step.content_type} if step.content_type else {}
                if number % 30 == 29:
                    model = self._kill_during(server, model, step, headers, choose.random() / 50)
                    continue
                client = server.auth if step.user else server.public
                answer = client.request(step.method, step.path, step.body or None, headers)
                self.check_answer(answer, step.apply(model), context)
                if number % 10 == 0:
                    model.check(self, _holdings(server.data), context, timed=False)
                    self.check_listed(model, server.public.get, context)

    def _kill_during(self, server: Any, model: Model, step: Step, headers: dict[str, str], patience: float) -> Model:
        """Kill the program while it works on a step, or a moment later: the step is done or not, and done if it was
        acknowledged.
        """
        answers: list[Answer] = []
        thread = threading.Thread(target=_send, args=(server.auth, step, headers, answers))
        thread.start()
        thread.join(patience)
        server.kill()
        thread.join()
        server.start()
        after = copy.deepcopy(model)
        expected = step.apply(after)
        for answer in answers:
            self.check_answer(answer, expected, f"killed: {step}")
        for candidate in (model, after):
            candidate.restart()
        return self._settled(server, [after] if answers else [after, model], step)

    def _settled(self, server: Any, candidates: list[Model], step: Step) -> Model:
        """Wait until the files that the kill left are removed; returns the model that agrees."""
        deadline = time.monotonic() + 20
        while True:
            held = _holdings(server.data)
            for candidate in candidates:
                with contextlib.suppress(self.failureException):
                    candidate.check(self, held, "", timed=False)
                    return candidate
            if time.monotonic() > deadline:
                candidates[0].check(self, held, f"killed: {step}", timed=False)
            server.internal.get("/readyz")


def _written() -> str:
    """Write the sections as a file has them."""
    lines = [[str(part), *(f"{name} = {value}" for name, value in part.values.items())] for part in SECTIONS]
    return "\n".join(itertools.chain.from_iterable(lines))


def _send(client: Any, step: Step, headers: dict[str, str], answers: list[Answer]) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        answers.append(client.request(step.method, step.path, step.body or None, headers))


def _holdings(data: Path) -> Holdings:
    with contextlib.closing(sqlite3.connect(data / "vex.db", timeout=30)) as connection, _reading(connection):
        return read_holdings(lambda sql: connection.execute(sql).fetchall(), data)


@contextlib.contextmanager
def _reading(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    yield
    connection.execute("COMMIT")
