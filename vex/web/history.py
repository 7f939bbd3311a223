"""What a tag pointed to, when, and who changed that: a section on the page of what it points to now, and a page with
all of it.

Users are named, since who pushed is what one comes for; their addresses are for the operator alone (`vex log`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from vex.errors import NOT_FOUND, RegistryError
from vex.http.message import Response
from vex.names import Digest, RepositoryName, Tag
from vex.storage.audit import Change
from vex.web.addresses import HISTORY
from vex.web.facts import short_digest, when
from vex.web.frame import page, section
from vex.web.links import crumbs, link, manifest_url
from vex.web.markup import EMPTY, Markup, Templates, Url, join, local
from vex.web.paging import PAGE_ENTRIES, pager
from vex.web.visit import Visit

_FIRST = 10

_history = Templates("history.html")


def history_section(seen: Visit, name: RepositoryName, tag: Tag) -> Markup:
    """Show the latest changes of a tag; nothing when none are known."""
    listing, held = seen.site.browsing.history(name, tag, 0, _FIRST)
    more = (
        _history("more", url=local(HISTORY.path(name=name, tag=tag)), total=f"{listing.total:,}")
        if listing.total > _FIRST
        else EMPTY
    )
    return (
        section("History", "history", join((_table(seen, name, listing.entries, held), more)))
        if listing.entries
        else EMPTY
    )


def history_page(seen: Visit, name: RepositoryName, tag: Tag) -> Response:
    """Answer with all changes of a tag, which may be gone; raises NOT_FOUND."""
    listing, held = seen.site.browsing.history(name, tag, (seen.number("page") - 1) * PAGE_ENTRIES, PAGE_ENTRIES)
    if not listing.entries:
        raise RegistryError(NOT_FOUND, f"no change of {name}:{tag} is known")
    place: str | tuple[Url, str] = tag
    with contextlib.suppress(RegistryError):
        place = (manifest_url(name, seen.site.browsing.resolve(name, tag), tag), tag)
    body = _history(
        "page",
        crumbs=crumbs(name, place, "History"),
        title=f"History of {name}:{tag}",
        table=_table(seen, name, listing.entries, held),
        pager=pager(HISTORY.path(name=name, tag=tag), "Pages of changes", listing.offset, listing.total, {}),
    )
    return page(seen, f"History of {name}:{tag} · {seen.host}", body)


def _table(seen: Visit, name: RepositoryName, changes: Sequence[Change], held: set[Digest]) -> Markup:
    rows = [
        _history(
            "row",
            before=_side(name, change.before, held, "new"),
            after=_side(name, change.after, held, "deleted"),
            user=change.user,
            when=when(change.time, seen.now),
        )
        for change in seen.paced(changes)
    ]
    return _history("table", rows=join(rows))


def _side(name: RepositoryName, digest: Digest | None, held: set[Digest], none: str) -> Markup:
    """Show a manifest before or after a change, as a link while it is here."""
    if digest is None:
        return _history("nothing", text=none)
    return (
        link(manifest_url(name, digest), short_digest(digest))
        if digest in held
        else _history("side", text=short_digest(digest))
    )
