"""`vex import`: what is found out before anybody types a password, and which certificates of the other registry are
trusted.
"""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.support.programs import require
from tests.support.server import PASSWORD, TOP, USER, Server, ServerTestCase, running, vex

NO_PROXY = {"NO_PROXY": "*", "no_proxy": "*"}


class BeforeThePassword(ServerTestCase):
    """On a terminal, where a question would wait for ever."""

    def complaint(self, source: str, to: str = "", *flags: str) -> str:
        """Import, and return what was complained of."""
        master, slave = pty.openpty()
        try:
            command = [
                sys.executable,
                str(TOP / "vex.py"),
                "import",
                source,
                "--username",
                USER,
                "--to",
                to or self.server.urls["auth"],
                *flags,
            ]
            ended = subprocess.run(
                command,
                stdin=slave,
                stdout=slave,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
                start_new_session=True,
            )
        finally:
            os.close(slave)
            os.close(master)
        self.assertEqual((ended.returncode, ended.stderr.count("\n")), (1, 1), ended.stderr)
        self.assertNotIn("Password", ended.stderr)
        return ended.stderr

    def test_a_file_that_is_not_there_is_named_as_one(self) -> None:
        self.assertIn(
            "there is no file nope.invalid, and https://nope.invalid:443 does not answer",
            self.complaint("nope.invalid"),
        )
        self.assertIn("some/where.tar is not there", self.complaint("some/where.tar"))

    def test_a_registry_that_does_not_answer_is_named(self) -> None:
        self.assertIn("http://127.0.0.1:1 does not answer", self.complaint("http://127.0.0.1:1"))
        self.assertIn(
            "http://127.0.0.1:1 does not answer", self.complaint(self.server.urls["public"], "http://127.0.0.1:1")
        )
        self.assertIn("--to 'nonsense:'", self.complaint(self.server.urls["public"], "nonsense:"))

    def test_https_where_nothing_speaks_it_is_called_so(self) -> None:
        secure = self.server.urls["public"].replace("http://", "https://")
        self.assertIn(
            f"{secure} does not answer: it speaks no TLS; perhaps its address begins with http://",
            self.complaint(secure),
        )

    def test_registries_that_want_a_password_are_there(self) -> None:
        self.server.auth.push_image("app", "v1", b"layer")
        with running() as other:
            ended = vex(
                *(
                    "import",
                    self.server.urls["auth"],
                    "--username",
                    USER,
                    "--source-username",
                    USER,
                    "--to",
                    other.urls["auth"],
                ),
                text=f"{PASSWORD}\n{PASSWORD}\n",
            )
            self.assertEqual(ended.returncode, 0, ended.stderr)
            self.assertEqual(other.public.get("/v2/app/tags/list").json["tags"], ["v1"])


class PrivateAuthority(unittest.TestCase):
    """A registry with a certificate of an authority that lacks keyUsage and the identifiers of keys, which OpenSSL made
    by default for years.
    """

    def test_it_is_trusted_on_every_python_as_it_is_by_curl(self) -> None:
        curl = require("curl", "curl")
        pythons = sorted(Path.home().glob(".pyenv/versions/3.1[2-9]*/bin/python3")) or [Path(sys.executable)]
        with tempfile.TemporaryDirectory() as name, running() as target, contextlib.ExitStack() as ending:
            authority, certificate, key = self.make(Path(name))
            Path(name, "source").mkdir()
            source = Server(Path(name, "source"), "--public-tls-cert", str(certificate), "--public-tls-key", str(key))
            ending.callback(source.kill)
            source.auth.push_image("app", "v1", b"layer")
            url = f"https://localhost:{source.addresses['public'][1]}"
            environment = {**os.environ, **NO_PROXY, "SSL_CERT_FILE": str(authority)}
            environment.pop("SSL_CERT_DIR", None)
            subprocess.run(
                [curl, "-sSf", "--cacert", str(authority), f"{url}/v2/"],
                check=True,
                capture_output=True,
                env=environment,
            )
            for python in pythons:
                with self.subTest(python):
                    command = [
                        str(python),
                        str(TOP / "vex.py"),
                        "import",
                        url,
                        "--username",
                        USER,
                        "--to",
                        target.urls["auth"],
                    ]
                    ended = subprocess.run(
                        command,
                        input=PASSWORD + "\n",
                        capture_output=True,
                        text=True,
                        timeout=60,
                        check=False,
                        env=environment,
                    )
                    self.assertEqual(ended.returncode, 0, ended.stderr)
            environment["SSL_CERT_FILE"] = str(key)
            ended = subprocess.run(
                command, input=PASSWORD + "\n", capture_output=True, text=True, timeout=60, check=False, env=environment
            )
            self.assertIn(f"the certificate of {url} is not trusted", ended.stderr)

    def make(self, directory: Path) -> tuple[Path, Path, Path]:
        """Make an authority, and a certificate with its key."""
        openssl = require("openssl", "openssl")
        authority, certificate, key = directory / "ca.pem", directory / "crt.pem", directory / "key.pem"
        (directory / "ca.conf").write_text(
            "[req]\ndistinguished_name = name\nx509_extensions = ca\n[name]\n[ca]\nbasicConstraints = critical,"
            " CA:TRUE\n"
        )
        (directory / "names").write_text("subjectAltName = DNS:localhost\n")
        ca = [
            "-x509",
            "-config",
            str(directory / "ca.conf"),
            "-subj",
            "/CN=private",
            "-keyout",
            str(directory / "ca.key"),
            "-out",
            str(authority),
        ]
        server = [
            "-config",
            str(directory / "ca.conf"),
            "-subj",
            "/CN=localhost",
            "-keyout",
            str(key),
            "-out",
            str(directory / "csr.pem"),
        ]
        signed = [
            "-CA",
            str(authority),
            "-CAkey",
            str(directory / "ca.key"),
            "-CAcreateserial",
            "-extfile",
            str(directory / "names"),
            "-out",
            str(certificate),
        ]
        for arguments in (
            ["req", *ca, "-nodes", "-newkey", "rsa:2048", "-days", "9"],
            ["req", "-new", *server, "-nodes", "-newkey", "rsa:2048"],
            ["x509", "-req", "-in", str(directory / "csr.pem"), *signed, "-days", "9"],
        ):
            subprocess.run([openssl, *arguments], check=True, capture_output=True)
        return authority, certificate, key


if __name__ == "__main__":
    unittest.main()
