"""Who searches belong to: their part of the cluster, their quotas and their teams."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import NotFoundError
from store.models import Owner, Search
from store.states import SearchStatus

LOCAL: Final = "local"
"""The owner of a deployment on one machine; every database has it."""

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}$"
"""What an owner may be called."""


def ensure(session: Session, name: str) -> Owner:
    """The owner with this name, made now if there is none."""
    session.execute(insert(Owner).values(name=name).on_conflict_do_nothing())
    return get(session, name)


def get(session: Session, name: str) -> Owner:
    """The owner with this name.

    Raises:
        NotFoundError: There is none.
    """
    owner = session.get(Owner, name, populate_existing=True)
    if owner is None:
        raise NotFoundError("owner", name)
    return owner


def every(session: Session) -> Sequence[Owner]:
    """All owners, by name."""
    return session.scalars(select(Owner).order_by(Owner.name)).all()


def change(session: Session, name: str, changes: dict[str, Any]) -> Owner:
    """Sets an owner's weight, quotas or teams.

    Args:
        session: The caller's session.
        name: The owner.
        changes: Columns of `owners` and their new values.

    Raises:
        NotFoundError: There is none.
    """
    owner = get(session, name)
    for column, value in changes.items():
        setattr(owner, column, value)
    session.flush()
    return owner


def num_running(session: Session) -> dict[str, int]:
    """Running searches and trainings by owner; an owner without any is not there."""
    rows = session.execute(
        select(Search.owner, func.count())
        .where(Search.status == SearchStatus.RUNNING)
        .group_by(Search.owner)
    )
    return {row[0]: row[1] for row in rows}
