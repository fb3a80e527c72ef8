"""`/v1/trainings`: submit, list, look at, cancel."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from search_core.spec.retraining import RetrainingSpec
from service import examples
from service.caller import Caller, CallerOf
from service.idempotency import CreationOf
from service.jobs import operations
from service.jobs.parameters import (
    CreatedAfter,
    CreatedBefore,
    Cursor,
    Labels,
    Name,
    OwnerFilter,
    Sort,
    Statuses,
    labels_of,
)
from service.jobs.verbs import add_verbs
from service.openapi import LOOKUP, READING, SUBMISSION, ok, problems, spec_body
from service.parameters import Limit, TrainingId
from service.spec_body import parse_spec_aside, read_json
from service.trainings.by_hash import with_stored_architecture
from service.trainings.schemas import TrainingAnswer, TrainingDryRun, TrainingPageAnswer
from service.wiring import WiringOf
from store.access import Principal
from store.searches import SearchFilter
from store.states import JobKind

router = APIRouter(prefix="/v1/trainings", tags=["trainings"])

_SMALLEST_SPEC = '{"architecture": "DARTS_V2"}'


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Submit a training",
    response_model=TrainingAnswer,
    responses={
        200: ok("With `dry_run`: what the spec would run.", examples.TRAINING_DRY_RUN,
                TrainingDryRun),
        201: ok("The training, queued.", {**examples.TRAINING, "waiting": None}, location=True),
        **problems(*SUBMISSION),
    },
    openapi_extra=spec_body(examples.TRAINING_SPECS, "RetrainingSpec"),
)  # fmt: skip
async def submit_training(
    request: Request,
    caller: CallerOf,
    creation: CreationOf,
    wiring: WiringOf,
    dry_run: Annotated[
        bool, Query(description="Only validate the spec and say what it would run.")
    ] = False,
) -> Response:
    """Validates the spec, stores the training durably and queues it beside the searches.

    The body is a spec; unknown fields are refused. Everything but `architecture` has a default. The
    architecture is a genotype as JSON, the name of a published one, or the hash of a stored one,
    whose genotype then stands in the spec. With a hash, `network.family` defaults to the family of
    the searches that found it; where they differ, it has to be chosen. A path through a HyperCuboid
    says all of its network itself: nothing in `network` is for it.
    """
    body = await read_json(request, smallest=_SMALLEST_SPEC)
    if dry_run:
        spec = await _spec(body, caller)
        return JSONResponse(TrainingDryRun.of(spec).model_dump(mode="json"))

    async def prepare() -> RetrainingSpec:
        return await _spec(body, caller)

    return await wiring.submissions.answer(creation, body, prepare, TrainingAnswer)


@router.get(
    "",
    summary="List trainings",
    responses={
        200: ok("A page.", examples.TRAINING_PAGE),
        **problems(*READING),
    },
)
async def list_trainings(
    caller: CallerOf,
    statuses: Statuses = [],  # noqa: B006  (FastAPI copies it)
    name: Name = None,
    owner: OwnerFilter = None,
    label: Labels = [],  # noqa: B006
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    sort: Sort = "-created",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> TrainingPageAnswer:
    """The trainings that match every given filter, page by page."""
    where = SearchFilter(
        kind=JobKind.TRAINING,
        statuses=statuses,
        name=name,
        owner=owner,
        labels=labels_of(label),
        created_after=created_after,
        created_before=created_before,
    )

    def operation(session: Session, who: Principal) -> TrainingPageAnswer:
        page = operations.page(
            session,
            who,
            where,
            TrainingAnswer,
            limit=limit,
            cursor=cursor,
            oldest_first=sort == "created",
        )
        return TrainingPageAnswer(items=page.items, next_cursor=page.next_cursor)

    return await caller.run(operation)


@router.get(
    "/{training_id}",
    summary="Look at a training",
    responses={
        200: ok("The training.", examples.TRAINED),
        **problems(*LOOKUP),
    },
)
async def get_training(training_id: TrainingId, caller: CallerOf) -> TrainingAnswer:
    """A training with its trials and, as these end, what each is worth on the test images."""
    return await caller.run(partial(operations.get, job_id=training_id, answer=TrainingAnswer))


add_verbs(router, TrainingAnswer, lambda **fields: {**examples.TRAINING, **fields})


async def _spec(body: bytes, caller: Caller) -> RetrainingSpec:
    return await parse_spec_aside(RetrainingSpec, await with_stored_architecture(body, caller))
