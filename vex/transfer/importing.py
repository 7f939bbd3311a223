"""`vex import`: copies images from files or from another registry into a Vex that is running, as one of its clients.

Invariants: manifests are copied byte for byte. What an image needs goes first: its blobs, four at a time, the children
of an index, and then itself, and last its tag, so that at whatever moment this ends the registry holds nothing that is
not whole. What the registry holds already is not sent again. What cannot be copied is named, and the rest goes on; an
image whose part cannot be copied is not copied. Memory does not depend on the size of a blob.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Callable, NamedTuple

from vex.errors import Failure, Refused, RegistryError
from vex.formats.image import attested, platform_name
from vex.formats.manifest import ACCEPTED, Descriptor, Manifest, ManifestLimits, parse_manifest
from vex.names import Digest, RepositoryName
from vex.progress import Progress, mebibytes
from vex.settings.config import Config
from vex.settings.values import Address
from vex.transfer.endpoints import Document, Endpoints
from vex.transfer.image_files import Missing
from vex.transfer.layout import Root, open_images
from vex.transfer.origins import Origin, parse_origin
from vex.transfer.remote import Broken, Credentials, Remote, Unreachable, client_context
from vex.transfer.sources import OtherRegistry, Problems, Source, Wanted

_AT_ONCE = 4
_LISTED = 5
_PAUSES = (0.5, 2.0, 5.0)
_MAX_DEPTH = 16
# The manifests of an image and of its parts are read twice where they have more than this together.
_MAX_KEPT_BYTES = 8 * 1024 * 1024
# Children and blobs of an image and of its parts.
_MAX_DESCRIPTORS = 60_000
# A wrong password, the public address, a full disk: nothing else will work either.
_FATAL = (401, 403, 405, 507)
_ADDRESS = re.compile(r"https?://.*|localhost(:[0-9]+)?|[^/]*[.:][^/]*")


def import_images(
    config: Config,
    wanted: Wanted,
    target: Remote,
    source_credentials: Credentials | None,
    progress: Progress,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Import what is wanted; returns what was done. Raises Failure, once the rest is done, if something could not be
    imported.
    """
    limits = ManifestLimits(config.manifest_limit, config.manifest_descriptors_limit, config.manifest_depth_limit)
    endpoints = Endpoints(target, limits.bytes, _FATAL)
    _check_target(target, endpoints)
    remotes = [target]
    problems = Problems(progress, clock)
    if Path(wanted.source).exists():
        if len(wanted.repositories) > 1 or len(wanted.tags) > 1:
            raise Failure("a layout or an archive goes to one repository: give --repository and --tag once")
        source: Source = open_images(Path(wanted.source), "".join(wanted.repositories), "".join(wanted.tags))
    else:
        remotes.append(Remote(_source_origin(wanted.source), source_credentials))
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


def target_address(config: Config, to: str) -> Origin:
    """Find the address of the registry to import into: the one that is given, or else the auth listener of the
    configuration; raises Failure.
    """
    if to:
        try:
            return parse_origin(to)
        except ValueError:
            raise Failure(f"--to {to!r} is not http:// or https:// with a host and perhaps a port") from None
    address = config.auth_addr
    if not isinstance(address, Address) or not address.port:
        raise Failure(
            "auth-addr has no host and port that are known; give the address of the running registry with --to"
        )
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104  # where it listens, not we
    return Origin("https" if config.auth_tls_cert else "http", host, address.port)


def target_registry(config: Config, to: str, credentials: Credentials) -> Remote:
    """Prepare to talk with the registry to import into, whose own certificate is trusted; raises Failure."""
    remote = _target(config, to, credentials)
    remote.authenticate()
    return remote


def _target(config: Config, to: str, credentials: Credentials | None) -> Remote:
    origin = target_address(config, to)
    try:
        context = client_context(origin, str(config.auth_tls_cert) if config.auth_tls_cert else None)
    except OSError as error:
        raise Failure(
            f"cannot read {config.auth_tls_cert} (auth-tls-cert): {error}; check that it is a PEM file that this user"
            " may read"
        ) from error
    return Remote(origin, credentials, context)


def check_ends(config: Config, to: str, wanted: Wanted) -> None:
    """Find out that there is something to import from and to, before anybody is asked for a password; raises
    Failure.
    """
    if reason := _silence_of(_target(config, to, None)):
        raise Failure(f"{reason}; start the registry there with 'vex serve', or give its auth address with --to")
    if Path(wanted.source).exists():
        return
    if reason := _silence_of(Remote(_source_origin(wanted.source))):
        is_file = "://" not in wanted.source
        raise Failure(
            f"there is no file {wanted.source}, and {reason}; check its path, or the address"
            if is_file
            else f"{reason}; check the address"
        )


def _silence_of(remote: Remote) -> str:
    """Say why a registry does not answer; "" if it does, whatever that is."""
    try:
        with contextlib.closing(remote):
            remote.reach()
    except Unreachable as error:
        return str(error)
    return ""


def _check_target(target: Remote, endpoints: Endpoints) -> None:
    try:
        endpoints.version()
    except Unreachable as error:
        advice = (
            ""
            if "refuses" in str(error)
            else "; start the registry there with 'vex serve', or give its auth address with --to"
        )
        raise Failure(f"{error}{advice}") from error
    except Refused as error:
        raise Failure(
            f"{target.origin} is no registry: {error}; give the auth address of a running vex with --to"
        ) from error


def _source_origin(text: str) -> Origin:
    if not _ADDRESS.fullmatch(text):
        raise Failure(f"{text} is not there; give a layout's directory, an archive, or a registry as https://HOST")
    try:
        return parse_origin(text)
    except ValueError:
        raise Failure(f"{text!r} is neither a file nor https://HOST; choose repositories with --repository") from None


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


class _Node(NamedTuple):
    """A manifest to be copied, or there already: its blobs; its content only as long as there is room for that."""

    document: Document | None
    media_type: str
    blobs: dict[Digest, int]
    present: bool


def _blobs_of(manifest: Manifest) -> dict[Digest, int]:
    # BuildKit's cache images are indexes of layers.
    parts = [child for child in manifest.manifests if child.required and child.media_type not in ACCEPTED]
    return {blob.digest: blob.size for blob in (*manifest.blobs, *parts)}


class _Import:
    def __init__(
        self, source: Source, target: Endpoints, limits: ManifestLimits, progress: Progress, problems: Problems
    ) -> None:
        self._source = source
        self._target = target
        self._limits = limits
        self._progress = progress
        self._problems = problems
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._seen: set[Digest] = set()
        self._room = self._descriptors = 0
        self.roots = self._repositories = self._tags = self._manifests = self._blobs = self._bytes = self._kept = 0

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
        self._stopped.set()
        for remote in remotes:
            remote.abort()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for remote in remotes:
            remote.close()

    def summary(self) -> str:
        """Tell what was done."""
        counts = (
            f"repositories: {self._repositories}, tags: {self._tags}; sent: manifests: {self._manifests}, blobs:"
            f" {self._blobs} ({mebibytes(self._bytes)})"
        )
        return f"{counts}; blobs that were there already: {self._kept}"

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
        document, _ = self._fetch(repository, digest)
        new: list[Digest] = []
        images: list[tuple[Descriptor, Manifest]] = []
        absent: list[Descriptor] = []
        for child in parse_manifest(document.content, document.media_type, self._limits).manifests:
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
        tree: dict[Digest, _Node] = {}
        self._room, self._descriptors = _MAX_KEPT_BYTES, 0
        manifest = self._gather(repository, digest, tree, _MAX_DEPTH)
        self._copy_blobs(repository, tree.values())
        for part, node in tree.items():
            if not node.present:
                self._put_manifest(repository, part, tag if part == digest else "", node)
                self._manifests += 1
        root = tree[digest]
        if tag and root.present and not self._has_tag(repository, tag, digest):
            self._put_manifest(repository, digest, tag, root)
        new = [part for part in tree if part not in self._seen]
        self._seen.update(new)
        return new, manifest

    def _put_manifest(self, repository: RepositoryName, digest: Digest, tag: str, node: _Node) -> None:
        document = node.document or self._fetch(repository, digest)[0]
        self._target.put_manifest(repository, digest, tag, document._replace(media_type=node.media_type))

    def _has_tag(self, repository: RepositoryName, tag: str, digest: Digest) -> bool:
        try:
            return self._target.resolve(repository, tag) == digest
        except Refused as refused:
            if refused.status != 404:
                raise
            return False

    def _gather(self, repository: RepositoryName, digest: Digest, tree: dict[Digest, _Node], depth: int) -> Manifest:
        """Read a manifest, and note before it its children, except for those that were copied with another."""
        if not depth:
            raise Refused(0, f"indexes in indexes, more than {_MAX_DEPTH} levels of them")
        document, present = self._fetch(repository, digest)
        manifest = parse_manifest(document.content, document.media_type, self._limits)
        for child in manifest.manifests:
            if child.media_type in ACCEPTED and child.digest not in tree and child.digest not in self._seen:
                try:
                    self._gather(repository, child.digest, tree, depth - 1)
                except Refused as refused:
                    raise refused.of(f"its part {child.digest}") from refused
                except RegistryError as error:
                    raise Refused(0, f"its part {child.digest}: {error}") from error
        blobs = _blobs_of(manifest)
        self._room -= len(document.content)
        self._descriptors += len(manifest.manifests) + len(blobs)
        if self._descriptors > _MAX_DESCRIPTORS:
            raise Refused(0, f"its manifests list more than {_MAX_DESCRIPTORS:,} parts")
        tree[digest] = _Node(document if self._room >= 0 else None, manifest.media_type, blobs, present)
        return manifest

    def _fetch(self, repository: RepositoryName, digest: Digest) -> tuple[Document, bool]:
        """Read a manifest from the registry that has it, the target if possible; and tell whether that was so."""
        try:
            return self._target.manifest(repository, digest), True
        except Refused as refused:
            if refused.status != 404:
                raise
        return self._source.manifest(repository, digest), False

    # Blobs

    def _copy_blobs(self, repository: RepositoryName, nodes: Iterable[_Node]) -> None:
        sizes: dict[Digest, int] = {}
        for node in nodes:
            sizes.update({} if node.present else node.blobs)
        futures = [self._pool.submit(self._copy_blob, repository, digest, size) for digest, size in sizes.items()]
        wait(futures)
        for future in futures:
            future.result()

    def _copy_blob(self, repository: RepositoryName, digest: Digest, size: int) -> None:
        """Copy a blob, unless it is there; a transfer that breaks goes on where it ended."""
        location, offset, failures = "", 0, 0
        while True:
            try:
                location = location or self._target.begin_upload(repository, digest)
                if location:
                    self._send(repository, digest, size, location, offset)
                self._count(location)
            except Refused as refused:
                self._cancel(location)
                raise refused.of(f"blob {digest}") from refused
            except Broken as broken:
                # The pause comes first: until the registry notes that the connection has ended, it does not count what
                # arrived.
                if failures == len(_PAUSES) or self._stopped.wait(_PAUSES[failures]):
                    raise Unreachable(f"blob {digest} of {repository}: {broken}") from broken
                arrived = self._target.upload_offset(location) if location else -1
                failures = 0 if arrived > offset else failures + 1
                if arrived < 0:
                    self._cancel(location)
                location, offset = (location, arrived) if arrived >= 0 else ("", 0)
            else:
                return

    def _cancel(self, location: str) -> None:
        """End an upload, once the registry has noted that its connection has ended."""
        for pause in (0, *_PAUSES) if location else ():
            if self._stopped.wait(pause) or self._target.cancel_upload(location):
                return

    def _send(self, repository: RepositoryName, digest: Digest, size: int, location: str, offset: int) -> None:
        with self._source.blob(repository, digest, size, offset) as pieces:
            self._target.finish_upload(location, digest, offset, size, self._watched(pieces))

    def _watched(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            with self._lock:
                self._bytes += len(piece)
                self._problems.went_on()
                self._show("")
            yield piece

    def _count(self, location: str) -> None:
        with self._lock:
            self._blobs += location != ""
            self._kept += location == ""

    def _show(self, before: str) -> None:
        self._progress.show(f"{before}{self.summary()}")

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[None]:
        try:
            yield
        except (Refused, RegistryError) as error:
            self._problems.add(name, error)
