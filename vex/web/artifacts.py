"""What the page of a manifest shows of an artifact: its type and its files."""

from __future__ import annotations

from vex.formats.image import PREDICATE, TITLE, artifact_name
from vex.formats.manifest import Descriptor
from vex.names import RepositoryName
from vex.web.browsing import ManifestView
from vex.web.facts import MOST_PARTS, MOST_TYPE, and_more, copy_short_digest, facts, short_digest, shorten, size
from vex.web.links import blob_url, link
from vex.web.markup import EMPTY, Markup, Templates, Value, escape, join
from vex.web.visit import Visit

_MOST_TITLE = 512

_artifact = Templates("artifact.html")


def describe_artifact(seen: Visit, name: RepositoryName, view: ManifestView) -> Markup:
    """Return the facts and the files of an artifact."""
    config = view.manifest.config
    raw = link(blob_url(name, config.digest), short_digest(config.digest)) if config else EMPTY
    described = facts([("Artifact type", escape(shorten(artifact_name(view.manifest), MOST_TYPE))), ("Config", raw)])
    rows = [_file(name, layer) for layer in seen.paced(view.manifest.layers[:MOST_PARTS])]
    more = and_more(len(view.manifest.layers) - len(rows))
    return join((described, _artifact("files", rows=join(rows), more=more) if rows else EMPTY))


def _file(name: RepositoryName, layer: Descriptor) -> Markup:
    title = layer.annotations.get(TITLE, "")
    text = title or layer.annotations.get(PREDICATE) or short_digest(layer.digest)
    kind, digest = shorten(layer.media_type, MOST_TYPE), copy_short_digest(layer.digest)
    shown: dict[str, Value] = {
        "name": shorten(text, _MOST_TITLE),
        "type": kind,
        "digest": digest,
        "size": size(layer.size),
    }
    if not layer.required:
        return _artifact("foreign_file", **shown)
    return _artifact(
        "file",
        url=blob_url(name, layer.digest),
        file=title[-_MOST_TITLE:].rpartition("/")[2] or layer.digest.encoded,
        **shown,
    )
