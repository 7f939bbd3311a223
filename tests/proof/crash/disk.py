"""A disk that can lose its power: an ext4 file system in a file, on a loop device. Needs root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import unittest
from collections.abc import Iterator
from pathlib import Path

from tests.support.programs import require

_MIB = 2**20
# EXT4_IOC_SHUTDOWN of linux/fs/ext4/ext4.h, and its flag NOLOGFLUSH: neither data nor journal is written any more.
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2


class Disk:
    """The file system, mounted at `mounted`."""

    def __init__(self, directory: Path) -> None:
        """Make and mount it; skips the test where that is not possible."""
        if os.geteuid():
            raise unittest.SkipTest("needs root, to mount a file system")
        self.mounted = directory / "disk"
        self._image = directory / "image"
        self.mounted.mkdir()
        with self._image.open("wb") as file:
            file.truncate(128 * _MIB)
        subprocess.run([require("mkfs.ext4", "e2fsprogs"), "-q", "-F", str(self._image)], check=True)
        if not self._mount():
            raise unittest.SkipTest("needs a loop device")

    def cut_power(self) -> None:
        """Drop everything that was not synced; what is done from now on fails or is lost."""
        descriptor = os.open(self.mounted, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def restore_power(self) -> None:
        """Mount it again, as after a start of the machine; nobody may use it."""
        self.unmount()
        assert self._mount(), "cannot mount again"

    def unmount(self) -> None:
        """Unmount it, which lets go of the loop device too."""
        subprocess.run(["umount", str(self.mounted)], check=True)

    def _mount(self) -> bool:
        # Nothing is written by itself, nor because a file takes the place of another (ext4(5)), so that a missing sync
        # shows.
        options = "loop,commit=600,noauto_da_alloc"
        done = subprocess.run(
            ["mount", "-t", "ext4", "-o", options, str(self._image), str(self.mounted)],
            check=False,
            capture_output=True,
        )
        return done.returncode == 0


@contextlib.contextmanager
def disk_in(directory: Path) -> Iterator[Disk]:
    """Have a disk for a block."""
    disk = Disk(directory)
    try:
        yield disk
    finally:
        disk.unmount()
