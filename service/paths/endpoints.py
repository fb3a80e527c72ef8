"""`/v1/trials/{id}/paths` and `/v1/trials/{id}/cuboid.svg`: what a hypercuboid has come to."""

import asyncio
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from service import etags, examples
from service.caller import CallerOf
from service.drawing import cuboids, to_svg
from service.openapi import LOOKUP, media, ok, problems
from service.parameters import TrialId
from service.paths.cuboid import WeightedCuboid, read_cuboid
from service.paths.schemas import PathList
from service.problems import ProblemError

router = APIRouter(prefix="/v1", tags=["trials"])

_MOST_PATHS = 100
_LARGEST_BUDGET = 2**63 - 1
_REFUSALS = ("conflict", *LOOKUP)

Budget = Annotated[int | None, Query(ge=1, le=_LARGEST_BUDGET)]


@router.get(
    "/trials/{trial_id}/paths",
    summary="List the best paths of a trial's hypercuboid",
    responses={200: ok("The paths.", examples.PATHS), **problems(*_REFUSALS)},
)
async def list_paths(
    trial_id: TrialId,
    caller: CallerOf,
    k: Annotated[int, Query(ge=1, le=_MOST_PATHS, description="How many.")] = 10,
    within_parameters: Annotated[
        Budget, Query(description="Find the best path with at most so many weights, too.")
    ] = None,
    within_multiply_adds: Annotated[
        Budget, Query(description="Or the best one with at most so many multiply-adds.")
    ] = None,
) -> PathList:
    """The k best paths by the weights of the last completed epoch, exactly, with their costs.

    A path's score is the sum of the weights of its operations. `derived` is what the trial derives:
    the first one, or where it trains finalists the best of these so far. With a budget also the
    best of the paths whose whole network costs no more. Trials of cells have no paths, and before
    the first epoch there are none: both are conflicts.
    """
    if within_parameters is not None and within_multiply_adds is not None:
        raise ProblemError(
            "invalid-parameter",
            "query parameters 'within_parameters' and 'within_multiply_adds': give one of them.",
        )
    budget: tuple[Literal["parameters", "multiply_adds"], int] | None = None
    if within_parameters is not None:
        budget = ("parameters", within_parameters)
    if within_multiply_adds is not None:
        budget = ("multiply_adds", within_multiply_adds)
    cuboid = await caller.run(partial(read_cuboid, trial_id=trial_id))
    try:
        return await asyncio.to_thread(PathList.of, trial_id, cuboid, k, budget)
    except ValueError as error:
        assert budget is not None
        raise ProblemError(
            "invalid-parameter", f"query parameter 'within_{budget[0]}': {error}."
        ) from None


@router.get(
    "/trials/{trial_id}/cuboid.svg",
    summary="See a trial's hypercuboid",
    response_class=Response,
    responses={
        200: media("The picture.", {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>"}),
        **problems(*_REFUSALS),
    },
)
async def read_cuboid_svg(request: Request, trial_id: TrialId, caller: CallerOf) -> Response:
    """The whole grid, every operation as wide as it weighs at the last epoch, and what is derived.

    Columns are the states before and after each position, rows are channels. Hovering over a line
    tells its operation and weight.
    """
    cuboid = await caller.run(partial(read_cuboid, trial_id=trial_id))
    picture = await to_svg(await asyncio.to_thread(_dot, cuboid))
    return etags.tagged(request, picture, "image/svg+xml", cache=etags.REVALIDATED)


@router.get(
    "/trials/{trial_id}/cuboid.dot",
    summary="Fetch the hypercuboid's picture for Graphviz",
    response_class=Response,
    responses={
        200: media("A digraph.", {"text/vnd.graphviz": examples.CUBOID_DOT}),
        **problems(*_REFUSALS),
    },
)
async def read_cuboid_dot(request: Request, trial_id: TrialId, caller: CallerOf) -> Response:
    """The same picture in the DOT language; every node and line has its place in it."""
    cuboid = await caller.run(partial(read_cuboid, trial_id=trial_id))
    source = await asyncio.to_thread(_dot, cuboid)
    return etags.tagged(request, source.encode(), "text/vnd.graphviz", cache=etags.REVALIDATED)


def _dot(cuboid: WeightedCuboid) -> str:
    when = f"epoch {cuboid.step} of {cuboid.epochs}"
    return cuboids.to_dot(cuboid.space, cuboid.weights, cuboid.derived, when)
