"""A TCP proxy before a server, whose connections break when a test says so."""

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Literal

Fate = Literal["passes", "answer lost", "request lost"]

_HEAD_END: Final = b"\r\n\r\n"


class Proxy:
    """Hands each connection's one request on, and its answer back, or breaks off.

    Attributes:
        url: Where it listens.
        fates: What became of each connection, in their order.
    """

    def __init__(self, port: int, fates: Sequence[Fate]) -> None:
        self._port = port
        self._planned = list(fates)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.fates: list[Fate] = []
        self._threads[0].start()

    def close(self) -> None:
        # The close alone would not wake the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                fate = self._planned.pop(0) if self._planned else "passes"
                self.fates.append(fate)
                thread = threading.Thread(target=self._serve, args=(client, fate))
                thread.start()
                self._threads.append(thread)

    def _serve(self, client: socket.socket, fate: Fate) -> None:
        with client:
            request = _message(client)
            if fate != "request lost":
                with socket.create_connection(("127.0.0.1", self._port)) as server:
                    # One request a connection: each has a fate of its own.
                    server.sendall(request.replace(_HEAD_END, b"\r\nConnection: close\r\n\r\n", 1))
                    # To its end: by then the server has committed what it tells of.
                    answer = b"".join(iter(lambda: server.recv(65_536), b""))
                if fate == "passes":
                    client.sendall(answer)
                    return
            # Reset, as a network does it that is gone.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _message(client: socket.socket) -> bytes:
    """A request with its body."""
    received = b""
    while _HEAD_END not in received:
        received += client.recv(65_536)
    head, _, body = received.partition(_HEAD_END)
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        body += client.recv(65_536)
    return head + _HEAD_END + body


@contextmanager
def proxy(port: int, *fates: Fate) -> Iterator[Proxy]:
    """A proxy of a server on this machine.

    Args:
        port: The server's.
        fates: Of its connections, in their order; those after them pass.
    """
    opened = Proxy(port, fates)
    try:
        yield opened
    finally:
        opened.close()
