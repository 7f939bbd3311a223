"""The lists: all repositories, those below a part of a name, and the tags of one."""

from __future__ import annotations

from collections.abc import Sequence

from vex.errors import NAME_UNKNOWN, RegistryError
from vex.formats.image import ARTIFACT, INDEX
from vex.http.message import Response
from vex.names import RepositoryName, Tag
from vex.storage.listings import NAME, PUSHED, SIZE, ManifestEntry, RepositoryEntry, View
from vex.web.addresses import FRONT, REPOSITORY
from vex.web.browsing import Listing
from vex.web.facts import copy_command, copy_inline, copy_short_digest, pushed, short_digest, size, when
from vex.web.frame import page
from vex.web.links import crumbs, link, manifest_url, path_links
from vex.web.markup import EMPTY, Markup, Templates, join, local
from vex.web.paging import PAGE_ENTRIES, column, filter_form, listing_view, pager, sort_value
from vex.web.referrers import purpose
from vex.web.visit import Visit, reference

_SHOWN_TAGS = 4
_SHOWN_PLATFORMS = 6

_list = Templates("list.html")


def front_page(seen: Visit) -> Response:
    """Answer with all repositories; an empty registry says what to do next."""
    view = listing_view(seen, NAME)
    listing = seen.site.browsing.repositories("", view)
    if not listing.total and not view.text:
        return page(seen, f"{seen.host} · Vex", _empty_registry(seen))
    form = filter_form(FRONT.path(), "Filter by name", view)
    table = _repository_table(seen, FRONT.path(), view, listing)
    return page(
        seen, f"Repositories · {seen.host}", _list("repositories", title="Repositories", filter=form, list=table)
    )


def repository_page(seen: Visit, name: RepositoryName) -> Response:
    """Answer with the tags of a repository, or with the repositories below a part of a name; raises NAME_UNKNOWN."""
    entry = seen.site.browsing.repository(name)
    if entry is None:
        return _group_page(seen, name)
    view = listing_view(seen, f"-{PUSHED}")
    path = REPOSITORY.path(name=name)
    body = _list(
        "repository",
        crumbs=crumbs(name),
        name=name,
        summary=join((_count(entry.tags, "tag"), size(entry.size), pushed(entry.pushed, seen.now)), " · "),
        filter=filter_form(path, "Filter tags", view) if entry.tags > 1 or view.text else EMPTY,
        list=_tag_table(seen, name, path, view) if entry.tags else _list("untagged"),
        unheld=_unheld(seen, name, path),
        below=_below(seen, name),
    )
    return page(seen, f"{name} · {seen.host}", body)


def _empty_registry(seen: Visit) -> Markup:
    if not seen.push_host:
        return _list("closed")
    target = f"{seen.push_host}/hello:latest"
    commands = join(
        map(copy_command, (f"docker login {seen.push_host}", f"docker tag IMAGE {target}", f"docker push {target}"))
    )
    plain = _list("plain") if seen.plain else EMPTY
    return _list("empty", commands=commands, pull=copy_command(f"docker pull {seen.host}/hello:latest"), plain=plain)


# Repositories


def _group_page(seen: Visit, name: RepositoryName) -> Response:
    view = listing_view(seen, NAME)
    path = REPOSITORY.path(name=name)
    listing = seen.site.browsing.repositories(f"{name}/", view)
    if not listing.total and not view.text:
        raise RegistryError(NAME_UNKNOWN, f"there is no repository {name}, and none below it")
    table = _repository_table(seen, path, view, listing)
    heading = _list("repositories", title=f"{name}/", filter=filter_form(path, "Filter by name", view), list=table)
    return page(seen, f"{name}/ · {seen.host}", join((crumbs(name), heading)))


def _below(seen: Visit, name: RepositoryName) -> Markup:
    """List the first repositories below this one."""
    view = View("", NAME, descending=False, offset=0, limit=PAGE_ENTRIES)
    listing = seen.site.browsing.repositories(f"{name}/", view)
    return (
        _list("below", name=name, list=_repository_table(seen, FRONT.path(), view._replace(text=f"{name}/"), listing))
        if listing.total
        else EMPTY
    )


def _repository_table(seen: Visit, path: str, view: View, listing: Listing[RepositoryEntry]) -> Markup:
    if not listing.entries:
        return _list("none", text="No repository has that in its name.", url=local(path))
    rows = [
        _list(
            "repository_row",
            name=path_links(entry.name),
            tags=f"{entry.tags:,}",
            pushed=when(entry.pushed, seen.now),
            size=size(entry.size),
        )
        for entry in seen.paced(listing.entries)
    ]
    return _list(
        "repository_table",
        name=column(path, view, NAME, "Repository"),
        pushed=column(path, view, PUSHED, "Pushed", "when"),
        size=column(path, view, SIZE, "Size", "n"),
        rows=join(rows),
        pager=pager(
            path, "Pages of repositories", listing.offset, listing.total, {"q": view.text, "sort": sort_value(view)}
        ),
    )


# Manifests


def _tag_table(seen: Visit, name: RepositoryName, path: str, view: View) -> Markup:
    listing, shared = seen.site.browsing.tags(name, view)
    if not listing.entries:
        return _list("none", text="No tag has that in its name.", url=local(path))
    rows = [
        _tag_row(seen, name, entry, [tag for tag in shared[entry.manifest] if tag != entry.name])
        for entry in seen.paced(listing.entries)
    ]
    return _list(
        "tag_table",
        name=column(path, view, NAME, "Tag"),
        pushed=column(path, view, PUSHED, "Pushed", "when"),
        size=column(path, view, SIZE, "Size", "n"),
        rows=join(rows),
        pager=pager(path, "Pages of tags", listing.offset, listing.total, {"q": view.text, "sort": sort_value(view)}),
    )


def _tag_row(seen: Visit, name: RepositoryName, entry: ManifestEntry, others: Sequence[Tag]) -> Markup:
    also = join([link(manifest_url(name, entry.digest, tag), tag) for tag in others[:_SHOWN_TAGS]], ", ")
    if len(others) > _SHOWN_TAGS:
        also = join((also, link(manifest_url(name, entry.digest, entry.name), "more")), ", ")
    return _list(
        "tag_row",
        url=manifest_url(name, entry.digest, entry.name),
        name=entry.name,
        also=_list("also", tags=also) if others else EMPTY,
        what=_what(entry),
        digest=copy_short_digest(entry.digest),
        pull=EMPTY
        if entry.summary.kind == ARTIFACT
        else _list("pull", pull=copy_inline(f"docker pull {reference(seen, name, entry.digest, entry.name)}")),
        pushed=when(entry.pushed, seen.now),
        size=size(entry.size),
    )


def _unheld(seen: Visit, name: RepositoryName, path: str) -> Markup:
    """List what is here without a tag or an index: pushed by digest, or attached to another manifest."""
    listing = seen.site.browsing.unheld(name, (seen.number("others") - 1) * PAGE_ENTRIES, PAGE_ENTRIES)
    if not listing.entries:
        return EMPTY
    rows = [
        _list(
            "unheld_row",
            url=manifest_url(name, entry.digest),
            name=purpose(entry.artifact_type) if entry.subject else short_digest(entry.digest),
            what=_what(entry),
            subject=_list("subject", url=manifest_url(name, entry.subject), text=short_digest(entry.subject))
            if entry.subject
            else EMPTY,
            digest=copy_short_digest(entry.digest),
            pushed=when(entry.pushed, seen.now),
            size=size(entry.size),
        )
        for entry in seen.paced(listing.entries)
    ]
    return _list(
        "unheld",
        rows=join(rows),
        pager=pager(path, "Pages of untagged manifests", listing.offset, listing.total, {}, "others"),
    )


def _what(entry: ManifestEntry) -> Markup:
    """Say what a manifest is: its platforms, or the type of an artifact."""
    if entry.summary.kind == ARTIFACT:
        return _list("what", text=entry.artifact_type)
    platforms = entry.summary.platforms
    text = ", ".join(platforms[:_SHOWN_PLATFORMS])
    if len(platforms) > _SHOWN_PLATFORMS:
        text += f" and {len(platforms) - _SHOWN_PLATFORMS} more"
    return (
        _list("what", text=text or (INDEX if entry.summary.kind == INDEX else ""))
        if text or entry.summary.kind == INDEX
        else EMPTY
    )


def _count(number: int, noun: str) -> Markup:
    return _list("what", text=f"{number:,} {noun}{'' if number == 1 else 's'}")
