"""The pages of the manual, as `vex help` shows them; made once, since they are the same for everybody."""

from __future__ import annotations

import functools

from vex import VERSION
from vex.errors import NOT_FOUND, RegistryError
from vex.http.message import Response
from vex.web.addresses import HELP, HELP_PAGE
from vex.web.frame import page
from vex.web.manual import SUBJECTS, page_of, purpose_of, title_of
from vex.web.markdown import html_of, inline_of
from vex.web.markup import Markup, Templates, join, local
from vex.web.visit import Visit

_help = Templates("help.html")
# Read now, as all that the pages are made of.
_TEXTS = {subject: page_of(subject) for subject in SUBJECTS}


def subjects_page(seen: Visit) -> Response:
    """Answer with the subjects, and what each page is for."""
    return page(seen, "Help · Vex", _subjects())


def subject_page(seen: Visit, subject: str) -> Response:
    """Answer with a page; raises NOT_FOUND."""
    if subject not in SUBJECTS:
        raise RegistryError(NOT_FOUND)
    title, body = _subject(subject)
    return page(seen, f"{title} · Vex", body)


@functools.cache
def _subjects() -> Markup:
    rows = []
    for subject, text in _TEXTS.items():
        url = local(HELP_PAGE.path(subject=subject))
        rows.append(_help("subject", url=url, title=title_of(text), purpose=inline_of(purpose_of(text))))
    return _help("subjects", version=VERSION, rows=join(rows))


@functools.cache
def _subject(subject: str) -> tuple[str, Markup]:
    text = _TEXTS[subject]
    title = title_of(text)
    return title, _help("page", url=local(HELP.path()), title=title, text=html_of(text))
