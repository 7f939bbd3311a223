"""Other registries to import from, made of answers by path; and the import."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator, Mapping
from typing import Callable, Union

from tests.support.server import PASSWORD, USER, Server, vex


def import_into(server: Server, source: str, *arguments: str, text: str = "", code: int = 0) -> str:
    """Import with the password of USER, check the exit code, and return what was printed."""
    ended = vex(
        "import", source, *arguments, "--username", USER, "--to", server.urls["auth"], text=f"{PASSWORD}\n{text}"
    )
    assert ended.returncode == code, ended
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout + ended.stderr


Reply = Union[tuple[int, Mapping[str, str], bytes], Callable[[http.server.BaseHTTPRequestHandler], None]]


@contextlib.contextmanager
def answering(replies: Mapping[str, Reply], requests: list[tuple[str, str | None]] | None = None) -> Iterator[str]:
    """Run a server that gives these answers by path, and 404 to all else; notes path and Authorization of each
    request.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if requests is not None:
                requests.append((self.path, self.headers["Authorization"]))
            reply = replies.get(self.path, (404, {}, b"{}"))
            if callable(reply):
                reply(self)
                return
            self.send_response(reply[0])
            for name, value in {"Content-Length": str(len(reply[2])), **reply[1]}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply[2])

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_arguments: object) -> None:
            pass

    class Listening(http.server.ThreadingHTTPServer):
        def handle_error(self, *_arguments: object) -> None:
            """Say nothing: that clients go away is a part of the tests."""

    with Listening(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}"
        finally:
            listening.shutdown()
            thread.join()
