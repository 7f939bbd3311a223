"""Where an import takes images from: what a source can be asked, another registry as one, and what could not be had of
it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Callable, NamedTuple, Protocol

from vex.errors import Refused, RegistryError
from vex.formats.manifest import referrer_fallback_tag
from vex.names import Digest, RepositoryName, Tag
from vex.progress import Progress
from vex.transfer.endpoints import Bad, Document, Endpoints
from vex.transfer.layout import Root
from vex.transfer.replies import Unreachable

_GLOB = re.compile(r"[*?\[]")
_NAMES_TOLD = 10
# An import ends when more things than this have failed, one after the other, in more than this time.
_MAX_IN_VAIN, _VAIN_SECONDS = 20, 600.0


class Selection(NamedTuple):
    """What is to be imported, and as what: of a registry, patterns that names have to match; of files, a name and a
    tag.
    """

    source: str
    repositories: Sequence[str]
    tags: Sequence[str]


class Source(Protocol):
    """Where images come from; each method raises Refused for what is not to be had, and Unreachable."""

    def repositories(self) -> Iterable[RepositoryName]:
        """List the repositories."""

    def roots(self, repository: RepositoryName) -> Iterable[Root]:
        """List what is to be copied of a repository."""

    def resolve(self, repository: RepositoryName, tag: str) -> Digest:
        """Find the digest that a tag points to."""

    def manifest(self, repository: RepositoryName, digest: Digest) -> Document:
        """Return a manifest that has this digest."""

    def blob(
        self, repository: RepositoryName, digest: Digest, size: int, offset: int
    ) -> contextlib.AbstractContextManager[Iterator[bytes]]:
        """Open a blob at an offset."""

    def referrers(self, repository: RepositoryName, digest: Digest) -> Iterable[Digest]:
        """List the manifests with this subject."""


class Problems:
    """What could not be imported; each is told once. Ends an import in which nothing else has come for a long time."""

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._clock = clock
        self._names = 0
        self._in_vain = 0
        self._progressed = clock()
        self.count = 0

    def add(self, name: str, reason: object) -> None:
        """Tell one; raises Unreachable when there is no use in going on."""
        self.count += 1
        self._progress.say(f"{name}: {reason}")
        self._in_vain += 1
        if self._in_vain > _MAX_IN_VAIN and self._clock() - self._progressed > _VAIN_SECONDS:
            raise Unreachable(f"nothing could be imported for {_VAIN_SECONDS // 60:.0f} minutes")

    def add_name(self, name: str, reason: RegistryError) -> None:
        """Tell a name that is none: the first ones, and then their number."""
        self._names += 1
        if self._names <= _NAMES_TOLD:
            self.add(ascii(name), reason)

    def tell_rest(self) -> None:
        """Tell how many names were not told."""
        if self._names > _NAMES_TOLD:
            self.count += self._names - _NAMES_TOLD
            self._progress.say(f"names in all that are none here: {self._names:,}")

    def went_on(self) -> None:
        """Note that something was imported, or is on its way."""
        self._in_vain, self._progressed = 0, self._clock()


class OtherRegistry:
    """A registry as a source: those repositories and tags that match."""

    def __init__(self, endpoints: Endpoints, wanted: Selection, problems: Problems) -> None:
        self._endpoints = endpoints
        self._wanted = wanted
        self._problems = problems
        self._tags: set[Tag] = set()
        self._attached: set[Tag] = set()
        self.resolve = endpoints.resolve
        self.manifest = endpoints.manifest
        self.blob = endpoints.blob

    def repositories(self) -> Iterator[RepositoryName]:
        """List the repositories that match; raises Unreachable where they are not listed."""
        patterns = self._wanted.repositories
        # Not every registry lists what it has, and where the names are known nothing need be listed.
        if patterns and not any(map(_GLOB.search, patterns)):
            yield from self._named()
            return
        try:
            for name in self._endpoints.repositories(self._bad("", patterns)):
                if _matches(name, patterns):
                    yield name
        except Refused as error:
            hint = "give --source-username, or name repositories with --repository"
            raise Unreachable(f"the source does not list its repositories: {error}; {hint}") from error

    def _named(self) -> Iterator[RepositoryName]:
        for name in self._wanted.repositories:
            try:
                yield RepositoryName.parse(name)
            except RegistryError as error:
                self._problems.add_name(name, error)

    def roots(self, repository: RepositoryName) -> Iterator[Root]:
        """List the tags that match, and then those that are attached to what they name."""
        patterns = self._wanted.tags
        self._tags = set(self._endpoints.tags(repository, self._bad(f"{repository}:", patterns)))
        self._attached = set()
        chosen = {tag for tag in self._tags if _matches(tag, patterns)}
        done: set[Tag] = set()
        # What is attached to an image by a tag is found while the image is copied.
        while new := (chosen | self._attached) - done:
            for tag in sorted(new):
                yield Root(tag, None)
            done |= new

    def referrers(self, repository: RepositoryName, digest: Digest) -> Iterator[Digest]:
        """List what refers to a manifest."""
        if self._wanted.tags:
            # The tag of the referrers tag schema, and what begins with it: cosign's signatures, for instance.
            fallback = referrer_fallback_tag(digest)
            self._attached.update(tag for tag in self._tags if tag.startswith(fallback))
        return self._endpoints.referrers(repository, digest)

    def _bad(self, before: str, patterns: Sequence[str]) -> Bad:
        def note(name: str, error: RegistryError) -> None:
            if _matches(name, patterns):
                self._problems.add_name(f"{before}{name}", error)

        return note


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
