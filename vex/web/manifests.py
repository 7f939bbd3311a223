"""The page of one manifest: an image, an index or an artifact; and its JSON."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from vex.api import routes
from vex.formats.image import PREDICATE, TITLE, ImageConfig, Step, artifact_name, attested, is_image, platform_name
from vex.formats.manifest import Descriptor
from vex.http.message import Response
from vex.names import Digest, RepositoryName, Tag
from vex.storage.listings import PUSHED, View
from vex.web.addresses import ARCHIVE, DIFF, DOCUMENT, LAYER, MANIFEST
from vex.web.browsing import ManifestView
from vex.web.facts import (
    MOST_ROWS,
    and_more,
    copy_digest,
    copy_short_digest,
    facts,
    pairs,
    pushed,
    short_digest,
    shorten,
    size,
    when_written,
)
from vex.web.frame import page, redirect, section, warning
from vex.web.history import history_section
from vex.web.links import blob_url, crumbs, link, manifest_url
from vex.web.markup import EMPTY, Markup, Templates, Url, Value, escape, join, local
from vex.web.visit import Visit, reference

_SUGGESTED_TAGS = 50
# Layers, children or files that a page shows.
_MOST_PARTS = 500
_MOST_TYPE = 256
_MOST_TITLE = 512
_MOST_ATTESTATIONS = 10
_SHELL = "/bin/sh -c "
_NOTHING = "#(nop) "
# What referrers are for people, by the start of their artifact type.
_PURPOSES = (
    ("application/vnd.dev.sigstore.bundle", "Signature or attestation"),
    ("application/vnd.dev.cosign.artifact.sig", "Signature"),
    ("application/vnd.cncf.notary.signature", "Signature"),
    ("application/vnd.in-toto", "Attestation"),
    ("application/spdx", "SBOM"),
    ("text/spdx", "SBOM"),
    ("application/vnd.cyclonedx", "SBOM"),
    ("application/vnd.syft", "SBOM"),
    ("application/sarif", "Scan report"),
)
_SIGNATURE_TAGS = {"sig": "Signature", "att": "Attestation", "sbom": "SBOM"}

_manifest = Templates("manifest.html")


def manifest_page(seen: Visit, name: RepositoryName, digest: Digest) -> Response:
    """Answer with a manifest; `compare` in the query leads to the comparison with another tag. Raises
    MANIFEST_UNKNOWN.
    """
    view = seen.site.browsing.manifest(name, digest)
    other = seen.parameter("compare")
    if other:
        return redirect(
            local(DIFF.path(name=name, manifests=f"{digest}...{seen.site.browsing.resolve(name, Tag.parse(other))}"))
        )
    tag = current_tag(seen, view)
    if view.manifest.is_index:
        kind, more, sections = "Index", EMPTY, _index(seen, name, view, tag)
    elif is_image(view.manifest):
        kind, more, sections = "Image", *_image(seen, name, view)
    else:
        kind, more, sections = "Artifact", EMPTY, _artifact(seen, name, view)
    body = _manifest(
        "page",
        crumbs=crumbs(name, tag or short_digest(digest)),
        title=f"{name}:{tag}" if tag else name,
        summary=join((escape(kind), size(view.entry.size), pushed(view.entry.pushed, seen.now)), " · "),
        pull=_pull(seen, name, view, tag),
        facts=join((_identity(name, view), more)),
        sections=join((sections, _around(seen, name, view), history_section(seen, name, Tag(tag)) if tag else EMPTY)),
    )
    return page(seen, f"{name}{':' + tag if tag else ''} · {seen.host}", body)


def current_tag(seen: Visit, view: ManifestView) -> str:
    """Return the tag of the query, if it points to the manifest, or else the tag that it has."""
    asked = seen.parameter("tag")
    if asked in view.tags:
        return asked
    return view.tags[0] if len(view.tags) == 1 else ""


def document_page(seen: Visit, name: RepositoryName, digest: Digest) -> Response:
    """Answer with the JSON of a manifest, formatted; raises MANIFEST_UNKNOWN."""
    text, whole = seen.site.browsing.document(name, digest)
    body = _manifest(
        "document",
        crumbs=crumbs(name, short_digest(digest)),
        digest=copy_digest(digest),
        back=manifest_url(name, digest),
        raw=local(routes.MANIFEST.path(name=name, reference=digest)),
        warning=warning("" if whole else "This is cut, because it is very long. The exact bytes are all of it."),
        text=text,
    )
    return page(seen, f"Manifest of {name} · {seen.host}", body)


# What all kinds have


def _pull(seen: Visit, name: RepositoryName, view: ManifestView, tag: str) -> Markup:
    """Show the commands that fetch an image; an artifact has download links instead."""
    if not view.manifest.is_index and not is_image(view.manifest):
        return EMPTY
    digest = view.entry.digest
    by_digest = _commands(seen, reference(seen, name, digest), name)
    groups = [_manifest("by_digest", rows=by_digest)] if tag else [_manifest("by_tag", rows=by_digest)]
    if tag:
        groups.insert(0, _manifest("by_tag", rows=_commands(seen, reference(seen, name, digest, tag), name)))
    if not view.manifest.is_index:
        file = f"{name.rpartition('/')[2]}-{tag or digest.encoded[:12]}.tar"
        groups.append(
            _manifest("download", url=local(ARCHIVE.path(name=name, manifest=digest), {"tag": tag}), file=file)
        )
    return _manifest("pull", groups=join(groups))


def _commands(seen: Visit, image: str, name: RepositoryName) -> Markup:
    # Clients other than docker have to be told that a registry speaks plain HTTP.
    plain = seen.plain
    file = f"{name.rpartition('/')[2]}.tar"
    commands = (
        ("docker", f"docker pull {image}"),
        ("podman", f"podman pull {'--tls-verify=false ' if plain else ''}{image}"),
        ("skopeo", f"skopeo copy {'--src-tls-verify=false ' if plain else ''}docker://{image} oci-archive:{file}"),
        ("crane", f"crane pull {'--insecure ' if plain else ''}{image} {file}"),
    )
    return join(_manifest("command", tool=tool, text=text) for tool, text in commands)


def _identity(name: RepositoryName, view: ManifestView) -> Markup:
    digest = view.entry.digest
    json_link = link(local(DOCUMENT.path(name=name, manifest=digest)), "JSON")
    subject = view.manifest.subject
    return facts(
        [
            ("Digest", copy_digest(digest)),
            ("Tags", join([link(manifest_url(name, digest, tag), tag) for tag in view.tags], ", ")),
            ("Part of", join([_parent_link(name, parent.digest, parent.tags) for parent in view.parents], ", ")),
            ("Refers to", link(manifest_url(name, subject.digest), short_digest(subject.digest)) if subject else EMPTY),
            ("Media type", join((escape(view.media_type), json_link), " · ")),
        ]
    )


def _parent_link(name: RepositoryName, digest: Digest, tags: Sequence[Tag]) -> Markup:
    tag = tags[0] if tags else ""
    return link(manifest_url(name, digest, tag), f"the index {tag or short_digest(digest)}")


def _around(seen: Visit, name: RepositoryName, view: ManifestView) -> Markup:
    return join(
        (
            section(
                "Annotations", "annotations", pairs("Annotation", "Value", view.annotations, view.annotation_count)
            ),
            section("Signatures, SBOMs and other referrers", "referrers", _referrers(name, view)),
            section("Compare", "compare-with", _compare(seen, name, view)),
        )
    )


def _referrers(name: RepositoryName, view: ManifestView) -> Markup:
    rows = [
        _manifest(
            "referrer",
            url=manifest_url(name, row.digest),
            name=purpose(row.artifact_type),
            type=shorten(row.artifact_type, _MOST_TYPE),
            digest=copy_short_digest(row.digest),
            size=size(row.size),
        )
        for row in sorted(view.referrers, key=lambda row: row.artifact_type)
    ]
    for tag, digest in view.signature_tags:
        title = _SIGNATURE_TAGS.get(tag.rpartition(".")[2], "Attachment")
        rows.append(
            _manifest(
                "referrer",
                url=manifest_url(name, digest, tag),
                name=title,
                type=f"by the tag …{tag[-5:]}",
                digest=copy_short_digest(digest),
                size=EMPTY,
            )
        )
    if not rows:
        return EMPTY
    more = (
        _manifest("more", url=local(routes.REFERRERS.path(name=name, digest=view.entry.digest)))
        if view.more_referrers
        else EMPTY
    )
    return _manifest("referrers", rows=join(rows), more=more)


def purpose(artifact_type: str) -> str:
    """Say what a referrer is for."""
    return next((text for start, text in _PURPOSES if artifact_type.startswith(start)), "Artifact")


def _compare(seen: Visit, name: RepositoryName, view: ManifestView) -> Markup:
    listing, _ = seen.site.browsing.tags(name, View("", PUSHED, descending=True, offset=0, limit=_SUGGESTED_TAGS))
    others = [entry.name for entry in listing.entries if entry.digest != view.entry.digest]
    if not others or not (view.manifest.is_index or is_image(view.manifest)):
        return EMPTY
    options = join(_manifest("option", tag=tag) for tag in others)
    return _manifest("compare", action=local(MANIFEST.path(name=name, manifest=view.entry.digest)), options=options)


# An image


def _image(seen: Visit, name: RepositoryName, view: ManifestView) -> tuple[Markup, Markup]:
    """Return the facts and the sections of an image."""
    descriptor = view.manifest.config
    read = seen.site.browsing.config(name, descriptor) if descriptor else None
    config = read.config if read else None
    layers = _layers(seen, name, view, config.history if config else ()) if view.manifest.layers or config else EMPTY
    if config is None:
        return warning(read.problem if read else ""), layers
    labels = pairs("Label", "Value", config.labels)
    settings = join(
        (
            facts((shorten(field), escape(shorten(text))) for field, text in config.fields[:MOST_ROWS]),
            and_more(len(config.fields[MOST_ROWS:])),
        )
    )
    sections = (
        layers,
        section("Settings", "settings", settings),
        section("Environment", "environment", pairs("Variable", "Value", config.env)),
        section("Labels", "labels", labels),
    )
    return _about(seen, name, view, config), join(sections)


def _about(seen: Visit, name: RepositoryName, view: ManifestView, config: ImageConfig) -> Markup:
    descriptor = view.manifest.config
    raw = link(blob_url(name, descriptor.digest), short_digest(descriptor.digest)) if descriptor else EMPTY
    return facts(
        [
            ("Platform", escape(config.platform)),
            ("Created", when_written(config.created, seen.now)),
            ("Author", escape(shorten(config.author))),
            ("Config", raw),
        ]
    )


def _layers(seen: Visit, name: RepositoryName, view: ManifestView, history: Sequence[Step]) -> Markup:
    rows = list(seen.paced(itertools.islice(_layer_rows(name, view, history), _MOST_PARTS)))
    steps = sum(step.empty for step in _fitting(view.manifest.layers, history)) + len(view.manifest.layers)
    return _manifest("layers", rows=join(rows), more=and_more(steps - len(rows)))


def _layer_rows(name: RepositoryName, view: ManifestView, history: Sequence[Step]) -> Iterator[Markup]:
    """Show the layers in order, each with the step of the history that made it, and the steps without a layer in
    between.
    """
    layers = view.manifest.layers
    largest = max((layer.size for layer in layers), default=0)
    steps = iter(zip(layers, layer_steps(layers, history)))
    for step in _fitting(layers, history):
        if step.empty:
            yield _manifest("empty_step", command=shorten(readable_step(step)))
        else:
            yield _layer(name, view, *next(steps), largest)
    for layer, command in steps:
        yield _layer(name, view, layer, command, largest)


def layer_steps(layers: Sequence[Descriptor], history: Sequence[Step]) -> list[str]:
    """Return for each layer the step that made it, as far as the history tells."""
    told = [readable_step(step) for step in _fitting(layers, history) if not step.empty]
    return told + ["no history"] * (len(layers) - len(told))


def _fitting(layers: Sequence[Descriptor], history: Sequence[Step]) -> Sequence[Step]:
    """Return the history, unless it has steps for more layers than there are: then it would tell of the wrong ones."""
    return history if sum(not step.empty for step in history) <= len(layers) else ()


def _layer(name: RepositoryName, view: ManifestView, layer: Descriptor, command: str, largest: int) -> Markup:
    kind, digest = short_type(layer.media_type), short_digest(layer.digest)
    shown: dict[str, Value] = {"command": shorten(command), "type": kind, "digest": digest, "size": size(layer.size)}
    if not layer.required:
        return _manifest("foreign_layer", **shown)
    return _manifest(
        "layer",
        **shown,
        url=local(LAYER.path(name=name, manifest=view.entry.digest, layer=layer.digest)),
        blob=blob_url(name, layer.digest),
        percent=f"{100 * layer.size / largest:.4g}" if largest else 0,
    )


def readable_step(step: Step) -> str:
    """Write a step as in a Dockerfile, without what the classic builder puts around it."""
    command = " ".join(step.command.split())
    if command.startswith(_SHELL):
        command = command[len(_SHELL) :]
        command = command[len(_NOTHING) :].strip() if command.startswith(_NOTHING) else f"RUN {command}"
    return command or step.comment or "a step that does not say what it did"


def short_type(media_type: str) -> str:
    """Shorten the media types of layers to what tells them apart."""
    for start in ("application/vnd.oci.image.layer.", "application/vnd.docker.image."):
        if media_type.startswith(start):
            return shorten(media_type[len(start) :], _MOST_TYPE)
    return shorten(media_type, _MOST_TYPE)


# An index


def _index(seen: Visit, name: RepositoryName, view: ManifestView, tag: str) -> Markup:
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
        for child in seen.paced(platforms[:_MOST_PARTS])
    ]
    # What attests to nothing in this index is shown for itself.
    loose = [child for left in attestations.values() for child in left] if len(platforms) <= _MOST_PARTS else []
    rows += [_child(name, view, child, [], None) for child in seen.paced(loose[: _MOST_PARTS - len(rows)])]
    if not rows:
        return warning("This index is empty: it lists no manifest.")
    return _manifest("platforms", rows=join(rows), more=and_more(len(platforms) + len(loose) - len(rows)))


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
        url, kind = blob_url(name, child.digest), shorten(child.media_type, _MOST_TYPE)
        return _manifest(
            "blob_child", url=url, name=title, type=kind, digest=copy_short_digest(child.digest), size=size(child.size)
        )
    links = join(
        [
            link(manifest_url(name, attestation.digest), "provenance")
            for attestation in attestations[:_MOST_ATTESTATIONS]
        ],
        ", ",
    )
    return _manifest(
        "platform",
        url=manifest_url(name, child.digest),
        name=title,
        type=entry.summary.kind,
        digest=copy_short_digest(child.digest),
        archive=_manifest("archive", url=archive) if archive else EMPTY,
        provenance=_manifest("provenance", links=links) if attestations else EMPTY,
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


# An artifact


def _artifact(seen: Visit, name: RepositoryName, view: ManifestView) -> Markup:
    config = view.manifest.config
    raw = link(blob_url(name, config.digest), short_digest(config.digest)) if config else EMPTY
    described = facts([("Artifact type", escape(shorten(artifact_name(view.manifest), _MOST_TYPE))), ("Config", raw)])
    rows = [_file(name, layer) for layer in seen.paced(view.manifest.layers[:_MOST_PARTS])]
    more = and_more(len(view.manifest.layers) - len(rows))
    return join((described, _manifest("files", rows=join(rows), more=more) if rows else EMPTY))


def _file(name: RepositoryName, layer: Descriptor) -> Markup:
    title = layer.annotations.get(TITLE, "")
    text = title or layer.annotations.get(PREDICATE) or short_digest(layer.digest)
    kind, digest = shorten(layer.media_type, _MOST_TYPE), copy_short_digest(layer.digest)
    shown: dict[str, Value] = {
        "name": shorten(text, _MOST_TITLE),
        "type": kind,
        "digest": digest,
        "size": size(layer.size),
    }
    if not layer.required:
        return _manifest("foreign_file", **shown)
    return _manifest(
        "file",
        url=blob_url(name, layer.digest),
        file=title[-_MOST_TITLE:].rpartition("/")[2] or layer.digest.encoded,
        **shown,
    )
