"""A machine of one's own, as far as tests need it: network and mounts that only the programs in it see.

There is nothing on its network but itself, so that the ports of a registry are always free, and NAME is its name at an
address that is no loopback address: at those docker verifies no certificate. Its /etc is a copy, its /run and /dev/shm
are empty, and what programs leave there goes away with it. Needs root.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.programs import require

NAME = "registry.test"
_ADDRESS = "192.0.2.1"  # RFC 5737: for documentation

# ioctls of netdevice(7): set an address, and the flags of an interface
_NETWORK = f"""
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    for name, address in ((b"lo", "127.0.0.1"), (b"lo:1", "{_ADDRESS}")):
        fcntl.ioctl(any_socket, 0x8916, struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address)))
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", name, 1))
"""
_SETUP = f"""
set -e
cp -a /etc "$1/etc"
echo '{_ADDRESS} {NAME}' >>"$1/etc/hosts"
mkdir -p "$1/etc/systemd/system"
mount --bind "$1/etc" /etc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
"$2" -c "$3"
echo ready
exec cat
"""


class Machine:
    """Runs programs in the namespaces of a process."""

    def __init__(self, process: int) -> None:
        self._process = process

    def command(self, *words: str) -> tuple[str, ...]:
        """Return the command that runs a command on this machine."""
        return (require("nsenter", "util-linux"), "--target", str(self._process), "--net", "--mount", *words)


@contextlib.contextmanager
def running_machine(directory: Path) -> Iterator[Machine]:
    """Have a machine for a block, with its files in a directory."""
    command = [
        require("unshare", "util-linux"),
        "--net",
        "--mount",
        "sh",
        "-c",
        _SETUP,
        "sh",
        str(directory),
        sys.executable,
        _NETWORK,
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        # It ends with its standard input, which leaving the block closes.
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "cannot set up namespaces"
        yield Machine(process.pid)
