"""What trusted proxies say, and who is believed: RFC 7239 and the X-Forwarded fields, as functions and over
connections.
"""

from __future__ import annotations

import time
import unittest
from collections.abc import Mapping

from tests.support.page import Page
from tests.support.server import PASSWORD, USER, Client, Server, ServerTestCase, running
from vex.http.forwarded import Forwarded, Proxies
from vex.http.heads import HeadLimits, parse_head
from vex.settings.config import KEYS

TRUSTED = next(key for key in KEYS if key.name == "trusted-proxies").parse("192.0.2.1, 10.0.0.0/8, fd00::/8, unix")


def origin(*fields: str, trusted: str = "192.0.2.1, 10.0.0.0/8, fd00::/8") -> Forwarded:
    """Tell where a request with these header fields came from."""
    networks = next(key for key in KEYS if key.name == "trusted-proxies").parse(trusted)
    head = parse_head("\r\n".join(["GET / HTTP/1.1", "Host: vex", *fields, "", ""]).encode(), HeadLimits())
    return Proxies(networks).origin(head)


class Trust(unittest.TestCase):
    def test_addresses_and_networks_are_trusted_and_no_others(self) -> None:
        proxies = Proxies(TRUSTED)
        for peer in ("192.0.2.1", "10.255.0.1", "fd00::1", "unix"):
            self.assertTrue(proxies.trusts(peer), peer)
        for peer in ("192.0.2.2", "11.0.0.1", "fe80::1%eth0", "::1", "", "localhost", "10.0.0.1, 10.0.0.2", "UNIX"):
            self.assertFalse(proxies.trusts(peer), peer)
        self.assertFalse(Proxies(TRUSTED[:-1]).trusts("unix"))


class FromFields(unittest.TestCase):
    def check(self, expected: Mapping[str, str | tuple[str, ...]]) -> None:
        for client, fields in expected.items():
            with self.subTest(fields):
                self.assertEqual(
                    origin(*([fields] if isinstance(fields, str) else fields)).client, client.partition(" ")[0]
                )

    def test_the_right_most_address_that_is_no_trusted_proxy_is_the_client(self) -> None:
        self.check(
            {
                "198.51.100.7": "X-Forwarded-For: 198.51.100.7",
                "198.51.100.7 behind what it claims": "X-Forwarded-For: 203.0.113.9, 198.51.100.7",
                "198.51.100.7 behind proxies": "X-Forwarded-For: 203.0.113.9, 198.51.100.7, 10.1.1.1,192.0.2.1",
                "198.51.100.7 in two lines": ("X-Forwarded-For: 198.51.100.7", "X-Forwarded-For: 10.1.1.1"),
                "198.51.100.7 with a port": "X-Forwarded-For: 198.51.100.7:4711",
                "198.51.100.7 mapped": "X-Forwarded-For: ::ffff:198.51.100.7",
                "2001:db8::7": "X-Forwarded-For: 2001:DB8:0::7",
                "2001:db8::7 with a port": "X-Forwarded-For: [2001:db8::7]:4711",
                "10.1.1.1 as all are trusted": "X-Forwarded-For: 10.1.1.1, 10.1.1.2",
                "198.51.100.7 standard": (
                    'Forwarded: for=203.0.113.9, For="198.51.100.7:80";proto=https;by=10.1.1.1 , for=10.1.1.1'
                ),
                "2001:db8::7 standard": 'Forwarded: for="[2001:db8::7]:4711"',
                "198.51.100.8 escaped": 'Forwarded: for="198.51.100.\\8"',
                "198.51.100.7 said twice": ("Forwarded: for=198.51.100.7", "X-Forwarded-For: 198.51.100.7"),
            }
        )

    def test_what_is_malformed_or_hidden_or_contradicts_itself_names_nobody(self) -> None:
        for fields in (
            ("X-Forwarded-For: unknown",),
            ("X-Forwarded-For: 198.51.100.7, _hidden",),
            ("X-Forwarded-For: 198.51.100.7, 300.1.1.1, 10.0.0.1",),
            ("X-Forwarded-For: 198.51.100.7 203.0.113.9",),
            ("X-Forwarded-For: 198.51.100.07",),
            ("X-Forwarded-For: fe80::1%eth0",),
            ("X-Forwarded-For: unix",),
            ("X-Forwarded-For: ,",),
            ("Forwarded: for=198.51.100.7, for=_hidden",),
            ("Forwarded: for=198.51.100.7, proto=https",),
            ('Forwarded: for="198.51.100.7',),
            ("Forwarded: for=198.51.100.7;for=203.0.113.9",),
            ("Forwarded: for=198.51.100.7 proto=https",),
            ("Forwarded: 198.51.100.7",),
            ("Forwarded: for=198.51.100.7", "X-Forwarded-For: 203.0.113.9"),
        ):
            with self.subTest(fields):
                self.assertEqual(origin(*fields).client, "")

    def test_scheme_and_host_are_what_the_outermost_trusted_proxy_said(self) -> None:
        for expected, fields in (
            (("https", "a.example"), ("X-Forwarded-Proto: https", "X-Forwarded-Host: a.example")),
            (
                ("https", "a.example:8443"),
                ("X-Forwarded-Proto: http, HTTPS", "X-Forwarded-Host: evil.example, a.example:8443"),
            ),
            (("https", ""), ("X-Forwarded-For: 198.51.100.7, 10.0.0.1", "X-Forwarded-Proto: https, http")),
            (("https", ""), ("X-Forwarded-For: 198.51.100.7, 10.0.0.1", "X-Forwarded-Proto: https")),
            (
                ("https", "a.example"),
                (
                    (
                        "Forwarded: for=1.1.1.1;host=evil.example, for=198.51.100.7;proto=https;host=a.example,"
                        " for=10.0.0.1;proto=http"
                    ),
                ),
            ),
            (("https", "[2001:db8::1]:8443"), ('Forwarded: proto=https;host="[2001:db8::1]:8443"',)),
            (("", ""), ("X-Forwarded-Proto: ftp", "X-Forwarded-Host: a.example/x")),
            (("https", ""), ("X-Forwarded-Proto: https", "Forwarded: proto=http;host=a b")),
            (("", "a.example"), ("X-Forwarded-Proto: https", "Forwarded: proto=http;host=a.example")),
        ):
            with self.subTest(fields):
                self.assertEqual(origin(*fields)[1:], expected)

    def test_long_fields_take_no_longer_than_they_are_long(self) -> None:
        elements = ("for=a" * 6000, "for=a" + " " * 30000 + "b", 'a="' + "\\a" * 15000)
        for field in ("X-Forwarded-For: " + "10.0.0.1," * 3000, *(f"Forwarded: {text}" for text in elements)):
            self.assertEqual(origin(field)[1:], ("", ""))


class Behind(ServerTestCase):
    """A server that trusts the address that all tests have."""

    flags = ("--trusted-proxies", "127.0.0.0/8", "--failed-logins", "2", "--debug")

    def refused(self, server: Server, forwarded: str, user: str = "mallory") -> int:
        return Client(server.addresses["auth"], user, "wrong").get("/v2/", {"X-Forwarded-For": forwarded}).status

    def test_wrong_passwords_are_counted_for_the_client_and_not_for_the_proxy(self) -> None:
        self.assertEqual([self.refused(self.server, "198.51.100.7") for _ in range(3)], [401, 401, 429])
        self.assertEqual(self.refused(self.server, "198.51.100.8"), 401)
        self.assertEqual(self.refused(self.server, "198.51.100.9, 198.51.100.7"), 429)

    def test_wrong_passwords_are_counted_for_the_proxy_if_it_says_nonsense(self) -> None:
        self.assertEqual(
            [self.refused(self.server, f"nonsense-{number}", "trent") for number in range(3)], [401, 401, 429]
        )

    def test_nobody_else_is_believed(self) -> None:
        for flags in ((), ("--trusted-proxies", "10.0.0.0/8,unix")):
            with running("--failed-logins", "2", *flags) as server:
                self.assertEqual([self.refused(server, f"198.51.100.{number}") for number in range(3)], [401, 401, 429])
                page = Page(
                    server.public.get(
                        "/", {"Host": "a.example", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "b.example"}
                    ).body.decode()
                )
                self.assertIn("a.example", page.text)
                self.assertNotIn("b.example", page.text)

    def test_pages_show_the_scheme_and_host_that_the_proxy_names(self) -> None:
        digest = self.server.auth.push_image("app", "v1", b"layer")
        for headers, shown, plain in (
            ({"Host": "box:8200"}, "podman pull --tls-verify=false box:8200/app", True),
            ({"Host": "registry", "X-Forwarded-Proto": "https"}, "podman pull registry:443/app", False),
            ({"Host": "box", "Forwarded": "proto=https;host=r.example"}, "podman pull r.example/app", False),
            ({"Host": "box", "X-Forwarded-Host": "r.example"}, "podman pull --tls-verify=false r.example/app", True),
        ):
            page = self.server.public.get(f"/r/app/m/{digest}/", headers).body.decode()
            self.assertIn(shown, Page(page).text)
            self.assertEqual("tls-verify" in page, plain)

    def test_a_write_may_come_from_a_page_of_the_host_that_the_proxy_names(self) -> None:
        path, origin = "/v2/cross/blobs/uploads/", {"Origin": "https://r.example:8443"}
        self.assert_error(self.server.auth.request("POST", path, headers=origin), 403, "DENIED")
        self.assertEqual(
            self.server.auth.request("POST", path, headers={**origin, "X-Forwarded-Host": "r.example:8443"}).status, 202
        )
        self.assert_error(
            self.server.auth.request("POST", path, headers={**origin, "X-Forwarded-Host": "other.example"}),
            403,
            "DENIED",
        )

    def test_the_log_names_the_client_also_for_an_answer_that_was_given_before(self) -> None:
        self.server.auth.push_image("logged", "v1", b"layer")
        for client in ("198.51.100.21", "198.51.100.21", "198.51.100.22"):
            self.server.public.get("/v2/logged/manifests/v1", {"X-Forwarded-For": client})
        clients: list[str] = []
        deadline = time.monotonic() + 30
        # A request is logged once it is answered.
        while len(clients) < 3 and time.monotonic() < deadline:
            lines = [
                line for line in self.server.log.read_text().splitlines() if " GET /v2/logged/manifests/v1" in line
            ]
            clients = [line.partition("public ")[2].split()[0] for line in lines]
        # Each was on a connection of its own: their threads may log in another order.
        self.assertEqual(sorted(clients), ["198.51.100.21", "198.51.100.21", "198.51.100.22"])

    def test_answers_that_are_kept_do_not_depend_on_what_a_proxy_says(self) -> None:
        self.server.auth.push_image("kept", "v1", b"layer")
        forged = {
            "X-Forwarded-For": "198.51.100.7",
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Proto": "https",
            "Forwarded": "host=evil.example",
        }
        for path in ("/v2/kept/manifests/v1", "/v2/kept/tags/list?n=1", "/v2/_catalog?n=1"):
            plain, first, second = (self.server.public.get(path, headers) for headers in ({}, forged, forged))
            for answer in (first, second):
                self.assertEqual(answer.body, plain.body)
                self.assertNotIn("evil", str(answer.headers))

    def test_the_right_password_works_whatever_the_proxy_says(self) -> None:
        self.assertEqual(
            Client(self.server.addresses["auth"], USER, PASSWORD).get("/v2/", {"X-Forwarded-For": "nonsense"}).status,
            200,
        )


if __name__ == "__main__":
    unittest.main()
