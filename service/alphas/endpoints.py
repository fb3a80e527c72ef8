"""`/v1/trials/{id}/alphas`: what a trial's candidates weigh, epoch by epoch."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from search_core.spec import SearchSpec
from service import examples
from service.alphas.schemas import AlphaSeries
from service.caller import CallerOf
from service.openapi import LOOKUP, ok, problems
from service.parameters import Limit, TrialId
from service.problems import ProblemError
from store import access, searches
from store.access import Principal
from store.jobs import parse_spec
from store.states import JobKind

router = APIRouter(prefix="/v1", tags=["trials"])

_CSV = "text/csv"
_LARGEST_STEP = 2**31 - 1


@router.get(
    "/trials/{trial_id}/alphas",
    summary="Read what a trial's candidates weigh over its epochs",
    response_model=AlphaSeries,
    responses={
        200: {
            "description": "The tables, as JSON or with `Accept: text/csv` as CSV.",
            "content": {
                **ok("", examples.ALPHAS)["content"],
                _CSV: {"schema": {"type": "string"}, "example": examples.ALPHAS_CSV},
            },
        },
        **problems("conflict", *LOOKUP),
    },
)
async def read_alphas(
    request: Request,
    trial_id: TrialId,
    caller: CallerOf,
    after_step: Annotated[
        int, Query(ge=-1, le=_LARGEST_STEP, description="Only epochs with a larger step.")
    ] = -1,
    limit: Limit = 200,
) -> AlphaSeries | Response:
    """The softmaxed alphas of every epoch, with labels of their rows and columns.

    A row is a choice to make, an edge of a cell or a position of a hypercuboid, and its weights add
    up to 1. A trial of a training has none: that is a conflict.
    """
    series = await caller.run(
        partial(_series, trial_id=trial_id, after_step=after_step, limit=limit)
    )
    if _CSV in request.headers.get("accept", ""):
        return Response(
            series.to_csv(),
            media_type=_CSV,
            headers={"Content-Disposition": f'inline; filename="{trial_id}-alphas.csv"'},
        )
    return series


def _series(
    session: Session, who: Principal, trial_id: UUID, after_step: int, limit: int
) -> AlphaSeries:
    access.require_trial(session, who, trial_id)
    trial = searches.get_trial(session, trial_id)
    search = searches.get(session, trial.search_id)
    spec = parse_spec(JobKind(search.kind), search.spec)
    if not isinstance(spec, SearchSpec):
        raise ProblemError(
            "conflict", f"Trial {trial_id} is one of a training, which has no alphas to search."
        )
    tables = searches.alphas(session, trial_id, after_step=after_step, limit=limit)
    return AlphaSeries.of(trial, spec, tables)
