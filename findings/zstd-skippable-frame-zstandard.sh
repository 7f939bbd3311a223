#!/bin/sh
# zstandard 0.25.0 (PyPI) gives nothing, without an error, for what pzstd writes, in two of its ways to unpack.
#
# Guessed: everything, since RFC 8878 section 3.1 lets a file be any number of frames, skippable ones among them. Seen: pzstd begins its
# file with a skippable frame; read_to_iter() and decompressobj() end there with 0 bytes, decompress() raises, and stream_reader(),
# copy_stream() and open() give the whole. Layers that pzstd or zstd:chunked wrote look empty to what uses the former.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -q zstd=1.5.4+dfsg2-5 >apt.log 2>&1 || { cat apt.log; exit 1; }
dpkg -x zstd_*.deb .
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check zstandard==0.25.0
seq 1000000 >numbers
usr/bin/pzstd --quiet --keep -p 2 numbers -o numbers.zst
cat >try.py <<'PYTHON'
import io

import zstandard

content = open("numbers.zst", "rb").read()
print("bytes:", len(open("numbers", "rb").read()), "first frame is skippable:", content[:4] == bytes.fromhex("502a4d18"))


def copied():
    target = io.BytesIO()
    zstandard.ZstdDecompressor().copy_stream(io.BytesIO(content), target)
    return target.getvalue()


for name, unpack in (
    ("open", lambda: zstandard.open("numbers.zst").read()),
    ("stream_reader", lambda: zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read()),
    ("copy_stream", copied),
    ("read_to_iter", lambda: b"".join(zstandard.ZstdDecompressor().read_to_iter(io.BytesIO(content)))),
    ("decompressobj", lambda: zstandard.ZstdDecompressor().decompressobj().decompress(content)),
    ("decompress", lambda: zstandard.ZstdDecompressor().decompress(content)),
):
    try:
        print(f"{name}: {len(unpack())}")
    except zstandard.ZstdError as error:
        print(f"{name}: {error}")
PYTHON
venv/bin/python try.py | tee seen
diff - seen <<'EXPECTED'
bytes: 6888896 first frame is skippable: True
open: 6888896
stream_reader: 6888896
copy_stream: 6888896
read_to_iter: 0
decompressobj: 0
decompress: decompression error: decompressed 0 bytes; expected 4
EXPECTED
echo "as before"
