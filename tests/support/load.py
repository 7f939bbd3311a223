"""Clients that push, move tags and delete at the same time, while a test does something else to the same registry."""

from __future__ import annotations

import random
import threading
from typing import NamedTuple

from tests.support.server import Client, Server

_CLIENTS = 3


class Image(NamedTuple):
    """An image that was acknowledged."""

    repository: str
    tag: str
    digest: str


class Load:
    """The clients, at work for a block, with layers of their own and in common; what `kept` names is never deleted."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = False
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(_CLIENTS)]
        self._rounds = [0] * _CLIENTS
        self._round_ended = threading.Condition()
        self.failures: list[BaseException] = []
        self.kept: list[Image] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop = True
        for thread in self._threads:
            thread.join()

    def wait_for_rounds(self) -> None:
        """Wait until what every client does now has ended."""
        with self._round_ended:
            wanted = [rounds + 2 for rounds in self._rounds]
            ended = self._round_ended.wait_for(
                lambda: self.failures or all(map(int.__ge__, self._rounds, wanted)), timeout=60
            )
        assert ended, "the clients stand still"

    def _run(self, number: int) -> None:
        client, chance = self._server.auth, random.Random(number)
        try:
            while not self._stop:
                self._work(number, client, chance)
                with self._round_ended:
                    self._rounds[number] += 1
                    self._round_ended.notify_all()
        except BaseException as error:  # for the thread that looks at them
            self.failures.append(error)

    def _work(self, number: int, client: Client, chance: random.Random) -> None:
        layers = [chance.randbytes(chance.randrange(1, 50_000)), b"common %d" % chance.randrange(3)]
        client.push_image(f"moving/{number}", str(chance.randrange(3)), *layers)
        if self._rounds[number] % 3 == 0:
            status = client.request("DELETE", f"/v2/moving/{number}/manifests/{chance.randrange(3)}").status
            assert status in (202, 404), status
        if self._rounds[number] % 20 == 0:
            repository, tag = f"kept/{number}", str(self._rounds[number])
            self.kept.append(Image(repository, tag, client.push_image(repository, tag, layers[0])))
