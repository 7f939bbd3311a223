"""What a client does while faults are injected: each scenario prepares without, and then does with a fault, and is to
be done again when that is gone.
"""

from __future__ import annotations

import socket
from typing import Callable, NamedTuple

from tests.proof.crash.content import blob_of, image_of
from tests.proof.crash.journal import Journal
from tests.support.server import OCI_MANIFEST, USER, Answer, Client, Server, digest_of

REPOSITORY = "app"
_PATH = f"/v2/{REPOSITORY}"


class Refused(Exception):
    """An answer that says that it did not work."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {answer.body[:300]!r}")
        self.answer = answer


class Hanging(Exception):
    """No answer came in time."""


class Session:
    """A client of a server, which writes down what was acknowledged."""

    def __init__(self, server: Server, journal: Journal, seconds: float = 20, name: str = "client") -> None:
        """Requests that take more than `seconds` are hanging; `name` tells clients at work at the same time apart."""
        self.server = server
        self.name = name
        self.journal = journal
        self.blobs: list[str] = []
        self._auth = Client(server.addresses["auth"], USER, timeout=seconds)
        self._public = Client(server.addresses["public"], timeout=seconds)

    def write(self, status: int, method: str, path: str, body: bytes = b"", media_type: str = "") -> Answer:
        """Send a request to the auth listener; raises Refused and Hanging, and OSError or HTTPException when the
        connection was closed.
        """
        return _ask(self._auth, (status,), method, path, body, media_type)

    def read(self, path: str) -> Answer:
        """Send a GET to the public listener."""
        return _ask(self._public, (200,), "GET", path)

    def change_tag(self, tag: str, seed: str | None, status: int) -> None:
        """Point a tag at an image whose blobs are there, or delete it."""
        path = f"{_PATH}/manifests/{tag}"
        self.journal.add("intend", self.name, f"{REPOSITORY}:{tag}", seed)
        if seed is None:
            _ask(self._auth, (status, 404), "DELETE", path)
        else:
            self.write(status, "PUT", path, image_of(seed).manifest, OCI_MANIFEST)
        self.journal.add("done", self.name)

    def push(self, seed: str) -> None:
        """Push an image under a tag of its own name."""
        self.push_blobs(seed)
        self.change_tag(seed.replace(" ", "-"), seed, 201)

    def push_blobs(self, seed: str) -> None:
        """Push the config and the layers of an image."""
        for content in image_of(seed).blobs:
            self.write(201, "POST", f"{_PATH}/blobs/uploads/?digest={digest_of(content)}", content)


def _ask(
    client: Client, statuses: tuple[int, ...], method: str, path: str, body: bytes = b"", media_type: str = ""
) -> Answer:
    try:
        answer = client.request(method, path, body or None, {"Content-Type": media_type} if media_type else {})
    except socket.timeout as error:
        raise Hanging(f"{method} {path}") from error
    if answer.status not in statuses:
        raise Refused(answer)
    return answer


def _nothing(_session: Session, _seed: str) -> None:
    pass


def _put(session: Session, seed: str) -> None:
    content = blob_of(seed)
    location = session.write(202, "POST", f"{_PATH}/blobs/uploads/").headers["Location"]
    session.write(201, "PUT", f"{location}?digest={digest_of(content)}", content)
    session.blobs.append(seed)


def _patch(session: Session, seed: str) -> None:
    content = blob_of(seed)
    location = session.write(202, "POST", f"{_PATH}/blobs/uploads/").headers["Location"]
    session.write(202, "PATCH", location, content[: len(content) // 2])
    session.write(202, "PATCH", location, content[len(content) // 2 :])
    session.write(201, "PUT", f"{location}?digest={digest_of(content)}")
    session.blobs.append(seed)


def _push(session: Session, seed: str) -> None:
    session.push_blobs(seed)
    session.change_tag("moving", seed, 201)


def _two(session: Session, seed: str) -> None:
    """Have an image that the tag points at, so that it is replaced, and the blobs of another."""
    _push(session, f"{seed} before")
    session.push_blobs(seed)


def _manifest(session: Session, seed: str) -> None:
    session.change_tag("moving", seed, 201)


def _delete(session: Session, _seed: str) -> None:
    session.change_tag("moving", None, 202)


def _pull(session: Session, seed: str) -> None:
    session.read(f"{_PATH}/manifests/moving")
    for content in image_of(seed).blobs:
        answer = session.read(f"{_PATH}/blobs/{digest_of(content)}")
        assert answer.body == content, "other bytes"


class Scenario(NamedTuple):
    """`prepare` is done without a fault, `act` with one."""

    prepare: Callable[[Session, str], None]
    act: Callable[[Session, str], None]


SCENARIOS = {
    "push by PUT": Scenario(_nothing, _put),
    "push by PATCH": Scenario(_nothing, _patch),
    "manifest": Scenario(_two, _manifest),
    "delete": Scenario(_push, _delete),
    "pull": Scenario(_push, _pull),
}
