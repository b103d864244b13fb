"""The server of the pages, for this machine alone: who may ask, what, and how it is answered.

It listens on 127.0.0.1. The first part of every address is a random token, so that no other page or user of the machine
can call it; Host and Origin must be this server's, so that no name that leads here (DNS rebinding) is taken for it.
"""

import logging
import math
import secrets
import select
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from unstir.errors import NotFiniteError, OutOfMemoryError, UserError, of_pydantic
from unstir.progress import Count, shown_by
from unstir.serve import pages
from unstir.serve.calls import CALLS, Handler, computes, values_of
from unstir.serve.state import MOST_BYTES, Answer, State
from unstir.serve.turns import FullError, Turns

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
SECONDS = 10.0  # for which a client may send or take nothing
PAUSE = 0.2  # seconds between two lines of how far a job is
RETRY = {"Retry-After": "2"}  # seconds
JSON, LINES, HTML = "application/json", "application/x-ndjson", "text/html; charset=utf-8"
FILE = "application/octet-stream"
FILE_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"  # reports
POLICY = "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_EXPECTED = UserError, OutOfMemoryError, NotFiniteError, OSError


def open_server(runs: Sequence[Path] = (), port: int = 0) -> "Server":
    """The server of the pages on a port of 127.0.0.1, 0 for any that is free; its ``serve_forever`` answers.

    It shows the models that come with unstir, these ``runs`` and those in ./runs. Raises UserError where one is no run,
    or the port cannot be had.
    """
    state = State(runs)
    try:
        return Server(state, port)
    except (OSError, OverflowError):
        raise UserError("port", port, "is taken, or no port of 1..65535", {"port": None}) from None


class Server(ThreadingHTTPServer):
    """The pages of a ``state``, by HTTP on 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, state: State, port: int) -> None:
        self.state, self.token, self.turns, self.fixed = state, secrets.token_urlsafe(16), Turns(), pages.fixed()
        self.closing = False
        super().__init__((HOST, port), _Request)

    @property
    def origins(self) -> tuple[str, ...]:
        """The hosts with port by which this server may be called."""
        return f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"

    @property
    def address(self) -> str:
        """The address of the first page."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def server_close(self) -> None:
        """Close, and wait until the computation under way has ended, which is at its next step."""
        super().server_close()
        self.closing = True
        self.turns.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error; anything else is one of ours."""
        if not isinstance(error := sys.exception(), OSError):
            logger.error(f"a call failed: {error!r}", exc_info=True)


class _RefusedError(Exception):
    """A request that is answered with a status, one line, and perhaps headers."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SECONDS
    server: Server

    def do_GET(self) -> None:
        self._checked(self._get)

    def do_POST(self) -> None:
        self._checked(self._post)

    def _checked(self, answer: Any) -> None:
        try:
            answer(self._name())
        except _RefusedError as refused:
            self._refuse(*refused.args)

    def _name(self) -> str:
        """The address below the token; refused for another host, origin or token."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if (
            len(hosts) != 1
            or hosts[0] not in self.server.origins
            or any(origin != f"http://{hosts[0]}" for origin in origins)
        ):
            raise _RefusedError(403, "this server answers its own pages alone")
        _, token, *rest = [*self.path.partition("?")[0].split("/", 2), ""]
        if len(rest) < 2 or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise _RefusedError(404, "there is no such page")
        return rest[0]

    def _get(self, name: str) -> None:
        folder, _, file = name.rpartition("/")
        content = self.server.fixed.get(file) if folder == "static" else None
        if folder == "file" and (content := self.server.state.file(file)):
            return self._send(200, *content, {"Content-Security-Policy": FILE_POLICY})
        if name in pages.PAGES:
            content = HTML, pages.rendered(name, self.server.state)
        if content is None:
            raise _RefusedError(404, "there is no such page")
        return self._send(200, *content)

    def _post(self, name: str) -> None:
        handler, is_file = CALLS.get(name.removeprefix("api/")) if name.startswith("api/") else None, name == "picture"
        if handler is None and not is_file:
            raise _RefusedError(404, "there is no such call")
        if self.headers.get_content_type() != (kind := FILE if is_file else JSON):
            raise _RefusedError(415, f"what is sent here is {kind}")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and len(length) < 12 and int(length) <= MOST_BYTES):
            raise _RefusedError(413, f"at most {MOST_BYTES / 1e6:g} MB can be sent")
        content = self.rfile.read(int(length))
        if handler is None:
            return self._send(200, JSON, to_json({"picture": self.server.state.take(content)}))
        try:
            return self._called(handler, values_of(handler).model_validate_json(content))
        except ValidationError as error:
            raise _RefusedError(400, of_pydantic(error, lambda _: None).line()) from None
        except FullError:
            raise _RefusedError(429, "too many computations wait; try again in a moment", RETRY) from None

    def _called(self, handler: Handler, values: Any) -> None:
        begun = False
        try:
            if not computes(handler):
                answer = handler(self.server.state, values)
                return self._send(200, JSON, to_json(answer, inf_nan_mode="null") + b"\n")
            self._check_there()
            for line in self.server.turns.lines(partial(self._compute, handler, values)):
                if not begun:
                    self._head(200, LINES, {"Transfer-Encoding": "chunked"})
                begun = True
                self._line(line)
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        except _EXPECTED as error:
            if not begun:
                raise _RefusedError(400, str(error)) from None
            self._line({"error": str(error)})
            self.wfile.write(b"0\r\n\r\n")
        return None

    def _line(self, answer: Answer) -> None:
        text = to_json(answer, inf_nan_mode="null") + b"\n"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))

    def _compute(self, handler: Handler, values: Any, send: Callable[[Answer], None]) -> None:
        """Send the lines of a computation, after the first also how far it is; it ends where nobody reads them."""
        last = math.inf

        @contextmanager
        def progress(job: str, unit: str) -> Iterator[Count]:
            def count(done: float, total: float, note: str = "") -> None:
                nonlocal last
                self._check_there()
                if monotonic() > last + PAUSE:
                    last = monotonic()
                    send({"job": job, "unit": unit, "done": done, "total": total})

            yield count

        self._check_there()
        frames: Any = handler(self.server.state, values)
        with shown_by(progress), closing(frames):
            for line in frames:
                self._check_there()
                send(line)
                last = min(last, monotonic())

    def _check_there(self) -> None:
        """Raise BrokenPipeError where the client or the server has closed."""
        if self.server.closing or self.connection.fileno() < 0:
            raise BrokenPipeError
        if select.select([self.connection], [], [], 0)[0] and not self.connection.recv(1, socket.MSG_PEEK):
            raise BrokenPipeError

    def _send(self, status: int, kind: str, content: bytes, also: Mapping[str, str] = {}) -> None:
        self._head(status, kind, {"Content-Length": str(len(content)), **also})
        with suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(content)

    def _head(self, status: int, kind: str, also: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **HEADERS, **also}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request, as the base class asks."""
        self._refuse(code, message or "this is no request")

    def _refuse(self, status: int, line: str, also: Mapping[str, str] = {}) -> None:
        """Refuse in one line, and take what is still sent: else the system may drop the answer with the connection."""
        self.close_connection = True
        self._send(status, JSON, to_json({"error": line}), also)
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1.0)
            for _ in range(MOST_BYTES // 2**14):
                if not self.connection.recv(2**16):
                    break

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed for each request."""
