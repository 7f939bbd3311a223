"""Logs, read as tests look at them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Read lines of JSON; a line of the command itself, as it starts, is left out."""
    return [json.loads(line) for line in path.read_text().splitlines() if not line.startswith("vex: ")]
