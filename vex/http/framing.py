"""How an answer is framed: the head that says where its body ends, and whether another request may follow it (RFC 9112
sections 6 and 9.3).
"""

from __future__ import annotations

import functools
import time
from email.utils import formatdate

from vex.http.answers import MAX_ANSWER_BYTES, Answer
from vex.http.heads import encode_head
from vex.http.message import Request, Response

# So much of a body that nobody wanted is worth reading for the request behind it.
DRAIN_BYTES = 64 * 1024
_DATE, _END = b"Date: ", b"\r\n\r\n"


def head_of(request: Request, response: Response, *, reusable: bool) -> bytes:
    """Return the head of an answer."""
    headers = response.headers
    if response.stream is not None:
        headers += [("Transfer-Encoding", "chunked")] if request.head.minor else []
    elif response.status != 204 and response.status != 304:
        headers.append(("Content-Length", str(response.length)))
    if not reusable:
        headers.append(("Connection", "close"))
    elif request.head.minor == 0:
        headers.append(("Connection", "keep-alive"))
    return encode_head(response.status, headers)[:-2] + _DATE + date(int(time.time())) + _END


def last_head_of(response: Response) -> bytes:
    """Return the head of an answer to what is no request that is understood."""
    headers = [*response.headers, ("Content-Length", str(response.length)), ("Connection", "close")]
    return encode_head(response.status, headers)[:-2] + _DATE + date(int(time.time())) + _END


def may_follow(request: Request, response: Response, *, continue_wanted: bool) -> bool:
    """Tell whether another request may follow; `continue_wanted` says that the client waits for leave to send the
    body.
    """
    head, body = request.head, request.body
    # HTTP/1.0 knows no chunks: the end of the connection is the end of a stream.
    if not head.keep_alive or response.last or (response.stream is not None and head.minor == 0):
        return False
    # The client may never send this body (it waits for 100), or has much more of it than is worth reading.
    return body.complete or (not continue_wanted and (head.length or 0) - body.received <= DRAIN_BYTES)


def kept_answer(request: Request, response: Response) -> Answer | None:
    """Prepare an answer that was just given, on a connection that goes on, to be given again; None if it cannot be."""
    head = request.head
    if not response.basis or head.minor != 1 or head.has_body or len(response.body) >= MAX_ANSWER_BYTES:
        return None
    body = b"" if request.method == "HEAD" else response.body
    before_date = encode_head(response.status, response.headers)[:-2] + _DATE
    return Answer(
        before_date,
        _END + body,
        request.method,
        request.path,
        request.op,
        response.status,
        len(body),
        response.basis,
        request.admit,
    )


@functools.lru_cache(maxsize=1)
def date(second: int) -> bytes:
    """Return the value of the Date field (RFC 9110 section 6.6.1), which is made once a second."""
    return formatdate(second, usegmt=True).encode()
