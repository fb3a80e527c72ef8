"""The first key of a deployment: made for one machine's user, demanded of everybody else."""

import os
import platform
from ipaddress import ip_address
from pathlib import Path

from sqlalchemy.orm import Session

from store import keys, owners
from store.errors import InvalidKeyError
from store.sessions import schema_revision
from store.states import Role


class NoKeyError(Exception):
    """Nobody could use an API that listens here; the message says what to do."""


def key_file(home: Path) -> Path:
    """Where the key of a machine's own user is.

    Args:
        home: The deployment's home folder.
    """
    return (home / "api-key").absolute()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def ensure(session: Session, host: str, home: Path) -> str | None:
    """Sees that somebody can use the API that is about to listen.

    On the loopback, the user of this machine gets a key of the role admin in a file that nobody
    else can read. It is made once; where the file was lost, a new one takes the old one's place.

    Args:
        session: The caller's session.
        host: The address that it will listen on.
        home: The deployment's home folder.

    Returns:
        What happened, for the log; None if nothing did.

    Raises:
        NoKeyError: It would be reached from other machines, and nobody could use it.
    """
    if schema_revision(session) is None:
        if is_loopback(host):
            return (
                "the database has no tables yet: run `python -m migrations`, and start the API "
                "again, which then makes the first key"
            )
        raise NoKeyError(
            "the database has no tables yet, and so no keys: run `python -m migrations`"
        )
    if not is_loopback(host):
        if keys.any_usable(session):
            return None
        raise NoKeyError(
            f"the API would listen on {host}, where other machines reach it, and there is no key "
            "of an admin yet: make one with `python -m store.keys create --owner YOUR-NAME`, or "
            "listen on 127.0.0.1 with DARTBOARD_HOST"
        )
    file = key_file(home)
    if _lets_in(session, file):
        return None
    # Several machines may share a database, each with a home of its own.
    name = f"{platform.node()}: {file}"
    for key in keys.page(session, owners.LOCAL):
        if key.name == name:
            keys.revoke(session, key.id)
    secret = keys.draw()
    _write(file, secret)
    keys.create(session, owners.LOCAL, Role.ADMIN, name=name, secret=secret)
    return f"a key for the user of this machine is in {file}"


def _lets_in(session: Session, file: Path) -> bool:
    try:
        keys.authenticate(session, keys.digest(file.read_text().strip()))
    except (OSError, InvalidKeyError):
        return False
    return True


def _write(file: Path, secret: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    # Nobody else may read it, not even for the moment until its mode is changed.
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secret + "\n")
    temporary.replace(file)
