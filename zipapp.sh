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
import bisect
import collections
import itertools
import os
import struct
import sys
import tempfile

KINDS = {".py", ".sql", ".html", ".css", ".js", ".svg"}
SHEBANG = b"#!/usr/bin/env python3\n"

# RFC 1951 section 3.2.5: the shortest length and the smallest distance of each code; the codes grow by powers of two
LENGTHS = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227]
DISTANCES = [1, 2, 3, 4, *(1 + (half << bits) for bits in range(1, 14) for half in (2, 3))]
# RFC 1951 section 3.2.7: the order in which the lengths of the codes for code lengths are sent
ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
# The length 258 has a code of its own; without it, nothing here is noticeably larger.
LONGEST = 257
# How many earlier places with the same three bytes are compared: more of them save little.
CANDIDATES = 48


def longest(data, places, at):
    """Find the longest and then the nearest repetition that begins at a place: its length, 0 for none, and its distance."""
    length, distance, most = 0, 0, min(LONGEST, len(data) - at)
    for place in reversed(places.get(data[at : at + 3], [])[-CANDIDATES:]):
        if at - place > 32768 or length == most:
            break
        if data[place + length] != data[at + length]:
            continue
        same = 3
        while same < most and data[place + same] == data[at + same]:
            same += 1
        if same > length:
            length, distance = same, at - place
    return length, distance


def matches(data):
    """Split data into literals (byte, 0) and repetitions (length, distance), each given up for a longer one a byte later (RFC 1951 section 4)."""
    places = collections.defaultdict(list)
    at, found = 0, (0, 0)
    while at < len(data):
        places[data[at : at + 3]].append(at)
        following = longest(data, places, at + 1)
        if found[0] == 0 or found[0] < following[0]:
            yield data[at], 0
            at, found = at + 1, following
            continue
        yield found
        for place in range(at + 1, at + found[0]):
            places[data[place : place + 3]].append(place)
        at += found[0]
        found = longest(data, places, at)


def number(value, bits):
    """Write a number as bits in the order of the stream: the lowest first (RFC 1951 section 3.1.1)."""
    return f"{value:0{bits}b}"[::-1] if bits else ""


def symbols(data):
    """Split data into an alphabet (0: literals and lengths, 1: distances), a symbol of it, and its extra bits (RFC 1951 section 3.2.5)."""
    for value, distance in matches(data):
        if not distance:
            yield 0, value, ""
            continue
        code = bisect.bisect(LENGTHS, value) - 1
        yield 0, 257 + code, number(value - LENGTHS[code], max(0, code // 4 - 1))
        code = bisect.bisect(DISTANCES, distance) - 1
        yield 1, code, number(distance - DISTANCES[code], max(0, code // 2 - 1))
    yield 0, 256, ""


def code_lengths(used, limit):
    """Find the shortest code for symbols, of at most so many bits each: package-merge (Larmore and Hirschberg 1990), equals in the order of symbols."""
    counts = collections.Counter(used)
    if len(counts) < 2:
        # Some decoders refuse a code of fewer than two symbols; and every count must be above 0 for package-merge.
        counts.update((0, 1))
    single = merged = sorted((count, (symbol,)) for symbol, count in counts.items())
    for _ in range(limit - 1):
        pairs = zip(merged[::2], merged[1::2])
        merged = sorted(single + [(first[0] + second[0], first[1] + second[1]) for first, second in pairs])
    return collections.Counter(symbol for _, package in merged[: 2 * len(single) - 2] for symbol in package)


def codes(lengths):
    """Give each symbol its code, as bits in the order of the stream (RFC 1951 section 3.2.2)."""
    found, code, before = {}, 0, 0
    for bits, symbol in sorted((bits, symbol) for symbol, bits in lengths.items()):
        code <<= bits - before
        found[symbol] = f"{code:0{bits}b}"
        code, before = code + 1, bits
    return found


def runs(lengths):
    """Shorten runs of equal code lengths to the symbols 16, 17 and 18 with their extra bits (RFC 1951 section 3.2.7)."""
    for length, run in itertools.groupby(lengths):
        left = len(list(run))
        if length:
            yield length, ""
            left -= 1
        while left >= 3:
            symbol, least, most, bits = (16, 3, 6, 2) if length else (17, 3, 10, 3) if left < 11 else (18, 11, 138, 7)
            taken = min(left, most)
            yield symbol, number(taken - least, bits)
            left -= taken
        yield from [(length, "")] * left


def header(literals, distances):
    """Describe the codes of a block by the lengths of both (RFC 1951 section 3.2.7)."""
    ends = max(literals) + 1, max(distances) + 1
    described = list(runs([literals[symbol] for symbol in range(ends[0])] + [distances[symbol] for symbol in range(ends[1])]))
    lengths = code_lengths((symbol for symbol, _ in described), 7)
    sent = 1 + max(ORDER.index(symbol) for symbol in lengths)
    counts = number(ends[0] - 257, 5) + number(ends[1] - 1, 5) + number(sent - 4, 4)
    code = codes(lengths)
    return counts + "".join(number(lengths[symbol], 3) for symbol in ORDER[:sent]) + "".join(code[symbol] + extra for symbol, extra in described)


def deflate(data):
    """Compress data to one block with dynamic codes (RFC 1951 section 3.2.3); zlib's own output differs from version to version."""
    parts = list(symbols(data))
    lengths = [code_lengths((symbol for of, symbol, _ in parts if of == alphabet), 15) for alphabet in (0, 1)]
    code = [codes(each) for each in lengths]
    bits = "1" + number(2, 2) + header(*lengths) + "".join(code[alphabet][symbol] + extra for alphabet, symbol, extra in parts)
    return int(bits[::-1], 2).to_bytes((len(bits) + 7) // 8, "little")


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
