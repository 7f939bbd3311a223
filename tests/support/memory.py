"""What a server takes of memory."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.server import Server


def peak_bytes(server: Server) -> int:
    """Return the largest resident size that the server has had, in bytes."""
    return status_bytes(server, "VmHWM")


def status_bytes(server: Server, field: str) -> int:
    """Read a field of proc(5), status."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, status
    return int(found[1]) * 1024
