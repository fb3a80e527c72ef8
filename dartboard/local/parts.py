"""What a local deployment consists of: commands, environments, files."""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from dartboard.errors import LocalError
from dartboard.settings import DEFAULT_PORT, Settings

PartName = Literal["postgres", "cluster", "dispatcher", "api"]
Service = Literal["cluster", "dispatcher", "api"]

PARTS: Final[tuple[PartName, ...]] = ("postgres", "cluster", "dispatcher", "api")
"""In the order in which they need each other; stopped in the reverse order."""

LOGS: Final = ("postgres", "migrations", "cluster", "dispatcher", "api")

SECONDS_TO_STOP: Final[Mapping[Service, float]] = {"api": 15.0, "dispatcher": 30.0, "cluster": 20.0}
"""Grace of each part: requests end, runners go back to the queue, Ray stops its processes."""


@dataclass(frozen=True)
class Layout:
    """Where a home keeps its files."""

    home: Path

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.home / "logs"

    def log(self, name: str) -> Path:
        """What a part, or a step of starting, wrote."""
        return self.logs / f"{name}.log"

    @property
    def state(self) -> Path:
        """What was started."""
        return self.home / "run" / "state.json"

    @property
    def ray_address(self) -> Path:
        """Where the cluster writes its address once it is ready."""
        return self.home / "run" / "ray.json"

    @property
    def server(self) -> Path:
        """Where a client finds the address of the API."""
        return self.home / "server.json"

    def read_key(self) -> str | None:
        """The key that the API keeps for this machine's user; None where it keeps none."""
        try:
            return (self.home / "api-key").read_text().strip()
        except OSError:
            return None

    @property
    def postmaster(self) -> Path:
        """PostgreSQL's own pid file."""
        return self.home / "postgres" / "postmaster.pid"


@dataclass(frozen=True)
class Plan:
    """A local deployment: what to start, and with what settings.

    Attributes:
        layout: Its files.
        environment: What every process inherits.
        host: Where the API listens.
        port: The port that the user named; None takes 8000, or a free one.
        database_url: A PostgreSQL to use instead of the embedded one.
        ray_address: A Ray cluster to use instead of a local one.
        any_port: Take a free port at once, without a try for the default one.
        cpus: CPUs that the local Ray may use; None: all of the machine's.
    """

    layout: Layout
    environment: Mapping[str, str]
    host: str = "127.0.0.1"
    port: int | None = None
    database_url: str | None = None
    ray_address: str | None = None
    any_port: bool = False
    cpus: int | None = None

    @classmethod
    def of(cls, settings: Settings, *, port: int | None = None, cpus: int | None = None) -> Self:
        """The plan that the settings describe.

        Args:
            settings: The process's settings.
            port: Wins over the settings' port.
            cpus: CPUs that the local Ray may use.
        """
        return cls(
            layout=Layout(settings.home),
            environment={**os.environ, "DARTBOARD_HOME": str(settings.home)},
            host=settings.host,
            port=port if port is not None else settings.port,
            database_url=settings.database_url,
            ray_address=settings.ray_address,
            cpus=cpus,
        )

    @classmethod
    def private(cls, home: Path) -> Self:
        """A deployment of its own that shares nothing with others on this machine."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("DARTBOARD_")
        }
        return cls(
            layout=Layout(home),
            environment={**inherited, "DARTBOARD_HOME": str(home)},
            any_port=True,
        )

    @property
    def client_host(self) -> str:
        """The host by which this machine reaches the API."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104
        if self.host in everywhere:
            return everywhere[self.host]
        return f"[{self.host}]" if ":" in self.host else self.host

    def url(self, port: int) -> str:
        """The API's address."""
        return f"http://{self.client_host}:{port}"

    def choose_port(self, last: int | None = None) -> int:
        """The port for the API.

        Args:
            last: Where the API was until it crashed: whoever follows a search looks for it there.

        Raises:
            LocalError: The user named one, and it is taken.
        """
        if self.port is not None:
            if not _is_free(self.host, self.port):
                raise LocalError(
                    f"port {self.port} of {self.host} is taken, or not yours to take; name another "
                    "one with --port, or none and a free one is chosen"
                )
            return self.port
        if last is not None and _is_free(self.host, last):
            return last
        if not self.any_port and _is_free(self.host, DEFAULT_PORT):
            return DEFAULT_PORT
        with _bindable(self.host) as listener:
            listener.bind((self.host, 0))
            port: int = listener.getsockname()[1]
            return port


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules.

    `-P` keeps a folder named `service` in the working directory from standing in for ours.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def _bindable(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    # As the server itself does: connections that linger from the last one are no obstacle.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return listener


def _is_free(host: str, port: int) -> bool:
    with _bindable(host) as listener:
        try:
            listener.bind((host, port))
        except OSError:
            return False
    return True
