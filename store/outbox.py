"""What webhooks will be told of an event, written in the transaction that appends the event.

A reader that follows the events with a cursor would need one order over all searches in which
events become visible, and there is none (`docs/decisions/0013`). Here a message exists if and only
if its event does, and once, whoever crashes when.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, cast, exists, func, insert, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session

from store.access import TEAM
from store.models import Delivery, Event, Owner, Search, Webhook
from store.states import WebhookScope


def is_told() -> ColumnElement[bool]:
    """The condition that there is a webhook to tell anything."""
    return exists(select(Webhook.id).where(Webhook.disabled_at.is_(None)))


def put(session: Session, event: Event) -> bool:
    """Writes a message for every webhook that wants to know of an event.

    It tells of the search as it is at that moment, so that sending it again says the same.

    Args:
        session: The session whose transaction has flushed the event.
        event: The event.

    Returns:
        Whether there is one.
    """
    plain: dict[str, Any] = {
        "kind": event.kind,
        "number": event.number,
        "trial_id": None if event.trial_id is None else str(event.trial_id),
        "data": event.data,
        "created_at": rfc3339(event.created_at),
    }
    about = func.jsonb_build_object(
        *("id", Search.id),
        *("kind", Search.kind),
        *("name", Search.name),
        *("owner", Search.owner),
        *("labels", Search.labels),
        *("status", Search.status),
    )
    payload = cast(literal(plain, JSONB), JSONB).op("||")(func.jsonb_build_object("search", about))
    messages = (
        select(Webhook.id, Search.id, literal(event.number), literal(event.kind), payload)
        .select_from(Webhook)
        .join(Owner, Owner.name == Webhook.owner)
        .join(Search, Search.id == event.search_id)
        .where(_wants(event.kind))
        # One that is being removed gets no message, instead of breaking its foreign key: whoever
        # appends an event is a claim or a runner, and nothing of theirs may fail for a webhook.
        .with_for_update(read=True, key_share=True, of=Webhook)
    )
    columns = ["webhook_id", "search_id", "event_number", "kind", "payload"]
    told = session.execute(insert(Delivery).from_select(columns, messages).returning(Delivery.id))
    return bool(told.all())


def rfc3339(moment: datetime) -> str:
    """A moment as the API writes it, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _wants(kind: str) -> ColumnElement[bool]:
    family = kind.partition(".")[0]
    return and_(
        Webhook.disabled_at.is_(None),
        Webhook.kinds.overlap(cast(["*", f"{family}.*", kind], ARRAY(Text))),
        or_(
            Webhook.scope == WebhookScope.ALL,
            Webhook.owner == Search.owner,
            # As `access.sees`, for an owner and not for whoever holds a key.
            Search.labels[TEAM].astext == func.any(Owner.teams),
        ),
    )
