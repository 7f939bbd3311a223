"""Rows: pages of the web interface, the first time and again."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import tarfile
import time
from collections.abc import Iterator, Mapping
from typing import Callable, NamedTuple

from tests.bench.amounts import Amounts
from tests.bench.clients import Clients
from tests.bench.content import EMPTY_INDEX, image_of, small_image
from tests.bench.measure import PAGES, Goal, Row, Sample, WrongAnswer, thread_seconds, timed
from tests.bench.registries import Registry
from tests.bench.sender import Job, repository_name
from tests.support.server import OCI_INDEX

_REPOSITORY = "bench/pages"
_TAGS_REPOSITORY = "bench/100-tags"
_TAGS = 100
_FILE_BYTES = 4_000
_CONNECTIONS = 2
# Of a page that has to be made, and of one that was seen before.
_FIRST, _AGAIN = Goal(cpu=0.5), Goal(20)


class Page(NamedTuple):
    """A page, and what is written on it."""

    path: str
    text: str


class Pages:
    """The rows, and what they need to be there."""

    def __init__(self, clients: Clients, amounts: Amounts) -> None:
        self._clients = clients
        self._amounts = amounts
        self._layer: bytes = b""

    def rows(self) -> Iterator[Row]:
        """Make the rows."""
        files, first = self._amounts.layer_files, self._amounts.first_pages
        for name, title, make, times in (
            ("front", f"front page with {self._amounts.entries:,} repositories", self._front, first),
            ("tags", f"page of {_TAGS} tags", self._tags, first),
            ("image", "page of an image", self._image, first),
            ("layer", f"page of a layer with {files:,} files", self._layer_page, max(first // 10, 1)),
        ):
            yield Row(
                f"page-{name}-first",
                f"{title}, first time",
                PAGES,
                self._prepare,
                self._first(make, times),
                baseline_goal=_FIRST,
                pair="pages",
            )
            yield Row(
                f"page-{name}",
                f"{title}, again",
                PAGES,
                self._prepare,
                self._again(make),
                baseline_goal=_AGAIN,
                pair="pages",
            )

    def _prepare(self, registry: Registry) -> None:
        """Push many repositories, and 100 tags in one."""
        image = small_image()
        registry.push_image(_REPOSITORY, "latest", image)
        job = Job("repositories", *registry.write, authorization=registry.authorization)
        many = job._replace(repository=_REPOSITORY, path=list(image.blobs)[-1], times=self._amounts.entries)
        tags = job._replace(kind="tags", repository=_TAGS_REPOSITORY, times=_TAGS)
        for each in (many, tags):
            self._clients.send_shared(each)

    def _front(self, registry: Registry) -> Page:
        """Change what the front page shows."""
        name = repository_name(0)
        registry.push_image(name, "latest", small_image())
        return Page("/", name)

    def _tags(self, registry: Registry) -> Page:
        """Change what a tag points to."""
        index = EMPTY_INDEX[:-1] + b', "annotations": {"a": "%b"}}' % os.urandom(8).hex().encode()
        path = f"/v2/{_TAGS_REPOSITORY}/manifests/tag-00000"
        registry.expect(201, "PUT", path, index, {"Content-Type": OCI_INDEX})
        return Page(f"/r/{_TAGS_REPOSITORY}/", "tag-00000")

    def _image(self, registry: Registry) -> Page:
        """Push an image that nobody has looked at."""
        image = small_image()
        registry.push_image(_REPOSITORY, "latest", image)
        return Page(f"/r/{_REPOSITORY}/m/{image.digest}/", image.digest)

    def _layer_page(self, registry: Registry) -> Page:
        """Push a layer that nobody has looked at: another first file, and then always the same."""
        self._layer = self._layer or _tar(self._amounts.layer_files - 1)
        name = os.urandom(8).hex()
        layer = gzip.compress(_entry(f"0-{name}") + self._layer, 1)
        image = image_of([layer])
        registry.push_image(_REPOSITORY, "latest", image)
        return Page(f"/r/{_REPOSITORY}/m/{image.digest}/layer/{list(image.blobs)[-1]}/", f"0-{name}")

    def _first(self, make: Callable[[Registry], Page], times: int) -> Callable[[Registry], Sample]:
        def measure(registry: Registry) -> Sample:
            seconds = used = 0.0
            with contextlib.closing(registry.connect(registry.read)) as connection:
                _get(connection, Page("/robots.txt", "User-agent"))
                for _ in range(times):
                    page = make(registry)
                    before, started = thread_seconds(registry.process.pid), time.monotonic()
                    _get(connection, page)
                    seconds += time.monotonic() - started
                    after = thread_seconds(registry.process.pid)
                    used += sum(value - before.get(thread, 0) for thread, value in after.items())
            return Sample(times / seconds, used / times)

        return measure

    def _again(self, make: Callable[[Registry], Page]) -> Callable[[Registry], Sample]:
        def measure(registry: Registry) -> Sample:
            page = make(registry)
            with contextlib.closing(registry.connect(registry.read)) as connection:
                _get(connection, page)
                _get(connection, page, {"Accept-Encoding": "gzip"})
            seconds = self._amounts.list_seconds
            return timed(registry, lambda: self._clients.get(registry, [page.path], _CONNECTIONS, seconds))

        return measure


def _get(connection: http.client.HTTPConnection, page: Page, headers: Mapping[str, str] | None = None) -> None:
    """Get a page, compressed perhaps, and read what is written on it; raises WrongAnswer."""
    connection.request("GET", page.path, headers=dict(headers or {}))
    answer = connection.getresponse()
    body = answer.read()
    if answer.headers["Content-Encoding"] == "gzip":
        body = gzip.decompress(body)
    if answer.status != 200 or page.text.encode() not in body:
        raise WrongAnswer(f"GET {page.path}: {answer.status} without {page.text}: {body[:500]!r}")


def _tar(files: int) -> bytes:
    """Make the files of a layer and its end."""
    return b"".join(_entry(f"directory-{number % 50}/file-{number}") for number in range(files)) + bytes(1024)


def _entry(name: str) -> bytes:
    """Make a file of a layer, half as large when it is compressed."""
    member = tarfile.TarInfo(name)
    member.size = _FILE_BYTES
    return member.tobuf() + (os.urandom(_FILE_BYTES // 2).hex().encode()).ljust(-(-_FILE_BYTES // 512) * 512, b"\0")
