"""Start Vex: `python3 vex.py serve`; in the zipapp this file is `__main__.py`."""

from __future__ import annotations

import gc
import importlib.machinery
import os
import struct
import sys
import zipimport
from collections.abc import Iterator, Sequence
from types import ModuleType


class _Archive:
    """Imports from the zipapp, which is read once, so that it may be replaced while Vex runs.

    Python's own importer opens it for each module, and compiles each twice, once only to name its file: a fifth of the
    time to start.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with open(path, "rb") as file:
            self._content = file.read()
        self._entries = dict(self._directory())

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module."""
        inside = name.replace(".", "/")
        for entry, is_package in ((f"{inside}.py", False), (f"{inside}/__init__.py", True)):
            if entry in self._entries:
                origin = f"{self._path}/{entry}"
                spec = importlib.machinery.ModuleSpec(name, self, origin=origin, is_package=is_package)
                spec.has_location = True
                if is_package:
                    spec.submodule_search_locations = [os.path.dirname(origin)]
                return spec
        return None

    def create_module(self, _spec: importlib.machinery.ModuleSpec) -> None:
        """Leave the making of a module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Run a module."""
        assert module.__file__  # noqa: S101 -- for the type checker: find_spec gave it
        exec(compile(self.get_data(module.__file__), module.__file__, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 -- what imports do

    def get_source(self, name: str) -> str:
        """Return the text of a module, for tracebacks."""
        spec = self.find_spec(name)
        if spec is None or spec.origin is None:
            raise ImportError(name)
        return self.get_data(spec.origin).decode()

    def get_data(self, path: str) -> bytes:
        """Return what a file holds, whose path begins with that of the zipapp; raises OSError. For
        `pkgutil.get_data`.
        """
        entry = self._entries.get(path[len(self._path) + 1 :].replace(os.sep, "/"))
        if entry is None or not path.startswith(self._path):
            raise FileNotFoundError(path)
        return self._content[entry]

    def _directory(self) -> Iterator[tuple[str, slice]]:
        """Read the central directory (APPNOTE sections 4.3.12 and 4.3.16): names with where their contents are, which
        are stored as they are.
        """
        end = self._content.rindex(b"PK\5\6")
        count, size, start = struct.unpack_from("<HII", self._content, end + 10)
        # What was put in front of the archive moves everything.
        moved, at = end - size - start, end - size
        for _ in range(count):
            size, name, offset = struct.unpack_from("<24xIH12xI", self._content, at)
            # APPNOTE section 4.3.7: the name comes once more in front of the content. zipapp.sh puts nothing between or
            # behind them.
            begin = offset + moved + 30 + name
            yield self._content[at + 46 : at + 46 + name].decode(), slice(begin, begin + size)
            at += 46 + name


if __name__ == "__main__":
    if isinstance(__loader__, zipimport.zipimporter):
        sys.meta_path.insert(0, _Archive(__loader__.archive))
        # For what is missing everywhere, Python would open it again.
        sys.path.remove(sys.path[0])
    # What is being loaded stays: looking for garbage in it would only take time.
    gc.disable()
    try:
        from vex.commands.cli import main
    except ModuleNotFoundError as error:
        if (error.name or "vex").partition(".")[0] == "vex":
            raise
        sys.exit(
            f"vex: this Python has no module {error.name}: Vex needs Python 3.9 or newer on a POSIX system, with all of"
            " its standard library; on Windows"
            " use WSL or a container"
        )

    gc.enable()
    sys.exit(main())
