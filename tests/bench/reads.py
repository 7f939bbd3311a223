"""Rows: small requests. Manifests and blobs are read on keep-alive connections; lists are long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Callable

from tests.bench.amounts import Amounts
from tests.bench.clients import Clients
from tests.bench.content import small_image
from tests.bench.measure import REQUESTS, Goal, Row, Sample, Work, WrongAnswer, timed
from tests.bench.registries import Registry
from tests.bench.sender import Job, repository_name, tag_name

REPOSITORY = "bench/reads"
_TAGS_REPOSITORY = "bench/tags"
_LIST_CONNECTIONS = 2
_IMAGE = small_image()
DIGEST = _IMAGE.digest
_LAYER = list(_IMAGE.blobs)[-1]
BY_TAG = f"/v2/{REPOSITORY}/manifests/latest"
_BY_DIGEST = f"/v2/{REPOSITORY}/manifests/{DIGEST}"
_BLOB = f"/v2/{REPOSITORY}/blobs/{_LAYER}"
# Against the peer by connections, and how much more processor time than the other build is noise.
_GOALS = {8: Goal(20, 1 / 20), 64: Goal(15), 1: Goal(15)}
_MANY_BY_DIGEST = Goal(20)
_BASELINE = {8: Goal(cpu=1.03)}
_LIST_GOAL = Goal(20)


class Reads:
    """The rows, and what they need to be there."""

    def __init__(self, clients: Clients, amounts: Amounts) -> None:
        self._clients = clients
        self._amounts = amounts

    def rows(self) -> Iterator[Row]:
        """Make the rows."""
        for connections, usual in _GOALS.items():
            for what, path in (("tag", BY_TAG), ("digest", _BY_DIGEST)):
                for method in ("GET", "HEAD"):
                    title = f"{method} manifest by {what}, {connections} connection{'s' if connections > 1 else ''}"
                    measure = self._requests(method, path, DIGEST, connections)
                    goal = _MANY_BY_DIGEST if (what, connections) == ("digest", 64) else usual
                    yield Row(
                        f"manifest-{method.lower()}-{what}-{connections}",
                        title,
                        REQUESTS,
                        self.push_image,
                        measure,
                        goal,
                        _BASELINE.get(connections, Goal()),
                    )
        yield Row(
            "blob-head",
            "HEAD blob, 8 connections",
            REQUESTS,
            self.push_image,
            self._requests("HEAD", _BLOB, _LAYER, 8),
            Goal(10),
        )
        yield from self._list_rows()

    def _list_rows(self) -> Iterator[Row]:
        many = self._amounts.entries
        part, middle = min(many // 10, 1000), min(many // 2, many - 101)
        tags, catalog = f"/v2/{_TAGS_REPOSITORY}/tags/list", "/v2/_catalog"
        for name, title, prepare, path, entries in (
            ("tags", f"tags/list, all {many:,} tags", self.push_tags, f"{tags}?n={many}", many),
            (
                "tags-page",
                f"tags/list, 100 of {many:,} tags",
                self.push_tags,
                f"{tags}?n=100&last={tag_name(middle)}",
                100,
            ),
            (
                "catalog",
                f"catalog, {part:,} of {many:,} repositories",
                self.push_repositories,
                f"{catalog}?n={part}&last={repository_name(middle)}",
                part,
            ),
            (
                "catalog-page",
                f"catalog, 100 of {many:,} repositories",
                self.push_repositories,
                f"{catalog}?n=100&last={repository_name(middle)}",
                100,
            ),
        ):
            yield Row(name, title, REQUESTS, prepare, self._lists(path, entries), _LIST_GOAL)

    def push_image(self, registry: Registry) -> None:
        """Push the image that is read."""
        registry.push_image(REPOSITORY, "latest", _IMAGE)

    def push_tags(self, registry: Registry) -> None:
        """Push many tags to one repository."""
        self._clients.send_shared(self._job(registry, "tags")._replace(repository=_TAGS_REPOSITORY))

    def push_repositories(self, registry: Registry) -> None:
        """Push to many repositories."""
        registry.prepare(self.push_image)
        self._clients.send_shared(self._job(registry, "repositories")._replace(repository=REPOSITORY, path=_LAYER))

    def _job(self, registry: Registry, kind: str) -> Job:
        return Job(kind, *registry.write, registry.authorization, times=self._amounts.entries)

    def _requests(self, method: str, path: str, digest: str, connections: int) -> Callable[[Registry], Sample]:
        def load(registry: Registry) -> Work:
            if method == "GET":
                return self._clients.get(registry, [path], connections, self._amounts.seconds)
            return self._clients.hey(registry, method, path, connections, self._amounts.seconds)[0]

        def measure(registry: Registry) -> Sample:
            registry.check(path, digest)
            return timed(registry, lambda: load(registry))

        return measure

    def _lists(self, path: str, entries: int) -> Callable[[Registry], Sample]:
        def measure(registry: Registry) -> Sample:
            found = max(
                (
                    value
                    for value in json.loads(registry.expect(200, "GET", path).body).values()
                    if isinstance(value, list)
                ),
                key=len,
            )
            # The peer does not know pages of tags.
            if len(found) != entries and len(found) != self._amounts.entries:
                raise WrongAnswer(f"{registry.name}: GET {path}: {len(found)} entries instead of {entries}")
            return timed(
                registry, lambda: self._clients.get(registry, [path], _LIST_CONNECTIONS, self._amounts.list_seconds)
            )

        return measure
