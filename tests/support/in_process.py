"""The whole registry in this process: no sockets, no threads, and a clock that a test sets.

Requests go through the parser of heads and bodies and the registry API, as a user who may do everything.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import tempfile
import unittest
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from tests.support.server import OCI_INDEX, OCI_MANIFEST, USER, Answer, digest_of, image, index
from vex.access.identity import Identity, identify
from vex.api import routes
from vex.errors import RegistryError
from vex.http.answers import Revisions
from vex.http.bodies import Input, body_of
from vex.http.heads import HeadLimits, parse_head
from vex.http.message import Request, Response, error_response
from vex.http.turns import HeavyWork
from vex.registry.housekeeping import Housekeeping
from vex.service.building import build_api, build_registry, build_storage, rules_of
from vex.settings.config import Config, Section
from vex.settings.sections import REPOSITORIES
from vex.storage.database import Database
from vex.storage.timekeeping import TimeOfDay

MINUTE, HOUR, DAY = 60, 3600, 24 * 3600
STATES = ("live", "kept", "held", "gone")


class Options(NamedTuple):
    """What the operator can choose, with the defaults of the design; times in seconds."""

    upload_expiry: int = DAY
    pull_grace: int = 10 * MINUTE
    keep_replaced: int = 0
    delete_untags: str = "no"
    audit_keep: int = 365 * DAY
    sections: tuple[Section, ...] = ()


def section(pattern: str, line: int = 1, **values: str) -> Section:
    """Make a section for repositories, with values as they are written in a file."""
    keys = {key.attribute: key for key in REPOSITORIES.keys}
    return Section(REPOSITORIES.word, pattern, line, {name: keys[name].parse(text) for name, text in values.items()})


class Holdings(NamedTuple):
    """All that the tables and the blob directory hold: a repository with since when it is empty, a lease with its end,
    how many are listed,

    and what each manifest is on its way out: live, kept, held or gone.
    """

    repositories: dict[str, int | None]
    manifests: set[tuple[str, str]]
    tags: dict[tuple[str, str], str]
    leases: dict[tuple[str, str], int]
    blobs: set[str]
    files: set[str]
    contents: set[str]
    listed: int
    states: dict[tuple[str, str], str]


class InProcess:
    """A registry in a directory; `now` is its clock, in seconds since 1970, and `jumped` how far that was set ahead."""

    jumped = 0

    def __init__(self, directory: Path, options: Options, now: int) -> None:
        self.directory = directory
        self.options = options
        self.now = now
        self.open()

    def open(self, time_of_day: TimeOfDay | None = None) -> None:
        """Build everything on the files that are there, as a start of the program does."""
        config = Config(data_dir=self.directory, free_space=0, **self.options._asdict())
        self.database = Database(self.directory / "vex.db")
        revisions = self.revisions = Revisions()
        storage = self.storage = build_storage(config, self.database, revisions, clock=self.clock, steady=self.steady)
        self.uploads, self.policies = storage.uploads, storage.policies
        rules = rules_of(config)
        self.registry = build_registry(storage, rules)
        self.housekeeping = Housekeeping(storage, self.registry, rules, time_of_day=time_of_day)
        self.api = build_api(config, storage, self.registry, revisions, HeavyWork())

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def restart(self) -> None:
        """End, start again on the same files, and check those."""
        self.close()
        self.open()
        self.housekeeping.check_files()

    def clock(self) -> float:
        """Tell the time."""
        return self.now

    def steady(self) -> float:
        """Tell a time that nobody sets."""
        return self.now - self.jumped

    def jump(self, seconds: int) -> None:
        """Set the clock."""
        self.now += seconds
        self.jumped += seconds

    def advance(self, seconds: int) -> None:
        """Let time pass, and what is due at its end happen."""
        self.now += seconds
        self.housekeeping.sweep()

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, user: str = USER
    ) -> Answer:
        """Send a request and read its answer."""
        return _answer(self.respond(method, path, body, headers, user=user))

    def respond(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, user: str = USER
    ) -> Response:
        """Send a request; returns its answer as it is before anybody sends it."""
        fields = {"Host": "registry.test", **({"Content-Length": str(len(body))} if body else {}), **(headers or {})}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        head = parse_head("\r\n".join(lines).encode(), HeadLimits())
        request = Request("auth", head, body_of(head, Input(lambda _view: 0, body)), "192.0.2.1")
        identify(request, Identity(user))
        found = routes.match(routes.REGISTRY, request.path)
        assert found, request.path
        try:
            return self.api.handle(found[0], request, found[1])
        except RegistryError as error:
            return error_response(error)

    def holdings(self) -> Holdings:
        """Read all tables and list all files."""
        with self.database.read() as tx:
            return read_holdings(tx.rows, self.directory)


def read_holdings(rows: Callable[[str], Iterable[tuple[Any, ...]]], directory: Path) -> Holdings:
    """Read all tables, with what runs a query, and list the files under a data directory."""
    names = dict(rows("SELECT id, name FROM repository"))
    manifests = dict(rows("SELECT id, digest FROM manifest"))
    blobs = dict(rows("SELECT id, digest FROM blob"))
    return Holdings(
        repositories=dict(rows("SELECT name, emptied FROM repository")),
        manifests={
            (names[row[0]], manifests[row[1]]) for row in rows("SELECT repository, manifest FROM repository_manifest")
        },
        tags={(names[row[0]], row[1]): manifests[row[2]] for row in rows("SELECT repository, name, manifest FROM tag")},
        leases={(names[row[0]], blobs[row[1]]): row[2] for row in rows("SELECT repository, blob, expires FROM lease")},
        blobs=set(blobs.values()),
        files=set(_files(directory / "blobs")),
        contents=set(manifests.values()),
        listed=next(iter(rows("SELECT repositories FROM total")))[0],
        states={
            (names[row[0]], manifests[row[1]]): STATES[row[2]]
            for row in rows("SELECT repository, manifest, state FROM repository_manifest")
        },
    )


def _files(blobs: Path) -> Iterator[str]:
    # Path.glob takes a third of the time of all that is read here, after each of thousands of operations.
    for algorithm in os.scandir(blobs):
        yield from (f"{algorithm.name}:{name}" for name in os.listdir(algorithm))


class InProcessTestCase(unittest.TestCase):
    """Tests with a registry of their own, made with `options`, and short forms of what they do to it."""

    options = Options()
    site: InProcess

    def setUp(self) -> None:
        context = directory_in_memory()
        self.addCleanup(context.__exit__, None, None, None)
        self.site = InProcess(Path(context.__enter__()), self.options, 1_700_000_000)
        self.addCleanup(self._close)

    def _close(self) -> None:
        # Not bound when the test begins: a test may have restarted it.
        self.site.close()

    def ok(
        self,
        status: int,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        user: str = USER,
    ) -> Answer:
        """Send a request that must be answered so."""
        answer = self.site.request(method, path, body, headers, user=user)
        self.assertEqual(answer.status, status, f"{method} {path}: {answer.body!r}")
        return answer

    def push_blob(self, repository: str, content: bytes, algorithm: str = "sha256") -> str:
        """Push a blob; returns its digest."""
        digest = digest_of(content, algorithm)
        self.ok(201, "POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", content)
        return digest

    def push_manifest(
        self, repository: str, tag: str, document: Mapping[str, Any], media_type: str = OCI_MANIFEST
    ) -> Pushed:
        """Push a manifest under a tag, or "" for its digest."""
        content = json.dumps(document).encode()
        pushed = Pushed(digest_of(content), len(content))
        self.ok(201, "PUT", f"/v2/{repository}/manifests/{tag or pushed.digest}", content, {"Content-Type": media_type})
        return pushed

    def push_image(self, repository: str, tag: str, *layers: bytes, config: bytes = b"{}", **fields: Any) -> Pushed:
        """Push an image with its blobs."""
        for content in (config, *layers):
            self.push_blob(repository, content)
        return self.push_manifest(repository, tag, image(*layers, config=config, **fields))

    def push_index(self, repository: str, tag: str, children: Sequence[tuple[str, int]], **fields: Any) -> Pushed:
        """Push an index of manifests that are there."""
        return self.push_manifest(repository, tag, index(children, **fields), OCI_INDEX)

    def delete(self, repository: str, reference: str) -> None:
        """Delete a tag or a manifest."""
        self.ok(202, "DELETE", f"/v2/{repository}/manifests/{reference}")


class Pushed(NamedTuple):
    """A manifest that was pushed; an entry for an index."""

    digest: str
    size: int


def directory_in_memory() -> tempfile.TemporaryDirectory[str]:
    """Make a temporary directory where syncing takes no time, if this system has such a place."""
    memory = "/dev/shm"
    return tempfile.TemporaryDirectory(prefix="vex-test-", dir=memory if os.access(memory, os.W_OK) else None)


def _answer(response: Response) -> Answer:
    headers = http.client.HTTPMessage()
    for name, value in response.headers:
        headers[name] = value
    body = response.body
    if response.file:
        with contextlib.closing(response.file) as file:
            file.seek(response.offset)
            body = file.read(response.length)
    return Answer(response.status, headers, body)
