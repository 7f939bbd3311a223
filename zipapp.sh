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
import binascii
import os
import struct
import sys
import tempfile

KINDS = {".py", ".sql", ".html", ".css", ".js", ".svg"}
SHEBANG = b"#!/usr/bin/env python3\n"

# RFC 1951 section 3.2.5: the shortest length and the smallest distance of each code; the codes grow by powers of two
LENGTHS = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227]
DISTANCES = [1, 2, 3, 4, *(1 + (half << bits) for bits in range(1, 14) for half in (2, 3))]
# How many earlier places with the same three bytes are compared: more of them save little.
CANDIDATES = 48


def symbol(value):
    """Return the fixed code of a literal or length symbol, its first bit last, and its number of bits (RFC 1951 section 3.2.6)."""
    for first, end, code, bits in ((0, 144, 0x30, 8), (144, 256, 0x190, 9), (256, 280, 0, 7), (280, 288, 0xC0, 8)):
        if first <= value < end:
            return int(format(code + value - first, f"0{bits}b")[::-1], 2), bits
    raise ValueError(value)


SYMBOLS = [symbol(value) for value in range(288)]
DISTANCE_CODES = [int(format(code, "05b")[::-1], 2) for code in range(30)]


def code_of(bases, value):
    """Find the last code that begins at or below a value."""
    return next(code for code in range(len(bases) - 1, -1, -1) if bases[code] <= value)


LENGTH_CODES = {length: code_of(LENGTHS, length) for length in range(3, 258)}


def matches(data):
    """Split data into literals (byte, 0) and repetitions (length, distance)."""
    places = {}
    at = 0
    while at < len(data):
        length, distance = 0, 0
        for place in reversed(places.get(data[at : at + 3], [])[-CANDIDATES:]):
            if at - place > 32768:
                break
            if data[place + length : place + length + 1] != data[at + length : at + length + 1]:
                continue
            same, most = 3, min(257, len(data) - at)
            while same < most and data[place + same] == data[at + same]:
                same += 1
            if same > length:
                length, distance = same, at - place
        for place in range(at, at + max(length, 1)):
            if place + 3 <= len(data):
                places.setdefault(data[place : place + 3], []).append(place)
        yield (length, distance) if length else (data[at], 0)
        at += max(length, 1)


def deflate(data):
    """Compress data to one block with fixed codes (RFC 1951); zlib's own output differs from version to version."""
    out, held, count = bytearray(), 0b011, 3

    def put(value, bits):
        nonlocal held, count
        held |= value << count
        count += bits
        while count >= 8:
            out.append(held & 255)
            held >>= 8
            count -= 8

    for value, distance in matches(data):
        if not distance:
            put(*SYMBOLS[value])
            continue
        code = LENGTH_CODES[value]
        put(*SYMBOLS[257 + code])
        put(value - LENGTHS[code], max(0, code // 4 - 1))
        code = code_of(DISTANCES, distance)
        put(DISTANCE_CODES[code], 5)
        put(distance - DISTANCES[code], max(0, code // 2 - 1))
    put(*SYMBOLS[256])
    put(0, 7)
    return bytes(out)


def sources(top):
    """Find what belongs in the archive: pairs of the name in it and the path."""
    yield "__main__.py", os.path.join(top, "vex.py")
    for directory, below, files in os.walk(os.path.join(top, "vex")):
        below[:] = [name for name in below if name != "__pycache__" and not name.startswith(".")]
        for name in files:
            path = os.path.join(directory, name)
            if name.startswith(".") or name.endswith(".pyc"):
                continue
            if os.path.splitext(name)[1] not in KINDS:
                sys.exit(f"zipapp.sh: {path}: not a kind of file that the archive holds; remove it, or add its kind to zipapp.sh")
            yield os.path.relpath(path, top).replace(os.sep, "/"), path


def write(file, top):
    """Write the archive (APPNOTE sections 4.3.7, 4.3.12 and 4.3.16): sorted, deflated, with fixed times, modes and system."""
    file.write(SHEBANG)
    directory = []
    for name, path in sorted(sources(top)):
        with open(path, "rb") as source:
            data = source.read()
        packed = deflate(data)
        # version 2.0, no flags, deflated, 1980-01-01 00:00
        common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, binascii.crc32(data), len(packed), len(data), len(name), 0)
        # made by version 2.0 on Unix, which the mode is for: a regular file, 0644
        directory.append(b"PK\1\2" + struct.pack("<H", 3 << 8 | 20) + common + struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, file.tell()) + name.encode())
        file.write(b"PK\3\4" + common + name.encode() + packed)
    begin = file.tell()
    file.write(b"".join(directory))
    file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, len(directory), len(directory), file.tell() - begin, begin, 0))


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
