"""Webhooks: addresses that are told of events, and by whom they were named."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, select, true, update
from sqlalchemy.orm import Session

from store import access
from store.access import Principal
from store.errors import NotFoundError
from store.models import Delivery, Webhook
from store.states import DeliveryStatus, Role, WebhookScope

KIND_PATTERN: Final = r"^(\*|(search|training|trial)\.(\*|[a-z_]+))$"
"""Which events: all, all of a family, or one kind."""

MOST_PER_OWNER: Final = 50
"""Each one costs its owner's searches some time with every event."""

PREFIX: Final = "dbw_"
"""What every signing secret begins with, so that a leaked one is recognised."""


@dataclass(frozen=True)
class Wanted:
    """A webhook to make.

    Attributes:
        url: Where to.
        kinds: Which events, as `KIND_PATTERN` has it.
        scope: Of whose searches.
        name: For people.
    """

    url: str
    kinds: Sequence[str]
    scope: WebhookScope = WebhookScope.VISIBLE
    name: str = ""


def create(session: Session, owner: str, wanted: Wanted) -> Webhook:
    """Makes a webhook, with a secret of 256 random bits that its messages are signed with."""
    webhook = Webhook(
        owner=owner,
        name=wanted.name,
        url=wanted.url,
        secret=PREFIX + secrets.token_urlsafe(32),
        kinds=list(wanted.kinds),
        scope=wanted.scope,
    )
    session.add(webhook)
    session.flush()
    session.refresh(webhook)
    return webhook


def num_of(session: Session, owner: str) -> int:
    """How many webhooks an owner has."""
    statement = select(func.count()).select_from(Webhook).where(Webhook.owner == owner)
    return session.scalars(statement).one()


def page(
    session: Session, owner: str | None = None, *, seen_by: Principal | None = None
) -> Sequence[Webhook]:
    """The webhooks of an owner, or of all, that `seen_by` may know of; the newest first."""
    seen = access.knows(seen_by, Webhook.owner)
    if seen_by is not None and seen_by.role is not Role.ADMIN:
        # Its log tells of searches that they do not see.
        seen = and_(seen, Webhook.scope != WebhookScope.ALL)
    statement = select(Webhook).where(seen).order_by(Webhook.id.desc())
    if owner is not None:
        statement = statement.where(Webhook.owner == owner)
    return session.scalars(statement).all()


def get(session: Session, webhook_id: UUID) -> Webhook:
    """The webhook with this id.

    Raises:
        NotFoundError: There is none.
    """
    webhook = session.get(Webhook, webhook_id, populate_existing=True)
    if webhook is None:
        raise NotFoundError("webhook", webhook_id)
    return webhook


def remove(session: Session, webhook_id: UUID) -> None:
    """Removes a webhook and its deliveries.

    Raises:
        NotFoundError: There is none.
    """
    _lock_deliveries(session, webhook_id, true())
    found = session.scalars(
        delete(Webhook).where(Webhook.id == webhook_id).returning(Webhook.id)
    ).one_or_none()
    if found is None:
        raise NotFoundError("webhook", webhook_id)


def change(session: Session, webhook_id: UUID, changes: Mapping[str, Any]) -> Webhook:
    """Sets what a webhook is told of.

    Args:
        session: The caller's session.
        webhook_id: The webhook.
        changes: Columns of `webhooks` and their new values.

    Raises:
        NotFoundError: There is none.
    """
    webhook = get(session, webhook_id)
    for column, value in changes.items():
        setattr(webhook, column, value)
    session.flush()
    return webhook


def enable(session: Session, webhook_id: UUID) -> Webhook:
    """Tells a webhook of events again, from now on. Idempotent.

    Raises:
        NotFoundError: There is none.
    """
    changes = {"disabled_at": None, "disabled_why": "", "failing_since": None}
    return change(session, webhook_id, changes)


def disable(session: Session, webhook_id: UUID, why: str) -> Webhook:
    """Stops to tell a webhook of events, and gives up what waits to be sent to it. Idempotent.

    Args:
        session: The caller's session.
        webhook_id: The webhook.
        why: For people.

    Raises:
        NotFoundError: There is none.
    """
    waiting = _lock_deliveries(session, webhook_id, Delivery.status == DeliveryStatus.PENDING)
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.disabled_at.is_(None))
        .values(disabled_at=func.clock_timestamp(), disabled_why=why)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(Delivery)
        .where(Delivery.id.in_(waiting))
        .values(status=DeliveryStatus.FAILED, leased_until=None, error="Its webhook was disabled.")
        .execution_options(synchronize_session=False)
    )
    return get(session, webhook_id)


def _lock_deliveries(
    session: Session, webhook_id: UUID, which: ColumnElement[bool]
) -> Sequence[UUID]:
    """Locks messages of a webhook before the webhook itself: in the order in which senders do."""
    return session.scalars(
        select(Delivery.id)
        .where(Delivery.webhook_id == webhook_id, which)
        .order_by(Delivery.id)
        .with_for_update()
    ).all()
