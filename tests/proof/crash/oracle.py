"""What must be so after a restart: what the journal promises, over HTTP, and that database and files agree."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from tests.proof.crash.clients import tag_target, upload_of
from tests.proof.crash.content import image_of
from tests.proof.crash.journal import Journal, Promises, Upload
from tests.support.server import Client, Server, digest_of

_LITTER_SECONDS = 20


def losses(server: Server, journal: Journal) -> list[str]:
    """Compare a server that was started again with the journal; returns a sentence for each thing that is not as it
    must be.

    What was under way at the crash may have been done or not; what is found is written down, so that it stays so at the
    next crash.
    """
    promises = journal.promises()
    return [
        *_images(server.public, journal, promises),
        *disagreements(server),
        *_uploads(server.auth, journal, promises),
    ]


def _images(client: Client, journal: Journal, promises: Promises) -> Iterator[str]:
    checked: set[str] = set()
    for tag, allowed in promises.tags.items():
        seed, problem = tag_target(client, tag, allowed)
        if problem:
            yield problem
            continue
        if len(allowed) > 1:
            journal.add("found", tag, seed)
        for content in image_of(seed).blobs if seed else ():
            digest = digest_of(content)
            if digest not in checked:
                checked.add(digest)
                answer = client.get(f"/v2/{tag.partition(':')[0]}/blobs/{digest}")
                if (answer.status, answer.body) != (200, content):
                    yield (
                        f"{tag}: blob {digest} is {answer.status} with {len(answer.body)} bytes instead of"
                        f" {len(content)}"
                    )


def _uploads(client: Client, journal: Journal, promises: Promises) -> Iterator[str]:
    for location, upload in list(promises.uploads.items()):
        problem = _finish(client, location, upload)
        journal.add("end", location)
        if problem:
            yield f"upload with {upload.offset} bytes: {problem}"


def _finish(client: Client, location: str, upload: Upload) -> str:
    """Go on with an upload where it says it is; returns what does not work."""
    answer = client.get(location)
    if answer.status == 404 and not upload.offset:
        # An upload that nothing was sent for holds nothing that could be lost: its name is synced with its first chunk.
        return ""
    if answer.status != 204:
        return f"asked where it is: {answer.status}"
    last = int(answer.headers["Range"].partition("-")[2])
    offset, content = last + 1 if last else 0, upload_of(upload.seed)
    if not upload.offset <= offset <= len(content):
        return f"goes on at {offset}"
    if offset < len(content):
        answer = client.request("PATCH", location, content[offset:], {"Content-Range": f"{offset}-{len(content) - 1}"})
        if answer.status != 202:
            return f"a chunk is answered {answer.status}: {answer.body!r}"
    answer = client.request("PUT", f"{location}?digest={digest_of(content)}")
    return "" if answer.status == 201 else f"ends with {answer.status}: {answer.body!r}"


def disagreements(server: Server) -> Iterator[str]:
    """Compare database and files, once the server has had its time to remove litter; gives a sentence for each thing
    that is wrong.
    """
    deadline = time.monotonic() + _LITTER_SECONDS
    while litter := sorted(_litter(server.data)):
        # The server looks for it in the background.
        if time.monotonic() > deadline or server.internal.get("/readyz").status != 200:
            yield f"litter: {litter}"
            break
    with contextlib.closing(sqlite3.connect(server.data / "vex.db", timeout=30)) as connection:
        for digest, size in connection.execute("SELECT digest, size FROM blob"):
            path = server.data / "blobs" / digest.replace(":", "/")
            found = path.stat().st_size if path.exists() else -1
            if found != size:
                yield f"{digest} has a row with {size} bytes and a file with {found}"
        yield from (f"integrity: {row}" for row in connection.execute("PRAGMA integrity_check") if row != ("ok",))
        yield from (f"foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check"))


def _litter(data: Path) -> set[str]:
    """Name the files that have no row, and what was set aside."""
    files = {f"{path.parent.name}:{path.name}" for path in (data / "blobs").glob("*/*")}
    with contextlib.closing(sqlite3.connect(data / "vex.db", timeout=30)) as connection:
        rows = {digest for (digest,) in connection.execute("SELECT digest FROM blob")}
    return (files - rows) | {path.name for path in (data / "uploads").glob("removed-*")}
