"""Creates that are sent again: the first one does the work, the others get its answer.

The row is written in the transaction of what it stands for, and its primary key puts those that
repeat a create in line: an INSERT of the same key waits until the first transaction ends. If that
commits, the answer is there to be read; if it rolls back, the next in line does the work.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import IdempotencyKeyReusedError
from store.models import IdempotencyKey

KEPT: Final = timedelta(hours=24)
"""How long an answer is kept at least."""


@dataclass(frozen=True)
class Named:
    """A create that named itself.

    Attributes:
        owner: Who sent it.
        path: Where to.
        key: How it named itself.
        digest: Of everything that makes it this request and not another.
    """

    owner: str
    path: str
    key: str
    digest: bytes

    @property
    def identity(self) -> tuple[str, str, str]:
        """What no two creates of a day have in common."""
        return self.owner, self.path, self.key


@dataclass(frozen=True)
class Kept:
    """The answer to the first of some equal creates.

    Attributes:
        location: Where what it made is, if it is one thing.
        answer: The answer's JSON.
        nonce: As it was given to `begin`.
    """

    location: str | None
    answer: str
    nonce: bytes


def begin(session: Session, named: Named, nonce: bytes) -> Kept | None:
    """Takes the name for the caller's transaction, or tells what was answered under it.

    Waits while another transaction that took it is neither committed nor rolled back.

    Args:
        session: The caller's session.
        named: The create.
        nonce: Random bytes to keep with a new one.

    Returns:
        The answer that was given before; None if the caller is to do the work, and `keep` its
        answer in the same transaction.

    Raises:
        IdempotencyKeyReusedError: The name was used for another request.
    """
    while True:
        if begin_all(session, {named: nonce}):
            return None
        kept = find(session, named)
        # None: `forget` has just removed it, and the name is free.
        if kept is not None:
            return kept


def begin_all(session: Session, nonces: Mapping[Named, bytes]) -> set[Named]:
    """Takes those of several names that are free, and says which; waits as `begin` does.

    Args:
        session: The caller's session.
        nonces: By different names, random bytes to keep with each.
    """
    if not nonces:
        return set()
    # In one order everywhere, so that two who take several wait for each other in turn.
    in_order = sorted(nonces, key=lambda named: named.identity)
    taken = session.execute(
        insert(IdempotencyKey)
        .on_conflict_do_nothing()
        .returning(IdempotencyKey.owner, IdempotencyKey.path, IdempotencyKey.key),
        [
            {
                "owner": named.owner,
                "path": named.path,
                "key": named.key,
                "digest": named.digest,
                "nonce": nonces[named],
            }
            for named in in_order
        ],
    )
    by_key = {named.identity: named for named in in_order}
    return {by_key[row.owner, row.path, row.key] for row in taken}


def find(session: Session, named: Named) -> Kept | None:
    """What was answered under a name; None if it is free, or its transaction has not ended.

    Raises:
        IdempotencyKeyReusedError: The name was used for another request.
    """
    row = session.scalars(select(IdempotencyKey).where(_is(named))).one_or_none()
    if row is None:
        return None
    if row.digest != named.digest:
        raise IdempotencyKeyReusedError(
            f"the Idempotency-Key {named.key!r} was used for another request to {named.path}, "
            f"with another body or query, in the last {KEPT.total_seconds() / 3600:g} hours: "
            "send a new key with every new request"
        )
    return Kept(row.location, row.answer, row.nonce)


def keep(session: Session, named: Named, *, location: str | None, answer: str) -> None:
    """Keeps the answer to a create whose name was taken in this transaction."""
    keep_all(session, {named: (location, answer)})


def keep_all(session: Session, answers: Mapping[Named, tuple[str | None, str]]) -> None:
    """As `keep`, for several: the location and the answer of each."""
    if answers:
        session.execute(
            update(IdempotencyKey),
            [
                {
                    "owner": named.owner,
                    "path": named.path,
                    "key": named.key,
                    "location": location,
                    "answer": answer,
                }
                for named, (location, answer) in answers.items()
            ],
        )


def forget(session: Session) -> int:
    """Removes the answers that were kept for long enough.

    Returns:
        How many there were.
    """
    removed = session.scalars(
        delete(IdempotencyKey)
        .where(IdempotencyKey.created_at < func.clock_timestamp() - KEPT)
        .returning(IdempotencyKey.key)
        .execution_options(synchronize_session=False)
    )
    return len(removed.all())


def _is(named: Named) -> ColumnElement[bool]:
    return and_(
        IdempotencyKey.owner == named.owner,
        IdempotencyKey.path == named.path,
        IdempotencyKey.key == named.key,
    )
