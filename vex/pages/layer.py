"""The files of a layer, and an image as a tar archive: both are made while they are sent."""

from __future__ import annotations

import io
from collections.abc import Iterator

from vex.archive import ArchiveImage, check_complete, image_archive
from vex.browsing import ManifestView
from vex.errors import BAD_REQUEST, BLOB_UNKNOWN, NOT_FOUND, RegistryError
from vex.image import is_image
from vex.layers import DELETED, FILE, OPAQUE, Entry, Incomplete, Limits, list_files
from vex.manifest import Descriptor
from vex.markup import Markup, Templates, escape, join
from vex.message import Response
from vex.names import Digest, RepositoryName
from vex.pages.manifests import current_tag, layer_steps, short_type
from vex.pages.parts import (
    EMPTY,
    NOSNIFF,
    Visit,
    blob_url,
    copy_digest,
    crumbs,
    facts,
    link,
    manifest_url,
    page_stream,
    reference,
    short_digest,
    size,
    size_text,
    warning,
)
from vex.registry import Registry

# Rows that are sent at once.
_ROWS = 100
_GONE = {DELETED: "deleted", OPAQUE: "what lower layers have here is hidden"}

_image = Templates("image.html")


# The files of a layer


def layer_page(seen: Visit, name: RepositoryName, digest: Digest, layer: Digest) -> Response:
    """Answer with the files of a layer; raises MANIFEST_UNKNOWN and BLOB_UNKNOWN."""
    view = seen.site.browsing.manifest(name, digest)
    number, descriptor = next(((index, item) for index, item in enumerate(view.manifest.layers, 1) if item.digest == layer), (0, None))
    if descriptor is None:
        raise RegistryError(BLOB_UNKNOWN, "this manifest has no such layer")
    # Before the first byte is sent, while an error can still be answered as one.
    seen.site.registry.find_blob(name, layer)
    tag = current_tag(seen, view)
    title = f"Layer {number} of {name}{':' + tag if tag else ''}"
    start = _image(
        "layer",
        crumbs=crumbs(name, (manifest_url(name, digest, tag), tag or short_digest(digest)), f"layer {number}"),
        title=title,
        summary=join((size(descriptor.size), escape(short_type(descriptor.media_type))), " · "),
        facts=facts(_layer_facts(seen, name, view, descriptor, number)),
    )
    return page_stream(seen, f"{title} · {seen.host}", _layer_pieces(start, seen.site.registry, name, layer))


def _layer_facts(seen: Visit, name: RepositoryName, view: ManifestView, layer: Descriptor, number: int) -> list[tuple[str, Markup]]:
    config = seen.site.browsing.config(name, view.manifest.config).config if view.manifest.config and is_image(view.manifest) else None
    steps = layer_steps(view.manifest.layers, config.history if config else ())
    return [
        ("Made by", escape(steps[number - 1])),
        ("Digest", copy_digest(layer.digest)),
        ("Download", link(blob_url(name, layer.digest), size_text(layer.size))),
    ]


def _layer_pieces(start: Markup, registry: Registry, name: RepositoryName, layer: Digest) -> Iterator[Markup]:
    yield start
    rows: list[Markup] = []
    count = unpacked = 0
    problem = ""
    try:
        with registry.open_blob(name, layer).file or io.BytesIO() as file:
            for entry in list_files(file, Limits()):
                rows.append(_row(entry))
                count, unpacked = count + 1, unpacked + entry.size
                if len(rows) == _ROWS:
                    yield join(rows)
                    rows.clear()
    except (Incomplete, RegistryError) as error:
        problem = str(error)
    yield join(rows)
    entries = f"{count:,} {'entry' if count == 1 else 'entries'}, {size_text(unpacked)}"
    yield _image("layer_end", count=entries, warning=warning(problem))


def _row(entry: Entry) -> Markup:
    if entry.kind in _GONE:
        return _image("gone", path=entry.path, note=_GONE[entry.kind])
    path = _image("target", path=entry.path, target=entry.target) if entry.target else escape(entry.path)
    return _image("entry", path=path, mode=entry.mode, owner=entry.owner, size=size(entry.size) if entry.kind == FILE else EMPTY)


# The archive


def archive(seen: Visit, name: RepositoryName, digest: Digest) -> Response:
    """Answer with an image as a tar archive; of an index, with the platform that the query names. Raises MANIFEST_UNKNOWN and BLOB_UNKNOWN."""
    view = seen.site.browsing.manifest(name, digest)
    tag = current_tag(seen, view)
    if view.manifest.is_index:
        view = seen.site.browsing.manifest(name, choose_platform(view, seen.parameter("platform")))
    if not is_image(view.manifest):
        raise RegistryError(NOT_FOUND, "this is not an image, and cannot be loaded as one")
    called = reference(seen, name, digest, tag) if tag else ""
    image = ArchiveImage(name, view.entry.digest, view.media_type, view.manifest, called)
    check_complete(seen.site.registry, image)
    return Response(200, archive_headers(name, tag or short_digest(view.entry.digest)), stream=image_archive(seen.site.registry, image))


def archive_headers(name: RepositoryName, what: str) -> list[tuple[str, str]]:
    """Describe the archive; its file name is made of checked names."""
    file = f"{name.rpartition('/')[2]}-{what.replace(':', '-')}.tar"
    return [
        ("Content-Type", "application/x-tar"),
        NOSNIFF,
        ("Content-Disposition", f'attachment; filename="{file}"'),
        ("Content-Security-Policy", "sandbox"),
        ("Cache-Control", "no-cache"),
    ]


def choose_platform(view: ManifestView, asked: str) -> Digest:
    """Return the image of an index for a platform, its only one when none is asked for; raises BAD_REQUEST, naming what there is."""
    images = view.images
    matching = [digest for platform, digest in images if platform == asked] or [digest for platform, digest in images if platform.startswith(f"{asked}/")]
    if not asked and len(images) == 1:
        matching = [images[0][1]]
    if not matching:
        known = ", ".join(dict.fromkeys(platform for platform, _ in images)) or "none"
        raise RegistryError(BAD_REQUEST, f"choose a platform of this index with ?platform= in the address; it has: {known}")
    return matching[0]
