"""What an image is, in words: kind, platforms, and its config, from manifests and blobs that a pusher made.

A config is read with patience: nobody checked it when it was pushed, so that every field can be missing or of another
type, and is then left out. (OCI image specification 1.1, "Image Configuration", and Docker's image specification 1.2
with `Healthcheck`.) What comes out is text for people to read. It can hold anything, markup and control characters too;
`markup.py` deals with that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Callable, NamedTuple

from vex.formats.manifest import Descriptor, Manifest
from vex.formats.strict_json import is_deeper

IMAGE, INDEX, ARTIFACT = "image", "index", "artifact"

CONFIG_TYPES = frozenset({"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"})
# Larger ones are not read: usual configs have a few KiB.
MAX_CONFIG_BYTES = 1024 * 1024
ATTESTATION = "attestation-manifest"
# What names a file of an artifact (image specification, "Pre-Defined Annotation Keys"), and what an attestation says
# (in-toto).
TITLE = "org.opencontainers.image.title"
PREDICATE = "in-toto.io/predicate-type"
_REFERENCE_TYPE = "vnd.docker.reference.type"
_REFERENCE_DIGEST = "vnd.docker.reference.digest"
KNOWN_ANNOTATIONS = (TITLE, PREDICATE, _REFERENCE_TYPE, _REFERENCE_DIGEST)
_MAX_DEPTH = 64
_MAX_INTEGER_LENGTH = 20
_MAX_PLATFORM = 100
_LAYER = re.compile(r"[./+]tar\b|\brootfs\b")
_UNKNOWN = "unknown/unknown"
# Such as windows(10.0.17763)/amd64.
_CONTAINERD = re.compile(r"([^/(]+)\(([^)]*)\)(/.*)")
# Quay's label for images that go by themselves.
EXPIRES_AFTER = "quay.expires-after"
_LIFETIME = re.compile(r"([0-9]{1,5})([hdw])")
_LIFETIME_SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}


class Summary(NamedTuple):
    """What lists show of a manifest: image, index or artifact ("" where nobody has looked yet), and platforms such as
    linux/arm64/v8; and how many seconds its label gives it, None without one.
    """

    kind: str
    platforms: tuple[str, ...]
    lifetime: int | None = None


class BuildStep(NamedTuple):
    """A step of the history that made an image; an empty one left no layer."""

    command: str
    created: str
    comment: str
    empty: bool


class ImageConfig(NamedTuple):
    """What a config says of its image; texts are "" and lists are empty where it says nothing.

    `fields` are name and value of everything else that is set, what is known first, by its usual name.
    """

    platform: str
    created: str
    author: str
    fields: tuple[tuple[str, str], ...]
    env: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, str], ...]
    history: tuple[BuildStep, ...]


def read_config(content: bytes) -> ImageConfig | None:
    """Read the config of an image; None when it is no JSON object."""
    document = _load(content)
    if not isinstance(document, dict):
        return None
    settings = _mapping(document.get("config"))
    return ImageConfig(
        platform=platform_name(document),
        created=_text(document.get("created")),
        author=_text(document.get("author")),
        fields=(*_fields(document, _IMAGE_FIELDS, _NOT_FIELDS), *_fields(settings, _FIELDS, ("Env", "Labels"))),
        env=tuple(
            (name, value)
            for name, _, value in (_shown(item).partition("=") for item in _list(settings.get("Env")))
            if name
        ),
        labels=tuple(sorted((name, _shown(value)) for name, value in _mapping(settings.get("Labels")).items())),
        history=tuple(_step(_mapping(item)) for item in _list(document.get("history"))),
    )


def is_image(manifest: Manifest) -> bool:
    """Tell an image from an artifact that borrows its manifest: signatures and attestations have the config type of an
    image, but no layer of files.
    """
    if (
        manifest.config is None
        or manifest.config.media_type not in CONFIG_TYPES
        or manifest.artifact_type != manifest.config.media_type
    ):
        return False
    return not manifest.layers or any(_LAYER.search(layer.media_type) for layer in manifest.layers)


def kind_of(manifest: Manifest) -> str:
    """Name the kind of a manifest: image, index or artifact."""
    return INDEX if manifest.is_index else IMAGE if is_image(manifest) else ARTIFACT


def artifact_name(manifest: Manifest) -> str:
    """Name what an artifact is, by its type; one with the config of an image is what its first file is."""
    if (
        manifest.config
        and manifest.config.media_type in CONFIG_TYPES
        and manifest.artifact_type == manifest.config.media_type
        and manifest.layers
    ):
        return manifest.layers[0].media_type
    return manifest.artifact_type


def platform_name(platform: Mapping[str, object]) -> str:
    """Write a platform as os/architecture/variant:version, as `crane --platform` takes it; "" when it is not known.

    Images for Windows have a version, by which alone they can be told apart (image specification, "Image Index",
    `os.version`).
    """
    system, architecture, variant, version = (
        _text(platform.get(key))[:_MAX_PLATFORM] for key in ("os", "architecture", "variant", "os.version")
    )
    name = "/".join(filter(None, (system, architecture, variant))) if system and architecture else ""
    if not name or name.startswith(_UNKNOWN):
        return ""
    return f"{name}:{version}" if version else name


def matches_platform(name: str, asked: str) -> bool:
    """Tell whether a platform is what was asked for, or a variant or version of it; `asked` can be as crane or as
    containerd writes it.
    """
    contained = _CONTAINERD.fullmatch(asked)
    wanted = f"{contained[1]}{contained[3]}:{contained[2]}" if contained else asked
    following = name[len(wanted) :]
    return (
        bool(wanted)
        and name.startswith(wanted)
        and (not following or following[0] in (".:/" if ":" in wanted else ":/"))
    )


def release(name: str) -> str:
    """Return a platform without what changes with each update: of a version of Windows, three numbers say which one it
    is.
    """
    platform, colon, version = name.partition(":")
    return f"{platform}{colon}{'.'.join(version.split('.')[:3])}"


def attested(descriptor: Descriptor) -> str | None:
    """Return the digest of the child that this child of an index attests to, as BuildKit marks it; None when it is no
    attestation.
    """
    if descriptor.annotations.get(_REFERENCE_TYPE) != ATTESTATION:
        return None
    return descriptor.annotations.get(_REFERENCE_DIGEST, "")


def summarise(manifest: Manifest, config: bytes) -> Summary:
    """Say what lists show of a manifest; `config` is the content of its config, or empty."""
    kind = kind_of(manifest)
    names: list[str] = []
    lifetime = _lifetime(manifest.annotations.get(EXPIRES_AFTER))
    if kind == INDEX:
        names = [platform_name(child.platform) for child in manifest.manifests if attested(child) is None]
    elif kind == IMAGE:
        read = read_config(config)
        names = [read.platform] if read else []
        lifetime = lifetime or _lifetime(dict(read.labels if read else ()).get(EXPIRES_AFTER))
    return Summary(kind, tuple(dict.fromkeys(filter(None, names))), lifetime)


def _lifetime(text: str | None) -> int | None:
    """Read how long an image is to be kept, in seconds; None where it does not say, or not so that it can be read."""
    found = _LIFETIME.fullmatch(text or "")
    return int(found[1]) * _LIFETIME_SECONDS[found[2]] or None if found else None


def _load(content: bytes) -> object:
    # Before the decoder recurses, on the small stack of a connection's thread.
    if is_deeper(content, _MAX_DEPTH):
        return None
    try:
        return json.loads(content.decode("utf-8"), parse_int=_integer)
    except ValueError:
        return None


def _integer(text: str) -> int:
    # int() of many thousands of digits is slow, or an error.
    return int(text[:_MAX_INTEGER_LENGTH])


def _text(value: object) -> str:
    if isinstance(value, str):
        # JSON escapes can make halves of surrogate pairs, which are no characters.
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    return ""


def _mapping(value: object) -> Mapping[str, object]:
    return {_text(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _words(value: object) -> str:
    """Show a command in JSON's form, in which it is told apart where one argument ends; a single text as it is."""
    if isinstance(value, str):
        return _text(value)
    words = [_text(item) for item in _list(value)]
    return json.dumps(words, ensure_ascii=False) if words else ""


def _texts(value: object) -> str:
    return ", ".join(_text(item) for item in _list(value))


def _yes(value: object) -> str:
    return "yes" if value is True else ""


def _keys(value: object) -> str:
    return ", ".join(sorted(_mapping(value)))


def _health(value: object) -> str:
    check = _mapping(value)
    test = [_text(item) for item in _list(check.get("Test"))]
    times = [
        f"{text} {seconds:g} s" for name, text in _HEALTH_TIMES.items() if (seconds := _nanoseconds(check.get(name)))
    ]
    retries = check.get("Retries")
    if type(retries) is int and retries:
        times.append(f"{retries} retries")
    times += [f"{name} {_json(item)}" for name, item in check.items() if name not in _HEALTH and not _is_unset(item)]
    command = _HEALTH_TESTS.get(test[0], json.dumps(test, ensure_ascii=False)) if test else ""
    if test and test[0] in ("CMD", "CMD-SHELL"):
        command = test[1] if test[0] == "CMD-SHELL" and len(test) > 1 else json.dumps(test[1:], ensure_ascii=False)
    return "; ".join(filter(None, [command, ", ".join(times)]))


def _nanoseconds(value: object) -> float:
    return value / 1e9 if isinstance(value, (int, float)) else 0.0


def _seconds(value: object) -> str:
    return f"{value} s" if type(value) is int and value else ""


def _shown(value: object) -> str:
    return _text(value) if isinstance(value, str) else _json(value)


def _json(value: object) -> str:
    return _text(json.dumps(value, ensure_ascii=False))


def _is_unset(value: object) -> bool:
    # What Go writes of a field that nobody has set.
    return value is None or value is False or value in ("", 0, [], {})


def _fields(
    document: Mapping[str, object], known: Sequence[_Field], left_out: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Give name and value of everything that is set: first what is known, then the rest as it is; what is not of its
    usual type, too.
    """
    rest = {key: value for key, value in document.items() if not _is_unset(value) and key not in left_out}
    for name, key, show in known:
        if key in rest:
            value = rest.pop(key)
            yield name, show(value) or _json(value)
    for key in sorted(rest):
        yield key, _shown(rest[key])


_Field = tuple[str, str, Callable[[object], str]]
_HEALTH_TESTS = {"NONE": "turned off"}
_HEALTH_TIMES = {
    "Interval": "interval",
    "Timeout": "timeout",
    "StartPeriod": "start period",
    "StartInterval": "start interval",
}
_HEALTH = {*_HEALTH_TIMES, "Test", "Retries"}
_IMAGE_FIELDS: tuple[_Field, ...] = (
    ("OS version", "os.version", _text),
    ("OS features", "os.features", _texts),
)
# What is shown elsewhere.
_NOT_FIELDS = ("os", "architecture", "variant", "created", "author", "config", "history", "rootfs")
_FIELDS: tuple[_Field, ...] = (
    ("Entrypoint", "Entrypoint", _words),
    ("Command", "Cmd", _words),
    ("User", "User", _text),
    ("Working directory", "WorkingDir", _text),
    ("Ports", "ExposedPorts", _keys),
    ("Volumes", "Volumes", _keys),
    ("Health check", "Healthcheck", _health),
    ("Stop signal", "StopSignal", _text),
    ("Stop timeout", "StopTimeout", _seconds),
    ("Shell", "Shell", _words),
    ("On build", "OnBuild", _words),
    ("Arguments escaped", "ArgsEscaped", _yes),
)


def _step(item: Mapping[str, object]) -> BuildStep:
    return BuildStep(
        _text(item.get("created_by")),
        _text(item.get("created")),
        _text(item.get("comment")),
        item.get("empty_layer") is True,
    )
