"""Two images side by side: their layers, their settings, and what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from vex.errors import BAD_REQUEST, RegistryError
from vex.formats.image import ImageConfig, is_image, release
from vex.http.message import Response
from vex.names import Digest, RepositoryName
from vex.web.addresses import DIFF
from vex.web.browsing import ManifestView
from vex.web.facts import (
    MINUS,
    MOST_ROWS,
    and_more,
    copy_short_digest,
    facts,
    short_digest,
    shorten,
    size,
    when,
    when_written,
)
from vex.web.frame import page, section
from vex.web.images import layer_steps
from vex.web.layer import choose_platform, matching_images
from vex.web.links import crumbs, link, manifest_url
from vex.web.markup import EMPTY, Markup, Templates, escape, join, local
from vex.web.visit import Visit

_diff = Templates("diff.html")
_MOST_LAYERS = 500
_MEANINGS = {"=": "shared", "+": "added", MINUS: "removed"}


class _Side(NamedTuple):
    """One of the two images; `title` is a tag, or a short digest."""

    view: ManifestView
    title: str
    config: ImageConfig | None
    steps: Sequence[str]


def diff_page(seen: Visit, name: RepositoryName, before: Digest, after: Digest) -> Response:
    """Answer with the comparison of two images, or of the same platform of two indexes; raises MANIFEST_UNKNOWN."""
    views = [seen.site.browsing.manifest(name, digest) for digest in (before, after)]
    titles = [view.tags[0] if view.tags else short_digest(view.entry.digest) for view in views]
    shared = _shared_platforms(views)
    platform = seen.parameter("platform") or next(iter(shared), "")
    old, new = (_side(seen, name, view, title, platform) for view, title in zip(views, titles))
    title = f"{old.title} and {new.title}"
    body = _diff(
        "diff",
        crumbs=crumbs(name, title),
        sides=join((_side_facts(seen, name, "Before", old), _side_facts(seen, name, "After", new))),
        summary=_summary(old, new),
        platforms=_platform_links(name, before, after, shared, platform),
        sections=join((section("Layers", "layers", _layers(old, new)), *_settings(old, new))),
    )
    return page(seen, f"{title} of {name} · {seen.host}", body)


def _side(seen: Visit, name: RepositoryName, view: ManifestView, title: str, platform: str) -> _Side:
    if view.manifest.is_index:
        view = seen.site.browsing.manifest(name, choose_platform(view, platform))
    if not is_image(view.manifest) or view.manifest.config is None:
        raise RegistryError(BAD_REQUEST, f"only images can be compared, and {title} is none")
    config = seen.config(name, view.manifest.config).config
    return _Side(view, title, config, layer_steps(view.manifest.layers, config.history if config else ()))


def _shared_platforms(views: Sequence[ManifestView]) -> Sequence[str]:
    """Return the platforms that all the indexes have, in order; of Windows, the same release in whatever update."""
    indexes = [view for view in views if view.manifest.is_index]
    known = dict.fromkeys(release(platform) for platform, _ in indexes[0].images) if indexes else {}
    return [platform for platform in known if all(len(matching_images(view, platform)) == 1 for view in indexes)]


def _platform_links(name: RepositoryName, before: Digest, after: Digest, shared: Sequence[str], current: str) -> Markup:
    if len(shared) < 2:
        return EMPTY
    path = DIFF.path(name=name, manifests=f"{before}...{after}")
    links = (
        escape(platform) if platform == current else link(local(path, {"platform": platform}), platform)
        for platform in shared
    )
    return _diff("platforms", links=join(links, ", "))


def _side_facts(seen: Visit, name: RepositoryName, label: str, side: _Side) -> Markup:
    digest = side.view.entry.digest
    rows = [
        ("Digest", copy_short_digest(digest)),
        ("Size", size(side.view.entry.size)),
        ("Pushed", when(side.view.entry.pushed, seen.now)),
        ("Created", when_written(side.config.created, seen.now) if side.config else EMPTY),
    ]
    heading = link(manifest_url(name, digest, side.title if side.title in side.view.tags else ""), side.title)
    return _diff("side", label=label, name=heading, facts=facts(rows))


def _summary(old: _Side, new: _Side) -> Markup:
    difference = new.view.entry.size - old.view.entry.size
    if not difference:
        return escape("Both need the same space.")
    return join(
        (
            escape(f"{new.title} needs "),
            size(abs(difference)),
            escape(f" {'more' if difference > 0 else 'less'} than {old.title}."),
        )
    )


def _layers(old: _Side, new: _Side) -> Markup:
    """Show the layers of both in order; images share layers from the first on, so that what only one has comes last."""
    kept = {layer.digest for layer in new.view.manifest.layers}
    known = {layer.digest for layer in old.view.manifest.layers}
    changes = [
        ("=" if layer.digest in kept else MINUS, layer, step)
        for layer, step in zip(old.view.manifest.layers, old.steps)
    ]
    changes += [
        ("+", layer, step) for layer, step in zip(new.view.manifest.layers, new.steps) if layer.digest not in known
    ]
    rows = [_layer(sign, layer.digest, shorten(step), layer.size) for sign, layer, step in changes[:_MOST_LAYERS]]
    return join((_diff("changes", rows=join(rows)), and_more(len(changes) - len(rows)))) if rows else EMPTY


def _layer(sign: str, digest: Digest, step: str, count: int) -> Markup:
    return _diff(
        "layer_change",
        sign=sign,
        meaning=_MEANINGS[sign],
        command=step,
        digest=copy_short_digest(digest),
        before=EMPTY if sign == "+" else size(count),
        after=EMPTY if sign == MINUS else size(count),
    )


def _settings(old: _Side, new: _Side) -> Iterable[Markup]:
    if old.config is None or new.config is None:
        return (escape("The config of one of them cannot be read, so that settings cannot be compared."),)
    changes = (
        ("Settings", "settings", _changes("Setting", _facts_of(old.config), _facts_of(new.config))),
        ("Environment", "environment", _changes("Variable", dict(old.config.env), dict(new.config.env))),
        ("Labels", "labels", _changes("Label", dict(old.config.labels), dict(new.config.labels))),
    )
    return [section(title, identifier, body or escape("No difference.")) for title, identifier, body in changes]


def _facts_of(config: ImageConfig) -> dict[str, str]:
    named = {"Platform": config.platform, "Author": config.author}
    return {**{name: text for name, text in named.items() if text}, **dict(config.fields)}


def _changes(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> Markup:
    changed = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    rows = [
        _diff("setting", name=shorten(key), before=_setting(before, key), after=_setting(after, key))
        for key in changed[:MOST_ROWS]
    ]
    return join((_diff("settings", name=name, rows=join(rows)), and_more(len(changed) - len(rows)))) if rows else EMPTY


def _setting(side: Mapping[str, str], key: str) -> Markup:
    return escape(shorten(side[key])) if key in side else _diff("absent")
