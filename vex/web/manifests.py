"""The page of one manifest: an image, an index or an artifact; and its JSON."""

from __future__ import annotations

from collections.abc import Sequence

from vex.api import routes
from vex.formats.image import is_image
from vex.http.message import Response
from vex.names import Digest, RepositoryName, Tag
from vex.web.addresses import ARCHIVE, DIFF, DOCUMENT
from vex.web.artifacts import describe_artifact
from vex.web.browsing import ManifestView
from vex.web.facts import copy_digest, facts, pairs, pushed, short_digest, size
from vex.web.frame import LASTING, page, redirect, section, warning
from vex.web.history import history_section
from vex.web.images import describe_image
from vex.web.indexes import describe_index
from vex.web.links import crumbs, link, manifest_url
from vex.web.markup import EMPTY, Markup, Templates, escape, join, local
from vex.web.referrers import referrer_table
from vex.web.visit import Visit, reference

_SUGGESTED_TAGS = 50

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
        kind, more, sections = "Index", EMPTY, describe_index(seen, name, view, tag)
    elif is_image(view.manifest):
        kind, more, sections = "Image", *describe_image(seen, name, view)
    else:
        kind, more, sections = "Artifact", EMPTY, describe_artifact(seen, name, view)
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
    return page(seen, f"Manifest of {name} · {seen.host}", body, caching=LASTING)


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
            section("Signatures, SBOMs and other referrers", "referrers", referrer_table(name, view)),
            section("Compare", "compare-with", _compare(seen, name, view)),
        )
    )


def _compare(seen: Visit, name: RepositoryName, view: ManifestView) -> Markup:
    if not (view.manifest.is_index or is_image(view.manifest)):
        return EMPTY
    newest = seen.site.browsing.newest_tags(name, _SUGGESTED_TAGS)
    others = [entry.name for entry in newest if entry.digest != view.entry.digest]
    if not others:
        return EMPTY
    options = join(_manifest("option", tag=tag) for tag in others)
    return _manifest("compare", action=manifest_url(name, view.entry.digest), options=options)
