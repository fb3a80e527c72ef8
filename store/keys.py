"""Keys: secrets that let programs in. Only the SHA-256 digest of a secret is stored.

A secret has 256 random bits, so that its digest needs neither salt nor a slow hash.

`python -m store.keys create --owner NAME` makes the first key of a deployment, and any later one,
for whoever has the database's URL.
"""

import argparse
import base64
import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from store import access, owners
from store.access import Principal
from store.errors import DatabaseUnavailableError, InvalidKeyError, NotFoundError
from store.models import Key, Owner
from store.sessions import database_url, make_engine, transaction
from store.settings import StoreSettings
from store.states import Role

PREFIX: Final = "dbk_"
"""What every secret begins with, so that a leaked one is recognised."""

_SHOWN: Final = 12
_USED_LATELY: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class NewKey:
    """A key that was just made, with the secret that nobody can read again."""

    key: Key
    secret: str


def create(
    session: Session,
    owner: str,
    role: Role,
    *,
    name: str = "",
    lifetime: timedelta | None = None,
    expires_by: datetime | None = None,
    secret: str | None = None,
) -> NewKey:
    """Makes a key, and its owner if there is none yet.

    Args:
        session: The caller's session.
        owner: Who it lets in.
        role: What it lets them do.
        name: For people: what it is used by.
        lifetime: After which it no longer lets anybody in; None for ever.
        expires_by: When it no longer does in any case; None for no such limit.
        secret: The secret, where it was drawn before; else a new one.

    Returns:
        The key with its secret.
    """
    owners.ensure(session, owner)
    secret = secret or draw()
    now = session.scalars(select(func.clock_timestamp())).one()
    ends = [] if lifetime is None else [now + lifetime]
    if expires_by is not None:
        ends.append(expires_by)
    key = Key(
        owner=owner,
        role=role,
        name=name,
        digest=digest(secret),
        prefix=secret[:_SHOWN],
        expires_at=min(ends, default=None),
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return NewKey(key, secret)


def draw() -> str:
    """A new secret."""
    return PREFIX + secrets.token_urlsafe(32)


def derive(shown: str, nonce: bytes) -> str:
    """A new secret that only whoever knows another one can find again.

    Args:
        shown: The other secret, which is not stored.
        nonce: Random bytes, which are, for a day.
    """
    code = hmac.digest(shown.encode(), b"dartboard key\0" + nonce, "sha256")
    return PREFIX + base64.urlsafe_b64encode(code).decode().rstrip("=")


def digest(secret: str) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def authenticate(session: Session, key_digest: bytes) -> Principal:
    """Whom a key lets in.

    Args:
        session: The caller's session.
        key_digest: The digest of the secret.

    Raises:
        InvalidKeyError: There is no such key, or it has expired or was revoked.
    """
    let_in = authenticate_all(session, {key_digest})[key_digest]
    if isinstance(let_in, InvalidKeyError):
        raise let_in
    return let_in


def authenticate_all(
    session: Session, key_digests: Set[bytes]
) -> dict[bytes, Principal | InvalidKeyError]:
    """Whom each of several keys lets in, by its digest, or why nobody."""
    rows = session.execute(
        select(
            Key,
            Owner.teams,
            (Key.expires_at <= func.clock_timestamp()).label("expired"),
            or_(
                Key.last_used_at.is_(None),
                Key.last_used_at < func.clock_timestamp() - _USED_LATELY,
            ).label("unused"),
        )
        .join(Owner, Owner.name == Key.owner)
        .where(Key.digest.in_(key_digests))
    ).all()
    found: dict[bytes, Principal | InvalidKeyError] = {
        key_digest: InvalidKeyError("there is no such key") for key_digest in key_digests
    }
    for key, teams, expired, unused in rows:
        if key.revoked_at is not None:
            found[key.digest] = InvalidKeyError(f"the key {key.prefix}... was revoked")
        elif expired:
            found[key.digest] = InvalidKeyError(f"the key {key.prefix}... has expired")
        else:
            if unused:
                _note_use(session, key.id)
            found[key.digest] = Principal(key.id, key.owner, Role(key.role), frozenset(teams))
    return found


def page(
    session: Session, owner: str | None = None, *, seen_by: Principal | None = None
) -> Sequence[Key]:
    """The keys of an owner, or of all, that `seen_by` may know of; the newest first."""
    statement = select(Key).where(access.knows(seen_by, Key.owner)).order_by(Key.id.desc())
    if owner is not None:
        statement = statement.where(Key.owner == owner)
    return session.scalars(statement).all()


def get(session: Session, key_id: UUID) -> Key:
    """The key with this id.

    Raises:
        NotFoundError: There is none.
    """
    key = session.get(Key, key_id, populate_existing=True)
    if key is None:
        raise NotFoundError("key", key_id)
    return key


def revoke(session: Session, key_id: UUID) -> Key:
    """Takes a key out of use, for good and at once. Idempotent.

    Raises:
        NotFoundError: There is none.
    """
    session.execute(
        update(Key)
        .where(Key.id == key_id, Key.revoked_at.is_(None))
        .values(revoked_at=func.clock_timestamp())
    )
    return get(session, key_id)


def any_usable(session: Session) -> bool:
    """Whether some key would let somebody in as an admin now."""
    return session.scalar(
        select(Key.id)
        .where(
            Key.role == Role.ADMIN,
            Key.revoked_at.is_(None),
            or_(Key.expires_at.is_(None), Key.expires_at > func.clock_timestamp()),
        )
        .limit(1)
    ) is not None  # fmt: skip


def _note_use(session: Session, key_id: UUID) -> None:
    # Many requests with one key are answered at once: one of them notes it, none waits for that.
    free = select(Key.id).where(Key.id == key_id).with_for_update(skip_locked=True)
    session.execute(
        update(Key).where(Key.id.in_(free)).values(last_used_at=func.clock_timestamp()),
        execution_options={"synchronize_session": False},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `create`, which prints the secret on standard output and nothing else there.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m store.keys", description=create.__doc__)
    make = parser.add_subparsers(required=True).add_parser("create", help="make a key")
    make.add_argument("--owner", type=_owner_name, required=True)
    make.add_argument("--role", type=Role, choices=list(Role), default=Role.ADMIN)
    make.add_argument("--name", default="")
    make.add_argument("--days", type=float, help="how long it lets in; for ever by default")
    given = parser.parse_args(arguments)
    lifetime = None if given.days is None else timedelta(days=given.days)
    try:
        engine = make_engine(database_url(StoreSettings()))
        with transaction(engine) as session:
            made = create(session, given.owner, given.role, name=given.name, lifetime=lifetime)
    except (DatabaseUnavailableError, DBAPIError) as error:
        told = getattr(error, "orig", None) or error
        sys.stderr.write(f"{told}\nHas the database been migrated? python -m migrations\n")
        return 1
    sys.stderr.write(f"{made.key.role} key of {made.key.owner}; it is not shown again:\n")
    sys.stdout.write(f"{made.secret}\n")
    return 0


def _owner_name(text: str) -> str:
    if not re.match(owners.NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r}: use letters, digits, and _ . @ - inside")
    return text


if __name__ == "__main__":
    sys.exit(main())
