#!/bin/sh
# Build vex.pyz: ./zipapp.sh [OUTPUT]. Needs python3, or what PYTHON names.
# The same sources give the same bytes, whatever the machine, the time, the umask, the locale and the directory.
set -eu
[ $# -le 1 ] || { echo "usage: $0 [OUTPUT]" >&2; exit 2; }
top=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# -I: no module of the current directory takes the place of one of the standard library
exec "${PYTHON:-python3}" -I - "$top" "${1:-$top/vex.pyz}" <<'END'
import io, os, pathlib, sys, tempfile, tokenize, zipfile

KINDS = {".py", ".sql", ".html", ".css", ".js", ".svg", ".md", ".conf", ".service", ".txt"}
# What Python makes, and the pictures of the manual, which the program does not show.
LEFT_OUT = {".pyc", ".png"}
ENDS = (tokenize.NEWLINE, tokenize.COMMENT)


def sources(top):
    """Find what belongs in the archive: pairs of the name in it and the path."""
    yield "__main__.py", os.path.join(top, "vex.py")
    for directory, below, files in os.walk(os.path.join(top, "vex")):
        below[:] = [name for name in below if name != "__pycache__" and not name.startswith(".")]
        for name in files:
            path, kind = os.path.join(directory, name), os.path.splitext(name)[1]
            if not name.startswith(".") and kind not in LEFT_OUT:
                if kind not in KINDS:
                    sys.exit(f"zipapp.sh: {path}: not a kind of file that the archive holds; remove it, or add it to KINDS")
                yield os.path.relpath(path, top).replace(os.sep, "/"), path

def bare(module):
    """Take out comments and docstrings, which are for those who read the repository; the lines keep their numbers."""
    lines, before = module.decode().split("\n"), tokenize.NEWLINE
    tokens = list(tokenize.tokenize(io.BytesIO(module).readline))
    for token, following in zip(tokens, tokens[1:]):
        first, column, last = token.start[0] - 1, token.start[1], token.end[0]
        if token.type == tokenize.COMMENT:
            lines[first] = lines[first][:column].rstrip()
        elif (token.type, before) == (tokenize.STRING, tokenize.NEWLINE) and following.type in ENDS:
            lines[first:last] = [lines[first][:column] + '""', *[""] * (last - first - 1)]
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            begins = token.type in (tokenize.ENCODING, tokenize.INDENT, tokenize.DEDENT)
            before = tokenize.NEWLINE if begins else token.type
    return "\n".join(lines).encode()


def build(top, output):
    """Write the archive: sorted, with fixed times, modes and system, and stored, because what zlib makes differs."""
    handle, temporary = tempfile.mkstemp(prefix=".vex.pyz.", dir=os.path.dirname(os.path.abspath(output)))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(b"#!/usr/bin/env python3\n")
            with zipfile.ZipFile(file, "w") as archive:
                for name, path in sorted(sources(top)):
                    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                    # On Unix, which the mode is for: a regular file, 0644
                    entry.create_system, entry.external_attr = 3, 0o100644 << 16
                    content = pathlib.Path(path).read_bytes()
                    archive.writestr(entry, bare(content) if name.endswith(".py") else content)
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
