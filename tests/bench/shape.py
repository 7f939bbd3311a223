"""What does not depend on a peer: how Vex starts, what it keeps in memory, and that a request costs the same however
much the registry holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

from tests.bench.amounts import Amounts
from tests.bench.clients import Clients
from tests.bench.measure import IMAGES, MIB, REQUESTS, Figure, Goal, Row, Sample, WrongAnswer, timed, wait_until
from tests.bench.registries import Registry, Vex
from tests.bench.sender import Job
from tests.support.server import OCI_LAYER, OCI_MANIFEST
from vex.names import Digest, RepositoryName, Tag
from vex.storage import blob_rows, manifest_rows, repository_rows
from vex.storage.database import Database, Transaction

_IMPORTS = "import http.server, sqlite3, ssl"
_QUIET_SECONDS = 0.5
_SETTLE_SECONDS = 120
_CONNECTIONS = 8
# As many different paths, whatever the registry holds: caches shall not make the difference.
_PATHS = 1_000
_GOAL = Goal(1 / 1.3, 1.2)
# Of each repository.
_BLOBS_EACH, _TAGS_EACH = 5, 10
_TAGS = "bench/tags"


class Sizes:
    """The rows that compare a large registry with a small one."""

    def __init__(self, clients: Clients, amounts: Amounts, directory: Path) -> None:
        self._clients = clients
        self._amounts = amounts
        self._directory = directory

    def rows(self) -> Iterator[Row]:
        """Make the rows."""
        for name, title, measure in (
            (
                "manifest",
                "GET manifest by tag, of 1,000 repositories",
                self._gets(lambda count: [_manifest_path(number) for number in _spread(count)]),
            ),
            (
                "blob",
                "GET blob, of 1,000 repositories",
                self._gets(lambda count: [_blob_path(number) for number in _spread(count)]),
            ),
            (
                "tags",
                "tags/list, 100 tags",
                self._gets(lambda count: [f"/v2/{_TAGS}/tags/list?n=100&last={_tag(count // 2)}"]),
            ),
            (
                "catalog",
                "catalog, 100 repositories",
                self._gets(lambda count: [f"/v2/_catalog?n=100&last={_repository(count // 2)}"]),
            ),
            ("page-repositories", "web page of 100 repositories", self._gets(lambda _count: ["/"])),
            ("page-tags", "web page of 100 tags", self._gets(lambda _count: [f"/r/{_TAGS}/"])),
            (
                "search",
                "search for a repository",
                self._gets(lambda count: [f"/?q=repository-{number:06}" for number in _spread(count)]),
            ),
        ):
            yield Row(f"size-{name}", title, REQUESTS, _settle, measure, _GOAL, pair="size")
        yield Row("size-push", "push of a small image", IMAGES, _settle, self._push, _GOAL, pair="size")
        yield Row(
            "size-delete",
            "removal of the tag of a small image",
            IMAGES,
            _settle,
            self._delete,
            _GOAL,
            pair="size",
        )

    def _gets(self, paths: Callable[[int], list[str]]) -> Callable[[Registry], Sample]:
        def measure(registry: Registry) -> Sample:
            return timed(
                registry,
                lambda: self._clients.get(registry, paths(_size(registry)), _CONNECTIONS, self._amounts.seconds),
            )

        return measure

    def _push(self, registry: Registry) -> Sample:
        return timed(registry, lambda: self._clients.send([self._job(registry, "images")])[0])

    def _delete(self, registry: Registry) -> Sample:
        _, pushed = self._clients.send([self._job(registry, "images")])
        paths = self._directory / "deleted"
        paths.write_text("\n".join(path for path, _ in pushed))
        return timed(registry, lambda: self._clients.send([self._job(registry, "delete")._replace(path=str(paths))])[0])

    def _job(self, registry: Registry, kind: str) -> Job:
        write, times = registry.write, self._amounts.small_images
        return Job(kind, *write, authorization=registry.authorization, repository="bench/pushed", times=times)


class SizedVex(Vex):
    """Vex with so many repositories, tags and blobs."""

    def __init__(self, directory: Path, program: Path, count: int, runner: Sequence[str] = (sys.executable,)) -> None:
        self.count = count
        super().__init__(f"{count:,} repositories", directory, program, runner=runner)

    def start(self) -> None:
        """Fill it before the first start."""
        if not (self.directory / "data/blobs/sha256").exists():
            fill(self.directory / "data", self.count, _BLOBS_EACH, _TAGS_EACH)
        super().start()


def start_figures(directory: Path, program: Path, times: int) -> Iterator[Figure]:
    """Compare the start of Vex with that of Python with the modules that it cannot do without."""
    vex = Vex("vex", directory, program)
    starts, imports = [], []
    for _ in range(times):
        vex.stop()
        starts.append(_seconds(vex.start))
        imports.append(_seconds(lambda: subprocess.run([sys.executable, "-c", _IMPORTS], check=True)))
    vex.stop()
    ratios = [one / two for one, two in zip(starts, imports)]
    yield Figure("start until ready", [value * 1000 for value in starts], "ms")
    yield Figure(f'python3 -c "{_IMPORTS}"', [value * 1000 for value in imports], "ms")
    yield Figure("start as a multiple of that", ratios, "times", "at most 3", statistics.median(ratios) <= 3)


def restart_figure(vex: Vex) -> Figure:
    """Start a registry that holds much again."""
    vex.stop()
    seconds = _seconds(vex.start)
    return Figure(f"start until ready with {vex.name}", [seconds], "s", "under 0.5 s", seconds < 0.5)


def memory_figure(registry: Registry, when: str, mebibytes: float | None = None) -> Figure:
    """Tell what a registry keeps in memory now."""
    used = registry.resident_bytes() / MIB
    goal = f"at most {mebibytes:.1f} MiB" if mebibytes else ""
    return Figure(
        f"resident memory of {registry.name} {when}",
        [used],
        "MiB",
        goal,
        used <= mebibytes if mebibytes else None,
    )


@contextlib.contextmanager
def idle(registry: Registry, count: int) -> Iterator[None]:
    """Hold so many connections to where it is read for a block, each of which had an answer before."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(contextlib.closing(registry.connect(registry.read)))
            connection.request("GET", "/v2/")
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise WrongAnswer(f"{registry.name}: GET /v2/: {answer.status}")
        yield


def fill(data: Path, count: int, blobs: int = 1, tags: int = 1) -> None:
    """Make a data directory with `count` repositories of one image each, of so many blobs and with so many tags, and
    one more repository with `count` tags.
    """
    database = Database(data / "vex.db")
    now = int(time.time())
    (data / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    with database.write() as tx:
        for number in range(count):
            _add_image(tx, data, number, now, blobs, tags)
        repository = repository_rows.ensure_repository(tx, RepositoryName(_TAGS), now)
        manifest = manifest_rows.save_manifest(tx, Digest.of(_manifest(0, blobs)), _manifest(0, blobs), "", "{}")
        manifest_rows.add_manifest(tx, repository, manifest, OCI_MANIFEST, None, now)
        for number in range(count):
            manifest_rows.set_tag(tx, repository, Tag(_tag(number)), manifest, now)
    database.close()


def _add_image(tx: Transaction, data: Path, number: int, now: int, blobs: int, tags: int) -> None:
    repository = repository_rows.ensure_repository(tx, RepositoryName(_repository(number)), now)
    rows = []
    for content in (_content(number, part) for part in range(blobs)):
        (data / "blobs/sha256" / hashlib.sha256(content).hexdigest()).write_bytes(content)
        rows.append(blob_rows.save_blob(tx, Digest.of(content), len(content), now)[0])
    manifest = _manifest(number, blobs)
    row = manifest_rows.save_manifest(tx, Digest.of(manifest), manifest, "", "{}")
    manifest_rows.add_manifest(tx, repository, row, OCI_MANIFEST, None, now)
    manifest_rows.add_references(tx, repository, row, rows, [])
    for tag in ("latest", *map(_tag, range(1, tags))):
        manifest_rows.set_tag(tx, repository, Tag(tag), row, now)


def _content(number: int, part: int = 0) -> bytes:
    return f"content {number:06}{f' part {part}' if part else ''}".encode()


def _manifest(number: int, blobs: int) -> bytes:
    config, *layers = [_described(_content(number, part)) for part in range(blobs)]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}).encode()


def _described(content: bytes) -> dict[str, Any]:
    return {"mediaType": OCI_LAYER, "digest": Digest.of(content), "size": len(content)}


def _repository(number: int) -> str:
    return f"many/repository-{number:06}"


def _tag(number: int) -> str:
    return f"tag-{number:06}"


def _manifest_path(number: int) -> str:
    return f"/v2/{_repository(number)}/manifests/latest"


def _blob_path(number: int) -> str:
    return f"/v2/{_repository(number)}/blobs/{Digest.of(_content(number))}"


def _spread(count: int) -> range:
    return range(0, count, max(count // _PATHS, 1))


def _size(registry: Registry) -> int:
    assert isinstance(registry, SizedVex)
    return registry.count


def _settle(registry: Registry) -> None:
    """Wait until the checks that follow a start are done."""

    def quiet() -> bool:
        before = registry.cpu_seconds()
        time.sleep(_QUIET_SECONDS)
        return registry.cpu_seconds() == before

    wait_until(quiet, _SETTLE_SECONDS, f"the start of {registry.name}")


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
