"""`/v1/webhooks`: make, list, look at, change, remove and try."""

import asyncio
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response, status
from sqlalchemy.orm import Session

from service.caller import CallerOf
from service.idempotency import Create, CreationOf, Made
from service.openapi import BODY, CREATION, LOOKUP, READING, VERB, ok, problems, spec_body
from service.parameters import PlainText
from service.problems import FieldProblem, ProblemError
from service.spec_body import invalid_body, parse_model, read_json, read_model
from service.webhooks import addresses, examples
from service.webhooks.addresses import AddressRefusedError, UnresolvedError
from service.webhooks.schemas import (
    DeliveryAnswer,
    NewWebhookAnswer,
    WebhookAnswer,
    WebhookChanges,
    WebhookList,
    WebhookRequest,
)
from service.wiring import WiringOf
from store import access, deliveries, webhooks
from store.access import Principal
from store.errors import NotFoundError
from store.models import Webhook
from store.states import Role, WebhookScope

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

WebhookId = Annotated[UUID, Path(description="The webhook's id.")]

_RESOLVING_SECONDS = 5.0


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Make a webhook",
    response_model=NewWebhookAnswer,
    responses={
        201: ok("The webhook, with its secret, this once.", examples.NEW_WEBHOOK, location=True),
        **problems(*CREATION, "conflict"),
    },
    openapi_extra=spec_body(examples.WEBHOOK_REQUESTS, "WebhookRequest"),
)
async def create_webhook(
    request: Request, caller: CallerOf, creation: CreationOf, wiring: WiringOf
) -> Response:
    """Makes a webhook: its address is told of every event of these kinds from now on.

    It hears of your searches and trainings, and of those that a team label shares with you; an
    admin may ask for everybody's. Addresses on this machine and in private networks are refused,
    here and again at every attempt.
    """
    body = await read_json(request, smallest='{"url": "https://example.com/hooks/dartboard"}')
    allow_private = wiring.settings.webhooks_allow_private

    async def prepare() -> Create:
        wanted = parse_model(WebhookRequest, body)
        await _check_address(wanted.url, allow_private=allow_private)
        return partial(_create, wanted=wanted)

    answer = await creation.answer(body, prepare, reveal=_reveal)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.get(
    "",
    summary="List webhooks",
    responses={200: ok("Without their secrets.", examples.WEBHOOK_LIST), **problems(*READING)},
)
async def list_webhooks(
    caller: CallerOf,
    owner: Annotated[PlainText | None, Query(description="Only this owner's.")] = None,
) -> WebhookList:
    """Your own webhooks; an admin sees everybody's."""
    return await caller.run(partial(_list, owner=owner))


@router.get(
    "/{webhook_id}",
    summary="Look at a webhook",
    responses={200: ok("Without its secret.", examples.WEBHOOK), **problems(*LOOKUP)},
)
async def get_webhook(webhook_id: WebhookId, caller: CallerOf) -> WebhookAnswer:
    """What it is told of, and whether it answers."""
    return await caller.run(lambda session, who: WebhookAnswer.of(own(session, who, webhook_id)))


@router.patch(
    "/{webhook_id}",
    summary="Change, disable or enable a webhook",
    response_model=WebhookAnswer,
    responses={
        200: ok("The webhook as it is now.", examples.DISABLED),
        **problems("not-found", *BODY),
    },
    openapi_extra=spec_body(examples.WEBHOOK_CHANGES, "WebhookChanges"),
)
async def change_webhook(
    request: Request, webhook_id: WebhookId, caller: CallerOf
) -> WebhookAnswer:
    """Changes what the body names.

    A webhook that is disabled is told of nothing that happens meanwhile. What waits to be sent to
    it fails, and can be redelivered once it is enabled.
    """
    changes = await read_model(request, WebhookChanges, smallest='{"disabled": false}')
    return await caller.run(
        partial(_change, webhook_id=webhook_id, changes=changes), needs=Role.MEMBER
    )


@router.delete(
    "/{webhook_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Remove a webhook",
    responses={204: {"description": "It is gone."}, **problems("forbidden", *LOOKUP)},
)
async def remove_webhook(webhook_id: WebhookId, caller: CallerOf) -> None:
    """Removes a webhook, what waits to be sent to it, and its log."""

    def remove(session: Session, who: Principal) -> None:
        own(session, who, webhook_id)
        webhooks.remove(session, webhook_id)

    await caller.run(remove, needs=Role.MEMBER)


@router.post(
    "/{webhook_id}/test",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Try a webhook",
    responses={202: ok("The message, to be sent now.", examples.PING), **problems(*VERB)},
)
async def ping_webhook(webhook_id: WebhookId, caller: CallerOf) -> DeliveryAnswer:
    """Sends a `ping`, with the same headers and retries as any other message."""

    def ping(session: Session, who: Principal) -> DeliveryAnswer:
        return DeliveryAnswer.of(deliveries.ping(session, own(session, who, webhook_id)))

    return await caller.run(ping, needs=Role.MEMBER)


def own(session: Session, who: Principal, webhook_id: UUID) -> Webhook:
    """The webhook with this id, if whoever asks may know of it.

    Raises:
        NotFoundError: There is none, or it is not theirs and they are no admin; or they are none
            and it hears of everybody's searches.
    """
    webhook = webhooks.get(session, webhook_id)
    access.require_own(who, webhook.owner, "webhook", webhook_id)
    if webhook.scope == WebhookScope.ALL and who.role is not Role.ADMIN:
        raise NotFoundError("webhook", webhook_id)
    return webhook


async def _check_address(url: str, *, allow_private: bool) -> None:
    # For whoever types it. What counts is the look at every attempt: names change.
    try:
        async with asyncio.timeout(_RESOLVING_SECONDS):
            await addresses.resolve(addresses.parse(url), allow_private=allow_private)
    except AddressRefusedError as error:
        raise invalid_body([FieldProblem(pointer="/url", message=str(error))]) from None
    except (UnresolvedError, TimeoutError):
        # A name that nobody knows yet is none of our business; the log of deliveries will say so.
        return


def _create(session: Session, who: Principal, _: bytes | None, *, wanted: WebhookRequest) -> Made:
    if wanted.scope is WebhookScope.ALL:
        access.require_role(who, Role.ADMIN)
    if webhooks.num_of(session, who.owner) >= webhooks.MOST_PER_OWNER:
        raise ProblemError(
            "conflict",
            f"{who.owner} has {webhooks.MOST_PER_OWNER} webhooks, which is the most: remove one "
            "that is of no more use.",
        )
    webhook = webhooks.create(session, who.owner, wanted.wanted)
    answer = WebhookAnswer.of(webhook)
    return Made(
        NewWebhookAnswer.of_new(answer, webhook.secret),
        f"/v1/webhooks/{webhook.id}",
        # The secret is kept once, with the webhook, and goes with it.
        kept=answer,
    )


def _reveal(session: Session, kept: str, _: bytes) -> NewWebhookAnswer:
    answer = WebhookAnswer.model_validate_json(kept)
    return NewWebhookAnswer.of_new(answer, webhooks.get(session, answer.id).secret)


def _list(session: Session, who: Principal, owner: str | None) -> WebhookList:
    found = webhooks.page(session, owner, seen_by=who)
    return WebhookList(items=[WebhookAnswer.of(each) for each in found])


def _change(
    session: Session, who: Principal, webhook_id: UUID, changes: WebhookChanges
) -> WebhookAnswer:
    own(session, who, webhook_id)
    # First, for it locks what waits to be sent before the webhook itself.
    if changes.disabled is True:
        webhooks.disable(session, webhook_id, "Its owner disabled it.")
    elif changes.disabled is False:
        webhooks.enable(session, webhook_id)
    columns: dict[str, Any] = changes.model_dump(include={"kinds", "name"}, exclude_none=True)
    return WebhookAnswer.of(webhooks.change(session, webhook_id, columns))
