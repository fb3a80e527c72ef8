"""`/v1/architectures/{hash}` in every form, and what a search found."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from search_core.genotype import CellGenotype, Genotype
from service import etags, examples
from service.architectures.schemas import (
    ArchitectureAnswer,
    ArchitectureList,
    RankedArchitecture,
    genotype_of,
)
from service.caller import CallerOf
from service.drawing import CellName, architecture_dot, to_svg
from service.openapi import LOOKUP, media, ok, problems
from service.parameters import ArchitectureHash, SearchId
from service.problems import ProblemError
from store import access, architectures, searches
from store.access import Principal
from store.states import JobKind, TrialStatus

router = APIRouter(prefix="/v1", tags=["architectures"])

WhichCell = Annotated[
    CellName | None,
    Query(description="Only this cell; both in one picture if absent. A path has none."),
]


@router.get(
    "/searches/{search_id}/architectures",
    summary="List what a search found",
    responses={
        200: ok("Ranked.", examples.ARCHITECTURE_LIST),
        **problems(*LOOKUP),
    },
)
async def list_architectures(search_id: SearchId, caller: CallerOf) -> ArchitectureList:
    """What each completed trial derived: the recommended one first, then by validation accuracy.

    Those of trials that were stopped early come last.
    """
    return await caller.run(partial(_list, search_id=search_id))


# Of the paths below, the ones with a suffix come first: {hash} alone matches them too.


@router.get(
    "/architectures/{architecture_hash}.json",
    summary="Fetch a genotype as JSON",
    response_class=Response,
    responses={
        200: {
            "description": "The bare genotype.",
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Genotype"},
                    "example": examples.GENOTYPE,
                }
            },
        },
        **problems(*LOOKUP),
    },
)
async def read_json(
    request: Request, architecture_hash: ArchitectureHash, caller: CallerOf
) -> Response:
    """The genotype, as `search_core.genotype.parse` and every POST of a genotype read it."""
    genotype = await caller.run(partial(_genotype, architecture_hash=architecture_hash))
    return etags.tagged(
        request, genotype.to_json().encode(), "application/json", cache=etags.IMMUTABLE
    )


@router.get(
    "/architectures/{architecture_hash}.txt",
    summary="Fetch a genotype in its text form",
    response_class=Response,
    responses={
        200: media("One line.", {"text/plain": examples.GENOTYPE_VALUE.to_text() + "\n"}),
        **problems(*LOOKUP),
    },
)
async def read_text(
    request: Request, architecture_hash: ArchitectureHash, caller: CallerOf
) -> Response:
    """`Genotype(normal=[...], ...)` as the DARTS papers' code prints it, or `Path(steps=[...])`."""
    genotype = await caller.run(partial(_genotype, architecture_hash=architecture_hash))
    return etags.tagged(
        request, genotype.to_text().encode() + b"\n", "text/plain", cache=etags.IMMUTABLE
    )


@router.get(
    "/architectures/{architecture_hash}.svg",
    summary="See an architecture",
    response_class=Response,
    responses={
        200: media("The picture.", {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>"}),
        **problems(*LOOKUP),
    },
)
async def read_svg(
    request: Request,
    architecture_hash: ArchitectureHash,
    caller: CallerOf,
    cell: WhichCell = None,
) -> Response:
    """Operations coloured by sort, left to right.

    Of cells: inputs, nodes and output. Of a path: the grid of its levels and channels, and its way.
    """
    genotype = await caller.run(partial(_genotype, architecture_hash=architecture_hash))
    picture = await to_svg(_dot(genotype, cell))
    return etags.tagged(request, picture, "image/svg+xml", cache=etags.IMMUTABLE)


@router.get(
    "/architectures/{architecture_hash}.dot",
    summary="Fetch the picture's source for Graphviz",
    response_class=Response,
    responses={
        200: media("A digraph.", {"text/vnd.graphviz": architecture_dot(examples.GENOTYPE_VALUE)}),
        **problems(*LOOKUP),
    },
)
async def read_dot(
    request: Request,
    architecture_hash: ArchitectureHash,
    caller: CallerOf,
    cell: WhichCell = None,
) -> Response:
    """The same picture in the DOT language, to restyle or to render in another format."""
    genotype = await caller.run(partial(_genotype, architecture_hash=architecture_hash))
    return etags.tagged(
        request, _dot(genotype, cell).encode(), "text/vnd.graphviz", cache=etags.IMMUTABLE
    )


@router.get("/architectures/{architecture_hash}.{ending}", include_in_schema=False)
async def refuse_ending(architecture_hash: str, ending: str) -> Response:
    """What has no such form is told which forms there are."""
    raise ProblemError(
        "not-found",
        f"There is no form of an architecture that ends in {f'.{ending}'[:40]!r}; the endings are "
        f".json, .txt, .svg and .dot, as in /v1/architectures/{architecture_hash[:64]}.svg.",
    )


@router.get(
    "/architectures/{architecture_hash}",
    summary="Look at an architecture",
    responses={
        200: ok("The architecture.", examples.ARCHITECTURE),
        **problems(*LOOKUP),
    },
)
async def get_architecture(
    architecture_hash: ArchitectureHash, caller: CallerOf
) -> ArchitectureAnswer:
    """The genotype in both forms, and the trials that derived it, of searches that you see.

    Whoever knows its hash may look at an architecture, whoever found it.
    """
    return await caller.run(partial(_get, architecture_hash=architecture_hash))


def _list(session: Session, who: Principal, search_id: UUID) -> ArchitectureList:
    access.require_search(session, who, search_id, JobKind.SEARCH)
    search = searches.get(session, search_id, JobKind.SEARCH)
    items = [
        RankedArchitecture.of(search, trial, architecture)
        for trial, architecture in architectures.found_by_search(session, search_id)
    ]
    items.sort(
        key=lambda item: (
            not item.recommended,
            # One that was stopped has not trained as long as those it would be compared with.
            item.status == TrialStatus.STOPPED,
            -(item.validation_accuracy or 0.0),
        )
    )
    return ArchitectureList(items=items)


def _get(session: Session, who: Principal, architecture_hash: str) -> ArchitectureAnswer:
    architecture = architectures.get(session, architecture_hash)
    findings = architectures.findings(session, architecture_hash, seen_by=who)
    return ArchitectureAnswer.of(architecture, findings)


def _genotype(session: Session, _: Principal, architecture_hash: str) -> Genotype:
    return genotype_of(architectures.get(session, architecture_hash))


def _dot(genotype: Genotype, cell: CellName | None) -> str:
    if cell is None:
        return architecture_dot(genotype)
    if not isinstance(genotype, CellGenotype):
        raise ProblemError(
            "invalid-parameter",
            "query parameter 'cell': this architecture is a path, which has no cells.",
        )
    return architecture_dot(genotype, (cell,))
