#!/bin/sh
# deflate 0.9.0 (PyPI) unpacks the first member of a gzip file, into as much room as the last four bytes ask for: none for eStargz.
#
# Guessed: all that is in it, or an error. Seen: the last member says how long it is itself (RFC 1952 section 2.3.1, ISIZE), and the library takes
# this for the length of the whole: nothing, and no error, where an empty member comes last - every eStargz layer ends in one, its footer - or
# where zeros fill up the file, as on a tape; the first member alone where the last is longer, and an error where it is shorter. gzip, isal 1.9.1,
# zlib-ng 1.1.0 and indexed_gzip 1.10.3 give the whole of each; rapidgzip 0.16.1 and cramjam 2.14.0 do too, except that they raise at the zeros.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: deflate==0.9.0 isal==1.9.1 zlib-ng==1.1.0 indexed_gzip==1.10.3 rapidgzip==0.16.1 cramjam==2.14.0
cat >try.py <<'PYTHON'
import gzip, io

import cramjam, deflate, indexed_gzip, isal.igzip, rapidgzip, zlib_ng.gzip_ng

first, longer, shorter, empty = (gzip.compress(word * 1000) for word in (b"first ", b"second ", b"x", b""))
for name, content in (
    ("6000 and 7000 bytes", first + longer),
    ("6000 and 1000 bytes", first + shorter),
    ("6000 bytes and an empty member", first + empty),
    ("6000 bytes and zeros", first + bytes(512)),
):
    for library, unpack in (
        ("gzip", gzip.decompress),
        ("isal", isal.igzip.decompress),
        ("zlib-ng", zlib_ng.gzip_ng.decompress),
        ("indexed_gzip", lambda content: indexed_gzip.IndexedGzipFile(fileobj=io.BytesIO(content)).read()),
        ("rapidgzip", lambda content: rapidgzip.open(io.BytesIO(content)).read()),
        ("cramjam", cramjam.gzip.decompress),
        ("deflate", deflate.gzip_decompress),
    ):
        try:
            print(f"{name}: {library}: {len(bytes(unpack(content)))}")
        except Exception as error:
            print(f"{name}: {library}: {type(error).__name__}")
PYTHON
venv/bin/python try.py | tee seen
diff - seen <<'EXPECTED'
6000 and 7000 bytes: gzip: 13000
6000 and 7000 bytes: isal: 13000
6000 and 7000 bytes: zlib-ng: 13000
6000 and 7000 bytes: indexed_gzip: 13000
6000 and 7000 bytes: rapidgzip: 13000
6000 and 7000 bytes: cramjam: 13000
6000 and 7000 bytes: deflate: 6000
6000 and 1000 bytes: gzip: 7000
6000 and 1000 bytes: isal: 7000
6000 and 1000 bytes: zlib-ng: 7000
6000 and 1000 bytes: indexed_gzip: 7000
6000 and 1000 bytes: rapidgzip: 7000
6000 and 1000 bytes: cramjam: 7000
6000 and 1000 bytes: deflate: DeflateError
6000 bytes and an empty member: gzip: 6000
6000 bytes and an empty member: isal: 6000
6000 bytes and an empty member: zlib-ng: 6000
6000 bytes and an empty member: indexed_gzip: 6000
6000 bytes and an empty member: rapidgzip: 6000
6000 bytes and an empty member: cramjam: 6000
6000 bytes and an empty member: deflate: 0
6000 bytes and zeros: gzip: 6000
6000 bytes and zeros: isal: 6000
6000 bytes and zeros: zlib-ng: 6000
6000 bytes and zeros: indexed_gzip: 6000
6000 bytes and zeros: rapidgzip: RuntimeError
6000 bytes and zeros: cramjam: DecompressionError
6000 bytes and zeros: deflate: 0
EXPECTED
echo "as before"
