"""Images that are made from their seed, so that a journal needs only name them; they share layers."""

from __future__ import annotations

import functools
import json
import random
from typing import NamedTuple

from tests.support.server import digest_of, image

_SHARED = 6


class Image(NamedTuple):
    """An image: its manifest, and its config and layers."""

    manifest: bytes
    blobs: tuple[bytes, ...]


@functools.lru_cache(maxsize=2000)
def blob_of(seed: str, largest: int = 40_000) -> bytes:
    """Make a layer."""
    choose = random.Random(seed)
    return (
        choose.getrandbits(8 * choose.randrange(1, largest)).to_bytes(largest, "little").rstrip(b"\0") + seed.encode()
    )


def image_of(seed: str) -> Image:
    """Make an image of a config and a layer of its own, and two that others have too."""
    choose = random.Random(seed)
    shared = [
        blob_of(f"shared {number}", 300_000 if number == 0 else 40_000) for number in choose.sample(range(_SHARED), 2)
    ]
    config = json.dumps({"seed": seed}).encode()
    layers = [blob_of(seed), *shared]
    return Image(json.dumps(image(*layers, config=config)).encode(), (config, *layers))


def digest_of_image(seed: str) -> str:
    """Return the digest of the manifest."""
    return digest_of(image_of(seed).manifest)
