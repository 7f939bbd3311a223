"""The hook of the manual for an ACME client: it puts a renewed certificate in place, and new connections get it."""

from __future__ import annotations

import os
import ssl
import time
import unittest
from pathlib import Path

from tests.support.manual import PAGES, block_with
from tests.support.registries import run, temporary_directory
from tests.support.server import make_certificate, running


class AcmeHookTest(unittest.TestCase):
    def test_new_connections_get_the_renewed_certificate(self) -> None:
        with temporary_directory() as directory:
            certificate, key = directory / "registry.example.crt.pem", directory / "registry.example.key.pem"
            write(certificate, key)
            with running("--public-tls-cert", str(certificate), "--public-tls-key", str(key)) as server:
                before = ssl.get_server_certificate(server.addresses["public"])
                renewed = directory / "lineage"
                renewed.mkdir()
                write(renewed / "fullchain.pem", renewed / "privkey.pem")
                reload = directory / "systemctl"
                reload.write_text(f'#!/bin/sh\n[ "$*" = "reload vex" ] && kill -HUP {server.process.pid}\n')
                reload.chmod(0o755)
                hook = directory / "hook"
                text = block_with("RENEWED_LINEAGE", PAGES["tls"])
                hook.write_text(
                    text.replace("/srv/registry", str(directory)).replace("-o registry", f"-o {os.getuid()}")
                )
                run(
                    "sh",
                    str(hook),
                    environment={"RENEWED_LINEAGE": str(renewed), "PATH": f"{directory}:{os.environ['PATH']}"},
                )
                deadline = time.monotonic() + 20
                while ssl.get_server_certificate(server.addresses["public"]) == before:
                    self.assertLess(time.monotonic(), deadline, server.log.read_text())
                    time.sleep(0.02)
                self.assertEqual(key.stat().st_mode & 0o777, 0o600)


def write(certificate: Path, key: Path) -> None:
    """Make a certificate and its key."""
    made = make_certificate("registry.example", now=time.time())
    certificate.write_text(made.certificate_pem)
    key.write_text(made.key_pem)
