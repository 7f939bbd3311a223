"""`vex import`: copies images from files or from another registry into a Vex that is running, as one of its clients.

Invariants: manifests are copied byte for byte. What an image needs goes first: its blobs, four at a time, the children
of an index, and then itself, and last its tag, so that at whatever moment this ends the registry holds nothing that is
not whole. What the registry holds already is not sent again. What cannot be copied is named, and the rest goes on; an
image whose part cannot be copied is not copied. Memory does not depend on the size of a blob.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Callable

from vex.errors import Failure, Refused, RegistryError
from vex.formats.image import attested, platform_name
from vex.formats.manifest import Descriptor, Manifest, ManifestLimits
from vex.names import Digest, RepositoryName
from vex.progress import Progress, mebibytes
from vex.settings.config import Config
from vex.transfer.blob_copies import BlobCopies
from vex.transfer.endpoints import Endpoints
from vex.transfer.ends import check_target, source_origin
from vex.transfer.image_files import Missing
from vex.transfer.layout import Root, open_images
from vex.transfer.remote import Login, Remote
from vex.transfer.replies import Unreachable
from vex.transfer.sources import OtherRegistry, Problems, Selection, Source
from vex.transfer.trees import ManifestReader, Node, Tree

_LISTED = 5
# A wrong password, the public address, a full disk: nothing else will work either.
_FATAL = (401, 403, 405, 507)


def import_images(
    config: Config,
    wanted: Selection,
    target: Remote,
    source_credentials: Login | None,
    progress: Progress,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Import what is wanted; returns what was done. Raises Failure, once the rest is done, if something could not be
    imported.
    """
    limits = ManifestLimits(config.manifest_limit, config.manifest_descriptors_limit, config.manifest_depth_limit)
    endpoints = Endpoints(target, limits.bytes, _FATAL)
    check_target(target, endpoints)
    remotes = [target]
    problems = Problems(progress, clock)
    if Path(wanted.source).exists():
        if len(wanted.repositories) > 1 or len(wanted.tags) > 1:
            raise Failure("a layout or an archive goes to one repository: give --repository and --tag once")
        source: Source = open_images(Path(wanted.source), "".join(wanted.repositories), "".join(wanted.tags))
    else:
        remotes.append(Remote(source_origin(wanted.source), source_credentials))
        source = OtherRegistry(Endpoints(remotes[1], limits.bytes), wanted, problems)
    run = _Import(source, endpoints, limits, progress, problems)
    try:
        run.everything()
    except Unreachable as error:
        raise Failure(f"{error}; what was imported stays, so run the same again once that is put right") from error
    finally:
        run.stop(remotes)
    problems.tell_rest()
    done = f"imported from {wanted.source}: {run.summary()}"
    if problems.count:
        raise Failure(f"{done}; could not be imported, and are named above: {problems.count}")
    if not run.roots:
        raise Failure(
            f"there is nothing in {wanted.source}, or nothing that matches; see vex import --help for what --repository"
            " and --tag take"
        )
    return done


def _partial(name: str, present: Sequence[Descriptor], absent: Sequence[Descriptor], tagged: Descriptor | None) -> str:
    """Say what of an index is imported, and what is not there."""

    def listed(children: Sequence[Descriptor]) -> str:
        shown = ", ".join(f"{_kind(child)} ({child.digest})" for child in children[:_LISTED])
        return shown + (f" and {len(children) - _LISTED} more" if len(children) > _LISTED else "")

    under = (
        f"; the tag is that of {tagged.digest}"
        if tagged
        else "; each can be pulled by its digest, and none has the tag"
    )
    return (
        f"{name}: of this index only a part is there. Imported: {listed(present)}{under}. Not there: {listed(absent)}"
    )


def _kind(child: Descriptor) -> str:
    return (
        "an attestation"
        if attested(child) is not None
        else platform_name(child.platform) or "a platform that is not named"
    )


class _Import:
    def __init__(
        self, source: Source, target: Endpoints, limits: ManifestLimits, progress: Progress, problems: Problems
    ) -> None:
        self._source = source
        self._target = target
        self._manifests = ManifestReader(source, target, limits)
        self._blobs = BlobCopies(source, target, self._went_on, progress)
        self._progress = progress
        self._problems = problems
        self._seen: set[Digest] = set()
        self.roots = self._repositories = self._tags = self._sent = 0

    def everything(self) -> None:
        """Copy all there is in the source; raises Unreachable."""
        for repository in self._source.repositories():
            self._repositories += 1
            self._seen.clear()
            try:
                for root in self._source.roots(repository):
                    self.roots += 1
                    self._copy_root(repository, root)
            except Refused as error:
                self._problems.add(repository, error)

    def stop(self, remotes: Sequence[Remote]) -> None:
        """End what is still under way after a failure, and let go of the registries."""
        self._blobs.interrupt()
        for remote in remotes:
            remote.abort()
        self._blobs.close()
        for remote in remotes:
            remote.close()

    def summary(self) -> str:
        """Tell what was done."""
        blobs = self._blobs
        return (
            f"repositories: {self._repositories}, tags: {self._tags}; sent: manifests: {self._sent},"
            f" blobs: {blobs.sent} ({mebibytes(blobs.bytes)}); blobs that were there already: {blobs.kept}"
        )

    def _copy_root(self, repository: RepositoryName, root: Root) -> None:
        name = f"{repository}:{root.tag}" if root.tag else f"{repository}@{root.digest}"
        with self._named(name):
            digest = root.digest or self._source.resolve(repository, root.tag)
            try:
                new, manifest = self._copy(repository, digest, root.tag)
            except Missing as missing:
                new = self._copy_present(repository, digest, root, missing)
            else:
                self._tags += root.tag != ""
                if not root.tag and not manifest.subject:
                    self._progress.say(
                        f"{name}: it has no tag, so it can be pulled by its digest alone; --tag gives it one"
                    )
            self._problems.went_on()
            self._show(f"imported {name}; ")
            self._copy_referrers(repository, new)

    def _copy_present(self, repository: RepositoryName, digest: Digest, root: Root, missing: Missing) -> list[Digest]:
        """Copy what is there of an index, of which docker and containerd keep the images of other platforms elsewhere;
        raises Missing.

        Its tag goes to the image that docker has under this name, or the only one. Returns which manifests were looked
        at.
        """
        document, _ = self._manifests.fetch(repository, digest)
        new: list[Digest] = []
        images: list[tuple[Descriptor, Manifest]] = []
        absent: list[Descriptor] = []
        for child in self._manifests.parse(document).manifests:
            try:
                copied, manifest = self._copy(repository, child.digest, "")
            except Missing:
                absent.append(child)
                continue
            new += copied
            images += [(child, manifest)] if attested(child) is None else []
        if not images:
            raise missing
        meant = [child for child, manifest in images if manifest.config and manifest.config.digest in root.configs] or [
            child for child, _ in images
        ]
        tagged = meant[0] if root.tag and len(meant) == 1 else None
        if tagged:
            self._copy(repository, tagged.digest, root.tag)
            self._tags += 1
        self._progress.say(
            _partial(
                f"{repository}:{root.tag}" if root.tag else f"{repository}@{digest}",
                [child for child, _ in images],
                absent,
                tagged,
            )
        )
        return new

    def _copy_referrers(self, repository: RepositoryName, subjects: Iterable[Digest]) -> None:
        queue, tried = deque(subjects), set[Digest]()
        while queue:
            subject = queue.popleft()
            with self._named(f"what refers to {repository}@{subject}"):
                for referrer in self._source.referrers(repository, subject):
                    if referrer not in self._seen and referrer not in tried:
                        tried.add(referrer)
                        with self._named(f"{repository}@{referrer}"):
                            queue.extend(self._copy(repository, referrer, "")[0])

    def _copy(self, repository: RepositoryName, digest: Digest, tag: str) -> tuple[list[Digest], Manifest]:
        """Copy a manifest with all that it needs, and then its tag; returns which manifests were looked at for the
        first time, and itself.
        """
        tree = Tree(self._manifests, repository, digest, self._seen)
        self._blobs.copy(
            repository,
            {blob: size for node in tree.nodes.values() if not node.present for blob, size in node.blobs.items()},
        )
        for part, node in tree.nodes.items():
            if not node.present:
                self._put_manifest(repository, part, tag if part == digest else "", node)
                self._sent += 1
        root = tree.nodes[digest]
        if tag and root.present and not self._has_tag(repository, tag, digest):
            self._put_manifest(repository, digest, tag, root)
        new = [part for part in tree.nodes if part not in self._seen]
        self._seen.update(new)
        return new, tree.manifest

    def _put_manifest(self, repository: RepositoryName, digest: Digest, tag: str, node: Node) -> None:
        document = node.document or self._manifests.fetch(repository, digest)[0]
        self._target.put_manifest(repository, digest, tag, document._replace(media_type=node.media_type))

    def _has_tag(self, repository: RepositoryName, tag: str, digest: Digest) -> bool:
        try:
            return self._target.resolve(repository, tag) == digest
        except Refused as refused:
            if refused.status != 404:
                raise
            return False

    def _went_on(self) -> None:
        self._problems.went_on()
        self._show("")

    def _show(self, before: str) -> None:
        self._progress.show(f"{before}{self.summary()}")

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[None]:
        try:
            yield
        except (Refused, RegistryError) as error:
            self._problems.add(name, error)
