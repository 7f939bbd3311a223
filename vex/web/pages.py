"""The pages: which address leads to which, and the turn that a heavy one takes.

Handlers check what the address says into value types, ask `browsing.py`, and return a page or raise. Nothing that a
pusher wrote reaches a page but through `markup.py`. Each kind of page has a module; `frame.py` holds what is around all
of them.
"""

from __future__ import annotations

from typing import Callable

from vex import VERSION
from vex.api.headers import FOREVER
from vex.api.routes import PathFields, Route
from vex.errors import NOT_FOUND, RegistryError
from vex.http.message import NOSNIFF, PLAIN_TEXT, Request, Response
from vex.names import Digest, RepositoryName, Tag
from vex.web import diff, help, history, layer, lists, manifests
from vex.web.addresses import (
    ARCHIVE,
    DIFF,
    DOCUMENT,
    FRONT,
    HELP,
    HELP_PAGE,
    HISTORY,
    INDEX,
    LAYER,
    MANIFEST_PAGE,
    REPOSITORY,
    ROBOTS,
    STATIC,
)
from vex.web.frame import STATIC_FILES, error_page, page, redirect
from vex.web.kept import KeptPages, PageKey, as_asked, finished, key_of
from vex.web.markup import Templates, local
from vex.web.visit import Site, Visit, visit

_FOR_A_DAY = ("Cache-Control", "public, max-age=86400")
# RFC 9309 section 2.2: what costs much to make, or is a list that other pages have already.
_ROBOTS = b"""User-agent: *
Disallow: /v2/
Disallow: /r/*/m/*/layer/
Disallow: /r/*/m/*/json/
Disallow: /r/*/m/*/image.tar
Disallow: /r/*/diff/sha
Disallow: /*?q=
Disallow: /*?*sort=
"""
_internal = Templates("internal.html")
# What is the same as long as this process runs, and costs nothing to make.
_UNCHANGING = frozenset({ROBOTS.op, STATIC.op, INDEX.op, HELP.op, HELP_PAGE.op})
_TITLES = {400: "This address is not right", 404: "Not here", 405: "Only for reading"}


class Pages:
    """The handlers of the pages."""

    def __init__(self, site: Site, kept: KeptPages) -> None:
        self._site = site
        self._kept = kept

    def handle(self, route: Route, request: Request, fields: PathFields) -> Response:
        """Answer with a page; raises BUSY when too many have to be made at once."""
        seen = visit(self._site, request)
        key = key_of(seen, route.op)
        return as_asked(request, self._kept.find(key, seen.now.time) or self._made(seen, key, fields))

    def _made(self, seen: Visit, key: PageKey, fields: PathFields) -> Response:
        if key.op in _UNCHANGING:
            return self._make(seen, key, fields)
        # The interpreter makes no more of them by making more at once, and pulls and pushes would wait for all.
        turns = self._site.work.layers if key.op == LAYER.op else self._site.work.pages
        with turns.take(seen.request.left) as turn:
            # Somebody may have made it while this one waited.
            return self._kept.find(key, self._site.clock()) or self._make(seen.during(turn), key, fields)

    def _make(self, seen: Visit, key: PageKey, fields: PathFields) -> Response:
        basis = None if key.op in _UNCHANGING else self._kept.basis(fields.get("name", "").removesuffix("/"))
        made = finished(_HANDLERS[key.op](seen, fields), gzip=key.gzip)
        self._kept.keep(key, made, basis, seen.now)
        return made

    def error(self, request: Request, error: RegistryError) -> Response:
        """Turn an error into a page with a way back."""
        seen = visit(self._site, request)
        status = error.kind.status
        title = _TITLES.get(status, "This did not work")
        message = error.message[:1].upper() + error.message[1:] + "."
        return error_page(seen, title, message, local(FRONT.path()), "All repositories", status, error.headers)


def _front(seen: Visit, _fields: PathFields) -> Response:
    return lists.front_page(seen)


def _index(seen: Visit, _fields: PathFields) -> Response:
    return page(
        seen, "Health and metrics", _internal("index", version=VERSION), footer="This address is not for the public."
    )


def _repository(seen: Visit, fields: PathFields) -> Response:
    name = _name(fields["name"].removesuffix("/"))
    return _moved(seen, REPOSITORY.path(name=name)) or lists.repository_page(seen, name)


def _manifest(seen: Visit, fields: PathFields) -> Response:
    name, digest = _name(fields["name"]), Digest.parse(fields["manifest"])
    here = MANIFEST_PAGE.path(name=name, manifest=digest)
    return _moved(seen, here, seen.parameter("tag")) or manifests.manifest_page(seen, name, digest)


def _document(seen: Visit, fields: PathFields) -> Response:
    name, digest = _name(fields["name"]), Digest.parse(fields["manifest"])
    return _moved(seen, DOCUMENT.path(name=name, manifest=digest)) or manifests.document_page(seen, name, digest)


def _layer(seen: Visit, fields: PathFields) -> Response:
    name, digest, part = _name(fields["name"]), Digest.parse(fields["manifest"]), Digest.parse(fields["layer"])
    return _moved(seen, LAYER.path(name=name, manifest=digest, layer=part)) or layer.layer_page(
        seen, name, digest, part
    )


def _archive(seen: Visit, fields: PathFields) -> Response:
    return layer.archive(seen, _name(fields["name"]), Digest.parse(fields["manifest"]))


def _diff(seen: Visit, fields: PathFields) -> Response:
    first, _, second = fields["manifests"].partition("...")
    name, before, after = _name(fields["name"]), Digest.parse(first), Digest.parse(second)
    return _moved(seen, DIFF.path(name=name, manifests=f"{before}...{after}")) or diff.diff_page(
        seen, name, before, after
    )


def _history(seen: Visit, fields: PathFields) -> Response:
    name, tag = _name(fields["name"]), Tag.parse(fields["tag"])
    return _moved(seen, HISTORY.path(name=name, tag=tag)) or history.history_page(seen, name, tag)


def _help(seen: Visit, _fields: PathFields) -> Response:
    return _moved(seen, HELP.path()) or help.subjects_page(seen)


def _help_page(seen: Visit, fields: PathFields) -> Response:
    found = help.subject_page(seen, fields["subject"])
    return _moved(seen, HELP_PAGE.path(subject=fields["subject"])) or found


def _robots(_seen: Visit, _fields: PathFields) -> Response:
    return Response(200, [*PLAIN_TEXT, _FOR_A_DAY], _ROBOTS)


def _static(_seen: Visit, fields: PathFields) -> Response:
    file = STATIC_FILES.get(fields["file"])
    if file is None:
        raise RegistryError(NOT_FOUND)
    return Response(200, [("Content-Type", file.media_type), NOSNIFF, FOREVER], file.content)


_HANDLERS: dict[str, Callable[[Visit, PathFields], Response]] = {
    FRONT.op: _front,
    INDEX.op: _index,
    HELP.op: _help,
    HELP_PAGE.op: _help_page,
    ROBOTS.op: _robots,
    STATIC.op: _static,
    LAYER.op: _layer,
    ARCHIVE.op: _archive,
    DIFF.op: _diff,
    HISTORY.op: _history,
    DOCUMENT.op: _document,
    MANIFEST_PAGE.op: _manifest,
    REPOSITORY.op: _repository,
}


def _name(text: str) -> RepositoryName:
    try:
        return RepositoryName.parse(text)
    except RegistryError:
        raise RegistryError(NOT_FOUND) from None


def _moved(seen: Visit, path: str, tag: str = "") -> Response | None:
    """Redirect to the address as Vex writes it: with a slash at the end, digests in lower case."""
    return None if seen.request.path == path else redirect(local(path, {"tag": tag}))
