"""`/v1/searches`: submit, list, look at, cancel."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal, get_args
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, AwareDatetime
from sqlalchemy.orm import Session

from search_core.spec import SearchSpec
from service import examples
from service.openapi import LOOKUP, ok, problems, spec_body
from service.parameters import Limit, PlainText, SearchId
from service.searches.schemas import DryRun, SearchAnswer, SearchPageAnswer
from service.spec_body import read_spec
from service.wiring import DatabaseOf
from store import lifecycle, queue, searches
from store.searches import SearchFilter, SearchPage
from store.states import SearchStatus

router = APIRouter(prefix="/v1/searches", tags=["searches"])

_SPACE_KINDS = [
    kind
    for member in get_args(SearchSpec.model_fields["space"].annotation)
    for kind in get_args(member.model_fields["kind"].annotation)
]


def _known_space(value: str) -> str:
    if value not in _SPACE_KINDS:
        raise ValueError(f"no such space; choose from: {', '.join(_SPACE_KINDS)}")
    return value


def _label(value: str) -> str:
    key, colon, text = value.partition(":")
    if not (key and colon and text):
        raise ValueError("write a label as key:value")
    return value


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Submit a search",
    response_model=SearchAnswer,
    responses={
        200: ok("With `dry_run`: what the spec would run.", examples.DRY_RUN, DryRun),
        201: ok("The search, queued.", examples.SEARCH, location=True),
        **problems(
            "malformed-json",
            "body-too-large",
            "unsupported-media-type",
            "invalid-spec",
            "invalid-parameter",
            "unavailable",
        ),
    },
    openapi_extra=spec_body(examples.SPECS),
)
async def submit_search(
    request: Request,
    response: Response,
    database: DatabaseOf,
    dry_run: Annotated[
        bool, Query(description="Only validate the spec and say what it would run.")
    ] = False,
) -> SearchAnswer | Response:
    """Validates the spec, stores the search durably and queues it.

    The body is a spec; unknown fields are refused. Everything but `space` has a default, and a
    `preset` sets even that.
    """
    spec = await read_spec(request)
    if dry_run:
        return JSONResponse(DryRun.of(spec).model_dump(mode="json"))
    answer = await database.run(partial(_submit, spec=spec))
    response.headers["Location"] = f"/v1/searches/{answer.id}"
    return answer


@router.get(
    "",
    summary="List searches",
    responses={
        200: ok("A page.", examples.SEARCH_PAGE),
        **problems("invalid-parameter", "unavailable"),
    },
)
async def list_searches(
    database: DatabaseOf,
    statuses: Annotated[
        list[SearchStatus],
        Query(alias="status", description="Any of these statuses; repeat it for more than one."),
    ] = [],  # noqa: B006  (FastAPI copies it)
    space: Annotated[
        str | None, AfterValidator(_known_space), Query(description="The space's kind.")
    ] = None,
    name: Annotated[PlainText | None, Query(description="Exactly this name.")] = None,
    label: Annotated[
        list[Annotated[PlainText, AfterValidator(_label)]],
        Query(description="A label as `key:value`; repeated, all of them."),
    ] = [],  # noqa: B006
    created_after: Annotated[
        AwareDatetime | None,
        Query(description="Created then or later; a time with its zone, as 2026-01-31T12:00:00Z."),
    ] = None,
    created_before: Annotated[
        AwareDatetime | None, Query(description="Created before this time.")
    ] = None,
    sort: Annotated[
        Literal["created", "-created"], Query(description="Oldest first, or newest first.")
    ] = "-created",
    limit: Limit = 50,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the page before.", max_length=100)
    ] = None,
) -> SearchPageAnswer:
    """The searches that match every given filter, page by page."""
    where = SearchFilter(
        statuses=statuses,
        space=space,
        name=name,
        labels=dict(text.split(":", 1) for text in label),
        created_after=created_after,
        created_before=created_before,
    )

    def operation(session: Session) -> SearchPageAnswer:
        page = searches.list_page(
            session, where, limit=limit, cursor=cursor, oldest_first=sort == "created"
        )
        return _page(session, page)

    return await database.run(operation)


@router.get(
    "/{search_id}",
    summary="Look at a search",
    responses={
        200: ok("The search.", examples.SEARCH),
        **problems(*LOOKUP),
    },
)
async def get_search(search_id: SearchId, database: DatabaseOf) -> SearchAnswer:
    """A search with its trials, its place in the queue while it waits, and what it recommends."""
    return await database.run(partial(_get, search_id=search_id))


@router.post(
    "/{search_id}/cancel",
    summary="Cancel a search",
    responses={
        200: ok("The search: cancelled, or still running but about to stop.", examples.CANCELLED),
        **problems("not-found", "conflict", "invalid-parameter", "unavailable"),
    },
)
async def cancel_search(search_id: SearchId, database: DatabaseOf) -> SearchAnswer:
    """Cancels at once what waits, and within seconds what runs.

    Cancelling again changes nothing. A search that already succeeded or failed is a conflict.
    """
    return await database.run(partial(_cancel, search_id=search_id))


def _submit(session: Session, spec: SearchSpec) -> SearchAnswer:
    search = searches.submit(session, spec)
    return SearchAnswer.of(
        search, searches.trials(session, search.id), queue.waiting(session, search)
    )


def _get(session: Session, search_id: UUID) -> SearchAnswer:
    search = searches.get(session, search_id)
    return SearchAnswer.of(
        search, searches.trials(session, search_id), queue.waiting(session, search)
    )


def _cancel(session: Session, search_id: UUID) -> SearchAnswer:
    search = lifecycle.request_cancel(session, search_id)
    return SearchAnswer.of(
        search, searches.trials(session, search_id), queue.waiting(session, search)
    )


def _page(session: Session, page: SearchPage) -> SearchPageAnswer:
    ids: Sequence[UUID] = [search.id for search in page.searches]
    trials = searches.trials_of(session, ids)
    waiting = queue.waiting_of(session, page.searches)
    return SearchPageAnswer(
        items=[
            SearchAnswer.of(search, trials[search.id], waiting.get(search.id))
            for search in page.searches
        ],
        next_cursor=page.next_cursor,
    )
