"""A request for a page, with what every page has to know: the data, and how commands address this registry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Callable, NamedTuple, TypeVar

from vex.formats.manifest import Descriptor
from vex.http.forwarded import HOST, addressable
from vex.http.message import Request
from vex.http.turns import HeavyWork
from vex.names import Digest, RepositoryName, Tag
from vex.progress import UNHURRIED, Work
from vex.registry.registry import Registry
from vex.web.browsing import Browsing, ConfigView
from vex.web.moment import Moment

E = TypeVar("E")
# So many rows take a part of a millisecond.
_ROWS = 4
_PAGE = re.compile(r"[0-9]{1,9}")


class Site(NamedTuple):
    """What the pages need: the data, and how commands address this registry.

    `push_port` is the port for pushing, None when that is off; with `one_port`, it is that of `public_url`.
    """

    browsing: Browsing
    registry: Registry
    public_url: str
    push_port: int | None
    clock: Callable[[], float]
    work: HeavyWork
    one_port: bool = False


class Visit(NamedTuple):
    """A request with what every page shows: `host` is how commands address the registry, `plain` whether it speaks HTTP
    without TLS.

    `work` is told of each small piece of work.
    """

    site: Site
    request: Request
    host: str
    plain: bool
    now: Moment
    work: Work = UNHURRIED

    @property
    def push_host(self) -> str:
        """How commands address the registry for pushing; "" when that is off."""
        port = self.site.push_port
        if port and self.site.one_port:
            return self.host
        return f"{_without_port(self.host)}:{port}" if port else ""

    def parameter(self, name: str) -> str:
        """Return a query parameter; "" when it is missing."""
        return self.request.parameter(name) or ""

    def during(self, work: Work) -> Visit:
        """Return the same for one piece of work, which is told of all that is done."""
        return self._replace(site=self.site._replace(browsing=self.site.browsing.during(work)), work=work)

    def paced(self, entries: Iterable[E]) -> Iterator[E]:
        """Give entries, of which rows are made, one by one."""
        for number, entry in enumerate(entries, 1):
            yield entry
            if number % _ROWS == 0:
                self.work.step()

    def config(self, name: RepositoryName, descriptor: Descriptor) -> ConfigView:
        """Read the config of an image; the page of one that cannot be read now may be another one soon."""
        read = self.site.browsing.config(name, descriptor)
        if read.problem:
            self.now.pass_by()
        return read

    def number(self, name: str) -> int:
        """Return the number of a page, 1 for whatever is none."""
        text = self.parameter(name)
        return max(int(text), 1) if _PAGE.fullmatch(text) else 1


def visit(site: Site, request: Request) -> Visit:
    """Look at a request: how does it address this registry?"""
    if site.public_url:
        scheme, _, host = site.public_url.partition("://")
    else:
        scheme, host = request.scheme, request.host
    return Visit(
        site,
        request,
        addressable(host if HOST.fullmatch(host) else "localhost", scheme),
        scheme == "http",
        Moment(site.clock()),
    )


def _without_port(host: str) -> str:
    return re.sub(r":[0-9]+$", "", host)


def reference(seen: Visit, name: RepositoryName, digest: Digest, tag: Tag | str = "") -> str:
    """Write what clients call an image: by tag, or by digest."""
    return f"{seen.host}/{name}:{tag}" if tag else f"{seen.host}/{name}@{digest}"
