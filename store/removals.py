"""The files of deleted searches, which a dispatcher removes some time after their rows went."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from store.models import DeletedSearch

QUIET: Final = timedelta(minutes=1)
"""After which no straggler of a cancelled search writes a file any more."""

_REMEMBERED: Final = timedelta(days=30)


def due(session: Session, *, quiet: timedelta = QUIET, limit: int = 10) -> Sequence[UUID]:
    """Deleted searches whose files are still there, the longest gone first."""
    return session.scalars(
        select(DeletedSearch.id)
        .where(
            DeletedSearch.files_removed_at.is_(None),
            DeletedSearch.deleted_at <= func.clock_timestamp() - quiet,
        )
        .order_by(DeletedSearch.deleted_at)
        .limit(limit)
    ).all()


def done(session: Session, search_id: UUID) -> None:
    """Notes that the files of a search are gone. What is long gone is forgotten."""
    session.execute(
        update(DeletedSearch)
        .where(DeletedSearch.id == search_id)
        .values(files_removed_at=func.clock_timestamp())
    )
    session.execute(
        delete(DeletedSearch).where(
            DeletedSearch.files_removed_at < func.clock_timestamp() - _REMEMBERED
        )
    )
