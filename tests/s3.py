"""A real S3-compatible server in a process of its own, which can be gone for a while.

`python -m tests.s3 PORT` serves until its input ends; a line `stop` or `start` takes it away and
brings it back with what it held.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ACCESS_KEY = "dartboard-test-key"
SECRET_KEY = "dartboard-test-secret-5f0e1d"  # of a server on this machine's loopback
_BUCKET = "dartboard-test"


class S3Server:
    """The server. Its credentials are in the environment while it runs."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.s3", str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._wait_for("started")

    def url(self, prefix: str, *, credentials: bool = False) -> str:
        """A URL below the server's bucket, with or without credentials in it."""
        user = f"{ACCESS_KEY}:{SECRET_KEY}@" if credentials else ""
        endpoint = f"http://127.0.0.1:{self.port}"
        return f"s3://{user}{_BUCKET}/{prefix}?endpoint_override={endpoint}"

    def make_bucket(self) -> None:
        """Makes the bucket, as an operator would."""
        # Here and not above: a test takes pyarrow away from its process.
        from pyarrow import fs

        file_system, path = fs.FileSystem.from_uri(self.url("") + "&allow_bucket_creation=true")
        file_system.create_dir(path.strip("/"))

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Nobody listens while the block runs."""
        self.go()
        try:
            yield
        finally:
            self.come_back()

    def go(self) -> None:
        """Stops listening; what it holds stays."""
        self._tell("stop")
        self._wait_for("stopped")

    def come_back(self) -> None:
        """Listens again."""
        self._tell("start")
        self._wait_for("started")

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def _wait_for(self, word: str) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.strip() == word, f"the S3 server said {line!r}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The server of this test run, with a bucket."""
    server = S3Server()
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            server.make_bucket()
            yield server
    finally:
        server.close()


def _serve() -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False)
    server.start()
    _say("started")
    for line in sys.stdin:
        if line.strip() == "stop":
            server.stop()
            _say("stopped")
        else:
            server.start()
            _say("started")
    server.stop()


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
