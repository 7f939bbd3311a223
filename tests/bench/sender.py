"""The load for pushes and pulls: a process that does one job, `python3 -m tests.bench.sender JOB`, and costs less than
the server.

It prepares, writes `ready`, waits for a line on its standard input, works, and writes its report. Bodies are sent with
`sendfile`, answers are read into one buffer; nothing is hashed while the clock runs. JOB and the report are JSON
objects, with the fields of `Job` and `Report`.
"""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple

from tests.bench.content import EMPTY_INDEX, TAIL_BYTES, Base, as_chunk, small_image
from tests.bench.measure import MIB, WrongAnswer
from tests.support.server import OCI_INDEX, OCI_MANIFEST, digest_of

_TIMEOUT_SECONDS = 600
_HEAD_BYTES = 64 * 1024


class Job(NamedTuple):
    """What to do: `kind` is a key of JOBS, `times` how many times (0: until a second line on standard input); what
    is numbered begins at `first`.

    `base` is the base of blobs, `path` what is pulled or deleted (a file), `certificate` that of the server, "" for
    plain HTTP.
    """

    kind: str
    host: str
    port: int
    authorization: str = ""
    certificate: str = ""
    repository: str = ""
    base: tuple[str, str] = ("", "")
    path: str = ""
    times: int = 1
    first: int = 0


class Report(NamedTuple):
    """What was done: `amount` in MiB, images or requests, between two times of the monotonic clock; and (path, digest)
    of what can be checked.
    """

    amount: float
    started: float
    ended: float
    pushed: list[tuple[str, str]]


class Step(NamedTuple):
    """A part of the work that is done: its amount, and the path and digest of what can be checked afterwards."""

    amount: float
    path: str = ""
    digest: str = ""


# What each job yields first, when it is prepared.
_PREPARED = Step(0)


class Connection:
    """One keep-alive connection."""

    def __init__(self, job: Job) -> None:
        plain = socket.create_connection((job.host, job.port), timeout=_TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = ssl.create_default_context(cafile=job.certificate) if job.certificate else None
        self.socket = context.wrap_socket(plain, server_hostname=job.host) if context else plain
        self._common = f"Host: {job.host}:{job.port}\r\n" + (
            f"Authorization: {job.authorization}\r\n" if job.authorization else ""
        )
        self._origin = f"http{'s' if job.certificate else ''}://{job.host}:{job.port}"
        self._buffer = memoryview(bytearray(MIB))

    def head(self, method: str, target: str, *fields: str) -> bytes:
        """Make the head of a request."""
        lines = "".join(f"{field}\r\n" for field in fields)
        return f"{method} {target.replace(self._origin, '')} HTTP/1.1\r\n{self._common}{lines}\r\n".encode()

    def ask(self, request: bytes, expected: int) -> dict[str, str]:
        """Send a request, or its end; returns the fields of the answer, names in lower case, and the length of its body
        as `received`.

        Raises WrongAnswer when its status is not the expected one.
        """
        self.socket.sendall(request)
        count = self.socket.recv_into(self._buffer[:_HEAD_BYTES])
        while (end := bytes(self._buffer[: min(count, _HEAD_BYTES)]).find(b"\r\n\r\n")) < 0:
            more = self.socket.recv_into(self._buffer[count:_HEAD_BYTES])
            if more == 0:
                raise WrongAnswer(f"the connection ended after {request[:100]!r}")
            count += more
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        bodiless = request.startswith(b"HEAD ") or expected == 204
        fields["received"] = (
            "0" if bodiless else str(self._skip(int(fields.get("content-length", "0")), count - end - 4))
        )
        if int(lines[0].split()[1]) != expected:
            raise WrongAnswer(f"{request[:100]!r} was answered {lines[0]}: {bytes(self._buffer[:count])[end:][:500]!r}")
        return fields

    def _skip(self, length: int, received: int) -> int:
        while received < length:
            count = self.socket.recv_into(self._buffer)
            if count == 0:
                raise WrongAnswer(f"the body ended after {received} of {length} bytes")
            received += count
        return received


class Blobs:
    """An endless supply of blobs on one base."""

    def __init__(self, job: Job) -> None:
        self._base_hash = Base(Path(job.base[0]), Path(job.base[1])).hash()
        self.size = os.path.getsize(job.base[0]) + TAIL_BYTES

    def next(self) -> tuple[str, bytes]:
        """Return the digest of a new blob, and its tail."""
        tail = os.urandom(TAIL_BYTES)
        blob_hash = self._base_hash.copy()
        blob_hash.update(tail)
        return f"sha256:{blob_hash.hexdigest()}", tail


def push_whole(job: Job) -> Iterator[Step]:
    """Push blobs, each with POST and one PUT."""
    blobs, connection = Blobs(job), Connection(job)
    with open(job.base[0], "rb") as base:
        yield _PREPARED
        while True:
            digest, tail = blobs.next()
            target = _with_digest(_start_upload(connection, job), digest)
            head = connection.head(
                "PUT", target, f"Content-Length: {blobs.size}", "Content-Type: application/octet-stream"
            )
            connection.socket.sendall(head)
            connection.socket.sendfile(base, 0)
            connection.ask(tail, 201)
            yield Step(blobs.size / MIB, _blob_path(job, digest), digest)


def push_chunked(job: Job) -> Iterator[Step]:
    """Push blobs as docker does: POST, one PATCH with a chunked body, and an empty PUT."""
    blobs, connection = Blobs(job), Connection(job)
    with open(job.base[1], "rb") as base:
        yield _PREPARED
        while True:
            digest, tail = blobs.next()
            head = connection.head("PATCH", _start_upload(connection, job), "Transfer-Encoding: chunked")
            connection.socket.sendall(head)
            connection.socket.sendfile(base, 0)
            location = connection.ask(as_chunk(tail) + b"0\r\n\r\n", 202)["location"]
            connection.ask(connection.head("PUT", _with_digest(location, digest), "Content-Length: 0"), 201)
            yield Step(blobs.size / MIB, _blob_path(job, digest), digest)


def push_images(job: Job) -> Iterator[Step]:
    """Push small images as containerd does: for each blob HEAD, POST and PUT, then the manifest."""
    images = [small_image() for _ in range(job.times)]
    prefix = os.urandom(4).hex()
    connection = Connection(job)
    yield _PREPARED
    for number, image in enumerate(images):
        for digest, content in image.blobs.items():
            connection.ask(connection.head("HEAD", _blob_path(job, digest)), 404)
            target = _with_digest(_start_upload(connection, job), digest)
            connection.ask(connection.head("PUT", target, f"Content-Length: {len(content)}") + content, 201)
        path = f"/v2/{job.repository}/manifests/{prefix}-{number}"
        head = connection.head("PUT", path, f"Content-Length: {len(image.manifest)}", f"Content-Type: {OCI_MANIFEST}")
        connection.ask(head + image.manifest, 201)
        yield Step(1, path, image.digest)


def push_small_blobs(job: Job) -> Iterator[Step]:
    """Push blobs of 1 kB, each with POST and one PUT."""
    connection = Connection(job)
    yield _PREPARED
    while True:
        content = os.urandom(1000)
        digest = digest_of(content)
        target = _with_digest(_start_upload(connection, job), digest)
        connection.ask(connection.head("PUT", target, f"Content-Length: {len(content)}") + content, 201)
        yield Step(1, _blob_path(job, digest), digest)


def pull(job: Job) -> Iterator[Step]:
    """Pull a blob, on a new connection each time."""
    yield _PREPARED
    while True:
        connection = Connection(job)
        answer = connection.ask(connection.head("GET", job.path), 200)
        connection.socket.close()
        yield Step(int(answer["received"]) / MIB)


def delete(job: Job) -> Iterator[Step]:
    """Delete what the lines of a file name."""
    paths = Path(job.path).read_text().split()
    connection = Connection(job)
    yield _PREPARED
    for path in paths:
        connection.ask(connection.head("DELETE", path), 202)
        yield Step(1)


def make_tags(job: Job) -> Iterator[Step]:
    """Push one manifest under many tags of a repository."""
    connection = Connection(job)
    yield _PREPARED
    for number in range(job.first, job.first + job.times):
        _put_empty_index(connection, job.repository, tag_name(number))
        yield Step(1)


def make_repositories(job: Job) -> Iterator[Step]:
    """Make many repositories, each with a blob of the job's repository and a manifest."""
    connection = Connection(job)
    yield _PREPARED
    for number in range(job.first, job.first + job.times):
        repository = repository_name(number)
        connection.ask(
            connection.head(
                "POST", f"/v2/{repository}/blobs/uploads/?mount={job.path}&from={job.repository}", "Content-Length: 0"
            ),
            201,
        )
        _put_empty_index(connection, repository, "latest")
        yield Step(1)


JOBS: dict[str, Callable[[Job], Iterator[Step]]] = {
    "push": push_whole,
    "push-chunked": push_chunked,
    "images": push_images,
    "small-blobs": push_small_blobs,
    "pull": pull,
    "delete": delete,
    "tags": make_tags,
    "repositories": make_repositories,
}


def main() -> int:
    """Do the job of the command line."""
    job = Job(**json.loads(sys.argv[1]))
    steps = JOBS[job.kind](job)
    next(steps)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    done: list[Step] = []
    while len(done) < job.times or not (job.times or _told_to_stop()):
        done.append(next(steps))
    pushed = [(step.path, step.digest) for step in done if step.path]
    report = Report(sum(step.amount for step in done), started, time.monotonic(), pushed)
    print(json.dumps(report._asdict()), flush=True)
    return 0


def tag_name(number: int) -> str:
    """Name one of many tags."""
    return f"tag-{number:05}"


def repository_name(number: int) -> str:
    """Name one of many repositories."""
    return f"many/repository-{number:05}"


def _told_to_stop() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def _start_upload(connection: Connection, job: Job) -> str:
    return connection.ask(connection.head("POST", f"/v2/{job.repository}/blobs/uploads/", "Content-Length: 0"), 202)[
        "location"
    ]


def _put_empty_index(connection: Connection, repository: str, tag: str) -> None:
    head = connection.head(
        "PUT", f"/v2/{repository}/manifests/{tag}", f"Content-Length: {len(EMPTY_INDEX)}", f"Content-Type: {OCI_INDEX}"
    )
    connection.ask(head + EMPTY_INDEX, 201)


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def _blob_path(job: Job, digest: str) -> str:
    return f"/v2/{job.repository}/blobs/{digest}"


if __name__ == "__main__":
    sys.exit(main())
