"""A real nginx, with the configuration that the manual shows: its blocks, with the addresses and paths of a test in
place of those of the manual.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.manual import blocks
from tests.support.programs import require
from tests.support.server import make_certificate

PROXY, ACCEL, CACHE = blocks("nginx")
CERTIFICATE, KEY = "/etc/ssl/registry.example.crt.pem", "/etc/ssl/registry.example.key.pem"
_AROUND = """\
daemon off;
worker_processes 1;
{user}
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 512; }}
http {{
    sendfile on;
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{block}
}}
"""


class Nginx(NamedTuple):
    """A running nginx, its files in `directory`."""

    process: subprocess.Popen[bytes]
    directory: Path

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(timeout=60)


def with_accel(block: str) -> str:
    """Put the location for `accel-redirect` into the server of the first block."""
    return block.rstrip()[:-1] + ACCEL + "}\n"


def replaced(block: str, values: Mapping[str, object]) -> str:
    """Replace what stands in the manual, each of which must be there, words as a whole."""
    for old, new in values.items():
        pattern = re.compile(rf"(?<![\w.]){re.escape(old)}(?![\w.])" if old.isdigit() else re.escape(old))
        assert pattern.search(block), f"{old} is not in the manual's configuration of nginx"
        block = pattern.sub(str(new), block)
    return block


def write_certificate(directory: Path, host: str) -> dict[str, object]:
    """Make a certificate and its key in a directory; returns what they replace."""
    made = make_certificate(host, now=time.time())
    paths = directory / "crt.pem", directory / "key.pem"
    for path, content in zip(paths, made):
        path.write_text(content)
    return dict(zip((CERTIFICATE, KEY), paths))


def start_nginx(directory: Path, block: str, *around: str) -> Nginx:
    """Start it in a directory of its own, perhaps within another command, and wait until it accepts connections; fails
    with its log.
    """
    directory.mkdir(exist_ok=True)
    (directory / "nginx.conf").write_text(
        _AROUND.format(directory=directory, block=block, user="user root;" if os.geteuid() == 0 else "")
    )
    command = [
        *around,
        require("nginx", "nginx-light"),
        "-p",
        str(directory),
        "-e",
        str(directory / "error.log"),
        "-c",
        str(directory / "nginx.conf"),
    ]
    nginx = Nginx(subprocess.Popen(command), directory)
    deadline = time.monotonic() + 30
    # It listens before it writes this.
    while not (directory / "pid").exists() or not (directory / "pid").read_text():
        if nginx.process.poll() is not None or time.monotonic() > deadline:
            nginx.stop()
            raise AssertionError((directory / "error.log").read_text())
        time.sleep(0.01)
    return nginx


@contextlib.contextmanager
def running_nginx(directory: Path, block: str, *around: str) -> Iterator[Nginx]:
    """Run it for a block."""
    nginx = start_nginx(directory, block, *around)
    try:
        yield nginx
    finally:
        nginx.stop()
