from __future__ import annotations

import base64
import contextlib
import http.server
import itertools
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.programs import require
from vex.commands.certificate import VALIDITY, PemPair, canonical_host, create_authority, create_certificate, hosts_of
from vex.commands.p256 import public_point, sign
from vex.errors import Failure
from vex.http.x509 import read_certificate

HOST = "registry.example.org"
ALTERNATIVE_NAMES = [HOST, "localhost", "127.0.0.1", "::1"]

# RFC 6979, appendix A.2.5
KEY = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
PUBLIC_POINT = (
    0x60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6,
    0x7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299,
)
SIGNATURES = {
    b"sample": (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    ),
    b"test": (
        0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
        0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083,
    ),
}
# FIPS 186-4, section D.1.2.3: the field, the order, the base point; and twice the base point, from NIST's list of
# multiples
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
TWICE_G = (
    0x7CF27B188D034F7E8A52380304B51AC3C08969E277F21B35A60B48FC47669978,
    0x07775510DB8ED040293D9AC69F7430DBBA7DADE63CE982299E04B79D227873D1,
)


# A client and a server in one thread, over memory; Pythons back to 3.6 have what it takes.
_HANDSHAKE = """
import ssl
client = ssl.create_default_context(cafile={authority!r})
client.verify_flags |= {flags}
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain({certificate!r}, {key!r})
one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
ends = [client.wrap_bio(one, other, server_hostname={host!r}), server.wrap_bio(other, one, server_side=True)]
done = set()
while len(done) < 2:
    for end in ends:
        try:
            end.do_handshake()
            done.add(end)
        except ssl.SSLWantReadError:
            pass
"""


def counting_bytes(count: int) -> bytes:
    return bytes(range(count))


class Made(NamedTuple):
    """An authority, and a certificate that it signed."""

    authority: PemPair
    certificate: PemPair


def make(host: str, now: float | None = None, **options: Any) -> Made:
    """Make both at once, as `vex quickstart` does."""
    hosts, moment = hosts_of(host), time.time() if now is None else now
    authority = create_authority(hosts, now=moment, **options)
    return Made(authority, create_certificate(hosts, authority, now=moment, **options))


def decode(certificate: PemPair) -> dict[str, Any]:
    """Return the fields of the first certificate as Python's ssl reads them."""
    with files(certificate) as (path, _):
        # What `getpeercert` returns, without a connection.
        fields: dict[str, Any] = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]
    return fields


@contextlib.contextmanager
def files(certificate: PemPair) -> Iterator[tuple[str, str]]:
    """Write certificate and key to a directory of their own: `ca.crt`, which is what docker and skopeo call it, and
    `key.pem`.
    """
    with tempfile.TemporaryDirectory() as name:
        certificate_path, key_path = Path(name, "ca.crt"), Path(name, "key.pem")
        certificate_path.write_text(certificate.certificate_pem)
        key_path.write_text(certificate.key_pem)
        yield str(certificate_path), str(key_path)


def server_context(certificate: PemPair) -> ssl.SSLContext:
    """Load certificate and key as a server does; fails if they do not belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with files(certificate) as (certificate_path, key_path):
        context.load_cert_chain(certificate_path, key_path)
    return context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Do a TLS handshake over a pair of sockets; raises what the client raises."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), server.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1)

    near, far = socket.socketpair()
    near.settimeout(30)
    far.settimeout(30)
    with ThreadPoolExecutor(1) as pool, near:
        pool.submit(serve, far)
        with client.wrap_socket(near, server_hostname=name):
            pass


class CurveTest(unittest.TestCase):
    def test_public_point_is_that_of_rfc_6979(self) -> None:
        self.assertEqual(public_point(KEY), PUBLIC_POINT)

    def test_public_point_at_the_ends_of_the_range(self) -> None:
        self.assertEqual(public_point(1), G)
        self.assertEqual(public_point(2), TWICE_G)
        self.assertEqual(public_point(N - 2), (TWICE_G[0], P - TWICE_G[1]))
        self.assertEqual(public_point(N - 1), (G[0], P - G[1]))

    def test_signatures_are_those_of_rfc_6979(self) -> None:
        for message, signature in SIGNATURES.items():
            with self.subTest(message=message):
                self.assertEqual(sign(KEY, message), signature)


class FieldsTest(unittest.TestCase):
    def test_the_subject_is_the_host_and_the_issuer_its_authority(self) -> None:
        made = make(HOST)
        fields, authority = decode(made.certificate), decode(made.authority)
        self.assertEqual(fields["subject"], ((("commonName", HOST),),))
        self.assertEqual(fields["issuer"], authority["subject"])
        self.assertEqual(authority["issuer"], authority["subject"])
        self.assertNotEqual(fields["issuer"], fields["subject"])
        self.assertEqual((fields["version"], authority["version"]), (3, 3))

    def test_the_certificate_of_the_authority_is_behind_that_of_the_server(self) -> None:
        made = make(HOST)
        self.assertEqual(made.certificate.certificate_pem.count("-----BEGIN CERTIFICATE-----"), 2)
        self.assertTrue(
            made.certificate.certificate_pem.endswith("-----END CERTIFICATE-----\n" + made.authority.certificate_pem)
        )

    def test_alternative_names_are_the_host_and_those_of_the_machine_itself(self) -> None:
        machine = (("DNS", "localhost"), ("IP Address", "127.0.0.1"), ("IP Address", "0:0:0:0:0:0:0:1"))
        expected = {
            HOST: (("DNS", HOST), *machine),
            "192.0.2.7": (("IP Address", "192.0.2.7"), *machine),
            "2001:db8::7": (("IP Address", "2001:DB8:0:0:0:0:0:7"), *machine),
            "localhost": machine,
            "::1": (machine[2], *machine[:2]),
        }
        for host, names in expected.items():
            with self.subTest(host=host):
                self.assertEqual(decode(make(host).certificate)["subjectAltName"], names)

    def test_a_host_too_long_for_the_common_name_is_an_alternative_name_in_full(self) -> None:
        host = "registry." + "a" * 60 + ".example.org"
        fields = decode(make(host).certificate)
        self.assertEqual(fields["subject"], ((("commonName", "registry"),),))
        self.assertIn(("DNS", host), fields["subjectAltName"])

    def test_a_common_name_has_at_most_64_characters(self) -> None:
        # RFC 5280 appendix A.1, ub-common-name
        for host in ("a" * 63, "a" * 60 + ".org", "x" * 63 + ".example"):
            for certificate in make(host):
                [[(_, name)]] = decode(certificate)["subject"]
                self.assertLessEqual(len(name), 64)

    def test_validity_is_from_the_day_before_for_at_most_825_days_and_that_of_the_authority_ten_years(self) -> None:
        made = make(HOST, datetime(2026, 3, 1, 12, 30, 15, tzinfo=timezone.utc).timestamp())
        fields, authority = decode(made.certificate), decode(made.authority)
        self.assertEqual((fields["notBefore"], authority["notBefore"]), ("Feb 28 12:30:15 2026 GMT",) * 2)
        self.assertEqual(authority["notAfter"], "Feb 27 12:30:15 2036 GMT")
        seconds = ssl.cert_time_to_seconds(fields["notAfter"]) - ssl.cert_time_to_seconds(fields["notBefore"])
        self.assertTrue(730 * 86400 <= seconds < 825 * 86400, seconds)

    def test_a_certificate_ends_with_its_authority(self) -> None:
        now = time.time()
        hosts = hosts_of(HOST)
        authority = create_authority(hosts, now=now - 3600 * 86400)
        certificate = create_certificate(hosts, authority, now=now)
        self.assertEqual(decode(certificate)["notAfter"], decode(authority)["notAfter"])

    def test_times_from_2050_on_are_written_with_four_digits_of_the_year(self) -> None:
        first_of_2050 = datetime(2050, 1, 1, tzinfo=timezone.utc)
        for end, encoded in (
            (first_of_2050 - timedelta(seconds=1), b"\x17\x0d491231235959Z"),
            (first_of_2050, b"\x18\x0f20500101000000Z"),
        ):
            with self.subTest(end=end):
                certificate = make(HOST, (end - VALIDITY).timestamp()).certificate
                der = ssl.PEM_cert_to_DER_cert(
                    certificate.certificate_pem.partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
                )
                self.assertIn(encoded, der)
                self.assertEqual(decode(certificate)["notAfter"], f"{end:%b %e %H:%M:%S %Y GMT}")

    def test_serial_number_is_positive_and_has_128_bits_whatever_the_random_bytes_are(self) -> None:
        for byte, serial in ((b"\x00", "80" + "00" * 15), (b"\xff", "FF" * 16)):
            with self.subTest(byte=byte):
                for certificate in make(HOST, token_bytes=byte.__mul__):
                    self.assertEqual(decode(certificate)["serialNumber"], serial)

    def test_key_and_certificate_belong_together_whatever_the_random_bytes_are(self) -> None:
        for byte in (b"\x00", b"\x7f", b"\x80", b"\xff"):
            with self.subTest(byte=byte):
                made = make(HOST, token_bytes=byte.__mul__)
                # OpenSSL refuses a certificate with the key of its authority, which no random bytes make: so only that
                # it loads.
                server_context(made.certificate)

    def test_same_random_bytes_and_time_give_the_same_certificate(self) -> None:
        self.assertEqual(make(HOST, 1e9, token_bytes=counting_bytes), make(HOST, 1e9, token_bytes=counting_bytes))

    def test_two_certificates_share_neither_key_nor_serial_number(self) -> None:
        first, second = make(HOST, 1e9), make(HOST, 1e9)
        self.assertEqual(len({one.key_pem for one in (*first, *second)}), 4)
        self.assertEqual(len({decode(one)["serialNumber"] for one in (*first, *second)}), 4)

    def test_the_key_of_another_authority_is_refused(self) -> None:
        one, other = make(HOST).authority, make(HOST).authority
        with self.assertRaisesRegex(ValueError, "not that of its certificate"):
            create_certificate(hosts_of(HOST), one._replace(key_pem=other.key_pem), now=time.time())

    def test_what_is_read_of_a_certificate_is_what_was_written(self) -> None:
        for host in (HOST, "192.0.2.7", "2001:db8::7"):
            made = make(host)
            read, authority = (
                read_certificate(one.certificate_pem.encode()) for one in (made.certificate, made.authority)
            )
            self.assertEqual(read.hosts, tuple(hosts_of(host)))
            self.assertEqual((read.is_authority, authority.is_authority), (False, True))
            self.assertEqual((read.issuer, authority.issuer), (authority.subject, authority.subject))
            self.assertEqual(read.not_after, ssl.cert_time_to_seconds(decode(made.certificate)["notAfter"]))

    def test_what_is_no_certificate_is_no_other_error_whatever_is_missing(self) -> None:
        content = make(HOST).certificate.certificate_pem
        body = base64.b64decode("".join(content.partition("-----END")[0].splitlines()[1:]))
        for end in range(0, len(body), 7):
            text = base64.b64encode(body[:end]).decode()
            with self.subTest(end), self.assertRaises(ValueError):
                read_certificate(f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n".encode())


class HostTest(unittest.TestCase):
    def test_names_and_addresses_get_their_canonical_form(self) -> None:
        expected = {
            "Registry.Example.ORG": "registry.example.org",
            "registry": "registry",
            "3com.example": "3com.example",
            "a--b.x1": "a--b.x1",
            "a" * 63 + ".example": "a" * 63 + ".example",
            "bücher.example": "xn--bcher-kva.example",
            "BÜCHER.example": "xn--bcher-kva.example",
            "xn--bcher-kva.example": "xn--bcher-kva.example",
            "2001:DB8:0::7": "2001:db8::7",
            "192.0.2.7": "192.0.2.7",
        }
        for host, canonical in expected.items():
            with self.subTest(host=host):
                self.assertEqual(canonical_host(host), canonical)

    def test_what_is_neither_a_name_nor_an_address_is_refused(self) -> None:
        wrong = [
            "",
            ".",
            "a..b",
            ".a",
            "a.",
            "-a",
            "a-",
            "a_b",
            "*.example.org",
            "a b",
            "a\n",
            "a\x00",
            "../a",
            "a/b",
            "a:8201",
            "https://a",
            "[::1]",
        ]
        wrong += ["1.2.3", "256.0.0.1", "1.2.3.4.5", "010.0.0.1", "127.1", "1", "::g", "fe80::1%eth0", "192.0.2.0/24"]
        wrong += ["a" * 64, ".".join(["a" * 63] * 4)]
        for host in wrong:
            with self.subTest(host=host), self.assertRaises(Failure) as caught:
                hosts_of(host)
            with self.subTest(host=host):
                self.assertRegex(
                    str(caught.exception), r"\A[^\n\x00]*is neither a DNS name nor an IP address; use [^\n]*\Z"
                )

    def test_an_international_name_that_versions_of_idna_encode_differently_is_refused(self) -> None:
        # RFC 5894 section 7.2 for the first three; the others are mapped to other characters, dots and digits among
        # them
        for host in (
            "faß.example",
            "βόλος.example",
            "a\u200db.example",
            "\uff11\uff12\uff17.0.0.1",
            "a\u3002example",
            "ü" * 64,
        ):
            with self.subTest(host=host), self.assertRaisesRegex(Failure, "give its ASCII form"):
                hosts_of(host)


class HandshakeTest(unittest.TestCase):
    """Python's own client, with the flags that 3.13 sets by default and without them."""

    made: Made
    server: ssl.SSLContext

    @classmethod
    def setUpClass(cls) -> None:
        cls.made = make(HOST)
        cls.server = server_context(cls.made.certificate)

    def clients(self) -> dict[str, ssl.SSLContext]:
        trusted = self.made.authority.certificate_pem
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        plain.load_verify_locations(cadata=trusted)
        default = ssl.create_default_context(cadata=trusted)
        strict = ssl.create_default_context(cadata=trusted)
        strict.verify_flags |= ssl.VERIFY_X509_STRICT
        chain = ssl.create_default_context(cadata=self.made.certificate.certificate_pem)
        return {"plain": plain, "default": default, "strict": strict, "the whole file trusted": chain}

    def test_client_that_has_the_authority_accepts_each_alternative_name(self) -> None:
        for (kind, client), name in itertools.product(self.clients().items(), ALTERNATIVE_NAMES):
            with self.subTest(client=kind, name=name):
                self.assertTrue(client.check_hostname)
                shake_hands(self.server, client, name)

    def test_client_refuses_any_other_name(self) -> None:
        others = ["other.example.org", "example.org", "a.registry.example.org", "127.0.0.2", "::2"]
        for (kind, client), name in itertools.product(self.clients().items(), others):
            with self.subTest(client=kind, name=name), self.assertRaisesRegex(ssl.SSLCertVerificationError, "mismatch"):
                shake_hands(self.server, client, name)

    def test_client_that_has_another_authority_for_the_host_refuses_this_one(self) -> None:
        client = ssl.create_default_context(cadata=make(HOST).authority.certificate_pem)
        with self.assertRaises(ssl.SSLCertVerificationError):
            shake_hands(self.server, client, HOST)

    def test_certificate_for_an_address_or_a_long_name_is_accepted_for_it(self) -> None:
        for host in ("192.0.2.7", "2001:db8::7", "registry." + "a" * 60 + ".example.org"):
            with self.subTest(host):
                made = make(host)
                shake_hands(
                    server_context(made.certificate),
                    ssl.create_default_context(cadata=made.authority.certificate_pem),
                    host,
                )

    def test_the_next_certificate_of_the_authority_is_accepted_without_more(self) -> None:
        following = create_certificate(
            hosts_of(HOST), self.made.authority, now=time.time(), key_pem=self.made.certificate.key_pem
        )
        self.assertNotEqual(following.certificate_pem, self.made.certificate.certificate_pem)
        self.assertEqual(following.key_pem, self.made.certificate.key_pem)
        for client in self.clients().values():
            shake_hands(server_context(following), client, HOST)

    def test_whoever_has_the_key_of_the_authority_can_pass_for_no_other_name(self) -> None:
        for host in ("other.example.org", "192.0.2.7", "2001:db8::7"):
            stolen = create_certificate([host, HOST], self.made.authority, now=time.time())
            for kind, client in self.clients().items():
                with (
                    self.subTest(host=host, client=kind),
                    self.assertRaisesRegex(ssl.SSLCertVerificationError, "permitted subtree violation"),
                ):
                    shake_hands(server_context(stolen), client, host)


class OtherPythons(unittest.TestCase):
    """Every Python that is installed, in a process of its own: 3.13 is stricter than those before."""

    def test_they_accept_the_certificate_with_their_defaults(self) -> None:
        made = make(HOST)
        programs = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3")) or [Path(sys.executable)]
        with (
            files(made.certificate) as (certificate, key),
            tempfile.NamedTemporaryFile("w", suffix=".pem") as authority,
        ):
            authority.write(made.authority.certificate_pem)
            authority.flush()
            for program in programs:
                for flags in ("0", "ssl.VERIFY_X509_STRICT"):
                    with self.subTest(program=program, flags=flags):
                        code = _HANDSHAKE.format(
                            authority=authority.name, certificate=certificate, key=key, host=HOST, flags=flags
                        )
                        result = subprocess.run(
                            [program, "-c", code], capture_output=True, text=True, timeout=60, check=False
                        )
                        self.assertEqual((result.returncode, result.stderr), (0, ""))


class OpensslTest(unittest.TestCase):
    """The openssl program."""

    def setUp(self) -> None:
        self.program = require("openssl", "openssl")
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        made = make(HOST)
        self.authority, _ = stack.enter_context(files(made.authority))
        self.certificate, self.key = stack.enter_context(files(made.certificate))

    def openssl(self, *arguments: str) -> str:
        result = subprocess.run([self.program, *arguments], capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout + result.stderr

    def test_verify_accepts_the_certificate_with_its_authority(self) -> None:
        strict = ["-x509_strict", "-check_ss_sig", "-purpose", "sslserver", "-CAfile", self.authority]
        self.assertIn(": OK", self.openssl("verify", *strict, "-verify_hostname", HOST, self.certificate))
        self.assertIn(": OK", self.openssl("verify", *strict, "-verify_ip", "::1", self.certificate))

    def test_text_shows_the_extensions(self) -> None:
        text = self.openssl("x509", "-in", self.certificate, "-noout", "-text")
        self.assertIn("Signature Algorithm: ecdsa-with-SHA256", text)
        self.assertIn(f"DNS:{HOST}, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1", text)
        self.assertRegex(text, r"Basic Constraints: critical\s+CA:FALSE\n")
        self.assertRegex(text, r"Key Usage: critical\s+Digital Signature\n")
        self.assertRegex(text, r"Extended Key Usage: *\s+TLS Web Server Authentication\n")
        self.assertRegex(text, r"Subject Key Identifier: *\s+(?:[0-9A-F]{2}:){19}")
        self.assertRegex(text, r"Authority Key Identifier: *\s+(?:keyid:)?(?:[0-9A-F]{2}:){19}")

    def test_text_shows_the_extensions_of_the_authority(self) -> None:
        text = self.openssl("x509", "-in", self.authority, "-noout", "-text")
        self.assertRegex(text, r"Basic Constraints: critical\s+CA:TRUE, pathlen:0\n")
        self.assertRegex(text, r"Key Usage: critical\s+Certificate Sign, CRL Sign\n")
        self.assertRegex(
            text,
            (
                r"Name Constraints:"
                rf" critical\s+Permitted:\s+DNS:{HOST}\s+DNS:localhost\s+IP:127.0.0.1/255.255.255.255\s+IP:"
            ),
        )
        self.assertRegex(text, r"Subject Key Identifier: *\s+(?:[0-9A-F]{2}:){19}")

    def test_key_is_valid_and_that_of_the_certificate(self) -> None:
        self.assertIn("Key is valid", self.openssl("pkey", "-in", self.key, "-check", "-noout"))
        self.assertEqual(
            self.openssl("pkey", "-in", self.key, "-pubout"),
            self.openssl("x509", "-in", self.certificate, "-noout", "-pubkey"),
        )


class NssTest(unittest.TestCase):
    """NSS, which Firefox and Chrome verify certificates with, by its program certutil."""

    def test_certutil_takes_it_for_the_certificate_of_a_server(self) -> None:
        certutil = require("certutil", "libnss3-tools")
        made = make(HOST)
        with (
            files(made.authority) as (authority, _),
            files(made.certificate) as (certificate, _),
            tempfile.TemporaryDirectory() as name,
        ):
            database = f"sql:{name}"
            for arguments in (
                ("-N", "--empty-password"),
                ("-A", "-n", "authority", "-t", "C,,", "-i", authority),
                ("-A", "-n", "server", "-t", ",,", "-i", certificate),
                ("-V", "-n", "server", "-u", "V"),
            ):
                result = subprocess.run(
                    [certutil, "-d", database, *arguments], capture_output=True, text=True, timeout=60, check=False
                )
                self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(result.stdout, "certutil: certificate is valid\n")


class AnswerEverything(http.server.BaseHTTPRequestHandler):
    """Just enough of a registry for a client to be content."""

    def do_GET(self) -> None:
        body = b'{"name": "app", "tags": ["latest"]}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about the handshakes that a client breaks off."""


class ClientsTest(unittest.TestCase):
    """curl, which is a C program on OpenSSL, and skopeo, a Go program like docker and podman."""

    def setUp(self) -> None:
        made = make(HOST)
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.certificate, _ = stack.enter_context(files(made.authority))
        server = Server(("127.0.0.1", 0), AnswerEverything)
        server.socket = server_context(made.certificate).wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.port = server.server_address[1]

    def run_program(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)

    def test_curl_accepts_the_certificate_for_its_names_alone(self) -> None:
        curl = [require("curl", "curl"), "-sS", "--max-time", "30", "--cacert", self.certificate]
        for name, code in ((HOST, 0), ("127.0.0.1", 0), ("localhost", 0), ("other.example.org", 60)):
            with self.subTest(name=name):
                result = self.run_program(
                    *curl, "--resolve", f"{name}:{self.port}:127.0.0.1", f"https://{name}:{self.port}/v2/"
                )
                self.assertEqual(result.returncode, code, result.stderr)

    def test_skopeo_accepts_the_certificate_if_it_is_in_its_directory(self) -> None:
        skopeo = require("skopeo", "skopeo")
        with tempfile.TemporaryDirectory() as empty:
            for directory, accepted in ((str(Path(self.certificate).parent), True), (empty, False)):
                with self.subTest(accepted=accepted):
                    result = self.run_program(
                        skopeo,
                        "list-tags",
                        "--no-creds",
                        "--cert-dir",
                        directory,
                        f"docker://127.0.0.1:{self.port}/app",
                    )
                    self.assertEqual(result.returncode == 0, accepted, result.stderr)
                    self.assertIn(
                        "latest" if accepted else "x509: certificate signed by unknown authority",
                        result.stdout + result.stderr,
                    )
