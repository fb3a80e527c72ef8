"""Messages to webhooks: claimed by a sender, sent outside the session, and what came of it.

Any number of processes send. A claim leases one message; the lease's end is the token that guards
what the sender writes afterwards. Whoever crashes between leaves a lease that runs out, and the
message is sent again: at least once, with the same id.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, text, update
from sqlalchemy.orm import Session, aliased

from store import events, webhooks
from store.errors import InvalidCursorError, NotFoundError, WebhookDisabledError
from store.models import Delivery, Webhook
from store.outbox import rfc3339
from store.states import DeliveryStatus

PING: Final = "ping"
"""The kind of a message that tells of no event, sent to try a webhook."""

PAUSES: Final = (
    timedelta(seconds=10),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(hours=1),
    timedelta(hours=3),
    timedelta(hours=6),
    timedelta(hours=12),
)
"""After each failed attempt, how long until the next: nine attempts within about a day."""

LONGEST_ASKED: Final = timedelta(hours=6)
"""Most that a receiver's `Retry-After` puts an attempt off."""

DISABLED_AFTER: Final = timedelta(days=3)
"""A webhook that was not reached once in so long is told of nothing more."""

KEPT: Final = timedelta(days=30)
"""How long the log of what was sent is kept."""

_LEASE: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Outgoing:
    """A message that its claimer is to send, within a minute.

    Attributes:
        id: The delivery.
        attempt: From 1.
        attempted_at: The database's time at the claim.
        leased_until: Guards what is written about it.
        kind: Of the event.
        payload: What to send.
        url: Where to.
        secret: What to sign it with.
    """

    id: UUID
    attempt: int
    attempted_at: datetime
    leased_until: datetime
    kind: str
    payload: dict[str, Any]
    url: str
    secret: str


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        status: The receiver's answer; None if there was none.
        error: What went wrong, for people; empty if nothing did.
        retry_after: When the receiver wants to be asked again.
    """

    status: int | None
    error: str = ""
    retry_after: timedelta | None = None


@dataclass(frozen=True)
class DeliveryPage:
    """A page of a webhook's log, and the cursor of the next one, if there is one."""

    deliveries: Sequence[Delivery]
    next_cursor: str | None


def claim(session: Session) -> Outgoing | None:
    """Leases the message that has been due for longest, for one attempt.

    Of one search, a webhook's messages go out one at a time and in their order, except that those
    after it do not wait for one whose first attempt has failed. A webhook that fails has one
    message on its way at a time, so that it does not keep the senders from others.

    Returns:
        The message; None if nothing is due.
    """
    now = func.clock_timestamp()
    due = (
        select(Delivery.id)
        .join(Webhook, Webhook.id == Delivery.webhook_id)
        .where(
            Delivery.status == DeliveryStatus.PENDING,
            Delivery.next_attempt_at <= now,
            or_(Delivery.leased_until.is_(None), Delivery.leased_until <= now),
            Webhook.disabled_at.is_(None),
            ~_earlier_goes_first(),
            or_(Webhook.failing_since.is_(None), ~_another_is_on_its_way()),
        )
        .order_by(Delivery.next_attempt_at, Delivery.id)
        .limit(1)
        .with_for_update(of=Delivery, skip_locked=True)
        .correlate(None)
    )
    row = session.execute(
        update(Delivery)
        .where(Delivery.id == due.scalar_subquery(), Webhook.id == Delivery.webhook_id)
        .values(
            attempts=Delivery.attempts + 1,
            attempted_at=now,
            leased_until=now + _LEASE,
        )
        .returning(
            Delivery.id,
            Delivery.attempts,
            Delivery.attempted_at,
            Delivery.leased_until,
            Delivery.kind,
            Delivery.payload,
            Webhook.url,
            Webhook.secret,
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return None if row is None else Outgoing(*row)


def settle(session: Session, sent: Outgoing, outcome: Outcome, *, jitter: float) -> bool:
    """Records what came of an attempt, and when the next one is, unless another has claimed it.

    Args:
        session: The caller's session.
        sent: The message, as it was claimed.
        outcome: What came of it.
        jitter: A random number from -1 to 1, by which pauses differ up to a fifth.

    Returns:
        Whether its webhook was disabled because of this.
    """
    delivery = session.scalars(
        select(Delivery)
        .where(Delivery.id == sent.id, Delivery.leased_until == sent.leased_until)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if delivery is None:
        return False
    now = session.scalars(select(func.clock_timestamp())).one()
    delivery.leased_until = None
    delivery.response_status = outcome.status
    delivery.error = outcome.error
    if not outcome.error:
        delivery.status = DeliveryStatus.DELIVERED
        delivery.delivered_at = now
    elif sent.attempt > len(PAUSES):
        delivery.status = DeliveryStatus.FAILED
    else:
        delivery.next_attempt_at = now + pause(sent.attempt, outcome.retry_after, jitter)
    session.flush()
    return _note_health(session, delivery.webhook_id, failed=bool(outcome.error))


def pause(attempt: int, retry_after: timedelta | None, jitter: float) -> timedelta:
    """How long after a failed attempt the next one is.

    Args:
        attempt: Which one failed, from 1.
        retry_after: When the receiver wants to be asked again, if it said so.
        jitter: From -1 to 1.
    """
    planned = PAUSES[attempt - 1] * (1 + jitter / 5)
    asked = timedelta(0) if retry_after is None else min(retry_after, LONGEST_ASKED)
    return max(planned, asked)


def page(
    session: Session,
    webhook_id: UUID,
    *,
    limit: int,
    status: DeliveryStatus | None = None,
    cursor: str | None = None,
) -> DeliveryPage:
    """A page of what was and will be sent to a webhook, the newest first.

    Args:
        session: The caller's session.
        webhook_id: The webhook.
        limit: Most rows to return.
        status: Only of this status.
        cursor: `next_cursor` of the page before.

    Raises:
        InvalidCursorError: The cursor is not one of this store's.
    """
    statement = select(Delivery).where(Delivery.webhook_id == webhook_id)
    if status is not None:
        statement = statement.where(Delivery.status == status)
    if cursor is not None:
        statement = statement.where(Delivery.id < _decode_cursor(cursor))
    rows = session.scalars(statement.order_by(Delivery.id.desc()).limit(limit + 1)).all()
    has_more = len(rows) > limit
    rows = rows[:limit]
    return DeliveryPage(rows, _encode_cursor(rows[-1].id) if has_more else None)


def get(session: Session, webhook_id: UUID, delivery_id: UUID) -> Delivery:
    """A webhook's delivery with this id.

    Raises:
        NotFoundError: The webhook has none.
    """
    delivery = session.get(Delivery, delivery_id, populate_existing=True)
    if delivery is None or delivery.webhook_id != webhook_id:
        raise NotFoundError("delivery", delivery_id)
    return delivery


def ping(session: Session, webhook: Webhook) -> Delivery:
    """Queues a message that tells of no event, to try a webhook.

    Raises:
        WebhookDisabledError: Nothing is sent to it.
    """
    _require_enabled(webhook)
    now = session.scalars(select(func.clock_timestamp())).one()
    delivery = Delivery(
        webhook_id=webhook.id,
        kind=PING,
        payload={
            "kind": PING,
            "number": None,
            "trial_id": None,
            "data": {"webhook": str(webhook.id), "name": webhook.name},
            "created_at": rfc3339(now),
            "search": None,
        },
    )
    session.add(delivery)
    session.flush()
    session.refresh(delivery)
    session.execute(select(func.pg_notify(events.DELIVERIES_CHANNEL, str(webhook.id))))
    return delivery


def redeliver(session: Session, webhook_id: UUID, delivery_id: UUID) -> Delivery:
    """Sends a message again, now, with all its attempts before it. Idempotent until it is sent.

    Raises:
        NotFoundError: The webhook has no such delivery.
        WebhookDisabledError: Nothing is sent to it.
    """
    _require_enabled(webhooks.get(session, webhook_id))
    delivery = session.scalars(
        select(Delivery)
        .where(Delivery.id == delivery_id, Delivery.webhook_id == webhook_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if delivery is None:
        raise NotFoundError("delivery", delivery_id)
    now = session.scalars(select(func.clock_timestamp())).one()
    if delivery.leased_until is not None and delivery.leased_until > now:
        return delivery
    delivery.status = DeliveryStatus.PENDING
    delivery.attempts = 0
    delivery.next_attempt_at = now
    delivery.delivered_at = None
    delivery.leased_until = None
    delivery.response_status = None
    delivery.error = ""
    session.flush()
    session.execute(select(func.pg_notify(events.DELIVERIES_CHANNEL, str(webhook_id))))
    return delivery


def forget(session: Session) -> int:
    """Removes from the log what ended long ago.

    Returns:
        How many there were.
    """
    # Ids are UUIDv7: those before a moment are a range of the primary key.
    oldest = func.uuidv7(text(f"interval '-{KEPT.days} days'"))
    removed = session.scalars(
        delete(Delivery)
        .where(Delivery.id < oldest, Delivery.status != DeliveryStatus.PENDING)
        .returning(Delivery.id)
        .execution_options(synchronize_session=False)
    )
    return len(removed.all())


def _earlier_goes_first() -> ColumnElement[bool]:
    """That a message of the same search is before this one, and on its way or not yet tried."""
    earlier = aliased(Delivery)
    return exists(
        select(earlier.id).where(
            earlier.webhook_id == Delivery.webhook_id,
            earlier.search_id == Delivery.search_id,
            earlier.event_number < Delivery.event_number,
            earlier.status == DeliveryStatus.PENDING,
            # Leased, also by whoever crashed with it: nobody knows yet what came of it.
            or_(earlier.attempts == 0, earlier.leased_until.is_not(None)),
        )
    )


def _another_is_on_its_way() -> ColumnElement[bool]:
    other = aliased(Delivery)
    return exists(
        select(other.id).where(
            other.webhook_id == Delivery.webhook_id,
            other.status == DeliveryStatus.PENDING,
            other.leased_until > func.clock_timestamp(),
        )
    )


def _note_health(session: Session, webhook_id: UUID, *, failed: bool) -> bool:
    if not failed:
        session.execute(
            update(Webhook)
            .where(Webhook.id == webhook_id, Webhook.failing_since.is_not(None))
            .values(failing_since=None)
            .execution_options(synchronize_session=False)
        )
        return False
    has_failed_for_long = session.scalar(
        select(
            and_(
                Webhook.failing_since < func.clock_timestamp() - DISABLED_AFTER,
                Webhook.disabled_at.is_(None),
            )
        ).where(Webhook.id == webhook_id)
    )
    if not has_failed_for_long:
        session.execute(
            update(Webhook)
            .where(Webhook.id == webhook_id, Webhook.failing_since.is_(None))
            .values(failing_since=func.clock_timestamp())
            .execution_options(synchronize_session=False)
        )
        return False
    webhooks.disable(
        session,
        webhook_id,
        f"No attempt has succeeded for {DISABLED_AFTER.days} days. Enable it once it answers with "
        "a 2xx status, and redeliver what it missed.",
    )
    return True


def _require_enabled(webhook: Webhook) -> None:
    if webhook.disabled_at is not None:
        raise WebhookDisabledError(
            f"the webhook {webhook.id} is disabled, and nothing is sent to it: enable it first"
        )


def _encode_cursor(delivery_id: UUID) -> str:
    return base64.urlsafe_b64encode(delivery_id.bytes).decode().rstrip("=")


def _decode_cursor(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
    except (binascii.Error, ValueError):
        raise InvalidCursorError("not a cursor of this list: pass next_cursor as it was") from None
