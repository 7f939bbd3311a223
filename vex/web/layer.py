"""The files of a layer, in pages, and an image as a tar archive, which is made while it is sent."""

from __future__ import annotations

import hashlib
import sys

from vex import VERSION
from vex.errors import BAD_REQUEST, BLOB_UNKNOWN, NOT_FOUND, RegistryError
from vex.formats.image import is_image, matches_platform
from vex.formats.layer import DELETED, FILE, OPAQUE, Entry
from vex.formats.manifest import Descriptor
from vex.http.fields import etag_matches
from vex.http.message import NOSNIFF, Response
from vex.names import Digest, RepositoryName
from vex.web.archive import archive_image, image_archive
from vex.web.browsing import ManifestView
from vex.web.facts import copy_digest, facts, short_digest, short_type, shorten, size, size_text
from vex.web.frame import LASTING, REVALIDATED, page, warning
from vex.web.images import layer_steps
from vex.web.layer_lists import LayerList
from vex.web.links import blob_url, crumbs, link, manifest_url
from vex.web.manifests import current_tag
from vex.web.markup import EMPTY, Markup, Templates, escape, join
from vex.web.paging import PAGE_ENTRIES, pager
from vex.web.visit import Visit, reference

# How the media type of a layer ends that ocicrypt has encrypted.
_ENCRYPTED = "+encrypted"
_GONE = {DELETED: "deleted", OPAQUE: "what lower layers have here is hidden"}

_layer = Templates("layer.html")


# The files of a layer


def layer_page(seen: Visit, name: RepositoryName, digest: Digest, layer: Digest) -> Response:
    """Answer with the files of a layer; raises MANIFEST_UNKNOWN and BLOB_UNKNOWN."""
    view = seen.site.browsing.manifest(name, digest)
    number, descriptor = next(
        ((index, item) for index, item in enumerate(view.manifest.layers, 1) if item.digest == layer), (0, None)
    )
    if descriptor is None:
        raise RegistryError(BLOB_UNKNOWN, "this manifest has no such layer")
    # Also when the list is kept: the layer may be gone.
    seen.site.registry.find_blob(name, layer)
    tag = seen.parameter("tag") if seen.parameter("tag") in view.tags else ""
    title = f"Layer {number} of {name}{':' + tag if tag else ''}"
    etag = _etag(seen, title, layer)
    known = seen.request.header("if-none-match")
    if known is not None and etag_matches(known, etag):
        return Response(304, [_caching(tag), ("ETag", etag)])
    listed = _listed(seen, name, descriptor)
    start = _layer(
        "layer",
        crumbs=crumbs(name, (manifest_url(name, digest, tag), tag or short_digest(digest)), f"layer {number}"),
        title=title,
        summary=join((size(descriptor.size), escape(short_type(descriptor.media_type))), " · "),
        facts=facts(_layer_facts(seen, name, view, descriptor, number)),
    )
    body = join((start, _files(seen, listed, tag)))
    if not listed.certain:
        seen.now.pass_by()
        return page(seen, f"{title} · {seen.host}", body)
    return page(seen, f"{title} · {seen.host}", body, headers=[("ETag", etag)], caching=_caching(tag))


def _etag(seen: Visit, *parts: str) -> str:
    """Make an entity tag of all that a page depends on: its address and how it was asked for, and who makes it."""
    depends = "\0".join((VERSION, sys.version, seen.host, seen.request.path, str(seen.number("page")), *parts))
    return f'"{hashlib.sha256(depends.encode()).hexdigest()[:32]}"'


def _caching(tag: str) -> tuple[str, str]:
    # A tag may move.
    return REVALIDATED if tag else LASTING


def _layer_facts(
    seen: Visit, name: RepositoryName, view: ManifestView, layer: Descriptor, number: int
) -> list[tuple[str, Markup]]:
    config = (
        seen.config(name, view.manifest.config).config if view.manifest.config and is_image(view.manifest) else None
    )
    steps = layer_steps(view.manifest.layers, config.history if config else ())
    return [
        ("Made by", escape(shorten(steps[number - 1]))),
        ("Digest", copy_digest(layer.digest)),
        ("Download", link(blob_url(name, layer.digest), size_text(layer.size))),
    ]


def _listed(seen: Visit, name: RepositoryName, layer: Descriptor) -> LayerList:
    if layer.media_type.endswith(_ENCRYPTED):
        return LayerList(
            (),
            0,
            0,
            "This layer is encrypted: what is in it can be seen only with a key, where it is unpacked.",
            certain=True,
        )
    return seen.site.browsing.files(name, layer.digest, PAGE_ENTRIES)


def _files(seen: Visit, listed: LayerList, tag: str) -> Markup:
    """Show the part of a list that the query asks for."""
    part = min(seen.number("page"), max(len(listed.pages), 1)) - 1
    rows = list(seen.paced(map(_row, listed.page(part))))
    entries = f"{listed.entries:,} {'entry' if listed.entries == 1 else 'entries'}, {size_text(listed.unpacked)}"
    pages = pager(seen.request.path, "Files", part * PAGE_ENTRIES, listed.entries, {"tag": tag}, heavy=True)
    return _layer("layer_files", rows=join(rows), pager=pages, count=entries, warning=warning(listed.problem))


def _row(entry: Entry) -> Markup:
    if entry.kind in _GONE:
        return _layer("gone", path=entry.path, note=_GONE[entry.kind])
    path = _layer("target", path=entry.path, target=entry.target) if entry.target else escape(entry.path)
    return _layer(
        "entry", path=path, mode=entry.mode, owner=entry.owner, size=size(entry.size) if entry.kind == FILE else EMPTY
    )


# The archive


def archive(seen: Visit, name: RepositoryName, digest: Digest) -> Response:
    """Answer with an image as a tar archive; of an index, with the platform that the query names. Raises
    MANIFEST_UNKNOWN and BLOB_UNKNOWN.
    """
    view = seen.site.browsing.manifest(name, digest)
    tag = current_tag(seen, view)
    if view.manifest.is_index:
        view = seen.site.browsing.manifest(name, choose_platform(view, seen.parameter("platform")))
    if not is_image(view.manifest):
        raise RegistryError(NOT_FOUND, "this is not an image, and cannot be loaded as one")
    called = reference(seen, name, digest, tag) if tag else ""
    image = archive_image(seen.site.registry, name, view.entry.digest, view.manifest, called)
    return Response(
        200,
        archive_headers(name, tag or short_digest(view.entry.digest)),
        stream=image_archive(seen.site.registry, image),
    )


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
    """Return the image of an index for a platform, its only one when none is asked for; raises BAD_REQUEST, naming what
    there is.
    """
    images = view.images
    matching = matching_images(view, asked) if asked else [digest for _, digest in images]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(dict.fromkeys(platform for platform, _ in images)) or "none"
    several = f"{len(matching)} images of this index are for {asked}: " if asked and matching else ""
    raise RegistryError(
        BAD_REQUEST, f"{several}choose a platform of this index with ?platform= in the address; it has: {known}"
    )


def matching_images(view: ManifestView, asked: str) -> list[Digest]:
    """Return the images of an index for just this platform, or else for variants and versions of it."""
    return [digest for platform, digest in view.images if platform == asked] or [
        digest for platform, digest in view.images if matches_platform(platform, asked)
    ]
