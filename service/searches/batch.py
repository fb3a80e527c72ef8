"""`/v1/searches:batch`: many searches at once, all or none."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy.orm import Session

from search_core.spec import SearchSpec
from service.caller import Caller, CallerOf
from service.idempotency import Create, CreationOf, Made
from service.jobs import operations
from service.openapi import REPLAYED, SUBMISSION, ok, problems, spec_body
from service.pointers import MOST_ERRORS, field_problems
from service.problems import FieldProblem, ProblemError
from service.searches import examples
from service.searches.endpoints import checked_spec
from service.searches.schemas import (
    DryRun,
    DryRunBatch,
    SearchAnswer,
    SearchBatch,
    SearchBatchAnswer,
)
from service.searches.size import SpaceSize
from service.spec_body import LARGEST_BATCH, invalid_spec, read_json
from store.access import Principal

router = APIRouter(prefix="/v1/searches:batch", tags=["searches"])

MOST_TRIALS: Final = 10_000
"""Of all searches together: each is a row that the one transaction writes."""


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Submit many searches",
    response_model=SearchBatchAnswer,
    responses={
        200: ok("With `dry_run`: what each spec would run.", examples.DRY_RUNS,
                DryRunBatch),
        201: ok("The searches, queued.", examples.SUBMITTED) | {"headers": REPLAYED},
        **problems(*SUBMISSION),
    },
    openapi_extra=spec_body(examples.BATCHES, "SearchBatch"),
)  # fmt: skip
async def submit_searches(
    request: Request,
    caller: CallerOf,
    creation: CreationOf,
    dry_run: Annotated[
        bool, Query(description="Only validate the specs and say what they would run.")
    ] = False,
) -> Response:
    """Validates all specs, then stores and queues all searches in one transaction, or none.

    Takes 1 to 100 specs, each as `POST /v1/searches` does, of at most 10,000 trials in all, in at
    most 8 MiB. The pointers of a problem begin with the spec's place, as in
    `/searches/3/space/channels`.
    """
    body = await read_json(
        request, smallest='{"searches": [{"preset": "digits-quick"}]}', largest=LARGEST_BATCH
    )
    if dry_run:
        checked = await _checked(body, caller, fit_cluster=True)
        answer = DryRunBatch(items=[DryRun.of(spec, size) for spec, size in checked])
        return JSONResponse(answer.model_dump(mode="json"))

    async def prepare() -> Create:
        checked = await _checked(body, caller)
        return partial(_submit, specs=[spec for spec, _ in checked])

    return await creation.answer(body, prepare)


async def _checked(
    body: bytes, caller: Caller, *, fit_cluster: bool = False
) -> list[tuple[SearchSpec, SpaceSize]]:
    """The specs with their sizes.

    Raises:
        ProblemError: Some are refused; says what is wrong with each of them.
    """
    checked: list[tuple[SearchSpec, SpaceSize]] = []
    wrong: list[FieldProblem] = []
    for number, spec in enumerate(_parse(body)):
        try:
            checked.append(await checked_spec(to_json(spec), caller, fit_cluster=fit_cluster))
        except ProblemError as problem:
            if problem.errors is None:
                raise
            wrong += [
                FieldProblem(pointer=f"/searches/{number}{each.pointer}", message=each.message)
                for each in problem.errors
            ]
        if len(wrong) >= MOST_ERRORS:
            break
    if wrong:
        raise invalid_spec(wrong[:MOST_ERRORS])
    num_trials = sum(spec.trials.num_trials for spec, _ in checked)
    if num_trials > MOST_TRIALS:
        message = (
            f"{num_trials:,} trials in all; the most at once are {MOST_TRIALS:,}: send several "
            "batches"
        )
        raise invalid_spec([FieldProblem(pointer="/searches", message=message)])
    return checked


def _parse(body: bytes) -> list[dict[str, Any]]:
    try:
        return SearchBatch.model_validate_json(body).searches
    except ValidationError as error:
        raise invalid_spec(field_problems(SearchBatch, error)) from None


def _submit(
    session: Session, who: Principal, _: bytes | None, *, specs: Sequence[SearchSpec]
) -> Made:
    return Made(SearchBatchAnswer(items=operations.submit_all(session, who, specs, SearchAnswer)))
