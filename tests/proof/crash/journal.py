"""What clients were promised: a file that they append to and sync, before each request that changes something and after
its answer.

A line is a JSON list: what is intended, `["intend", CLIENT, TAG, IMAGE]`, an image named by its seed or null for none;
then `["done", CLIENT]` once it was acknowledged. `["chunk", SESSION, OFFSET]` says how much of an upload was
acknowledged, `["begin", SESSION, SEED]` and `["end", SESSION]` where it comes from and that it is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

Image = Optional[str]


class Upload(NamedTuple):
    """An upload in progress: the seed of its content, and the bytes that were acknowledged."""

    seed: str
    offset: int


class Promises(NamedTuple):
    """What may be found: for each tag the images that it may point at, None for no tag; and the uploads that must go
    on.
    """

    tags: dict[str, set[Image]]
    uploads: dict[str, Upload]


class Journal:
    """The file; any thread may add to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._intended: dict[str, tuple[str, Image]] = {}
        self._promises = Promises({}, {})
        self._read = 0
        self._silent = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def add(self, *entry: Any) -> None:
        """Append an entry and sync it."""
        with self._lock:
            if self._silent:
                return
            os.write(self._descriptor, json.dumps(entry).encode() + b"\n")
            os.fsync(self._descriptor)

    @contextlib.contextmanager
    def silenced(self) -> Iterator[None]:
        """Take nothing down during a block: what a machine without power would answer, nobody hears."""
        with self._lock:
            self._silent = True
        yield
        self._silent = False

    def promises(self) -> Promises:
        """Read on from where the last look ended."""
        with self._path.open("rb") as lines:
            lines.seek(self._read)
            for line in lines:
                kind, subject, *rest = json.loads(line)
                _ENTRIES[kind](self._promises, self._intended, subject, rest)
                self._read += len(line)
        return self._promises


def _intend(promises: Promises, intended: dict[str, tuple[str, Image]], client: str, rest: list[Any]) -> None:
    tag, image = rest
    intended[client] = (tag, image)
    promises.tags.setdefault(tag, {None}).add(image)


def _done(promises: Promises, intended: dict[str, tuple[str, Image]], client: str, _rest: list[Any]) -> None:
    tag, image = intended.pop(client)
    promises.tags[tag] = {image}


def _found(promises: Promises, _intended: dict[str, tuple[str, Image]], tag: str, rest: list[Any]) -> None:
    promises.tags[tag] = {rest[0]}


def _begin(promises: Promises, _intended: dict[str, tuple[str, Image]], session: str, rest: list[Any]) -> None:
    promises.uploads[session] = Upload(rest[0], 0)


def _chunk(promises: Promises, _intended: dict[str, tuple[str, Image]], session: str, rest: list[Any]) -> None:
    promises.uploads[session] = promises.uploads[session]._replace(offset=rest[0])


def _end(promises: Promises, _intended: dict[str, tuple[str, Image]], session: str, _rest: list[Any]) -> None:
    promises.uploads.pop(session)


_ENTRIES = {"intend": _intend, "done": _done, "found": _found, "begin": _begin, "chunk": _chunk, "end": _end}
