"""`python -m service`: the API under uvicorn, until SIGTERM or SIGINT."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session
from uvicorn.config import LOGGING_CONFIG

from service.app import create_app
from service.database import Database, Result
from service.first_key import NoKeyError, ensure
from service.settings import ServiceSettings
from store.errors import DatabaseUnavailableError
from store.sessions import database_url, make_async_engine

# Uvicorn sets up its own loggers only; ours go where its lines go.
_LOGGING: Any = {
    **LOGGING_CONFIG,
    "loggers": {
        **LOGGING_CONFIG["loggers"],
        "service": {"handlers": ["default"], "level": "INFO", "propagate": False},
    },
}

_logger = logging.getLogger("uvicorn.error")


class _StartError(Exception):
    """The API cannot start; the message says what to do."""


class Server(uvicorn.Server):
    """Ends the event streams when it is asked to stop; it would wait for their clients else."""

    def __init__(self, app: FastAPI, settings: ServiceSettings) -> None:
        """Configures uvicorn.

        Args:
            app: The application.
            settings: How long requests may go on at the end.
        """
        super().__init__(
            uvicorn.Config(
                app,
                timeout_graceful_shutdown=settings.shutdown_seconds,
                log_config=_LOGGING,
            )
        )
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says where the API is, which uvicorn leaves to whoever opened the socket."""
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            _logger.info("Dartboard's API is at http://%s:%d", shown, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets requests in progress finish."""
        self._app.state.wiring.feed.close()
        await super().shutdown(sockets)


def main() -> int:
    """Runs the API.

    Returns:
        The exit status.
    """
    try:
        settings = _settings()
        url = _find_database(settings)
        settings = settings.model_copy(update={"database_url": url})
        with _listen(settings) as listener:
            # Only now: a key that nobody can use would be left where the port is taken.
            _see_to_keys(url, settings)
            Server(create_app(settings), settings).run(sockets=[listener])
    except _StartError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _settings() -> ServiceSettings:
    try:
        return ServiceSettings()
    except ValidationError as error:
        first: Any = error.errors()[0]
        name = "DARTBOARD_" + "_".join(str(part) for part in first["loc"]).upper()
        raise _StartError(f"{name}: {first['msg']} (it is {first['input']!r})") from None


def _find_database(settings: ServiceSettings) -> str:
    try:
        url = database_url(settings)
    except DatabaseUnavailableError as error:
        raise _StartError(str(error)) from error
    try:
        asyncio.run(_once(url, lambda session: session.execute(text("SELECT 1"))))
    except DatabaseUnavailableError as error:
        raise _StartError(f"{error}. It is {make_url(url)!r}") from error
    return url


def _see_to_keys(url: str, settings: ServiceSettings) -> None:
    see = partial(ensure, host=settings.host, home=settings.home)
    try:
        what = asyncio.run(_once(url, see))
    except (DatabaseUnavailableError, NoKeyError) as error:
        raise _StartError(str(error)) from error
    except OSError as error:
        raise _StartError(
            f"the first key cannot be written under {settings.home} ({error}); set DARTBOARD_HOME "
            "to a folder that can be written to"
        ) from error
    if what is not None:
        sys.stderr.write(f"{what}\n")


async def _once(url: str, operation: Callable[[Session], Result]) -> Result:
    engine = make_async_engine(url)
    try:
        return await Database(engine).run(operation)
    finally:
        await engine.dispose()


def _listen(settings: ServiceSettings) -> socket.socket:
    place = f"{settings.host}:{settings.port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        # `socket` puts the address into strerror too.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error
        raise _StartError(
            f"cannot listen on {place} ({reason}): stop what has that port, or "
            "choose another with DARTBOARD_PORT (and DARTBOARD_HOST)"
        ) from error
    # asyncio does this for sockets that it makes itself. The head and the body of an answer are two
    # writes: without it, the second waits for the first one's acknowledgement, which takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


if __name__ == "__main__":
    sys.exit(main())
