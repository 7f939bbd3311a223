"""A containerd of a test's own, and how it reaches registries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.support.programs import require
from tests.support.registries import daemon, temporary_directory

# Only what stores and transfers content; among the rest is what would write elsewhere.
_CONFIGURATION = """\
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{0}/containerd.sock"
[ttrpc]
address = "{0}/ttrpc.sock"
"""
_HOST = """\
server = "{0}"
[host."{0}"]
capabilities = ["pull", "resolve", "push"]
{1}
"""


def write_hosts(directory: Path, *hosts: str, https: bool) -> str:
    """Write for each host how it is reached, with the certificates of a `ProgramTestCase`; returns the flag for ctr."""
    trust = f'ca = "{directory}/certificates/ca.crt"' if https else ""
    for host in hosts:
        path = directory / "hosts" / host / "hosts.toml"
        path.parent.mkdir(parents=True)
        path.write_text(_HOST.format(f"http{'s' if https else ''}://{host}", trust))
    return f"--hosts-dir={directory}/hosts"


@contextlib.contextmanager
def running_containerd() -> Iterator[tuple[str, ...]]:
    """Run an empty containerd for a block; gives the command that begins each call of ctr."""
    with temporary_directory() as directory:
        configuration = directory / "config.toml"
        configuration.write_text(_CONFIGURATION.format(directory))
        with daemon(directory, require("containerd", "containerd"), "--config", str(configuration)):
            yield require("ctr", "containerd"), "--address", f"{directory}/containerd.sock"
