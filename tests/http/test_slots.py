"""Who is served when not all can be: nobody holds all places of a listener while others wait."""

from __future__ import annotations

import contextlib
import socket
import time
import unittest
from collections.abc import Iterator

from tests.support.server import ServerTestCase
from vex.http.slots import Arrival, Slots, origin_of

REQUEST = b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"


class Order(unittest.TestCase):
    """The rules alone; a connection is a number, and its origin a letter, or "" for a proxy."""

    def setUp(self) -> None:
        self.slots = Slots(8, 3)
        self.numbers = iter(range(100))

    def arrive(self, origin: str) -> tuple[int | None, int | None]:
        """Take a connection from an origin; returns the numbers of the one admitted and the one turned away."""
        admitted, refused = self.slots.arrive(Arrival(next(self.numbers), None, origin))
        return admitted and admitted.connection, refused and refused.connection

    def test_all_are_admitted_while_there_are_places_and_then_wait_in_order(self) -> None:
        for number in range(8):
            self.assertEqual(self.arrive("a"), (number, None))
        for _ in range(3):
            self.assertEqual(self.arrive("a"), (None, None))
        self.assertEqual(len(self.slots), 3)
        for place, number in ((3, 8), (0, 9), (8, 10)):
            admitted = self.slots.leave(place)
            self.assertEqual(admitted and admitted.connection, number)
        self.assertIsNone(self.slots.leave(1))
        self.assertEqual(self.arrive("b"), (11, None))

    def test_who_has_less_than_a_quarter_is_served_first(self) -> None:
        for _ in range(8):
            self.arrive("a")
        self.arrive("a")
        self.arrive("b")
        admitted = self.slots.leave(0)
        self.assertEqual(admitted and admitted.origin, "b")

    def test_when_the_queue_is_full_the_newest_of_who_has_most_is_turned_away_and_never_a_proxy(self) -> None:
        for origin in ("a", "a", "b", "", "", "", "", ""):
            self.arrive(origin)
        self.arrive("")
        self.arrive("a")
        self.arrive("b")
        self.assertEqual(self.arrive("c"), (None, 9))
        self.assertEqual(self.arrive("b"), (None, 12))
        self.assertEqual(self.arrive(""), (None, 10))

    def test_claims_are_those_of_who_waits_with_less_than_a_share_against_who_has_more(self) -> None:
        for _ in range(8):
            self.arrive("a")
        self.assertEqual(self.slots.claims("aaaaaaaa"), (0, "a"))
        self.arrive("a")
        self.arrive("b")
        self.arrive("")
        self.assertEqual(self.slots.claims("aaaaaaaa"), (2, "a"))
        self.assertEqual(self.slots.claims("aab"), (2, ""))
        self.assertEqual(self.slots.claims(["", "", "", "a", "a"]), (2, ""))

    def test_who_left_the_queue_is_closed_by_whoever_cleared_it(self) -> None:
        for _ in range(10):
            self.arrive("a")
        self.assertEqual([arrival.connection for arrival in self.slots.clear()], [8, 9])
        self.assertIsNone(self.slots.leave(0))

    def test_an_origin_is_an_address_or_a_network_of_ipv6_and_none_for_proxies(self) -> None:
        trusted = {"192.0.2.9"}.__contains__
        for client, origin in (
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.9", ""),
            ("unix", ""),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
        ):
            self.assertEqual(origin_of(client, trusted), origin)
        self.assertEqual(origin_of("192.0.2.9", None), "192.0.2.9")


class Crowds(ServerTestCase):
    """Eight places, and somebody who takes all of them and more, for longer than the test takes."""

    flags = (
        "--public-connections",
        "8",
        "--auth-connections",
        "8",
        "--backlog",
        "8",
        "--head-timeout",
        "30s",
        "--trusted-proxies",
        "127.0.0.3",
    )

    def setUp(self) -> None:
        """Wait until what the last test held is gone."""
        deadline = time.monotonic() + 20
        while any(self.server.metric(f'vex_connections_open{{listener="{name}"}}') for name in ("public", "auth")):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    @contextlib.contextmanager
    def crowd(self, source: str, count: int, listener: str = "public") -> Iterator[list[socket.socket]]:
        """Hold connections from an address, each with the beginning of a request."""
        with contextlib.ExitStack() as stack:
            held = []
            for _ in range(count):
                held.append(
                    stack.enter_context(socket.create_connection(self.server.addresses[listener], 20, (source, 0)))
                )
                held[-1].sendall(REQUEST[:-2])
            yield held

    def ask(self, source: str, listener: str = "public") -> int:
        """Send a request from an address; returns the status of the answer."""
        with socket.create_connection(self.server.addresses[listener], 20, (source, 0)) as sock:
            sock.sendall(REQUEST)
            return int(sock.recv(4096).split()[1])

    def test_others_are_served_while_one_address_holds_all_places(self) -> None:
        for listener, status in (("public", 200), ("auth", 401)):
            with self.subTest(listener), self.crowd("127.0.0.2", 14, listener):
                started = time.monotonic()
                for source in ("127.0.0.1", "127.0.0.3", "127.0.0.4"):
                    self.assertEqual(self.ask(source, listener), status)
                self.assertLess(time.monotonic() - started, 5)

    def test_proxies_may_hold_all_places_and_are_cut_for_nobody(self) -> None:
        with self.crowd("127.0.0.3", 8) as held:
            with socket.create_connection(self.server.addresses["public"], 20, ("127.0.0.1", 0)) as waiting:
                waiting.sendall(REQUEST)
                waiting.settimeout(1)
                with self.assertRaises(OSError):
                    waiting.recv(1)
            for connection in held:
                connection.sendall(REQUEST[-2:])
                self.assertEqual(connection.recv(4096).split()[1], b"200")

    def test_one_address_alone_may_have_all_places_and_the_others_of_it_wait(self) -> None:
        with self.crowd("127.0.0.2", 10) as held:
            for connection in held:
                connection.sendall(REQUEST[-2:])
            for connection in held:
                self.assertEqual(connection.recv(4096).split()[1], b"200")

    def test_more_than_places_and_queue_hold_are_answered_503(self) -> None:
        with self.crowd("127.0.0.2", 20) as held:
            answers = [connection.recv(4096) for connection in held[16:]]
            for answer in answers:
                self.assertTrue(answer.startswith(b"HTTP/1.1 503 "), answer)
                self.assertIn(b"\r\nRetry-After: 1\r\n", answer)


if __name__ == "__main__":
    unittest.main()
