"""Answers with several ranges, read strictly."""

from __future__ import annotations

import re


def read_parts(media_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """Read a multipart answer strictly: Content-Range and content of each part."""
    match = re.fullmatch(r"multipart/byteranges; boundary=([0-9A-Za-z]+)", media_type)
    assert match, media_type
    boundary = match[1].encode()
    before, *parts, after = (b"\r\n" + body).split(b"\r\n--" + boundary)
    # RFC 2046 section 5.1.1: there may be a line, here an empty one, before the first boundary; nginx writes it.
    assert before in (b"", b"\r\n") and after == b"--\r\n", (before, after)
    found = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        assert (
            fields.keys() == {b"Content-Type", b"Content-Range"}
            and fields[b"Content-Type"] == b"application/octet-stream"
        ), fields
        found.append((fields[b"Content-Range"].decode(), content))
    return found
