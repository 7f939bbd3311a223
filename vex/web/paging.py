"""Lists in parts: what is wanted of one, its order, its pages, and the field that narrows it down."""

from __future__ import annotations

from vex.storage.listings import NAME, PUSHED, SIZE, View
from vex.web.markup import EMPTY, Markup, Templates, local
from vex.web.visit import Visit

PAGE_ENTRIES = 100


_paging = Templates("paging.html")


def listing_view(seen: Visit, usual: str) -> View:
    """Read from the query which part of a list is wanted: `q`, `sort` (a name, with - in front for the other direction)
    and `page`.
    """
    sort = seen.parameter("sort")
    order = sort[1:] if sort.startswith("-") else sort
    if order not in (NAME, PUSHED, SIZE):
        sort, order = usual, usual.lstrip("-")
    return View(
        seen.parameter("q")[:128].strip(),
        order,
        sort.startswith("-"),
        (seen.number("page") - 1) * PAGE_ENTRIES,
        PAGE_ENTRIES,
    )


def sort_value(view: View) -> str:
    """Write the order of a list as it stands in the query."""
    return ("-" if view.descending else "") + view.order


def column(path: str, view: View, order: str, text: str, style: str = "") -> Markup:
    """Head a column by which a list can be sorted."""
    current = view.order == order
    # Names are first sorted from A to Z, dates from the newest, sizes from the largest.
    descending = not view.descending if current else order != NAME
    return _paging(
        "column",
        style=style,
        sorted=("descending" if view.descending else "ascending") if current else "none",
        arrow=("↓" if view.descending else "↑") if current else "",
        url=local(path, {"q": view.text, "sort": ("-" if descending else "") + order}),
        text=text,
    )


def pager(
    path: str,
    label: str,
    offset: int,
    total: int,
    query: dict[str, str],
    parameter: str = "page",
    *,
    heavy: bool = False,
) -> Markup:
    """Link to the part of a list before and after this one; nothing when there is one part only. To `heavy` pages no
    crawler shall go.
    """
    if total <= PAGE_ENTRIES:
        return EMPTY
    number = offset // PAGE_ENTRIES + 1
    follow = " nofollow" if heavy else ""
    before = (
        _paging("before", follow=follow, url=local(path, {**query, parameter: str(number - 1)}))
        if number > 1
        else EMPTY
    )
    after = (
        _paging("after", follow=follow, url=local(path, {**query, parameter: str(number + 1)}))
        if offset + PAGE_ENTRIES < total
        else EMPTY
    )
    last = min(offset + PAGE_ENTRIES, total)
    return _paging(
        "pager", label=label, before=before, after=after, first=f"{offset + 1:,}", last=f"{last:,}", total=f"{total:,}"
    )


def filter_form(path: str, label: str, view: View) -> Markup:
    """Make the field that narrows a list down."""
    return _paging("filter", action=local(path), label=label, text=view.text, sort=sort_value(view))
