"""Hostile requests at each listener of the real server, in the clear and over TLS: each gets the answer that it must,
and a well-formed one then its own.

With VEX_TEST_HOSTILE=all every case meets every listener over TLS too; otherwise each meets one or two of them there.
The requests are in `tests/support/data/hostile/`; `tests/support/hostile_requests.py` says how they are written. Their
answers are those of RFC 9110 and 9112, and of the OCI specifications.
"""

from __future__ import annotations

import json
import os
import ssl
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from tests.support.hostile_requests import (
    LISTENERS,
    PATIENCE_SECONDS,
    Case,
    Expected,
    Received,
    answers,
    cases,
    exchange,
    seed,
    well_formed,
)
from tests.support.server import USER, Client, ServerTestCase, tls_flags, trusting, write_certificate

CASES = cases()
FLAGS = ("--failed-logins", "1000000", "--upload-sessions", "100000")
# Enough to keep a server with two processors busy.
_THREADS = 4
# What no answer may give away: how the server is built, and where it is.
_SECRETS = (b"Traceback", b"SELECT ", b"/vex/", b".py", b"Errno", b"sqlite")


class Hostile(ServerTestCase):
    """Every case at every listener, in the clear."""

    flags: tuple[str, ...] = FLAGS
    context: ssl.SSLContext | None = None

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        seed(Client(cls.server.addresses["auth"], USER, context=cls.context))

    def test_there_are_at_least_400_cases_each_with_a_name_of_its_own(self) -> None:
        self.assertGreaterEqual(len({case.name for case in CASES}), 400)
        self.assertEqual(len({case.name for case in CASES}), len(CASES))

    def test_each_gets_its_answer_and_a_well_formed_request_then_gets_its_own(self) -> None:
        pairs = self.pairs()
        with ThreadPoolExecutor(_THREADS) as pool:
            for (listener, case), problem in zip(pairs, pool.map(self.problem, pairs)):
                with self.subTest(case.name, listener=listener):
                    self.assertEqual(problem, "")

    def pairs(self) -> list[tuple[str, Case]]:
        return [(listener, case) for case in CASES for listener in LISTENERS]

    def problem(self, pair: tuple[str, Case]) -> str:
        """Say what is wrong with the answer to a case; "" if it is right."""
        listener, case = pair
        expected, address = case.expected[listener], self.server.addresses[listener]
        started = time.monotonic()
        end = expected.then == "end"
        try:
            received = exchange(address, case.data if end else case.data + well_formed(listener), self.context, end=end)
            came = answers(received, head=case.data.startswith(b"HEAD "))
            after = answers(exchange(address, well_formed(listener), self.context))
        except (OSError, ValueError) as error:
            return repr(error)
        if time.monotonic() - started > PATIENCE_SECONDS:
            return "it took too long"
        if [answer.status for answer in after] != [200]:
            return f"afterwards a well-formed request was answered {after}"
        return _difference(expected, came) or _leak(came, expected, str(self.server.data).encode())


class HostileOverTls(Hostile):
    """The same over TLS."""

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        cls.addClassCleanup(directory.cleanup)
        certificate, key = write_certificate(directory.name)
        cls.flags = (*FLAGS, *tls_flags(certificate, key, *LISTENERS))
        cls.context = trusting(certificate)
        super().setUpClass()

    def pairs(self) -> list[tuple[str, Case]]:
        return super().pairs()[:: 1 if os.environ.get("VEX_TEST_HOSTILE") == "all" else 2]


def _difference(expected: Expected, came: list[Received]) -> str:
    statuses = [answer.status for answer in came]
    count = bool(expected.statuses) + (expected.then == "open")
    if len(came) != count:
        return f"{count} answers must come, but {statuses} came: {came[:1]}"
    if not expected.statuses:
        return ""
    if statuses[0] not in expected.statuses:
        return f"it must be {expected.statuses}, and is {came[0]}"
    if expected.then == "open" and statuses[1] != 200:
        return f"what follows it must be answered 200, and is answered {came[1]}"
    name, _, value = expected.field.partition(": ")
    if name and came[0].fields.get(name.lower()) != value:
        return f"{expected.field} must be there: {came[0]}"
    return _document(expected, came[0])


def _document(expected: Expected, answer: Received) -> str:
    """Say what is wrong with the error document of an answer."""
    if expected.code == "-":
        return "" if answer.status < 400 or not answer.body else f"it must be no error document: {answer}"
    if answer.fields.get("x-content-type-options") != "nosniff":
        return f"nosniff is missing: {answer}"
    media_type = answer.fields["content-type"]
    if expected.code == "page":
        return (
            ""
            if media_type == "text/html; charset=utf-8" and answer.body.startswith(b"<!DOCTYPE html>")
            else f"it must be a page: {answer}"
        )
    if media_type != "application/json":
        return f"it must be an error document: {answer}"
    errors = json.loads(answer.body)["errors"]
    right = len(errors) == 1 and errors[0]["message"] and (expected.code == "*" or errors[0]["code"] == expected.code)
    return "" if right else f"it must be one error, {expected.code}: {answer}"


def _leak(came: list[Received], expected: Expected, directory: bytes) -> str:
    """Say what an answer gives away, of the server or, where it must not, of the request."""
    for answer in came[:1]:
        text = repr(answer.fields).encode() + answer.body
        for secret in (*_SECRETS, directory, *(() if expected.echo else (b"echo-me",))):
            if secret in text:
                return f"{secret!r} is in the answer: {answer}"
        if "set-cookie" in answer.fields:
            return f"a cookie is set: {answer}"
    return ""


if __name__ == "__main__":
    unittest.main()
