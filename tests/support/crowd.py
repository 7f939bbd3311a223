"""Anonymous readers who ask for what costs most, as a process of its own: `python3 -m tests.support.crowd KIND HOST
PORT SECONDS [PATH …]`.

`search` asks for one word after the other, 16 at once, `layers` for the pages of the layers that it is given, 32 at
once, `crawl` for every link that it finds, one after the other. At the end a line tells how many answers there were of
each status. Like what crawls in earnest, they wait as long as a 503 says.
"""

from __future__ import annotations

import collections
import html
import http.client
import itertools
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

_TIMEOUT_SECONDS = 60
_LINK = re.compile(rb'href="(/[^"#]*)')
_MAX_LINKS = 100_000


class Reader(NamedTuple):
    """One reader: where it asks, and until when (monotonic clock)."""

    address: tuple[str, int]
    until: float
    counts: collections.Counter[int]

    def read(self, paths: Iterator[str], found: collections.deque[str] | None = None) -> None:
        """Ask for one path after the other; `found` gets the links of each page."""
        connection = http.client.HTTPConnection(*self.address, timeout=_TIMEOUT_SECONDS)
        for path in paths:
            if time.monotonic() >= self.until:
                break
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            self.counts[response.status] += 1
            if response.status == 503:
                time.sleep(max(0.0, min(float(response.getheader("Retry-After", "1")), self.until - time.monotonic())))
            elif found is not None and response.getheader("Content-Type", "").startswith("text/html"):
                found.extend(html.unescape(link.decode()) for link in _LINK.findall(body))
        connection.close()


def _words(start: int) -> Iterator[str]:
    return (f"/?q=repository-{number:03x}" for number in itertools.count(start))


def _links(found: collections.deque[str]) -> Iterator[str]:
    seen: set[str] = set()
    while found and len(seen) < _MAX_LINKS:
        link = found.popleft()
        if link not in seen:
            seen.add(link)
            yield link


def main() -> None:
    """Read, and print what came."""
    kind, host, port, seconds, *paths = sys.argv[1:]
    reader = Reader((host, int(port)), time.monotonic() + float(seconds), collections.Counter())
    found = collections.deque(["/"])
    threads = {
        "search": lambda: [threading.Thread(target=reader.read, args=(_words(1000 * number),)) for number in range(16)],
        "layers": lambda: [
            threading.Thread(target=reader.read, args=(itertools.islice(itertools.cycle(paths), number, None),))
            for number in range(32)
        ],
        "crawl": lambda: [threading.Thread(target=reader.read, args=(_links(found), found))],
    }[kind]()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump(reader.counts, sys.stdout)


if __name__ == "__main__":
    main()
