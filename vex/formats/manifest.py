"""Manifests and indexes: bytes from a client become validated, frozen types.

The rules are those of the OCI image specification 1.1 ("Image Manifest", "Image Index", "Content Descriptors") and of
Docker's schema 2; the JSON is read strictly (`strict_json.py`). What the specification allows and Vex has no use for
(unknown fields, inline data, any config or layer media type) passes unchanged: manifests are stored and served byte for
byte, so nothing here writes one.

Whether the content that is referenced is there, and has the size that a descriptor says, is not decided here:
`registry.py` does that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, NoReturn, cast

from vex.errors import MANIFEST_INVALID, MANIFEST_TOO_COMPLEX, MANIFEST_TOO_LARGE, RegistryError
from vex.formats.strict_json import NotStrict, is_deeper, load_object, quoted
from vex.names import Digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

IMAGE_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
ACCEPTED = IMAGE_TYPES + INDEX_TYPES

# Layers that a client fetches from elsewhere. containerd also writes Docker's foreign layers uncompressed.
NON_DISTRIBUTABLE = frozenset(
    {
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)

# Sizes are signed 64-bit integers in the image specification, "Content Descriptors".
MAX_SIZE = 2**63 - 1
# RFC 6838 section 4.2, without its limit of 127 characters a name.
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*"
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}")
_DIGEST_FIELD = re.compile(rb'("digest"\s*:\s*"sha[0-9]+:)([0-9A-Fa-f]+)')
_NOT_IN_TAG = re.compile(r"[^a-zA-Z0-9._-]")


class ManifestLimits(NamedTuple):
    """What a manifest may weigh: bytes, descriptors in all its fields together, levels of nested JSON."""

    bytes: int = 4 * 1024 * 1024
    descriptors: int = 20_000
    depth: int = 64


_STORED = ManifestLimits(bytes=MAX_SIZE, descriptors=MAX_SIZE, depth=500)


@dataclass(frozen=True)
class Descriptor:
    """A reference to content; `required` when that content must be in the repository."""

    media_type: str
    digest: Digest
    size: int
    required: bool
    platform: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Manifest:
    """An image manifest or an index. `media_type` is what it is served with; `artifact_type` is what the referrers API
    shows, "" for nothing.
    """

    media_type: str
    is_index: bool
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: Mapping[str, str]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The config and the layers that must be in the repository, each digest once."""
        listed = (self.config, *self.layers)
        return tuple(
            {descriptor.digest: descriptor for descriptor in listed if descriptor and descriptor.required}.values()
        )


def parse_manifest(content: bytes, content_type: str | None, limits: ManifestLimits) -> Manifest:
    """Check a pushed manifest; raises MANIFEST_TOO_LARGE past the byte limit and MANIFEST_INVALID for everything
    else.
    """
    if len(content) > limits.bytes:
        raise RegistryError(
            MANIFEST_TOO_LARGE, f"the manifest is larger than the {limits.bytes} bytes this registry takes"
        )
    document = _Object(_load(content, limits.depth), "")
    media_type = _media_type(document, content_type)
    version = document.value("schemaVersion")
    if type(version) is not int or version != 2:
        _refuse("schemaVersion must be 2")
    is_index = media_type in INDEX_TYPES
    _check_shape(document, media_type, is_index)
    _check_count(document, limits.descriptors)
    config = None if is_index else _descriptor(document.member("config"), required=True)
    manifest = Manifest(
        media_type=media_type,
        is_index=is_index,
        config=config,
        layers=tuple(_layer(item) for item in document.members("layers")),
        manifests=tuple(_child(item) for item in document.members("manifests")),
        subject=_descriptor(document.member("subject"), required=False) if document.has("subject") else None,
        artifact_type=document.media_type("artifactType") or (config.media_type if config else ""),
        annotations=document.annotations(),
    )
    _check_sizes((config, *manifest.layers, *manifest.manifests))
    return manifest


def parse_stored(content: bytes, media_type: str) -> Manifest:
    """Parse a manifest that was accepted once, whatever the limits for pushes are now; hex digits in capitals were
    taken before, and are folded.
    """
    folded = _DIGEST_FIELD.sub(lambda found: found[1] + found[2].lower(), content)
    return parse_manifest(folded, media_type, _STORED)


def referrer_fallback_tag(digest: Digest) -> str:
    """Name the tag under which clients kept referrers before there was an API for them (distribution specification,
    "Referrers Tag Schema").
    """
    return _NOT_IN_TAG.sub("-", f"{digest.algorithm[:32]}-{digest.encoded[:64]}")


def _refuse(message: str) -> NoReturn:
    raise RegistryError(MANIFEST_INVALID, message)


def _load(content: bytes, depth: int) -> dict[str, object]:
    """Decode one JSON object, refusing what other readers may understand differently."""
    if is_deeper(content, depth):
        raise RegistryError(MANIFEST_TOO_COMPLEX, f"the manifest is nested deeper than {depth} levels")
    try:
        return load_object(content)
    except NotStrict as error:
        _refuse(f"the manifest {error}")


class _Object:
    """A JSON object and its place in the document, such as `layers[3]`; each reader checks one field and names it when
    it refuses.

    A field that is null counts as missing: clients written in Go write an empty list, map or pointer so.
    """

    def __init__(self, members: Mapping[str, object], place: str) -> None:
        self._members = members
        self._place = place

    def value(self, name: str) -> object:
        """Read whatever the field holds; None when it is missing."""
        return self._members.get(name)

    def has(self, name: str) -> bool:
        """Tell whether the field is there and not null."""
        return self.value(name) is not None

    def mentions(self, name: str) -> bool:
        """Tell whether the field is there, be it null."""
        return name in self._members

    def path(self, name: str) -> str:
        """Name the field for a message."""
        return f"{self._place}.{name}" if self._place else name

    def string(self, name: str) -> str:
        """Read a string; "" when it is missing."""
        value = self.value(name)
        if value is None:
            return ""
        return value if isinstance(value, str) else self._must(name, "a string")

    def media_type(self, name: str) -> str:
        """Read a media type; "" when it is missing or empty."""
        value = self.string(name)
        if value and not _MEDIA_TYPE.fullmatch(value):
            self._must(name, "a media type such as application/json, without parameters")
        return value

    def integer(self, name: str) -> int:
        """Read a whole number from 0 to the largest size."""
        value = self.value(name)
        # JSON's true is an instance of int.
        if type(value) is int and 0 <= value <= MAX_SIZE:
            return value
        return self._must(name, f"a whole number from 0 to {MAX_SIZE}")

    def digest(self, name: str) -> Digest:
        """Read a digest."""
        try:
            return Digest.parse(self.string(name))
        except RegistryError:
            self._must(name, "sha256: with 64 or sha512: with 128 lower-case hex digits")

    def mapping(self, name: str) -> Mapping[str, object]:
        """Read an object as it is; empty when it is missing."""
        value = self.value(name)
        if value is None:
            value = {}
        return MappingProxyType(value) if isinstance(value, dict) else self._must(name, "an object")

    def annotations(self) -> Mapping[str, str]:
        """Read the annotations."""
        annotations = self.mapping("annotations")
        if not all(isinstance(value, str) for value in annotations.values()):
            self._must("annotations", "an object of strings")
        return cast("Mapping[str, str]", annotations)

    def member(self, name: str) -> _Object:
        """Read an object that must be there."""
        value = self.value(name)
        return _Object(value, self.path(name)) if isinstance(value, dict) else self._must(name, "an object")

    def items(self, name: str) -> list[object]:
        """Read a list; empty when it is missing."""
        value = self.value(name)
        if value is None:
            return []
        return value if isinstance(value, list) else self._must(name, "a list")

    def members(self, name: str) -> Iterable[_Object]:
        """Read a list of objects."""
        for index, value in enumerate(self.items(name)):
            yield (
                _Object(value, self.path(f"{name}[{index}]"))
                if isinstance(value, dict)
                else self._must(f"{name}[{index}]", "an object")
            )

    def strings(self, name: str) -> list[str]:
        """Read a list of strings."""
        return [
            value if isinstance(value, str) else self._must(name, "a list of strings") for value in self.items(name)
        ]

    def _must(self, name: str, accepted: str) -> NoReturn:
        _refuse(f"{self.path(name)} must be {accepted}")


# Media types and fields


def _media_type(document: _Object, content_type: str | None) -> str:
    """Choose what the manifest is: Content-Type without parameters, or else `mediaType`, or else what its fields make
    it.
    """
    pushed = (content_type or "").partition(";")[0].strip().lower()
    declared = document.string("mediaType")
    media_type = pushed or declared or _inferred_type(document)
    if media_type not in ACCEPTED:
        what = f"the media type {quoted(media_type)}" if media_type else "a manifest without a media type"
        _refuse(f"{what} is not accepted; push one of {', '.join(ACCEPTED)}")
    if declared and declared != media_type:
        _refuse(f"mediaType is {quoted(declared)}, but Content-Type is {quoted(media_type)}; they must be the same")
    return media_type


def _inferred_type(document: _Object) -> str:
    """Tell an OCI document, which may leave `mediaType` out, by its fields; "" when that is not possible."""
    if document.has("config"):
        return OCI_MANIFEST
    return OCI_INDEX if document.mentions("manifests") else ""


def _check_shape(document: _Object, media_type: str, is_index: bool) -> None:
    """Refuse a document that one reader takes for an image and another for an index (CVE-2021-41190)."""
    kind, required, foreign = (
        ("an index", "manifests", ("config", "layers")) if is_index else ("an image manifest", "config", ("manifests",))
    )
    for name in foreign:
        if document.has(name):
            _refuse(f"{name} must not be in {kind} ({media_type})")
    # An index without children may have null for its list, but not nothing.
    if not document.mentions(required):
        _refuse(f"{required} must be in {kind} ({media_type})")


def _check_count(document: _Object, limit: int) -> None:
    count = (
        len(document.items("layers"))
        + len(document.items("manifests"))
        + document.has("config")
        + document.has("subject")
    )
    if count > limit:
        raise RegistryError(
            MANIFEST_TOO_COMPLEX, f"the manifest has {count} descriptors, and this registry takes at most {limit}"
        )


def _check_sizes(descriptors: Iterable[Descriptor | None]) -> None:
    sizes: dict[Digest, int] = {}
    for descriptor in descriptors:
        if descriptor and sizes.setdefault(descriptor.digest, descriptor.size) != descriptor.size:
            _refuse(
                f"{descriptor.digest} is listed with two sizes, {sizes[descriptor.digest]} and {descriptor.size}; one"
                " content has one size"
            )


def _descriptor(item: _Object, *, required: bool) -> Descriptor:
    """Check a descriptor (image specification, "Content Descriptors")."""
    media_type = item.media_type("mediaType")
    if not media_type:
        _refuse(f"{item.path('mediaType')} must be there, a media type such as application/json")
    item.string("data")
    item.strings("urls")
    item.media_type("artifactType")
    return Descriptor(
        media_type, item.digest("digest"), item.integer("size"), required, item.mapping("platform"), item.annotations()
    )


def _layer(item: _Object) -> Descriptor:
    """Check a layer; one that is fetched from elsewhere need not be here."""
    return _descriptor(item, required=item.string("mediaType") not in NON_DISTRIBUTABLE and not item.strings("urls"))


def _child(item: _Object) -> Descriptor:
    """Check a child of an index: a manifest, or in a BuildKit cache a config or a layer."""
    return _descriptor(item, required=item.string("mediaType") not in NON_DISTRIBUTABLE)
