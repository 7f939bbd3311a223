"""The real curl: HTTPS with the certificate of `vex quickstart`, and large bodies, for which curl waits to be told to
go on (RFC 9110 section 10.1.1).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.programs import require
from tests.support.registries import ProgramTestCase, certificate, run
from tests.support.server import PASSWORD, USER, digest_of

CONTENT = os.urandom(2 * 1024 * 1024)
# Without an answer to its Expect curl would send the body after a second.
WAIT = ("--expect100-timeout", "60")


class CurlTests(ProgramTestCase):
    """The registry takes blobs of up to 2 MiB."""

    flags = ("--blob-limit", "2MiB")

    @classmethod
    def setUpClass(cls) -> None:
        """Write what curl sends."""
        require("curl", "curl")
        super().setUpClass()
        (cls.directory / "netrc").write_text(f'machine 127.0.0.1 login {USER} password "{PASSWORD}"\n')
        (cls.directory / "blob").write_bytes(CONTENT)

    def upload(self, path: Path, digest: str, *more: str) -> tuple[int, int, str]:
        """POST a file as a blob; returns the status, the number of bytes of it that were sent, and what curl tells of
        the exchange.
        """
        target = f"{self.server.urls['auth']}/v2/blobs/blobs/uploads/?digest={digest}"
        shown = "%{http_code} %{size_upload}"
        ended = curl(
            *WAIT,
            "--verbose",
            "--output",
            "/dev/null",
            "--write-out",
            shown,
            "--data-binary",
            f"@{path}",
            *more,
            target,
        )
        status, size = ended.stdout.split()
        return int(status), int(size), ended.stderr

    def credentials(self) -> tuple[str, str]:
        """Return the flags that have curl send the user name and the password."""
        return "--netrc-file", f"{self.directory}/netrc"

    def test_large_body_is_sent_after_100_continue(self) -> None:
        status, size, told = self.upload(self.directory / "blob", digest_of(CONTENT), *self.credentials())
        self.assertEqual((status, size), (201, len(CONTENT)))
        self.assertIn("> Expect: 100-continue", told)
        self.assertIn("< HTTP/1.1 100 Continue", told)
        self.assertEqual(self.server.public.get(f"/v2/blobs/blobs/{digest_of(CONTENT)}").body, CONTENT)

    def test_large_body_without_credentials_is_refused_before_it_is_sent(self) -> None:
        status, size, told = self.upload(self.directory / "blob", digest_of(CONTENT))
        self.assertEqual((status, size), (401, 0))
        self.assertIn("> Expect: 100-continue", told)
        self.assertNotIn("100 Continue", told)

    def test_body_over_the_limit_is_refused_before_it_is_sent(self) -> None:
        (self.directory / "larger").write_bytes(CONTENT + b"1")
        status, size, told = self.upload(self.directory / "larger", digest_of(CONTENT + b"1"), *self.credentials())
        self.assertEqual((status, size), (413, 0))
        self.assertNotIn("100 Continue", told)


class HttpsTests(ProgramTestCase):
    """With the certificate of `vex quickstart`."""

    https = True

    def test_certificate_is_trusted_at_each_of_its_names(self) -> None:
        port = self.server.addresses["public"][1]
        for name in ("127.0.0.1", "localhost"):
            with self.subTest(name=name):
                self.assertEqual(
                    curl(*self.trusting(), f"https://{name}:{port}/v2/_catalog").stdout.strip(), '{"repositories":[]}'
                )

    def test_certificate_is_refused_without_cacert(self) -> None:
        self.assertIn("self-signed certificate", curl(f"{self.server.urls['public']}/v2/", code=60).stderr)

    def test_certificate_is_refused_for_another_name(self) -> None:
        port = self.server.addresses["public"][1]
        other = ("--resolve", f"another.test:{port}:127.0.0.1", f"https://another.test:{port}/v2/")
        self.assertIn("no alternative certificate subject name matches", curl(*self.trusting(), *other, code=60).stderr)

    def trusting(self) -> tuple[str, str]:
        """Return the flags that have curl trust the certificate."""
        return "--cacert", str(certificate(self.server))


def curl(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run curl to its end."""
    return run(require("curl", "curl"), "--silent", "--show-error", "--max-time", "30", *arguments, code=code)
