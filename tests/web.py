"""A web server in a thread, for tests of transfers: it serves, breaks off, stalls and lies as it is told."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

LOCAL = "127.0.0.1,localhost"


@dataclass(frozen=True)
class Answer:
    """How a request is answered.

    Attributes:
        content: the file.
        status: anything but 200 comes without the file.
        headers: beside those that the file has.
        version: ETag of the file.
        knows_ranges: whether a part can be asked for.
        knows_if_range: whether a part is refused when the file is another one by now.
        told: bytes that Content-Length tells; None tells nothing.
        sent: bytes after which the connection breaks off.
        stalls: whether it hangs there instead.
    """

    content: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    version: str | None = '"1"'
    knows_ranges: bool = True
    knows_if_range: bool = True
    told: int | None = -1
    sent: int | None = None
    stalls: bool = False


class Web:
    """The server.

    Attributes:
        url: its address, without a slash at the end.
        answers: by path, what requests get in turn; the last one goes on for ever.
        requests: headers of what was asked for, by order.
        paths: paths of the same requests.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[Mapping[str, str]] = []
        self.paths: list[str] = []
        self.ended = threading.Event()

    def serve(self, path: str, *answers: Answer) -> str:
        """Set what requests for `path` get, and return its address."""
        self.answers[path] = list(answers)
        return self.url + path

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.requests]


class _Handler(http.server.BaseHTTPRequestHandler):
    web: Web

    def do_GET(self) -> None:
        self.web.requests.append(dict(self.headers))
        self.web.paths.append(self.path)
        answers = self.web.answers.get(self.path.partition("?")[0], [Answer(status=404)])
        self._answer(answers.pop(0) if len(answers) > 1 else answers[0])

    def _answer(self, answer: Answer) -> None:
        wanted = self.headers.get("Range") if answer.knows_ranges else None
        if answer.knows_if_range and self.headers.get("If-Range") not in (
            answer.version,
            answer.headers.get("Last-Modified"),
        ):
            wanted = None
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and start >= len(answer.content):
            answer = Answer(status=416)
        self.send_response(206 if wanted and answer.status == 200 else answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        body = answer.content[start:] if answer.status == 200 else b""
        if answer.status == 200:
            self._describe(answer, start, len(body), partial=wanted is not None)
        self.end_headers()
        self.wfile.write(body[: answer.sent])
        self.wfile.flush()
        if answer.stalls:
            self.web.ended.wait(10)

    def _describe(self, answer: Answer, start: int, length: int, *, partial: bool) -> None:
        if answer.version:
            self.send_header("ETag", answer.version)
        if answer.told is not None:
            self.send_header("Content-Length", str(length if answer.told < 0 else answer.told))
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{start + length - 1}/{start + length}")

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: object) -> None:
        """A client that goes away is what some tests are about."""


@contextmanager
def web_server() -> Iterator[Web]:
    """Run a server until the block ends."""
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as running:
        web = handler.web = Web(f"http://127.0.0.1:{running.server_port}")
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield web
        finally:
            web.ended.set()
            running.shutdown()
            thread.join()
