"""How much of everything a run measures."""

from __future__ import annotations

from typing import NamedTuple


class Amounts(NamedTuple):
    """The amounts, those of the manual's table unless others are given."""

    # How long small requests are measured. 0: a few requests, without wrk and hey.
    seconds: int = 2
    list_seconds: int = 4
    busy_seconds: int = 10
    # Few enough that every registry can answer them all.
    busy_per_second: int = 100
    blob_mib: int = 256
    small_images: int = 200
    skopeo_layer_mib: int = 16
    # Of repositories in the catalog and on the front page, and of tags in a repository.
    entries: int = 10_000
    first_pages: int = 20
    layer_files: int = 5_000
    import_repositories: int = 40
    import_layer_bytes: int = 215_500
    check_blobs: int = 200
    check_blob_bytes: int = 10_737_418
    # Of a registry that holds much: each has 10 tags and 5 blobs.
    large_repositories: int = 100_000
    small_repositories: int = 1_000
    starts: int = 10
    idle_connections: int = 500


# Enough to see that every row works; what they measure means nothing.
TINY = Amounts(
    seconds=0,
    list_seconds=0,
    busy_seconds=0,
    busy_per_second=20,
    blob_mib=1,
    small_images=8,
    skopeo_layer_mib=1,
    entries=120,
    first_pages=2,
    layer_files=20,
    import_repositories=2,
    import_layer_bytes=1000,
    check_blobs=4,
    check_blob_bytes=1000,
    large_repositories=20,
    small_repositories=10,
    starts=1,
    idle_connections=20,
)
