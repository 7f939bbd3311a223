"""Makes vex/manual/web.png, the picture of the web interface in the README: python3 -m tests.support.screenshot [FILE].

A registry is filled with images as a small team may have them, and Chromium shows one of them.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import sys
from pathlib import Path

from tests.support.images import tar_of
from tests.support.server import TOP, Client, digest_of, running
from tests.support.webdriver import browsing

_WIDTH, _HEIGHT = 1080, 1200
_SHOWN, _TAG = "shop/checkout", "2.4.1"
_TAGS = {
    "base/nginx": ("1.26", "1.28"),
    "base/python": ("3.12", "3.13"),
    _SHOWN: ("2.3.0", "2.4.0", _TAG),
    "shop/catalog": ("1.9.2", "1.10.0"),
    "tools/backup": ("5",),
}
# What made each layer, and its size in KiB.
_STEPS = (
    ("ADD rootfs.tar.xz /", 9_300),
    ("RUN apt-get update && apt-get install -y --no-install-recommends python3 ca-certificates", 6_450),
    ("COPY requirements.txt /srv/checkout/", 1),
    ("RUN pip install --no-cache-dir --requirement /srv/checkout/requirements.txt", 3_720),
    ("COPY checkout/ /srv/checkout/", 412),
)
_SETTINGS = {
    "User": "1000:1000",
    "ExposedPorts": {"8080/tcp": {}},
    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED=1", "CHECKOUT_WORKERS=4"],
    "Entrypoint": ["python3", "-m", "checkout"],
    "WorkingDir": "/srv/checkout",
}


def main(target: str) -> None:
    """Fill a registry, and save the picture of a page."""
    with running("--public-url", "https://registry.example") as server, browsing() as browser:
        for repository, tags in _TAGS.items():
            for tag in tags:
                _push(server.auth, repository, tag)
        browser.resize(_WIDTH, _HEIGHT)
        browser.prefer("light")
        browser.open(f"{server.urls['public']}/r/{_SHOWN}/")
        browser.link(_TAG).follow()
        picture = browser.devtools("Page.captureScreenshot")["data"]
        Path(target).write_bytes(base64.b64decode(picture))


def _push(client: Client, repository: str, tag: str) -> None:
    """Push an image; its layers are noise, as long as those of the one that is shown."""
    noise = random.Random(f"{repository}:{tag}")
    steps = _STEPS if repository == _SHOWN else _STEPS[:1]
    tars = [tar_of({"content": noise.getrandbits(kib * 8192).to_bytes(kib * 1024, "little")}) for _, kib in steps]
    config = {
        "created": "2026-03-02T09:41:00Z",
        "architecture": "amd64",
        "os": "linux",
        "config": _SETTINGS,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(content) for content in tars]},
        "history": [{"created": "2026-03-02T09:40:00Z", "created_by": command} for command, _ in steps],
    }
    client.push_image(
        repository, tag, *(gzip.compress(content, 1, mtime=0) for content in tars), config=json.dumps(config).encode()
    )


if __name__ == "__main__":
    main(*sys.argv[1:] or [str(TOP / "vex" / "manual" / "web.png")])
