"""Links: to repositories, manifests and blobs, to the steps of a path, and to what pushers name."""

from __future__ import annotations

from vex.api import routes
from vex.names import Digest, RepositoryName
from vex.web.addresses import MANIFEST_PAGE, REPOSITORY
from vex.web.markup import Markup, Templates, Url, escape, external, join, local

_links = Templates("links.html")


def repository_url(name: str) -> Url:
    """Link to a repository, or to those below a part of a name."""
    return local(REPOSITORY.path(name=name))


def manifest_url(name: RepositoryName, digest: Digest, tag: str = "") -> Url:
    """Link to a manifest."""
    return local(MANIFEST_PAGE.path(name=name, manifest=digest), {"tag": tag})


def blob_url(name: RepositoryName, digest: Digest) -> Url:
    """Link to the bytes of a blob."""
    return local(routes.BLOB.path(name=name, digest=digest))


def link(url: Url, text: str) -> Markup:
    """Make a link."""
    return _links("link", url=url, text=text)


def crumbs(name: str, *places: str | tuple[Url, str]) -> Markup:
    """Show the way to a repository, and on to a place in it; the last step is where one is."""
    parts = name.split("/")
    steps: list[str | tuple[Url, str]] = [
        (repository_url("/".join(parts[: index + 1])), part) for index, part in enumerate(parts)
    ]
    *before, last = [*steps, *places]
    shown = [
        _links("crumb", url=step[0], text=step[1]) if isinstance(step, tuple) else _links("here", text=step)
        for step in before
    ]
    return _links("crumbs", parts=join((*shown, _links("here", text=last[1] if isinstance(last, tuple) else last))))


def path_links(name: str) -> Markup:
    """Show the name of a repository as a path, each part of which can be followed."""
    parts = name.split("/")
    return join(
        (
            _links(
                "segment" if index + 1 < len(parts) else "segment_last",
                url=repository_url("/".join(parts[: index + 1])),
                text=part,
            )
            for index, part in enumerate(parts)
        ),
        "/",
    )


def text_or_link(text: str) -> Markup:
    """Show text that a pusher wrote; an address becomes a link."""
    url = external(text)
    return _links("outside", url=url, text=text) if url else escape(text)
