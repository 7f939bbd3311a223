"""How log lines look: on standard error, one line each, with nothing in them that could pass for another line."""

from __future__ import annotations

import logging
import re
import sys

_MAX_CHARACTERS = 8 * 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class _Formatter(logging.Formatter):
    """Escapes what a client may have put into a message; a traceback comes from us, and keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- the name is logging's
        line = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", super().formatMessage(record))
        return line if len(line) <= _MAX_CHARACTERS else line[: _MAX_CHARACTERS - 3] + "..."


def log_to_standard_error(*, debug: bool) -> None:
    """Log from now on; `debug` adds requests and answers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
