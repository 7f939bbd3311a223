"""What the page of a manifest shows of an image: its settings, and its layers with the steps that made them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from vex.formats.image import BuildStep, ImageConfig
from vex.formats.manifest import Descriptor
from vex.names import RepositoryName
from vex.web.addresses import LAYER
from vex.web.browsing import ManifestView
from vex.web.facts import (
    MOST_PARTS,
    MOST_ROWS,
    and_more,
    facts,
    pairs,
    short_digest,
    short_type,
    shorten,
    size,
    when_written,
)
from vex.web.frame import section, warning
from vex.web.links import blob_url, link
from vex.web.markup import EMPTY, Markup, Templates, Value, escape, join, local
from vex.web.visit import Visit

_SHELL = "/bin/sh -c "
_NOTHING = "#(nop) "

_image = Templates("image.html")


def describe_image(seen: Visit, name: RepositoryName, view: ManifestView) -> tuple[Markup, Markup]:
    """Return the facts and the sections of an image."""
    descriptor = view.manifest.config
    read = seen.config(name, descriptor) if descriptor else None
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


def _layers(seen: Visit, name: RepositoryName, view: ManifestView, history: Sequence[BuildStep]) -> Markup:
    rows = list(seen.paced(itertools.islice(_layer_rows(name, view, history), MOST_PARTS)))
    steps = sum(step.empty for step in _fitting(view.manifest.layers, history)) + len(view.manifest.layers)
    return _image("layers", rows=join(rows), more=and_more(steps - len(rows)))


def _layer_rows(name: RepositoryName, view: ManifestView, history: Sequence[BuildStep]) -> Iterator[Markup]:
    """Show the layers in order, each with the step of the history that made it, and the steps without a layer in
    between.
    """
    layers = view.manifest.layers
    largest = max((layer.size for layer in layers), default=0)
    steps = iter(zip(layers, layer_steps(layers, history)))
    for step in _fitting(layers, history):
        if step.empty:
            yield _image("empty_step", command=shorten(readable_step(step)))
        else:
            yield _layer(name, view, *next(steps), largest)
    for layer, command in steps:
        yield _layer(name, view, layer, command, largest)


def layer_steps(layers: Sequence[Descriptor], history: Sequence[BuildStep]) -> list[str]:
    """Return for each layer the step that made it, as far as the history tells."""
    told = [readable_step(step) for step in _fitting(layers, history) if not step.empty]
    return told + ["no history"] * (len(layers) - len(told))


def _fitting(layers: Sequence[Descriptor], history: Sequence[BuildStep]) -> Sequence[BuildStep]:
    """Return the history, unless it has steps for more layers than there are: then it would tell of the wrong ones."""
    return history if sum(not step.empty for step in history) <= len(layers) else ()


def _layer(name: RepositoryName, view: ManifestView, layer: Descriptor, command: str, largest: int) -> Markup:
    kind, digest = short_type(layer.media_type), short_digest(layer.digest)
    shown: dict[str, Value] = {"command": shorten(command), "type": kind, "digest": digest, "size": size(layer.size)}
    if not layer.required:
        return _image("foreign_layer", **shown)
    return _image(
        "layer",
        **shown,
        url=local(LAYER.path(name=name, manifest=view.entry.digest, layer=layer.digest)),
        blob=blob_url(name, layer.digest),
        percent=f"{100 * layer.size / largest:.4g}" if largest else 0,
    )


def readable_step(step: BuildStep) -> str:
    """Write a step as in a Dockerfile, without what the classic builder puts around it."""
    command = " ".join(step.command.split())
    if command.startswith(_SHELL):
        command = command[len(_SHELL) :]
        command = command[len(_NOTHING) :].strip() if command.startswith(_NOTHING) else f"RUN {command}"
    return command or step.comment or "a step that does not say what it did"
