"""`/v1/searches/{id}/trials`, the same of a training, and `/v1/trials/{id}`."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from service import examples
from service.caller import CallerOf
from service.openapi import LOOKUP, VERB, ok, problems
from service.parameters import PlainText, SearchId, TrainingId, TrialId
from service.trials.schemas import MetricSeries, TrialAnswer, TrialList
from store import access, searches, verbs
from store.access import Principal
from store.states import JobKind, Role

router = APIRouter(prefix="/v1", tags=["trials"])

_CSV = "text/csv"
_LARGEST_STEP = 2**31 - 1


@router.get(
    "/searches/{search_id}/trials",
    summary="List a search's trials",
    responses={
        200: ok("All of them.", examples.TRIAL_LIST),
        **problems(*LOOKUP),
    },
)
async def list_trials(search_id: SearchId, caller: CallerOf) -> TrialList:
    """Every trial of a search, by number, with the figures of its last epoch."""
    return await caller.run(partial(_list, job_id=search_id, kind=JobKind.SEARCH))


@router.get(
    "/trainings/{training_id}/trials",
    summary="List a training's trials",
    responses={
        200: ok("All of them.", {"items": examples.TRAINED["trials"]}),
        **problems(*LOOKUP),
    },
)
async def list_trials_of_training(training_id: TrainingId, caller: CallerOf) -> TrialList:
    """Every trial of a training, by number, with what it is worth once it succeeded."""
    return await caller.run(partial(_list, job_id=training_id, kind=JobKind.TRAINING))


@router.get(
    "/trials/{trial_id}",
    summary="Look at a trial",
    responses={
        200: ok("The trial.", examples.TRIAL),
        **problems(*LOOKUP),
    },
)
async def get_trial(trial_id: TrialId, caller: CallerOf) -> TrialAnswer:
    """A trial, with the figures of its last epoch."""
    return await caller.run(partial(_get, trial_id=trial_id))


@router.post(
    "/trials/{trial_id}/retry",
    summary="Run a failed trial again",
    responses={
        200: ok("The trial: queued again, or running.", examples.RETRIED),
        **problems(*VERB),
    },
)
async def retry_trial(trial_id: TrialId, caller: CallerOf) -> TrialAnswer:
    """Queues a failed trial again, with its parameters, from its last checkpoint.

    A search or training that has ended goes back to the queue and runs this trial only. Retrying a
    trial that waits or runs changes nothing. One that has its result, and one whose search was
    cancelled, is a conflict.
    """
    return await caller.run(partial(_retry, trial_id=trial_id), needs=Role.MEMBER)


@router.get(
    "/trials/{trial_id}/metrics",
    summary="Read a trial's figures over its epochs",
    response_model=MetricSeries,
    responses={
        200: {
            "description": "The series, as JSON or with `Accept: text/csv` as CSV.",
            "content": {
                **ok("", examples.SERIES)["content"],
                _CSV: {"schema": {"type": "string"}, "example": examples.SERIES_CSV},
            },
        },
        **problems(*LOOKUP),
    },
)
async def read_metrics(
    request: Request,
    trial_id: TrialId,
    caller: CallerOf,
    names: Annotated[
        list[PlainText],
        Query(
            description="Only these series: repeated, or separated by commas. `marginal.*` stands "
            "for all that begin so. All if absent."
        ),
    ] = [],  # noqa: B006  (FastAPI copies it)
    after_step: Annotated[
        int, Query(ge=-1, le=_LARGEST_STEP, description="Only points with a larger step.")
    ] = -1,
) -> MetricSeries | Response:
    """Losses, accuracies, learning rate, entropy of the alphas and skip connections.

    How it went: `seconds` of the epoch, `steps_per_second` and `images_per_second` of its training,
    where the images are those that the weights are trained on, and `peak_memory_bytes`: the most
    that its process has held since the trial started there, of a GPU what tensors have taken.

    Of a hypercuboid also the share of the weights that each choice of an axis has, such as
    `marginal.kernel_size=5`; those of an axis add up to 1.

    A step is an epoch, from 1. A value that was not finite is null, and empty in CSV.
    """
    wanted = [name.strip() for text in names for name in text.split(",") if name.strip()]
    series = await caller.run(
        partial(_series, trial_id=trial_id, names=wanted, after_step=after_step)
    )
    if _CSV in request.headers.get("accept", ""):
        return Response(
            series.to_csv(),
            media_type=_CSV,
            headers={"Content-Disposition": f'inline; filename="{trial_id}.csv"'},
        )
    return series


def _get(session: Session, who: Principal, trial_id: UUID) -> TrialAnswer:
    access.require_trial(session, who, trial_id)
    return TrialAnswer.of(searches.get_trial(session, trial_id))


def _retry(session: Session, who: Principal, trial_id: UUID) -> TrialAnswer:
    access.require_trial(session, who, trial_id)
    return TrialAnswer.of(verbs.retry_trial(session, trial_id))


def _list(session: Session, who: Principal, job_id: UUID, kind: JobKind) -> TrialList:
    access.require_search(session, who, job_id, kind)
    trials = searches.trials(session, job_id, kind)
    return TrialList(items=[TrialAnswer.of(trial) for trial in trials])


def _series(
    session: Session, who: Principal, trial_id: UUID, names: list[str], after_step: int
) -> MetricSeries:
    access.require_trial(session, who, trial_id)
    points = searches.metrics(session, trial_id, names=names, after_step=after_step)
    return MetricSeries.of(trial_id, points)
