"""`/v1/searches`: submit, list, look at, cancel."""

import asyncio
from functools import partial
from typing import Annotated, Final, get_args

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.responses import JSONResponse
from pydantic import AfterValidator
from sqlalchemy.orm import Session

from search_core.spec import SearchSpec
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
from service.parameters import Limit, SearchId
from service.searches.schemas import DryRun, SearchAnswer, SearchPageAnswer
from service.searches.size import SpaceSize, refuse_too_large
from service.spec_body import parse_spec, read_json
from service.wiring import WiringOf
from store import queue
from store.access import Principal
from store.searches import SearchFilter
from store.states import JobKind

router = APIRouter(prefix="/v1/searches", tags=["searches"])

SMALLEST_SPEC: Final = '{"preset": "digits-quick"}'
"""For who sends none."""

_QUICK_BYTES: Final = 4096
_SLOW_WORDS: Final = (b"grid", b"sample", b"hypercuboid", b"preset")

_SPACE_KINDS = [
    kind
    for member in get_args(SearchSpec.model_fields["space"].annotation)
    for kind in get_args(member.model_fields["kind"].annotation)
]


def _known_space(value: str) -> str:
    if value not in _SPACE_KINDS:
        raise ValueError(f"no such space; choose from: {', '.join(_SPACE_KINDS)}")
    return value


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Submit a search",
    response_model=SearchAnswer,
    responses={
        200: ok("With `dry_run`: what the spec would run.", examples.DRY_RUN, DryRun),
        201: ok("The search, queued.", {**examples.SEARCH, "waiting": None}, location=True),
        **problems(*SUBMISSION),
    },
    openapi_extra=spec_body(examples.SPECS),
)
async def submit_search(
    request: Request,
    caller: CallerOf,
    creation: CreationOf,
    wiring: WiringOf,
    dry_run: Annotated[
        bool, Query(description="Only validate the spec and say what it would run.")
    ] = False,
) -> Response:
    """Validates the spec, stores the search durably and queues it.

    The body is a spec; unknown fields are refused. Everything but `space` has a default, and a
    `preset` sets even that. A hypercuboid that the memory of no known node would hold is refused,
    with the estimate and the largest node's.
    """
    body = await read_json(request, smallest=SMALLEST_SPEC)
    if dry_run:
        spec, size = await checked_spec(body, caller, fit_cluster=True)
        return JSONResponse(DryRun.of(spec, size).model_dump(mode="json"))

    async def prepare() -> SearchSpec:
        spec, _ = await checked_spec(body, caller)
        return spec

    return await wiring.submissions.answer(creation, body, prepare, SearchAnswer)


async def checked_spec(
    body: bytes, caller: Caller, *, fit_cluster: bool = False
) -> tuple[SearchSpec, SpaceSize]:
    """The spec of a search in JSON, and the size of what it searches.

    Args:
        body: The JSON.
        caller: Who sent it.
        fit_cluster: Ask for the nodes' memory even where nothing is known of what the spec takes,
            so that whoever may not ask is refused.

    Raises:
        ProblemError: It is no valid spec, or too large for every node; says where.
    """
    if _is_quick(body):
        spec, size = _spec_and_size(body)
    else:
        spec, size = await asyncio.to_thread(_spec_and_size, body)
    if fit_cluster or size.training_bytes is not None:
        largest = await caller.run(lambda session, _: queue.largest_memory(session))
        refuse_too_large(spec, size, largest)
    return spec, size


def _is_quick(body: bytes) -> bool:
    """Whether a spec is checked in less time than it takes to hand it to a thread.

    A thousand points take most of a second, and a large cuboid takes long to count: others would
    wait for it. Where that is misjudged, they do.
    """
    return len(body) <= _QUICK_BYTES and not any(word in body for word in _SLOW_WORDS)


def _spec_and_size(body: bytes) -> tuple[SearchSpec, SpaceSize]:
    spec = parse_spec(SearchSpec, body)
    return spec, SpaceSize.of(spec)


@router.get(
    "",
    summary="List searches",
    responses={
        200: ok("A page.", examples.SEARCH_PAGE),
        **problems(*READING),
    },
)
async def list_searches(
    caller: CallerOf,
    statuses: Statuses = [],  # noqa: B006  (FastAPI copies it)
    space: Annotated[
        str | None, AfterValidator(_known_space), Query(description="The space's kind.")
    ] = None,
    name: Name = None,
    owner: OwnerFilter = None,
    label: Labels = [],  # noqa: B006
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    sort: Sort = "-created",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> SearchPageAnswer:
    """The searches that match every given filter, page by page."""
    where = SearchFilter(
        kind=JobKind.SEARCH,
        statuses=statuses,
        space=space,
        name=name,
        owner=owner,
        labels=labels_of(label),
        created_after=created_after,
        created_before=created_before,
    )

    def operation(session: Session, who: Principal) -> SearchPageAnswer:
        page = operations.page(
            session,
            who,
            where,
            SearchAnswer,
            limit=limit,
            cursor=cursor,
            oldest_first=sort == "created",
        )
        return SearchPageAnswer(items=page.items, next_cursor=page.next_cursor)

    return await caller.run(operation)


@router.get(
    "/{search_id}",
    summary="Look at a search",
    responses={
        200: ok("The search.", examples.SEARCH),
        **problems(*LOOKUP),
    },
)
async def get_search(search_id: SearchId, caller: CallerOf) -> SearchAnswer:
    """A search with its trials, its place in the queue while it waits, and what it recommends."""
    return await caller.run(partial(operations.get, job_id=search_id, answer=SearchAnswer))


add_verbs(router, SearchAnswer, lambda **fields: {**examples.SEARCH, **fields})
