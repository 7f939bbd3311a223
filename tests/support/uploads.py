"""Uploads that tests interrupt and ask about."""

from __future__ import annotations

import time
import unittest
from typing import Callable

from tests.support.raw import Wire, basic
from tests.support.server import Client, Server, digest_of

MIB = 2**20


class UploadTestCase(unittest.TestCase):
    """Checks and waits that the tests share."""

    def start(self, client: Client, repository: str = "app") -> str:
        """Open an upload; returns its location."""
        answer = client.request("POST", f"/v2/{repository}/blobs/uploads/")
        self.assertEqual(answer.status, 202, answer)
        return answer.headers["Location"]

    def wait_for(self, condition: Callable[[], bool], message: str) -> None:
        """Ask again until something is so; what is asked takes its time itself."""
        deadline = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), deadline, message)


def received(client: Client, location: str) -> int:
    """Ask how many bytes a session has."""
    answer = client.get(location)
    assert answer.status == 204, answer
    last = int(answer.headers["Range"].partition("-")[2])
    return last + 1 if last else 0


UPLOAD = digest_of(b"0123456789")


def begin_upload(server: Server) -> Wire:
    """Send the first half of a blob, which holds up the end of the server."""
    wire = Wire(server.addresses["auth"])
    head = (
        f"POST /v2/slow/blobs/uploads/?digest={UPLOAD} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\n"
        "Content-Length: 10\r\nExpect: 100-continue\r\n\r\n"
    )
    wire.send(head.encode())
    assert wire.answer().status == 100
    wire.send(b"01234")
    return wire
