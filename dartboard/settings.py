"""What the client and the command read from the environment, once, here."""

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from dartboard.errors import DartboardError

DEFAULT_PORT: Final = 8000
DEFAULT_URL: Final = f"http://127.0.0.1:{DEFAULT_PORT}"


@dataclass(frozen=True)
class Settings:
    """The environment variables `DARTBOARD_*` that concern a client and `dartboard up`.

    Attributes:
        home: `DARTBOARD_HOME`: where `dartboard up` keeps its state; absolute.
        url: `DARTBOARD_URL`: the server's address.
        api_key: `DARTBOARD_API_KEY`: the key that lets you in there.
        database_url: `DARTBOARD_DATABASE_URL`: a PostgreSQL to use instead of the embedded one.
        ray_address: `DARTBOARD_RAY_ADDRESS`: a Ray cluster to use instead of a local one.
        host: `DARTBOARD_HOST`: the address that the API listens on.
        port: `DARTBOARD_PORT`: the port that the API listens on.
    """

    home: Path
    url: str | None = None
    api_key: str | None = None
    database_url: str | None = None
    ray_address: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The settings of this process. An empty variable counts as unset.

        Raises:
            DartboardError: A variable has a value that it cannot have.
        """
        values = {
            name.removeprefix("DARTBOARD_").lower(): value
            for name, value in environment.items()
            if name.startswith("DARTBOARD_") and value
        }
        return cls(
            home=Path(values.get("home", ".dartboard")).absolute(),
            url=values.get("url"),
            api_key=values.get("api_key"),
            database_url=values.get("database_url"),
            ray_address=values.get("ray_address"),
            host=values.get("host", "127.0.0.1"),
            port=_port(values["port"]) if "port" in values else None,
        )

    @property
    def server_file(self) -> Path:
        """Where `dartboard up` writes the address of the API."""
        return self.home / "server.json"

    @property
    def key_file(self) -> Path:
        """Where the API of this machine keeps the key of the machine's own user."""
        return self.home / "api-key"

    def key_for(self, url: str) -> str | None:
        """The key to show to a server: the named one, else this machine's own on this machine.

        Args:
            url: The server. No other machine is ever shown the key of this one.

        Raises:
            DartboardError: The file of this machine's key is another user's.
        """
        if self.api_key is not None:
            return self.api_key
        if not is_this_machine(url):
            return None
        try:
            return self.key_file.read_text().strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DartboardError(
                f"the key in {self.key_file} cannot be read ({error.strerror}): it is for the user "
                "who runs the server. Ask them for a key of your own, and put it into "
                "DARTBOARD_API_KEY"
            ) from error

    def server_url(self) -> str:
        """The server to talk to: the named one, else this machine's, else the default address."""
        if self.url is not None:
            return self.url
        try:
            address = json.loads(self.server_file.read_text())["url"]
        except (OSError, ValueError, KeyError, TypeError):
            return DEFAULT_URL
        return str(address)


def is_this_machine(url: str) -> bool:
    """Whether a server's address is one of the loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise DartboardError(f"DARTBOARD_PORT is {text!r}: set it to a number from 1 to 65535")
    return int(text)
