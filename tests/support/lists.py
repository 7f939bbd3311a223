"""Lists of the registry API, followed from page to page."""

from __future__ import annotations

import re
from typing import Any

from tests.support.server import Client

LINK = re.compile(r'<(/v2/[^>]+)>; rel="next"')


def walk(client: Client, path: str, key: str) -> tuple[list[Any], list[int]]:
    """Follow the links from page to page; returns all entries, and how many were on each page."""
    entries: list[Any] = []
    sizes: list[int] = []
    while path:
        answer = client.get(path)
        assert answer.status == 200, answer
        page = answer.json[key]
        entries += page
        sizes.append(len(page))
        assert len(sizes) < 100, "the links go round"
        match = LINK.fullmatch(answer.headers["Link"] or "")
        path = match[1] if match else ""
    return entries, sizes
