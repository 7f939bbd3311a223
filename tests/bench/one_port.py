"""Rows: manifests at the port where is also written, beside the public port of the same process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Callable

from tests.bench.amounts import Amounts
from tests.bench.clients import Clients
from tests.bench.measure import REQUESTS, Goal, Other, Row, Sample, timed
from tests.bench.reads import BY_TAG, DIGEST, REPOSITORY, Reads
from tests.bench.registries import Registry

FLAGS = ("--anonymous-read", "yes")
_CONNECTIONS = 8


class OnePort:
    """The rows."""

    def __init__(self, clients: Clients, reads: Reads, amounts: Amounts) -> None:
        self._clients = clients
        self._reads = reads
        self._amounts = amounts

    def rows(self) -> Iterator[Row]:
        """Make the rows."""
        for name, title, authorize, times in (
            ("anonymous", "anonymous", lambda _registry: "", 0.9),
            ("basic", "with a password", lambda registry: registry.authorization, 0.7),
            ("bearer", "with a token", _bearer, 0.7),
        ):
            yield Row(
                f"one-port-{name}",
                f"GET manifest by tag at the one port, {title}, {_CONNECTIONS} connections",
                REQUESTS,
                self._reads.push_image,
                self._gets(authorize),
                Goal(times),
                pair="one-port",
                other=Other("public port", self._gets(lambda _registry: None)),
            )

    def _gets(self, authorize: Callable[[Registry], str | None]) -> Callable[[Registry], Sample]:
        def measure(registry: Registry) -> Sample:
            authorization = authorize(registry)
            registry.check(BY_TAG, DIGEST, authorization)
            seconds = self._amounts.seconds
            return timed(registry, lambda: self._clients.get(registry, [BY_TAG], _CONNECTIONS, seconds, authorization))

        return measure


def _bearer(registry: Registry) -> str:
    """Fetch a token, valid for much longer than a round."""
    path = f"/v2/_token?service={registry.write[0]}:{registry.write[1]}&scope=repository:{REPOSITORY}:pull"
    answer = registry.request("GET", path, authorization=registry.authorization)
    return f"Bearer {json.loads(answer.body)['token']}"
