"""Summaries of manifests for the lists of the web interface: made at push time, and once for what a Vex without them
stored.

A summary never stands in the way of a push: what cannot be read is left out of it.
"""

from __future__ import annotations

import contextlib

from vex.errors import RegistryError
from vex.formats.image import ARTIFACT, MAX_CONFIG_BYTES, Summary, is_image, summarise
from vex.formats.manifest import Manifest, parse_stored
from vex.storage import listings
from vex.storage.blobs import BlobFiles
from vex.storage.database import Database

_BATCH = 50


def read_summary(manifest: Manifest, files: BlobFiles) -> Summary:
    """Summarise a manifest; reads the config of an image, which takes a file but no lock."""
    return summarise(manifest, _config(manifest, files) if is_image(manifest) else b"")


def fill_in(database: Database, files: BlobFiles) -> bool:
    """Summarise the manifests that have no summary, in the order in which they came: the children of an index before
    it; returns whether there were any.
    """
    last = 0
    while True:
        with database.read() as tx:
            rows = listings.manifests_without_summary(tx, last, _BATCH)
        if not rows:
            return last > 0
        for repository, manifest, media_type, content in rows:
            summary = _read_stored(content, media_type, files)
            with database.write() as tx:
                if listings.in_repository(tx, repository, manifest):
                    listings.save_summary(tx, repository, manifest, summary)
        last = rows[-1][1]


def _read_stored(content: bytes, media_type: str, files: BlobFiles) -> Summary:
    try:
        return read_summary(parse_stored(content, media_type), files)
    except RegistryError:
        return Summary(ARTIFACT, ())


def _config(manifest: Manifest, files: BlobFiles) -> bytes:
    if manifest.config is None or manifest.config.size > MAX_CONFIG_BYTES:
        return b""
    with contextlib.suppress(OSError), files.open(manifest.config.digest) as file:
        return file.read(MAX_CONFIG_BYTES)
    return b""
