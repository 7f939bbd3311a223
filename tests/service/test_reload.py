"""SIGHUP: new certificates and limits while connections are open, and what is wrong with them, which changes
nothing.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from tests.support.programs import require
from tests.support.registries import temporary_directory
from tests.support.server import OCI_MANIFEST, Client, Server, image, make_certificate, running
from vex.commands.certificate import VALIDITY
from vex.errors import Failure
from vex.http.certificates import Certificates

METRIC = 'vex_tls_certificate_expiry_timestamp_seconds{listener="public"}'
DAY = 86400


class ReloadCase(unittest.TestCase):
    """A server that reads `vex.conf`, with HTTPS on the public listener."""

    def setUp(self) -> None:
        context = temporary_directory()
        self.addCleanup(context.__exit__, None, None, None)
        self.directory = context.__enter__()
        self.write_certificate(time.time())
        self.configure("")
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(str(self.directory / "notify"))
        self.manager.settimeout(20)
        environment = {"NOTIFY_SOCKET": str(self.directory / "notify")}
        flags = ("--config", str(self.directory / "vex.conf"), "--shutdown-timeout", "29s", "--log-format", "text")
        self.server = Server(self.directory, *flags, environment=environment)
        self.await_ready()
        self.addCleanup(self.check_log)
        self.addCleanup(self.server.kill)

    def check_log(self) -> None:
        self.assertNotIn("Traceback", self.server.log.read_text())

    def configure(self, *lines: str, certificate: str = "crt.pem") -> None:
        """Write `vex.conf`."""
        (self.directory / "vex.conf").write_text(
            "\n".join([f"public-tls-cert = {certificate}", "public-tls-key = key.pem", *lines, ""])
        )

    def write_certificate(self, now: float) -> str:
        """Put a new certificate and its key in place; returns the certificate, without that of its authority."""
        made = make_certificate("localhost", now=now)
        (self.directory / "crt.pem").write_text(made.certificate_pem)
        (self.directory / "key.pem").write_text(made.key_pem)
        return "".join(made.certificate_pem.partition("-----END CERTIFICATE-----\n")[:2])

    def reload(self) -> str:
        """Send SIGHUP, and wait for the server to say that it is done; returns what it logged."""
        before = len(self.server.log.read_text())
        self.server.process.send_signal(signal.SIGHUP)
        self.await_ready()
        return self.server.log.read_text()[before:]

    def await_ready(self) -> None:
        while not self.manager.recv(4096).startswith(b"READY=1\n"):
            pass

    def served_certificate(self) -> str:
        """Return the certificate that a new connection gets."""
        return ssl.get_server_certificate(self.server.addresses["public"])

    def tls_connection(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.directory / "crt.pem"))
        connection = context.wrap_socket(
            socket.create_connection(self.server.addresses["public"], timeout=20), server_hostname="localhost"
        )
        self.addCleanup(connection.close)
        return connection


def _get(connection: ssl.SSLSocket) -> bytes:
    connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection.recv(4096).partition(b"\r\n")[0]


class CertificateReload(ReloadCase):
    def test_new_connections_get_the_new_certificate_and_open_ones_go_on(self) -> None:
        connection = self.tls_connection()
        self.assertEqual(_get(connection), b"HTTP/1.1 200 OK")
        expiry = self.server.metric(METRIC)
        made = self.write_certificate(time.time() - 100 * DAY)
        log = self.reload()
        self.assertRegex(
            log,
            (
                r"INFO public: new connections get the new certificate of .*crt\.pem, valid until 20\d\d-\d\d-\d\d"
                r" \d\d:\d\d:\d\d UTC\n\Z"
            ),
        )
        self.assertEqual(_get(connection), b"HTTP/1.1 200 OK")
        self.assertEqual(self.served_certificate(), made)
        self.assertEqual(_get(self.tls_connection()), b"HTTP/1.1 200 OK")
        self.assertAlmostEqual(expiry - self.server.metric(METRIC), 100 * DAY, delta=60)
        self.assertAlmostEqual(expiry, time.time() + VALIDITY.total_seconds(), delta=60)

    def test_a_certificate_that_cannot_be_used_does_not_take_the_place_of_the_old_one(self) -> None:
        old, expiry = self.served_certificate(), self.server.metric(METRIC)
        key = (self.directory / "key.pem").read_text()
        self.write_certificate(time.time())
        other, other_key = (self.directory / "crt.pem").read_text(), (self.directory / "key.pem").read_text()
        for name, certificate, key_text, words in (
            ("the key of another certificate", other, key, ("crt.pem", "key.pem", "belong together")),
            ("no PEM", "nothing", other_key, ("crt.pem",)),
            ("cut off", other[:300], other_key, ("crt.pem",)),
            ("an encrypted key", other, _encrypted(other_key), ("key.pem", "encrypted")),
            ("no key", other, None, ("key.pem", "public-tls-key")),
        ):
            with self.subTest(name):
                (self.directory / "crt.pem").write_text(certificate)
                (self.directory / "key.pem").unlink(missing_ok=True)
                if key_text is not None:
                    (self.directory / "key.pem").write_text(key_text)
                log = self.reload()
                self.assertIn("ERROR public: the old certificate stays in use: ", log)
                for word in words:
                    self.assertIn(word, log)
                self.assertEqual((self.served_certificate(), self.server.metric(METRIC)), (old, expiry))
        made = self.write_certificate(time.time())
        self.reload()
        self.assertEqual(self.served_certificate(), made)

    def test_another_file_is_read_when_the_configuration_names_it(self) -> None:
        made = self.write_certificate(time.time())
        (self.directory / "crt.pem").rename(self.directory / "other.pem")
        self.configure(certificate="other.pem")
        self.assertIn("public-tls-cert is now ", self.reload())
        self.assertEqual(self.served_certificate(), made)

    def test_https_is_not_turned_off(self) -> None:
        (self.directory / "vex.conf").write_text("")
        log = self.reload()
        self.assertIn("public-tls-cert is nothing in the configuration; it stays ", log)
        self.assertIn("until vex is restarted", log)
        self.assertIn("BEGIN CERTIFICATE", self.served_certificate())


class ConfigurationReload(ReloadCase):
    def wrong_logins(self, name: str, count: int) -> list[int]:
        client = Client(self.server.addresses["auth"], name, "wrong password")
        return [client.get("/v2/").status for _ in range(count)]

    def test_a_limit_counts_at_once_and_the_log_says_so(self) -> None:
        self.configure("failed-logins = 2", "idle-timeout = 7s")
        log = self.reload()
        self.assertIn("INFO failed-logins is now 2, and was 10\n", log)
        self.assertIn("INFO idle-timeout is now 7s, and was 60s\n", log)
        self.assertEqual(self.wrong_logins("bob", 3), [401, 401, 429])
        self.configure("blob-limit = 3")
        self.assertIn("blob-limit is now 3, and was ", self.reload())
        answer = self.server.auth.request("POST", "/v2/limited/blobs/uploads/?digest=sha256:" + 64 * "0", b"four")
        self.assertEqual(answer.status, 413)
        self.assertEqual(self.wrong_logins("carol", 3), [401, 401, 401], "the default counts again")

    def test_sections_count_at_once_and_the_log_says_so(self) -> None:
        auth = self.server.auth
        digest = auth.push_image("app", "v1", b"1")
        other = json.dumps(image(config=b"{}")).encode()

        def push() -> int:
            return auth.request("PUT", "/v2/app/manifests/v1", other, {"Content-Type": OCI_MANIFEST}).status

        self.configure("[repositories app]", "immutable = v*", "protected = v1")
        self.assertIn("INFO the sections of the configuration are read again: [repositories app]\n", self.reload())
        self.assertEqual((push(), auth.request("DELETE", "/v2/app/manifests/v1").status), (409, 405))
        self.configure("[repositories app]", "imutable = v*")
        self.assertIn("ERROR the configuration stays as it was: ", self.reload())
        self.assertEqual(push(), 409)
        self.assertEqual(auth.get("/v2/app/manifests/v1").headers["Docker-Content-Digest"], digest)
        self.configure("[repositories app]")
        self.reload()
        self.assertEqual((push(), auth.request("DELETE", "/v2/app/manifests/v1").status), (201, 202))
        self.configure()
        self.assertIn("the sections of the configuration are read again: none\n", self.reload())

    def test_what_needs_a_restart_is_named_each_time(self) -> None:
        self.configure("page-size = 3", "public-connections = 7")
        for _ in range(2):
            log = self.reload()
            self.assertIn("WARNING page-size is 3 in the configuration; it stays 1000 until vex is restarted\n", log)
            self.assertIn("WARNING public-connections is 7 ", log)

    def test_a_flag_beats_the_file_that_is_read_again(self) -> None:
        self.configure("shutdown-timeout = 3s")
        self.assertIn("unchanged", self.reload())

    def test_a_wrong_file_changes_nothing_but_certificates_are_read(self) -> None:
        made = self.write_certificate(time.time())
        for line, word in (
            ("failed-logins = none", "failed-logins"),
            ("nonsense = 1", "nonsense"),
            ("page-limit = 1", "page-size 1000 is more"),
        ):
            self.configure("head-timeout = 1s", line)
            self.assertRegex(self.reload(), f"ERROR the configuration stays as it was: .*{word}")
        self.assertEqual(self.wrong_logins("bob", 2), [401, 401])
        self.assertEqual(self.served_certificate(), made)

    def test_a_file_that_is_gone_is_a_mistake_and_no_wish_for_the_defaults(self) -> None:
        (self.directory / "vex.conf").unlink()
        self.assertIn("ERROR the configuration stays as it was: cannot read the configuration file", self.reload())

    def test_a_push_under_way_is_not_disturbed(self) -> None:
        def chunks() -> object:
            for _ in range(5):
                yield b"0123456789"
                self.server.process.send_signal(signal.SIGHUP)

        location = self.server.auth.request("POST", "/v2/pushed/blobs/uploads/").headers["Location"]
        answer = self.server.auth.request("PATCH", location, chunks(), chunked=True)
        self.assertEqual((answer.status, answer.headers["Range"]), (202, "0-49"))
        self.assertEqual(self.server.stop(), 0)


class EarlySignal(unittest.TestCase):
    def test_a_signal_to_reload_right_before_the_one_to_end_is_harmless(self) -> None:
        with running() as server:
            for _ in range(20):
                server.process.send_signal(signal.SIGHUP)
            self.assertEqual(server.stop(), 0)
            self.assertNotIn("Traceback", server.log.read_text())


class ExpiryTest(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="vex-test-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def expiry(self, certificate: str, key: str) -> float:
        paths = (self.directory / "crt.pem", self.directory / "key.pem")
        for path, text in zip(paths, (certificate, key)):
            path.write_text(text)
        return Certificates({"auth": paths}).expiries()["auth"]

    def test_it_is_read_on_both_sides_of_2050(self) -> None:
        for now in (
            1_700_000_000,
            2_524_607_999 - VALIDITY.total_seconds(),
            2_524_608_000 - VALIDITY.total_seconds(),
            3_000_000_000,
        ):
            made = make_certificate("localhost", now=now)
            self.assertEqual(self.expiry(made.certificate_pem, made.key_pem), now + VALIDITY.total_seconds())

    def test_text_before_the_certificate_and_a_chain_behind_it_do_not_matter(self) -> None:
        made, other = (make_certificate("localhost", now=now) for now in (1_700_000_000, 1_800_000_000))
        text = "subject: me\n\n" + made.certificate_pem + "issuer: me\n" + other.certificate_pem
        self.assertEqual(self.expiry(text, made.key_pem), 1_700_000_000 + VALIDITY.total_seconds())

    def test_certificates_of_openssl_are_read_too(self) -> None:
        openssl = require("openssl", "openssl")
        for options in (
            ["-newkey", "rsa:2048"],
            [
                "-newkey",
                "rsa:2048",
                "-days",
                "10000",
                "-subj",
                "/CN=" + 60 * "a" + "/O=" + 60 * "b" + "/OU=" + 60 * "c",
            ],
        ):
            command = [
                openssl,
                "req",
                "-x509",
                "-nodes",
                "-subj",
                "/CN=a",
                "-days",
                "7",
                *options,
                "-keyout",
                "key.pem",
                "-out",
                "crt.pem",
            ]
            subprocess.run(command, cwd=self.directory, check=True, capture_output=True)
            shown = subprocess.run(
                [openssl, "x509", "-in", "crt.pem", "-noout", "-enddate"],
                cwd=self.directory,
                check=True,
                capture_output=True,
                text=True,
            )
            expected = ssl.cert_time_to_seconds(shown.stdout.strip().partition("=")[2])
            self.assertEqual(
                self.expiry((self.directory / "crt.pem").read_text(), (self.directory / "key.pem").read_text()),
                expected,
            )

    def test_what_cannot_be_loaded_is_a_failure_and_never_a_wrong_time(self) -> None:
        made = make_certificate("localhost", now=1_700_000_000)
        with self.assertRaises(Failure):
            self.expiry("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", made.key_pem)
        self.assertFalse(math.isnan(self.expiry(made.certificate_pem, made.key_pem)))


def _encrypted(key: str) -> str:
    openssl = require("openssl", "openssl")
    command = [openssl, "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:secret"]
    return subprocess.run(command, input=key, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    unittest.main()
