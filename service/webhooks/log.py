"""`/v1/webhooks/{id}/deliveries`: what was sent to a webhook, what came of it, and again."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, status
from sqlalchemy.orm import Session

from service.caller import CallerOf
from service.jobs.parameters import Cursor
from service.openapi import LOOKUP, VERB, ok, problems
from service.parameters import Limit
from service.webhooks import examples
from service.webhooks.endpoints import WebhookId, own
from service.webhooks.schemas import DeliveryAnswer, DeliveryDetails, DeliveryPage
from store import deliveries
from store.access import Principal
from store.states import DeliveryStatus, Role

router = APIRouter(prefix="/v1/webhooks/{webhook_id}/deliveries", tags=["webhooks"])

DeliveryId = Annotated[UUID, Path(description="The delivery's id.")]


@router.get(
    "",
    summary="List what was sent to a webhook",
    responses={200: ok("A page.", examples.DELIVERY_PAGE), **problems(*LOOKUP)},
)
async def list_deliveries(
    webhook_id: WebhookId,
    caller: CallerOf,
    only: Annotated[
        DeliveryStatus | None, Query(alias="status", description="Only with this status.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> DeliveryPage:
    """What was and will be sent, with the last answer to each, for 30 days."""
    return await caller.run(
        partial(_page, webhook_id=webhook_id, only=only, limit=limit, cursor=cursor)
    )


@router.get(
    "/{delivery_id}",
    summary="Look at a delivery",
    responses={200: ok("With its body.", examples.DELIVERY_DETAILS), **problems(*LOOKUP)},
)
async def get_delivery(
    webhook_id: WebhookId, delivery_id: DeliveryId, caller: CallerOf
) -> DeliveryDetails:
    """A message with what is in it."""

    def look(session: Session, who: Principal) -> DeliveryDetails:
        own(session, who, webhook_id)
        return DeliveryDetails.of(deliveries.get(session, webhook_id, delivery_id))

    return await caller.run(look)


@router.post(
    "/{delivery_id}/redeliver",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Send a delivery again",
    responses={
        202: ok("The message, to be sent now.", examples.REDELIVERED),
        **problems(*VERB),
    },
)
async def redeliver(
    webhook_id: WebhookId, delivery_id: DeliveryId, caller: CallerOf
) -> DeliveryAnswer:
    """Sends the same message again, under its id, whatever came of it, with all attempts before it.

    One that waits is sent now; one that is on its way is left to arrive.
    """

    def again(session: Session, who: Principal) -> DeliveryAnswer:
        own(session, who, webhook_id)
        return DeliveryAnswer.of(deliveries.redeliver(session, webhook_id, delivery_id))

    return await caller.run(again, needs=Role.MEMBER)


def _page(
    session: Session,
    who: Principal,
    webhook_id: UUID,
    only: DeliveryStatus | None,
    limit: int,
    cursor: str | None,
) -> DeliveryPage:
    own(session, who, webhook_id)
    page = deliveries.page(session, webhook_id, limit=limit, status=only, cursor=cursor)
    return DeliveryPage(
        items=[DeliveryAnswer.of(each) for each in page.deliveries], next_cursor=page.next_cursor
    )
