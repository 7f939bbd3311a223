#!/bin/sh
# Build vex.pyz: ./zipapp.sh [OUTPUT]. Needs python3, or what PYTHON names.
# The same sources give the same bytes, whatever the machine, the time, the umask, the locale and the directory.
set -eu

if [ $# -gt 1 ]; then
    echo "usage: $0 [OUTPUT]" >&2
    exit 2
fi
top=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)

# -I: no module of the current directory takes the place of one of the standard library
exec "${PYTHON:-python3}" -I - "$top" "${1:-$top/vex.pyz}" <<'END'
import os
import sys
import tempfile
import zipfile

KINDS = {".py", ".sql", ".html", ".css", ".js", ".svg", ".md"}
# What Python makes, and the pictures of the manual, which the program does not show.
LEFT_OUT = {".pyc", ".png"}
SHEBANG = b"#!/usr/bin/env python3\n"


def sources(top):
    """Find what belongs in the archive: pairs of the name in it and the path."""
    yield "__main__.py", os.path.join(top, "vex.py")
    for directory, below, files in os.walk(os.path.join(top, "vex")):
        below[:] = [name for name in below if name != "__pycache__" and not name.startswith(".")]
        for name in files:
            path = os.path.join(directory, name)
            if name.startswith(".") or os.path.splitext(name)[1] in LEFT_OUT:
                continue
            if os.path.splitext(name)[1] not in KINDS:
                sys.exit(f"zipapp.sh: {path}: not a kind of file that the archive holds; remove it, or add its kind to zipapp.sh")
            yield os.path.relpath(path, top).replace(os.sep, "/"), path


def write(file, top):
    """Write the archive: sorted, with fixed times, modes and system, and stored, because what zlib makes differs from version to version."""
    file.write(SHEBANG)
    with zipfile.ZipFile(file, "w") as archive:
        for name, path in sorted(sources(top)):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            # On Unix, which the mode is for: a regular file, 0644
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            with open(path, "rb") as source:
                archive.writestr(entry, source.read())


def build(top, output):
    """Put the archive in place once it is whole."""
    handle, temporary = tempfile.mkstemp(prefix=".vex.pyz.", dir=os.path.dirname(os.path.abspath(output)))
    try:
        with os.fdopen(handle, "wb") as file:
            write(file, top)
        os.chmod(temporary, 0o755)
        os.replace(temporary, output)
    except BaseException:
        os.unlink(temporary)
        raise
    print(os.path.getsize(output), "bytes", output)


try:
    build(*sys.argv[1:])
except OSError as error:
    sys.exit(f"zipapp.sh: {error}")
END
