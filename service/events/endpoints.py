"""`/v1/searches/{id}/events`, and of a training: the log as a JSON page, or live."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse
from sqlalchemy.orm import Session

from service import examples
from service.caller import Caller, CallerOf
from service.events.schemas import EventAnswer, EventPage
from service.events.stream import read_batch, stream
from service.openapi import LOOKUP, ok, problems
from service.parameters import Limit, SearchId, TrainingId
from service.problems import ProblemError
from service.wiring import Wiring, WiringOf
from store import access, events, searches
from store.access import Principal
from store.states import JobKind

router = APIRouter(prefix="/v1", tags=["events"])

_LARGEST_NUMBER = 2**63 - 1
_STREAM = "text/event-stream"

After = Annotated[
    int, Query(ge=0, le=_LARGEST_NUMBER, description="Only events with a larger number.")
]
LastEventId = Annotated[
    str | None,
    Header(description="Where a live stream goes on: number of the last event seen."),
]


def _responses(example: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "description": "A page, or with `Accept: text/event-stream` a live stream.",
            "content": {
                **ok("", examples.EVENT_PAGE)["content"],
                _STREAM: {"schema": {"type": "string"}, "example": example},
            },
        },
        204: {"description": "Only in answer to `Last-Event-ID`: that event was the last one."},
        **problems(*LOOKUP),
    }


@router.get(
    "/searches/{search_id}/events",
    summary="Read or follow what happens to a search",
    response_model=EventPage,
    responses=_responses(examples.EVENT_STREAM),
)
async def read_events(
    request: Request,
    search_id: SearchId,
    wiring: WiringOf,
    caller: CallerOf,
    after: After = 0,
    limit: Limit = 50,
    last_event_id: LastEventId = None,
) -> EventPage | Response:
    """The search's events in order, each with a number that counts from 1 without a gap.

    Live (`Accept: text/event-stream`), every event is sent as it happens: `id` is its number,
    `event` its kind and `data` the event as JSON. The stream ends by itself after the event that
    ends the search. A stream that broke goes on where it was with `Last-Event-ID`, or `after`.
    `limit` is for pages only.
    """
    log = _Log(search_id, JobKind.SEARCH)
    return await _answer(request, wiring, caller, log, after, limit, last_event_id)


@router.get(
    "/trainings/{training_id}/events",
    summary="Read or follow what happens to a training",
    response_model=EventPage,
    responses=_responses(examples.EVENT_STREAM.replace("search.", "training.")),
)
async def read_events_of_training(
    request: Request,
    training_id: TrainingId,
    wiring: WiringOf,
    caller: CallerOf,
    after: After = 0,
    limit: Limit = 50,
    last_event_id: LastEventId = None,
) -> EventPage | Response:
    """The training's events, as a page or live, exactly as those of a search.

    Its own events are named `training.queued`, `training.succeeded` and so on; those of its trials
    are the same as a search's, and `trial.succeeded` has the result.
    """
    log = _Log(training_id, JobKind.TRAINING)
    return await _answer(request, wiring, caller, log, after, limit, last_event_id)


@dataclass(frozen=True)
class _Log:
    """Whose events."""

    job_id: UUID
    kind: JobKind


async def _answer(
    request: Request,
    wiring: Wiring,
    caller: Caller,
    log: _Log,
    after: int,
    limit: int,
    last_event_id: str | None,
) -> EventPage | Response:
    if _STREAM not in request.headers.get("accept", ""):
        return await caller.run(partial(_page, log=log, after=after, limit=limit))
    if last_event_id:
        after = _number(last_event_id)
    first = await caller.run(partial(read_batch, search_id=log.job_id, after=after, kind=log.kind))
    if last_event_id and first.is_last and not first.events:
        # A browser comes back after every end of a stream; this answer tells it to stop.
        return Response(status_code=204)
    return EventSourceResponse(
        stream(wiring, caller, log.job_id, after, first),
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def _page(session: Session, who: Principal, log: _Log, after: int, limit: int) -> EventPage:
    access.require_search(session, who, log.job_id, log.kind)
    # The last number first: it may grow until the page is read, but not past what the page has.
    last = searches.get(session, log.job_id, log.kind).last_event
    page = events.page(session, log.job_id, after=after, limit=limit)
    return EventPage(
        items=[EventAnswer.of(event) for event in page],
        last=max([last, *(event.number for event in page)]),
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:19]) <= _LARGEST_NUMBER):
        raise ProblemError(
            "invalid-parameter",
            "header parameter 'Last-Event-ID': must be the `id` of an event of this search.",
        )
    return min(int(text[:20]), _LARGEST_NUMBER)
