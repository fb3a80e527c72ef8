"""The event log of a search: append, read a page, wake who listens."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store import outbox
from store.models import Event, Search

EVENTS_CHANNEL: Final = "dartboard_events"
"""NOTIFY channel; the payload is the id of a search that has a new event."""

DELIVERIES_CHANNEL: Final = "dartboard_deliveries"
"""NOTIFY channel; something waits to be sent to a webhook. The payload is the id of its search."""

QUEUE_CHANNEL: Final = "dartboard_queue"
"""NOTIFY channel; the payload is the id of a search that a dispatcher or runner should look at."""


def append(
    session: Session,
    search_id: UUID,
    kind: str,
    data: Mapping[str, Any] | None = None,
    *,
    trial_id: UUID | None = None,
) -> int:
    """Appends an event, and what webhooks are told of it; wakes who listens at the commit.

    Args:
        session: A session whose transaction holds, or may take, the search's row lock.
        search_id: The search that it happened to.
        kind: Dotted name, such as `trial.epoch`.
        data: JSON object with the details.
        trial_id: The trial that it happened to, if it was one.

    Returns:
        The event's number within its search.
    """
    number, is_told = session.execute(
        update(Search)
        .where(Search.id == search_id)
        .values(last_event=Search.last_event + 1)
        .returning(Search.last_event, outbox.is_told())
        .execution_options(synchronize_session=False)
    ).one()
    event = Event(
        search_id=search_id,
        number=number,
        trial_id=trial_id,
        kind=kind,
        data=finite(data or {}),
    )
    session.add(event)
    session.flush()
    # Only where there is a webhook at all does an event cost a statement more.
    if is_told and outbox.put(session, event):
        notify(session, DELIVERIES_CHANNEL, search_id)
    notify(session, EVENTS_CHANNEL, search_id)
    return int(number)


def page(session: Session, search_id: UUID, *, after: int = 0, limit: int = 200) -> Sequence[Event]:
    """Events of a search with numbers above `after`, oldest first, at most `limit`."""
    return session.scalars(
        select(Event)
        .where(Event.search_id == search_id, Event.number > after)
        .order_by(Event.number)
        .limit(limit)
    ).all()


def notify(session: Session, channel: str, search_id: UUID) -> None:
    """Wakes the listeners of a channel when the transaction commits."""
    session.execute(select(func.pg_notify(channel, str(search_id))))


def finite(data: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a JSON object with null where a number is not finite, which JSON cannot say."""
    return json.loads(json.dumps(data), parse_constant=lambda _: None)  # type: ignore[no-any-return]
