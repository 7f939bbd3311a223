"""How bytes are compressed, told by the first of them, whatever a name or a media type says."""

from __future__ import annotations

GZIP, ZSTD, XZ, BZIP2 = "gzip", "zstd", "xz", "bzip2"
# How many bytes it takes to tell.
HEAD_BYTES = 6
_MAGIC = ((b"\x1f\x8b", GZIP), (b"\x28\xb5\x2f\xfd", ZSTD), (b"\xfd7zXZ\0", XZ), (b"BZh", BZIP2))
# RFC 8878 section 3.1.2: sixteen numbers for frames to be skipped, with which pzstd begins.
_SKIPPABLE = b"\x2a\x4d\x18"


def compression_of(head: bytes) -> str:
    """Name the compression of what begins like this; "" for none that is known."""
    if head[1:4] == _SKIPPABLE and head[0] & 0xF0 == 0x50:
        return ZSTD
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")
