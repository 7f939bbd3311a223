"""Real programs that tests run, such as openssl and docker."""

from __future__ import annotations

import os
import shutil
import unittest


def require(program: str, package: str) -> str:
    """Find a program; without it the test is skipped.

    VEX_TEST_REQUIRE=all says that everything is there, so that a missing program is a failure, and =none that nothing else is to be run.
    """
    required = os.environ.get("VEX_TEST_REQUIRE")
    path = None if required == "none" else shutil.which(program)
    if path:
        return path
    message = f"needs {program}: install the Debian package {package}"
    if required == "all":
        raise AssertionError(message)
    raise unittest.SkipTest(message)
