"""Directories that somebody else may have prepared, and names of files that somebody else chose.

Invariants: a name from outside passes `parse_path` before it is used or compared; a file is found part by part from an
open directory, so no link leads out of it, not even one that is made meanwhile; what is no regular file is never waited
for. A new file is made under a name that nobody has, is whole and synced before it takes its own name, and is never
written through a link.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vex.errors import VexError
from vex.storage.blobs import DIRECTORY_MODE, FILE_MODE
from vex.storage.files import sync

_MAX_PATH = 1024
_MAX_LINKS = 8
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO would be waited for.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Unsafe(VexError):
    """A name from outside is none that is followed; the text says why."""


def parse_path(text: str) -> tuple[str, ...]:
    """Check the name of a file that comes from outside; returns its parts. Raises Unsafe."""
    shown = ascii(text if len(text) <= 100 else text[:100] + "...")
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    if text.startswith("/") or ".." in parts:
        raise Unsafe(f"the name {shown} leads elsewhere: names of files have to be relative, and without '..'")
    if (
        not parts
        or len(text) > _MAX_PATH
        or "\0" in text
        or any("\ud800" <= character <= "\udfff" for character in text)
    ):
        raise Unsafe(f"{shown} is not the name of a file")
    return parts


class Folder:
    """An open directory."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Open a directory that the user named, through links too; raises OSError."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def folder(self, name: str) -> Folder:
        """Open a directory in this one, and make it if it is missing; raises Unsafe for a link, and OSError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, DIRECTORY_MODE, dir_fd=self.descriptor)
            self.sync()
        try:
            return Folder(os.open(name, _OPEN_DIRECTORY, dir_fd=self.descriptor))
        except NotADirectoryError:
            raise Unsafe(f"{name} is a link, or no directory; remove it, or choose another directory") from None

    # Files that are there

    def find(self, name: str) -> int:
        """Open a file below, through links that stay inside; returns a descriptor. Raises Unsafe, and OSError such as
        FileNotFoundError.
        """
        todo, links = [*reversed(parse_path(name))], 0
        opened = [self.descriptor]
        try:
            while todo:
                part = todo.pop()
                status = os.stat(part, dir_fd=opened[-1], follow_symlinks=False) if part != ".." else None
                if status is None and len(opened) > 1:
                    os.close(opened.pop())
                elif status and stat.S_ISLNK(status.st_mode) and links < _MAX_LINKS:
                    target = os.readlink(part, dir_fd=opened[-1])
                    todo += [
                        ".." if target.startswith("/") else part
                        for part in reversed(target.split("/"))
                        if part not in ("", ".")
                    ]
                    links += 1
                elif status and not stat.S_ISLNK(status.st_mode):
                    if not todo:
                        return _open_regular(part, status, opened[-1])
                    opened.append(os.open(part, _OPEN_DIRECTORY, dir_fd=opened[-1]))
                else:
                    raise Unsafe(f"{name} is a link that leads elsewhere; copy what it leads to in its place")
        finally:
            for descriptor in opened[1:]:
                os.close(descriptor)
        raise Unsafe(f"{name} is not a file")

    def open_file(self, name: str) -> BinaryIO:
        """Open a file in this directory itself, and no link; raises Unsafe, and OSError such as FileNotFoundError."""
        status = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        return open(_open_regular(name, status, self.descriptor), "rb", buffering=0)

    # New names

    def link(self, source: str, name: str) -> None:
        """Give a file a second name, in the place of what has it; raises OSError."""
        self.unlink(name)
        os.link(source, name, dst_dir_fd=self.descriptor)

    def unlink(self, name: str) -> None:
        """Remove a name, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def sync(self) -> None:
        """Make the names in it durable; raises OSError, after which nothing about them is certain."""
        sync(self.descriptor)


class Draft:
    """Where files are until they are whole: a name that nobody else uses, in a folder of the same file system."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name

    @contextlib.contextmanager
    def of(self, folder: Folder, name: str) -> Iterator[BinaryIO]:
        """Give a new file, which is synced at the end of the block, and put in the place of what has the name."""
        self._folder.unlink(self._name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(self._name, flags, FILE_MODE, dir_fd=self._folder.descriptor), "wb", buffering=0) as file:
                yield file
                sync(file.fileno())
            os.rename(self._name, name, src_dir_fd=self._folder.descriptor, dst_dir_fd=folder.descriptor)
        finally:
            self._folder.unlink(self._name)


def _open_regular(name: str, status: os.stat_result, folder: int) -> int:
    """Open a regular file; raises Unsafe for all else, also if it takes the place of the file now."""
    if stat.S_ISREG(status.st_mode):
        descriptor = os.open(name, _OPEN_FILE, dir_fd=folder)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    raise Unsafe(f"{name} is not a file")
