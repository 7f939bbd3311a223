"""Passwords: an unknown user takes the time of a known one, wrong logins do not slow right ones, and no password or key
is ever written, logged or shown.

VEX_TEST_LOGINS is the number of tries that are timed; ten times as many wrong logins are sent.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import ssl
import statistics
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

from tests.support.in_process import directory_in_memory
from tests.support.raw import basic, connected
from tests.support.server import PASSWORD, USER, Client, ServerTestCase, running, vex, write_certificate
from vex.access.users import Users
from vex.errors import RegistryError
from vex.storage.database import Database

TRIES = int(os.environ.get("VEX_TEST_LOGINS", "40"))
WRONG_LOGINS = 10 * TRIES
_MANY = 10**6
# A tenth of a second would be seen by a person; half of that is the promise.
_SLOW_SECONDS = 0.05


class Timing(unittest.TestCase):
    """What a login costs: the processor's time, which other programs on the machine do not change, since nothing in it
    waits.
    """

    def test_an_unknown_user_takes_the_time_of_a_known_one(self) -> None:
        with directory_in_memory() as directory, contextlib.closing(Database(Path(directory, "vex.db"))) as database:
            users = Users(database, failures_per_minute=_MANY)
            users.add(USER, PASSWORD)
            ratios = []
            for number in range(TRIES):
                # Whichever came second would find warmer caches.
                names = (USER, "nobody") if number % 2 else ("nobody", USER)
                took = {name: self._time(users, name) for name in names}
                # Each against the one beside it: a processor that has become slower is slower for both.
                ratios.append(took["nobody"] / took[USER])
        self.assertLess(abs(statistics.median(ratios) - 1), 0.05)

    def _time(self, users: Users, name: str) -> float:
        started = time.thread_time()
        with self.assertRaises(RegistryError):
            users.check(name, "wrong password", "192.0.2.1")
        return time.thread_time() - started


class Throttling(ServerTestCase):
    """Wrong logins, most with a name that is throttled after ten of them, and some with names of their own."""

    alone = True

    def test_wrong_logins_do_not_slow_a_client_with_the_right_password(self) -> None:
        with self._right_client() as take:
            take()
            before = _p99([take() for _ in range(TRIES * 5)])
            attackers = [threading.Thread(target=self._attack, args=(number,)) for number in range(4)]
            for attacker in attackers:
                attacker.start()
            during = []
            while any(attacker.is_alive() for attacker in attackers):
                during.append(take())
        # What a busy machine does to every request is not the registry's doing.
        self.assertLess(
            _p99(during),
            max(_SLOW_SECONDS, 3 * before),
            f"p99 was {before * 1000:.1f} ms before, of {len(during)} logins",
        )
        self.assertEqual(self.server.metric("vex_logins_refused_total"), WRONG_LOGINS)

    @contextlib.contextmanager
    def _right_client(self) -> Iterator[_Taker]:
        with contextlib.closing(http.client.HTTPConnection(*self.server.addresses["auth"], timeout=60)) as connection:
            yield _Taker(connection)

    def _attack(self, number: int) -> None:
        with contextlib.closing(http.client.HTTPConnection(*self.server.addresses["auth"], timeout=60)) as connection:
            for login in range(WRONG_LOGINS // 4):
                name = USER if login % 20 else f"nobody-{number}-{login}"
                connection.request("GET", "/v2/", headers={"Authorization": basic(name, f"wrong {login}")})
                response = connection.getresponse()
                response.read()
                assert response.status in (401, 429), response.status


class Secrets(unittest.TestCase):
    """Everything that Vex leaves behind, searched for what it must keep to itself."""

    def test_no_password_and_no_key_is_written_logged_or_shown(self) -> None:
        typed = {
            "right": PASSWORD,
            "wrong": "not-the-password-1",
            "new": "another-password-2",
            "query": "in-the-query-3",
            "bearer": "bearer-token-4",
        }
        with tempfile.TemporaryDirectory(prefix="vex-test-") as keys:
            certificate, key = write_certificate(keys)
            key_pem = key.read_text()
            with running("--debug", "--auth-tls-cert", str(certificate), "--auth-tls-key", str(key)) as server:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.load_verify_locations(certificate)
                self._log_in(server.addresses["auth"], context, typed)
                changed = vex("user", "password", USER, "--data-dir", str(server.data), text=typed["new"] + "\n")
                self.assertEqual(
                    Client(("localhost", server.addresses["auth"][1]), USER, typed["new"], context).get("/v2/").status,
                    200,
                )
                with connected(server.addresses["public"]) as wire:
                    line = f"GET /v2/?password={typed['query']} HTTP/1.1"
                    wire.send(
                        f"{line}\r\nHost: a\r\nAuthorization: Bearer {typed['bearer']}\r\nX\0:"
                        f" {PASSWORD}\r\n\r\n".encode()
                    )
                    wire.rest()
                places = dict(_places(server.directory, server.process.pid))
                places["/metrics"] = server.internal.get("/metrics").body
                places["vex user"] = (changed.stdout + changed.stderr).encode()
        # What is searched for can be found where it is.
        self.assertIn(USER.encode(), b"".join(places.values()))
        self.assertIn(b"/v2/", places["vex.log"])
        for what, secret in _forms(typed, key_pem):
            for place, content in places.items():
                with self.subTest(what, place=place):
                    self.assertNotIn(secret, content)

    def _log_in(self, address: tuple[str, int], context: ssl.SSLContext, typed: dict[str, str]) -> None:
        for name, password, status in (
            (USER, typed["right"], 200),
            (USER, typed["wrong"], 401),
            ("nobody", typed["wrong"], 401),
        ):
            client = Client(("localhost", address[1]), name, password, context)
            self.assertEqual(client.get("/v2/").status, status)
            client.get(f"/v2/_catalog?password={typed['query']}")
            client.request("PUT", f"/v2/app/manifests/v1?token={typed['query']}", b"{}")
        bearer = Client(("localhost", address[1]), context=context)
        self.assertEqual(bearer.get("/v2/", {"Authorization": f"Bearer {typed['bearer']}"}).status, 401)


class _Taker:
    """Logs in on one connection, again and again; each call returns how long it took, in seconds."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def __call__(self) -> float:
        started = time.monotonic()
        self._connection.request("GET", "/v2/", headers={"Authorization": basic()})
        response = self._connection.getresponse()
        response.read()
        assert response.status == 200, response.status
        return time.monotonic() - started


def _p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def _places(directory: Path, process: int) -> Iterator[tuple[str, bytes]]:
    """Go through all files under a directory, and what everyone on the machine can see of a process."""
    for path in directory.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(directory)), path.read_bytes()
    proc = Path("/proc", str(process))
    if proc.exists():
        for name in ("cmdline", "environ", "comm", "status", "maps"):
            yield f"/proc/PID/{name}", (proc / name).read_bytes()


def _forms(typed: dict[str, str], key: str) -> Iterator[tuple[str, bytes]]:
    """Give each secret in each form that it travels in, or could be stored in."""
    for what, text in typed.items():
        yield what, text.encode()
        yield f"{what}, in hex", text.encode().hex().encode()
        for name in (USER, "nobody"):
            yield f"{what}, as it is sent", base64.b64encode(f"{name}:{text}".encode()).rstrip(b"=")[:-1]
    for line in key.splitlines()[1:-1]:
        yield "the key", line.encode()


if __name__ == "__main__":
    unittest.main()
