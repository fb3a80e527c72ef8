"""The event log of a search: append, read a page, wake who listens."""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Text, cast, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from store import outbox
from store.bulk import insert_all
from store.models import Event, Search

EVENTS_CHANNEL: Final = "dartboard_events"
"""NOTIFY channel; the payload is the id of a search that has a new event."""

DELIVERIES_CHANNEL: Final = "dartboard_deliveries"
"""NOTIFY channel; something waits to be sent to a webhook. The payload is the id of its search."""

QUEUE_CHANNEL: Final = "dartboard_queue"
"""NOTIFY channel; the payload is the id of a search that a dispatcher or runner should look at."""

FIRST: Final = 1
"""Number of a search's first event."""

_OF_JOBS: Final = (
    *("queued", "running", "requeued", "paused", "resumed", "succeeded", "failed", "cancelled"),
    *("cancel_requested", "pause_requested", "pause_withdrawn", "preempt_requested"),
    *("changed", "best"),
)
_OF_TRIALS: Final = (
    *("suggested", "starting", "started", "epoch", "warning"),
    *("succeeded", "stopped", "failed", "interrupted", "retried"),
)
KINDS: Final = (
    *(f"{kind}.{step}" for kind in ("search", "training") for step in _OF_JOBS),
    *(f"trial.{step}" for step in _OF_TRIALS),
)
"""Every kind of event."""


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
    (number,) = append_all(session, [NewEvent(search_id, kind, data or {}, trial_id)])
    return number


@dataclass(frozen=True)
class NewEvent:
    """Something that happened: to which search, its dotted kind, details, and maybe a trial."""

    search_id: UUID
    kind: str
    data: Mapping[str, Any]
    trial_id: UUID | None = None


def append_all(session: Session, new: Sequence[NewEvent]) -> list[int]:
    """As `append`, for one event of each of several searches, in a few statements.

    Returns:
        Their numbers.
    """
    if not new:
        return []
    ids = [each.search_id for each in new]
    rows = session.execute(
        update(Search)
        .where(Search.id.in_(ids))
        .values(last_event=Search.last_event + 1)
        .returning(Search.id, Search.last_event, outbox.is_told().label("is_told"))
        .execution_options(synchronize_session=False)
    ).all()
    told = {row.id for row in rows if row.is_told}
    return _write(session, new, {row.id: row.last_event for row in rows}, told)


def append_first(session: Session, new: Sequence[NewEvent]) -> None:
    """The first event of each of several searches, which this transaction made with that number."""
    ids = [each.search_id for each in new]
    if session.scalar(select(outbox.is_told())):
        _write(session, new, dict.fromkeys(ids, FIRST), set(ids))
        return
    insert_all(
        session,
        Event,
        [
            {
                "search_id": each.search_id,
                "number": FIRST,
                "trial_id": each.trial_id,
                "kind": each.kind,
                "data": finite(each.data),
            }
            for each in new
        ],
    )
    notify_all(session, EVENTS_CHANNEL, ids)


def _write(
    session: Session, new: Sequence[NewEvent], numbers: Mapping[UUID, int], told: Set[UUID]
) -> list[int]:
    appended = [
        Event(
            search_id=each.search_id,
            number=numbers[each.search_id],
            trial_id=each.trial_id,
            kind=each.kind,
            data=finite(each.data),
        )
        for each in new
    ]
    session.add_all(appended)
    session.flush()
    # Only where there is a webhook at all does an event cost a statement more.
    to_deliver = [
        event.search_id
        for event in appended
        if event.search_id in told and outbox.put(session, event)
    ]
    notify_all(session, DELIVERIES_CHANNEL, to_deliver)
    notify_all(session, EVENTS_CHANNEL, [each.search_id for each in new])
    return [numbers[each.search_id] for each in new]


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
    notify_all(session, channel, [search_id])


def notify_all(session: Session, channel: str, search_ids: Sequence[UUID]) -> None:
    """Wakes the listeners of a channel for each of several searches."""
    if search_ids:
        payload = func.unnest(cast([str(each) for each in search_ids], ARRAY(Text)))
        session.execute(select(func.pg_notify(channel, payload.column_valued("payload"))))


def finite(data: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a JSON object with null where a number is not finite, which JSON cannot say."""
    return json.loads(json.dumps(data), parse_constant=lambda _: None)  # type: ignore[no-any-return]
