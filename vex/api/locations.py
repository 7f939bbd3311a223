"""Where a path of this registry is, as the field Location says it: relative, or with scheme and host where those are
certain.

Every client should take a relative Location (RFC 9110 section 10.2.2), but some do not. An absolute one that names
another scheme or host than the client knows breaks all of them, so that what a proxy that nobody configured may have
changed is never repeated.
"""

from __future__ import annotations

from vex.http.forwarded import HOST
from vex.http.message import Request

# What proxies add of their own accord.
_TRACES = ("via", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")


class Locations:
    """Writes locations, `absolute` or not, None: where scheme and host are certain; `public_url` is that of the
    configuration, and `one_port` says that it is the auth listener's.
    """

    def __init__(self, absolute: bool | None = None, public_url: str = "", *, one_port: bool = False) -> None:
        self._absolute = absolute
        self._public_url = public_url
        self._one_port = one_port

    def of(self, request: Request, path: str) -> str:
        """Write the location of a path for who sent a request."""
        return path if self._absolute is False else self._base(request) + path

    def _base(self, request: Request) -> str:
        """Return scheme and host; "" where they are not certain, or do not have to be told."""
        host = request.host.lower()
        if self._public_url and (self._one_port or host == self._public_url.partition("://")[2].lower()):
            # Otherwise it is that of the public listener, where nobody can push.
            return self._public_url
        certain = self._absolute or request.vouched or _is_asked_by_name(request, host)
        return f"{request.scheme}://{request.host}" if certain and HOST.fullmatch(host) else ""


def _is_asked_by_name(request: Request, host: str) -> bool:
    """Tell whether the TLS handshake named the host too (RFC 6066 section 3), and no proxy can be seen that began
    it.
    """
    name = host.rpartition(":")[0] or host
    return bool(request.server_name) and request.server_name.lower() == name and not any(map(request.header, _TRACES))
