"""The lists of files in layers, each made once, and kept in memory in pages, packed.

What is kept is bounded: the rows of one list, packed, and all lists together, of which those that were not used for the
longest time make room. A list that is needed by several at once is made by one, and the others wait for it.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Sequence
from typing import BinaryIO, Callable, NamedTuple

from vex.formats.layer import Entry, Limits, TooSlow, list_files
from vex.formats.tar_headers import Incomplete
from vex.names import Digest
from vex.progress import Work

_LIST_BYTES = 8 * 1024 * 1024
_ALL_BYTES = 16 * 1024 * 1024
# What a page costs besides its bytes.
_PAGE_BYTES = 100
# Longer names are cut in the middle, and shorter still when those of a page are many and long.
_NAME, _SHORT_NAME, _NAMES = 1024, 300, 64 * 1024
_WAIT_SECONDS = 0.1
_FASTEST = 1


class LayerList(NamedTuple):
    """The files of a layer: how many entries it has, their bytes when unpacked, why it ends early if it does, and
    whether it would be the same again.
    """

    pages: Sequence[bytes]
    entries: int
    unpacked: int
    problem: str
    certain: bool

    def page(self, number: int) -> list[Entry]:
        """Return the entries of a page, the first of which is 0; long names are cut."""
        if number >= len(self.pages):
            return []
        return [Entry(*fields) for fields in json.loads(zlib.decompress(self.pages[number]))]

    @property
    def bytes(self) -> int:
        """What it takes of memory, about."""
        return sum(map(len, self.pages)) + _PAGE_BYTES * (len(self.pages) + 1)


def make_list(file: BinaryIO, limits: Limits, work: Work, rows: int, most_bytes: int = _LIST_BYTES) -> LayerList:
    """Read a layer, and list its files, so many rows a page."""
    pages: list[bytes] = []
    page: list[Entry] = []
    count = unpacked = size = 0
    problem, certain = "", True
    try:
        for entry in list_files(file, limits, work):
            if len(page) == rows:
                pages.append(_pack(page))
                size += len(pages[-1]) + _PAGE_BYTES
                page.clear()
                work.resume()
                if size > most_bytes:
                    raise Incomplete(f"the names in the layer take more than {most_bytes >> 20} MiB, packed")
            page.append(_cut(entry, _NAME))
            count, unpacked = count + 1, unpacked + entry.size
    except Incomplete as error:
        problem, certain = str(error), not isinstance(error, TooSlow)
    if page:
        pages.append(_pack(page))
    return LayerList(pages, count, unpacked, problem, certain)


class LayerLists:
    """The lists that are kept; any thread may ask."""

    def __init__(self, most_bytes: int = _ALL_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: dict[Digest, LayerList] = {}
        self._bytes = 0
        self._made: dict[Digest, threading.Event] = {}
        self._lock = threading.Lock()

    def get(self, layer: Digest, make: Callable[[], LayerList], work: Work) -> LayerList:
        """Return the list of a layer, made if it is not here."""
        while True:
            with self._lock:
                found = self._kept.pop(layer, None)
                if found is not None:
                    # Now the one that was used last.
                    self._kept[layer] = found
                    return found
                made = self._made.get(layer)
                if made is None:
                    made = self._made[layer] = threading.Event()
                    break
            while not made.wait(_WAIT_SECONDS):
                work.step()
        try:
            listed = make()
            self._keep(layer, listed)
            return listed
        finally:
            with self._lock:
                del self._made[layer]
            made.set()

    def _keep(self, layer: Digest, listed: LayerList) -> None:
        with self._lock:
            self._kept[layer] = listed
            self._bytes += listed.bytes
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.pop(next(iter(self._kept))).bytes


def _pack(rows: Sequence[Entry]) -> bytes:
    if sum(len(entry.path) + len(entry.target) for entry in rows) > _NAMES:
        rows = [_cut(entry, _SHORT_NAME) for entry in rows]
    return zlib.compress(json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode(), _FASTEST)


def _cut(entry: Entry, most: int) -> Entry:
    if len(entry.path) <= most and len(entry.target) <= most:
        return entry
    return entry._replace(path=_shortened(entry.path, most), target=_shortened(entry.target, most))


def _shortened(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most // 2]} … {name[-most // 4 :]} ({len(name):,} characters)"
