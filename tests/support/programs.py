"""Real programs that tests run, such as openssl and docker."""

from __future__ import annotations

import os
import shutil
import unittest
from pathlib import Path


def require(program: str, package: str) -> str:
    """Find a program; without it the test is skipped.

    VEX_TEST_REQUIRE=all says that everything is there, so that a missing program is a failure, and =none that nothing
    else is to be run.
    """
    return _require(shutil.which(program), f"needs {program}: install the Debian package {package}")


def require_client(path: str) -> str:
    """Find a file of the clients from PyPI and npm, such as bin/uv or node_modules/.bin/containerify; `bin/python` has
    those from PyPI.

    VEX_TEST_CLIENTS names the directory that tests/install_clients.sh filled; what is required is as with `require`.
    """
    directory = os.environ.get("VEX_TEST_CLIENTS")
    found = Path(directory, path) if directory else None
    message = f"needs {path}: run tests/install_clients.sh DIRECTORY, and set VEX_TEST_CLIENTS=DIRECTORY"
    return _require(str(found) if found and found.exists() else None, message)


def _require(path: str | None, message: str) -> str:
    required = os.environ.get("VEX_TEST_REQUIRE")
    if path and required != "none":
        return path
    if required == "all":
        raise AssertionError(message)
    raise unittest.SkipTest(message)
