"""What the page of a manifest shows of an index: its platforms, and what attests to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vex.formats.image import attested, platform_name
from vex.formats.manifest import Descriptor
from vex.names import Digest, RepositoryName
from vex.web.addresses import ARCHIVE
from vex.web.browsing import ManifestView
from vex.web.facts import MOST_PARTS, MOST_TYPE, and_more, copy_short_digest, short_type, shorten, size
from vex.web.frame import warning
from vex.web.links import blob_url, link, manifest_url
from vex.web.markup import EMPTY, Markup, Templates, Url, join, local
from vex.web.visit import Visit

_MOST_ATTESTATIONS = 10

_index = Templates("index.html")


def describe_index(seen: Visit, name: RepositoryName, view: ManifestView, tag: str) -> Markup:
    """Return the table of what an index lists."""
    attestations: dict[str, list[Descriptor]] = {}
    platforms = []
    for child in view.manifest.manifests:
        subject = attested(child)
        if subject is None:
            platforms.append(child)
        else:
            attestations.setdefault(subject, []).append(child)
    archives = _archive_urls(name, view, tag)
    rows = [
        _child(name, view, child, attestations.pop(child.digest, []), archives.get(child.digest))
        for child in seen.paced(platforms[:MOST_PARTS])
    ]
    # What attests to nothing in this index is shown for itself.
    loose = [child for left in attestations.values() for child in left] if len(platforms) <= MOST_PARTS else []
    rows += [_child(name, view, child, [], None) for child in seen.paced(loose[: MOST_PARTS - len(rows)])]
    if not rows:
        return warning("This index is empty: it lists no manifest.")
    return _index("platforms", rows=join(rows), more=and_more(len(platforms) + len(loose) - len(rows)))


def _child(
    name: RepositoryName, view: ManifestView, child: Descriptor, attestations: Sequence[Descriptor], archive: Url | None
) -> Markup:
    entry = view.children.get(child.digest)
    title = (
        platform_name(child.platform)
        or ", ".join(entry.summary.platforms if entry else ())
        or short_type(child.media_type)
    )
    if entry is None:
        # BuildKit's cache lists layers.
        url, kind = blob_url(name, child.digest), shorten(child.media_type, MOST_TYPE)
        return _index(
            "blob_child", url=url, name=title, type=kind, digest=copy_short_digest(child.digest), size=size(child.size)
        )
    links = join(
        [
            link(manifest_url(name, attestation.digest), "provenance")
            for attestation in attestations[:_MOST_ATTESTATIONS]
        ],
        ", ",
    )
    return _index(
        "platform",
        url=manifest_url(name, child.digest),
        name=title,
        type=entry.summary.kind,
        digest=copy_short_digest(child.digest),
        archive=_index("archive", url=archive) if archive else EMPTY,
        provenance=_index("provenance", links=links) if attestations else EMPTY,
        size=size(entry.size),
    )


def _archive_urls(name: RepositoryName, view: ManifestView, tag: str) -> dict[Digest, Url]:
    """Address the archives of the images of an index: by platform, so that what is loaded has the name of the tag,
    where the platform tells them apart.
    """
    count = Counter(platform for platform, _ in view.images)
    of_index = ARCHIVE.path(name=name, manifest=view.entry.digest)
    return {
        digest: local(of_index, {"platform": platform, "tag": tag})
        if platform and count[platform] == 1
        else local(ARCHIVE.path(name=name, manifest=digest))
        for platform, digest in view.images
    }
