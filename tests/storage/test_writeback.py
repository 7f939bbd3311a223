"""Writing begun early: what was pushed is still in memory when the first client pulls it."""

from __future__ import annotations

import errno
import os
import tempfile
import unittest

from tests.support.server import ServerTestCase
from vex.storage.writeback import by_advice, by_range

PIECE_BYTES = 1024 * 1024


def bytes_in_memory(descriptor: int) -> int:
    """Tell how much of a file can be read without the disk; skips the test where the system does not tell."""
    found = 0
    for offset in range(0, os.fstat(descriptor).st_size, PIECE_BYTES):
        try:
            found += os.preadv(descriptor, [bytearray(PIECE_BYTES)], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise unittest.SkipTest(f"this file system does not tell what is in memory: {error}") from error
    return found


@unittest.skipUnless(hasattr(os, "RWF_NOWAIT") and by_range(), "this system does not tell, or has no sync_file_range")
class Pushed(ServerTestCase):
    def test_a_blob_stays_in_memory_when_it_was_pushed(self) -> None:
        content = os.urandom(24 * PIECE_BYTES)
        algorithm, _, encoded = self.server.auth.push_blob("app/large", content).partition(":")
        descriptor = os.open(self.server.data / "blobs" / algorithm / encoded, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        self.assertGreater(bytes_in_memory(descriptor), len(content) * 0.9)


class Ways(unittest.TestCase):
    def test_a_file_keeps_what_was_written_whichever_way_the_system_has(self) -> None:
        for way in filter(None, (by_range(), by_advice())):
            with tempfile.TemporaryFile() as file:
                file.write(b"x" * 100_000)
                file.flush()
                way(file.fileno(), 4096, 65536)
                file.seek(0)
                self.assertEqual(file.read(), b"x" * 100_000)
