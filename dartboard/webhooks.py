"""Webhooks for programs: `client.webhooks`."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from dartboard.lists import Page, pages
from dartboard.models import Result, Time
from dartboard.transport import Transport, parse_answer, segment

_PAGE = 200


class Webhook(Result):
    """An address that is told of events. Its secret is not in it."""

    id: UUID
    owner: str
    name: str = ""
    """What it is for."""
    url: str
    kinds: tuple[str, ...]
    """Which events: kinds such as `search.succeeded`, families such as `trial.*`, or `*`."""
    scope: str = "visible"
    """Of whose searches: visible or all."""
    created_at: Time
    failing_since: Time | None = None
    """The first failed attempt after the last good one."""
    disabled_at: Time | None = None
    """Since when it is told nothing."""
    disabled_why: str = ""


class NewWebhook(Webhook):
    """A webhook that was just made."""

    secret: str
    """What its messages are signed with; it is not shown again."""


class Delivery(Result):
    """A message to a webhook, and what came of it."""

    id: UUID
    webhook_id: UUID
    kind: str
    """Of the event; `ping` for a test."""
    search_id: UUID | None = None
    event_number: int | None = None
    status: str
    """pending, delivered or failed."""
    attempts: int = 0
    """How often it was sent since it was queued, for the first time or again."""
    next_attempt_at: Time | None = None
    response_status: int | None = None
    """What the receiver answered last."""
    error: str = ""
    """What went wrong last."""
    created_at: Time
    attempted_at: Time | None = None
    delivered_at: Time | None = None
    payload: dict[str, Any] | None = None
    """Its body; only where one delivery was asked for."""


class WebhookCalls:
    """The calls about webhooks."""

    def __init__(self, transport: Transport) -> None:
        """Asks over a client's connections."""
        self._transport = transport

    def create(
        self,
        url: str,
        kinds: Sequence[str] = (),
        *,
        scope: str = "visible",
        name: str = "",
        idempotency_key: str | None = None,
    ) -> NewWebhook:
        """Makes a webhook, which is told of events from now on.

        Args:
            url: Where to: http or https, and no private address unless the server allows it.
            kinds: Kinds of events, families such as `trial.*`, or `*`; what happens to searches
                and trainings as a whole when empty.
            scope: `visible` for your own searches and those that a team label shares with you;
                `all` takes an admin's key.
            name: What it is for.
            idempotency_key: A name for this request, under which it may be sent again; a new one
                when None.

        Returns:
            The webhook with its secret.

        Raises:
            InvalidRequestError: Something in it is wrong.
            KeyRefusedError: Your key is too weak for that.
        """
        body: dict[str, Any] = {"url": url, "scope": scope, "name": name}
        if kinds:
            body["kinds"] = list(kinds)
        response = self._transport.create(
            "/v1/webhooks", json=body, idempotency_key=idempotency_key
        )
        return parse_answer(response, NewWebhook)

    def list(self, owner: str | None = None) -> tuple[Webhook, ...]:
        """Your own webhooks, or as an admin everybody's; the newest first."""
        response = self._transport.get("/v1/webhooks", params={"owner": owner})
        return parse_answer(response, Page[Webhook]).items

    def get(self, webhook_id: UUID | str) -> Webhook:
        """A webhook.

        Raises:
            NotFoundError: There is none, or it is none of yours.
        """
        return parse_answer(self._transport.get(_path(webhook_id)), Webhook)

    def change(self, webhook_id: UUID | str, **changes: Any) -> Webhook:
        """Sets what is given.

        Args:
            webhook_id: The webhook.
            **changes: `kinds`, `name`, or `disabled`: True tells it nothing more, False tells it
                again, from now on.

        Raises:
            NotFoundError: There is none, or it is none of yours.
            InvalidRequestError: A value is wrong.
        """
        return parse_answer(self._transport.patch(_path(webhook_id), json=changes), Webhook)

    def delete(self, webhook_id: UUID | str) -> None:
        """Removes a webhook, what waits to be sent to it, and its log.

        Raises:
            NotFoundError: There is none, or it is none of yours.
        """
        self._transport.delete(_path(webhook_id))

    def test(self, webhook_id: UUID | str) -> Delivery:
        """Sends a `ping`.

        Returns:
            The message, to be sent now; `delivery` tells what came of it.

        Raises:
            NotFoundError: There is no such webhook, or it is none of yours.
            ConflictError: It is disabled.
        """
        return parse_answer(self._transport.post(f"{_path(webhook_id)}/test"), Delivery)

    def deliveries(
        self, webhook_id: UUID | str, *, status: str | None = None, page_size: int = _PAGE
    ) -> Iterator[Delivery]:
        """Yields what was and will be sent to a webhook, the newest first, page after page.

        Args:
            webhook_id: The webhook.
            status: Only with this status.
            page_size: Deliveries to fetch at a time, at most 200.

        Raises:
            NotFoundError: There is no such webhook, or it is none of yours.
        """
        params = {"status": status, "limit": page_size}
        path = f"{_path(webhook_id)}/deliveries"
        return pages(self._transport, path, params, Page[Delivery])

    def delivery(self, webhook_id: UUID | str, delivery_id: UUID | str) -> Delivery:
        """A message to a webhook, with its body.

        Raises:
            NotFoundError: There is none, or it is none of yours.
        """
        path = f"{_path(webhook_id)}/deliveries/{segment(delivery_id)}"
        return parse_answer(self._transport.get(path), Delivery)

    def redeliver(self, webhook_id: UUID | str, delivery_id: UUID | str) -> Delivery:
        """Sends a message again, under its id, with all its attempts before it.

        Raises:
            NotFoundError: There is none, or it is none of yours.
            ConflictError: Its webhook is disabled.
        """
        path = f"{_path(webhook_id)}/deliveries/{segment(delivery_id)}/redeliver"
        return parse_answer(self._transport.post(path), Delivery)


def _path(webhook_id: UUID | str) -> str:
    return f"/v1/webhooks/{segment(webhook_id)}"
