"""Value types of the registry's names: RepositoryName, Tag and Digest, and patterns for them.

Each name is a `str` that has been checked once, at the edge, with `parse`; inside, nothing checks a name again. The
grammars are those of the OCI distribution specification 1.1, "Pulling manifests", and of the image specification,
"Digests". In patterns, `*` stands for any number of any characters, slashes included.
"""

from __future__ import annotations

import hashlib
import re
from fnmatch import fnmatchcase

from vex.errors import DIGEST_INVALID, NAME_INVALID, TAG_INVALID, RegistryError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HEX = re.compile(r"[0-9a-f]+")
# Characters of names, and *.
_REPOSITORY_PATTERN = re.compile(r"[a-z0-9._/*-]{1,255}")
_TAG_PATTERN = re.compile(r"[a-zA-Z0-9_.*-]{1,128}")
_EXCEPT = "!"

# Clients limit host, "/" and name together to 255 characters.
MAX_REPOSITORY_NAME = 255
# The algorithms that are taken, with the length of their hex digits.
ALGORITHMS: dict[str, int] = {"sha256": 64, "sha512": 128}


class RepositoryName(str):
    """The name of a repository, such as `team/app`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> RepositoryName:
        """Check a name; raises NAME_INVALID."""
        if len(text) > MAX_REPOSITORY_NAME or not _REPOSITORY.fullmatch(text):
            raise RegistryError(NAME_INVALID)
        return cls(text)


class Tag(str):
    """The name of a tag, such as `latest`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Check a tag; raises TAG_INVALID."""
        if not _TAG.fullmatch(text):
            raise RegistryError(TAG_INVALID)
        return cls(text)


class Digest(str):
    """A digest, such as `sha256:` and 64 lower-case hex digits."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Check a digest; raises DIGEST_INVALID, for hex digits in capitals too (image specification, "SHA-256"):
        clients cannot pull what has them.
        """
        algorithm, _, encoded = text.partition(":")
        if len(encoded) != ALGORITHMS.get(algorithm, -1) or not _HEX.fullmatch(encoded):
            raise RegistryError(
                DIGEST_INVALID,
                "not a digest this registry takes: use sha256: with 64 or sha512: with 128 lower-case hex digits",
            )
        return cls(text)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """Compute the digest of bytes at hand."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")

    @property
    def algorithm(self) -> str:
        """`sha256` or `sha512`."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The hex digits."""
        return self.partition(":")[2]


class TagPatterns(tuple[str, ...]):
    """A list of patterns of tags, such as `v*, !*-rc*`: `!` leaves out again what those before it cover."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> TagPatterns:
        """Read patterns with commas between them, none of "". Raises ValueError."""
        patterns = cls(pattern.strip() for pattern in text.split(",")) if text else cls()
        # A list that begins with an exception would cover nothing.
        if not all(map(_is_tag_pattern, patterns)) or text.startswith(_EXCEPT):
            raise ValueError(text)
        return patterns

    def covers(self, tag: str) -> bool:
        """Tell whether a tag is one of these."""
        return bool(self.pattern_of(tag))

    def pattern_of(self, tag: str) -> str:
        """Return the pattern that makes a tag one of these, "" where it is none: the last that it matches decides."""
        for pattern in reversed(self):
            if fnmatchcase(tag, pattern.lstrip(_EXCEPT)):
                return "" if pattern.startswith(_EXCEPT) else pattern
        return ""

    def __str__(self) -> str:
        return ", ".join(self)


def _is_tag_pattern(text: str) -> bool:
    return _TAG_PATTERN.fullmatch(text[1:] if text.startswith(_EXCEPT) else text) is not None


def is_repository_pattern(text: str) -> bool:
    """Tell whether a text can be a pattern of names of repositories."""
    return _REPOSITORY_PATTERN.fullmatch(text) is not None


def parse_algorithm(text: str) -> str:
    """Check the name of a digest algorithm; raises DIGEST_INVALID."""
    if text not in ALGORITHMS:
        raise RegistryError(DIGEST_INVALID, "not a digest algorithm this registry takes: use sha256 or sha512")
    return text


def parse_image(text: str) -> tuple[RepositoryName, Tag | None]:
    """Read REPOSITORY[:TAG]; raises NAME_INVALID and TAG_INVALID."""
    name, colon, tag = text.partition(":")
    port, _, image = tag.partition("/")
    if image and port.isdigit():
        raise RegistryError(
            NAME_INVALID, f"{name}:{port} is the address of a registry; give the name without it: {image}"
        )
    try:
        return RepositoryName.parse(name), Tag.parse(tag) if colon else None
    except RegistryError as error:
        raise RegistryError(error.kind, f"{text}: {error.message}") from None
