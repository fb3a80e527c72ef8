"""Somebody who receives what webhooks send, over a real socket."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Mapping[str, str]]


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Answers with 204, or as it is told.

    Attributes:
        url: Where it listens.
        received: What came, in order.
        answer: Says how to answer a request, and may take its time.
    """

    def __init__(self, host: str, context: ssl.SSLContext | None) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[Received], Answer] = lambda _: (204, {})
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = Received(self.path, dict(self.headers), body)
                receiver.received.append(request)
                status, headers = receiver.answer(request)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://{host}:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def kinds(self) -> list[str]:
        return [request.headers["Dartboard-Event"] for request in [*self.received]]


@contextmanager
def receiving(host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver, while the block runs."""
    receiver = Receiver(host, context)
    try:
        yield receiver
    finally:
        receiver.close()
