"""The field Location: relative, or with scheme and host where those are certain, wherever one is sent."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from tests.support.raw import basic
from tests.support.registries import temporary_directory
from tests.support.server import USER, Answer, Client, Server, ServerTestCase, digest_of, running, write_certificate

TRUST = ("--trusted-proxies", "127.0.0.1")
TOLD = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "registry.example:8443"}


def locations(client: Client, headers: dict[str, str]) -> dict[str, str]:
    """Have each kind of answer sent that has a Location; returns those by name."""

    def sent(method: str, path: str, status: int, body: bytes = b"", **more: str) -> str:
        answer = client.request(
            method, path, body, {**headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        )
        assert answer.status == status, answer
        return str(answer.headers["Location"])

    found = {"session": sent("POST", "/v2/app/blobs/uploads/", 202)}
    path = "/v2/" + found["session"].partition("/v2/")[2]
    found["chunk"] = sent("PATCH", path, 202, b"first")
    found["status"] = sent("GET", path, 204)
    found["out of order"] = sent("PATCH", path, 416, b"first", Content_Range="0-4")
    found["last chunk out of order"] = sent(
        "PUT", f"{path}&digest={digest_of(b'first')}", 416, b"first", Content_Range="0-4"
    )
    found["last chunk"] = sent("PUT", f"{path}&digest={digest_of(b'first')}", 201)
    found["last chunk again"] = sent("PUT", f"{path}&digest={digest_of(b'first')}", 201)
    found["one request"] = sent("POST", f"/v2/app/blobs/uploads/?digest={digest_of(b'{}')}", 201, b"{}")
    found["no mount"] = sent("POST", f"/v2/app/blobs/uploads/?mount={digest_of(b'absent')}&from=other", 202)
    found["mount"] = sent("POST", f"/v2/other/blobs/uploads/?mount={digest_of(b'{}')}&from=app", 201)
    client.push_image("app", "v1")
    manifest = client.get("/v2/app/manifests/v1").body
    found["manifest"] = sent(
        "PUT", "/v2/app/manifests/v2", 201, manifest, Content_Type="application/vnd.oci.image.manifest.v1+json"
    )
    found["manifest by digest"] = sent("PUT", f"/v2/app/manifests/{digest_of(manifest)}?tag=v3", 201, manifest)
    return found


class LocationsCase(ServerTestCase):
    """Checks of one server's locations."""

    def check(self, base: str, headers: dict[str, str] | None = None, client: Client | None = None) -> None:
        """Check that all locations begin with this, and then with the path."""
        for name, location in locations(client or self.server.auth, headers or {}).items():
            self.assertTrue(
                location.startswith(f"{base}/v2/"), f"{name}: {location} does not begin with {base or 'the path'}"
            )

    def first(self, headers: dict[str, str] | None = None, client: Client | None = None) -> str:
        """Return scheme and host of one location."""
        answer = (client or self.server.auth).request("POST", "/v2/app/blobs/uploads/", headers=headers)
        self.assertEqual(answer.status, 202, answer)
        return str(answer.headers["Location"]).partition("/v2/")[0]


class Auto(LocationsCase):
    def test_where_nothing_is_certain_locations_are_relative(self) -> None:
        self.check("")
        # As from a proxy that nobody configured.
        self.check("", {"Host": "registry.example"})
        self.check("", TOLD)
        self.assertEqual(self.first({"Forwarded": "proto=https;host=registry.example"}), "")


class Trusted(LocationsCase):
    flags = TRUST

    def test_where_a_trusted_proxy_tells_scheme_and_host_locations_are_absolute(self) -> None:
        self.check("https://registry.example:8443", TOLD)
        self.assertEqual(
            self.first({"Forwarded": "for=192.0.2.1;proto=http;host=registry.example"}), "http://registry.example"
        )

    def test_where_it_tells_one_of_them_locations_are_relative(self) -> None:
        self.assertEqual([self.first({name: value}) for name, value in TOLD.items()], ["", ""])
        self.assertEqual(self.first({"X-Forwarded-For": "192.0.2.1", "Host": "registry.example"}), "")

    def test_links_stay_relative(self) -> None:
        for tag in ("1", "2"):
            self.server.auth.push_image("linked", tag)
        self.assertEqual(
            self.server.auth.get("/v2/linked/tags/list?n=1", TOLD).headers["Link"],
            '</v2/linked/tags/list?n=1&last=1>; rel="next"',
        )


class OnePort(LocationsCase):
    flags = ("--anonymous-read", "yes", "--public-url", "https://registry.example")

    def test_with_the_address_of_the_one_port_locations_are_absolute(self) -> None:
        self.check("https://registry.example")
        self.check("https://registry.example", TOLD)


class TwoPorts(LocationsCase):
    flags = ("--public-url", "https://registry.example")

    def test_the_address_of_the_public_port_is_none_for_pushes_unless_it_is_where_they_came(self) -> None:
        self.check("")
        self.assertEqual(self.first({"Host": "registry.example:8443"}), "")
        self.check("https://registry.example", {"Host": "registry.example"})


class ByHand(LocationsCase):
    def test_relative_is_relative_everywhere(self) -> None:
        flags = (
            "--locations",
            "relative",
            "--anonymous-read",
            "yes",
            "--public-url",
            "https://registry.example",
            *TRUST,
        )
        with running(*flags) as server:
            self.check("", TOLD, server.auth)

    def test_absolute_is_what_the_client_asked_for(self) -> None:
        with running("--locations", "absolute", *TRUST) as server:
            self.check("http://{}:{}".format(*server.addresses["auth"]), {}, server.auth)
            self.check("https://registry.example:8443", TOLD, server.auth)
            self.assertEqual(self.first({"Host": "a_b.example:1"}, server.auth), "http://a_b.example:1")
            for wrong in ("", "evil!example", "registry.example:999999"):
                self.assertEqual(self.first({"Host": wrong}, server.auth), "", wrong)


class Encrypted(ServerTestCase):
    """TLS of Vex itself: the name in the handshake is compared with Host."""

    context: ssl.SSLContext
    address: tuple[str, int]

    @classmethod
    def setUpClass(cls) -> None:
        """Start a server with HTTPS."""
        directory = temporary_directory()
        cls.addClassCleanup(directory.__exit__, None, None, None)
        certificate, key = write_certificate(directory.__enter__())
        cls.flags = ("--auth-tls-cert", str(certificate), "--auth-tls-key", str(key))
        super().setUpClass()
        cls.context = ssl.create_default_context(cafile=str(certificate))
        cls.context.check_hostname = False
        cls.address = cls.server.addresses["auth"]

    @contextlib.contextmanager
    def connection(self, name: str | None) -> Iterator[http.client.HTTPConnection]:
        """Connect with a handshake that asks for a name."""
        connection = http.client.HTTPConnection(*self.address)
        connection.sock = self.context.wrap_socket(socket.create_connection(self.address), server_hostname=name)
        with contextlib.closing(connection):
            yield connection

    def first(self, name: str | None, **headers: str) -> str:
        with self.connection(name) as connection:
            sent = {"Authorization": basic(), **{key.replace("_", "-"): text for key, text in headers.items()}}
            connection.request("POST", "/v2/app/blobs/uploads/", headers=sent)
            answer = connection.getresponse()
            self.assertEqual(answer.status, 202, answer.read())
            return str(answer.headers["Location"]).partition("/v2/")[0]

    def test_where_both_are_the_same_locations_are_absolute(self) -> None:
        client = Client(("localhost", self.address[1]), USER, context=self.context)
        for name, location in locations(client, {}).items():
            self.assertTrue(location.startswith(f"https://localhost:{self.address[1]}/v2/"), f"{name}: {location}")
        self.assertEqual(self.first("registry.example", Host="Registry.example"), "https://Registry.example")
        self.assertEqual(self.first("registry.example", Host="registry.example:8443"), "https://registry.example:8443")

    def test_where_they_differ_or_one_is_missing_locations_are_relative(self) -> None:
        self.assertEqual(self.first("registry.example", Host="other.example"), "")
        self.assertEqual(self.first("registry.example", Host="registry.example.evil"), "")
        self.assertEqual(self.first(None, Host="registry.example"), "")
        self.assertEqual(self.first(None, Host="127.0.0.1"), "")

    def test_behind_a_proxy_that_can_be_seen_and_is_not_trusted_locations_are_relative(self) -> None:
        for name in ("X_Forwarded_For", "X_Forwarded_Host", "X_Forwarded_Proto", "Forwarded", "Via"):
            self.assertEqual(self.first("registry.example", Host="registry.example", **{name: "x"}), "", name)

    def test_a_handshake_for_a_name_that_is_none_fails_alone_and_leaves_no_trace_in_the_log(self) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            self.context.wrap_bio(incoming, outgoing, server_hostname="x" * 20).do_handshake()
        hello = outgoing.read().replace(b"x" * 20, b"\xff" * 20)
        with socket.create_connection(self.address, timeout=20) as plain:
            plain.sendall(hello)
            # TLS 1.2, record of type alert (RFC 8446 section 6)
            self.assertEqual(plain.recv(1), b"\x15")
        self.assertEqual(self.first("localhost", Host="localhost"), "https://localhost")
        self.assertNotIn("\\xff", self.server.log.read_text())


class UnixSocket(LocationsCase):
    def test_only_a_trusted_proxy_makes_them_absolute(self) -> None:
        with temporary_directory() as directory:
            path = directory / "auth.sock"
            for trust, expected in ((), ""), (("--trusted-proxies", "unix"), "https://registry.example:8443"):
                with self.subTest(trust):
                    server = Server(directory, "--auth-addr", f"unix:{path}", *trust)
                    self.addCleanup(server.kill)
                    answer = over_unix(path, {"Host": "registry.example", **TOLD})
                    self.assertEqual(str(answer.headers["Location"]).partition("/v2/")[0], expected)
                    server.kill()


def over_unix(path: Path, headers: dict[str, str]) -> Answer:
    """Open an upload over a Unix socket."""
    with contextlib.closing(http.client.HTTPConnection("localhost")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("POST", "/v2/app/blobs/uploads/", headers={"Authorization": basic(), **headers})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
