"""What the API takes and says about webhooks."""

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from search_core.spec.names import Name
from service.schema_base import Answer, Time
from service.webhooks import addresses
from store.events import KINDS
from store.models import Delivery, Webhook
from store.states import DeliveryStatus, WebhookScope
from store.webhooks import KIND_PATTERN, Wanted

DEFAULT_KINDS = ("search.*", "training.*")


def _address(value: str) -> str:
    addresses.parse(value)
    return value


Url = Annotated[
    str,
    StringConstraints(max_length=2000, pattern=r"^[!-~]+$"),
    AfterValidator(_address),
]


_FAMILIES = tuple(sorted({f"{kind.partition('.')[0]}.*" for kind in KINDS}))


def _known_kind(value: str) -> str:
    known = (*KINDS, *_FAMILIES, "*")
    if value not in known:
        close = difflib.get_close_matches(value, known, n=1)
        meant = f"did you mean {close[0]}?" if close else "docs/webhooks.md lists them all"
        raise ValueError(f"there is no event {value!r}; {meant}")
    return value


Kinds = Annotated[
    list[
        Annotated[
            str,
            StringConstraints(max_length=100),
            AfterValidator(_known_kind),
            WithJsonSchema({"type": "string", "pattern": KIND_PATTERN, "maxLength": 100}),
        ]
    ],
    Field(min_length=1, max_length=50),
]


class WebhookRequest(BaseModel):
    """A webhook to make."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    url: Url
    """Where to: http or https, without a user name in it."""
    kinds: Kinds = Field(default=list(DEFAULT_KINDS))
    """Which events: kinds such as `search.succeeded`, families such as `trial.*`, or `*`."""
    scope: WebhookScope = WebhookScope.VISIBLE
    """Of whose searches: your own and those that a team label shares with you; `all` takes an
    admin's key."""
    name: Name = ""
    """For people: what it is for."""

    @property
    def wanted(self) -> Wanted:
        """The same for the store."""
        return Wanted(self.url, tuple(dict.fromkeys(self.kinds)), self.scope, self.name)


class WebhookChanges(BaseModel):
    """What to change about a webhook. Its address and secret stay: make another for another."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    kinds: Kinds | None = None
    """Which events, from now on."""
    name: Name | None = None
    """For people: what it is for."""
    disabled: bool | None = None
    """True tells it nothing more and gives up what waits; false tells it again, from now on."""


class WebhookAnswer(Answer):
    """A webhook, without its secret."""

    id: UUID
    """Its id."""
    owner: str
    """Whose it is."""
    name: str
    """What it is for."""
    url: str
    """Where to."""
    kinds: Sequence[str]
    """Which events."""
    scope: WebhookScope
    """Of whose searches."""
    created_at: Time
    """When it was made."""
    failing_since: Time | None
    """The first failed attempt after the last good one; after three days it is disabled."""
    disabled_at: Time | None
    """Since when it is told nothing."""
    disabled_why: str
    """Why."""

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        """The answer about a row."""
        return cls.model_validate(webhook)


class NewWebhookAnswer(WebhookAnswer):
    """A webhook that was just made."""

    secret: str
    """What its messages are signed with. It is not shown again: keep it now."""

    @classmethod
    def of_new(cls, answer: WebhookAnswer, secret: str) -> Self:
        """The answer about a new webhook."""
        return cls(**answer.model_dump(), secret=secret)


class WebhookList(Answer):
    """Webhooks."""

    items: Sequence[WebhookAnswer]
    """The newest first."""


class DeliveryAnswer(Answer):
    """A message to a webhook, and what came of it."""

    id: UUID
    """Its id, the same at every attempt: the header `Dartboard-Delivery`."""
    webhook_id: UUID
    """The webhook."""
    kind: str
    """Of the event; `ping` for a test."""
    search_id: UUID | None
    """The search or training that it tells of."""
    event_number: int | None
    """The event's number there."""
    status: DeliveryStatus
    """Where it is in its life."""
    attempts: int
    """How often it was sent since it was queued, for the first time or again."""
    next_attempt_at: Time | None
    """When it is sent next, while it is pending."""
    response_status: int | None
    """What the receiver answered last."""
    error: str
    """What went wrong last."""
    created_at: Time
    """When the event happened."""
    attempted_at: Time | None
    """When it was sent last."""
    delivered_at: Time | None
    """When the receiver took it."""

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        """The answer about a row."""
        row = {name: getattr(delivery, name) for name in cls.model_fields}
        if delivery.status != DeliveryStatus.PENDING:
            row["next_attempt_at"] = None
        return cls(**row)


class DeliveryDetails(DeliveryAnswer):
    """A message to a webhook with what is in it."""

    payload: dict[str, Any]
    """Its body."""


class DeliveryPage(Answer):
    """A page of the messages to a webhook."""

    items: Sequence[DeliveryAnswer]
    """The newest first, at most `limit` of them."""
    next_cursor: str | None
    """Pass it as `cursor` for the next page; null on the last one."""
