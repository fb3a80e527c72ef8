"""`/v1/searches/{id}/logs` and the same of a training: what is kept after the nodes are gone."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response

from service import etags, examples
from service.caller import Caller, CallerOf
from service.logs import reading
from service.logs.schemas import LogList
from service.openapi import LOOKUP, media, ok, problems
from service.parameters import SearchId, TrainingId
from service.wiring import Wiring, WiringOf
from store import access, artifacts, logs
from store.artifacts import ArtifactFolder
from store.errors import NotFoundError
from store.states import JobKind

router = APIRouter(prefix="/v1", tags=["logs"])

_MOST_LINES = 100_000

LogName = Annotated[
    str,
    Path(pattern=logs.NAME_PATTERN, description="The log's name, as the list has it."),
]
Tail = Annotated[
    int | None, Query(ge=1, le=_MOST_LINES, description="Only so many of its last lines.")
]
_PROBLEMS = problems(*LOOKUP, "storage-unavailable")
_TEXT = media("The log.", {"text/plain": examples.LOG_TEXT})


@router.get(
    "/searches/{search_id}/logs",
    summary="List a search's logs",
    responses={200: ok("All that are kept.", examples.LOG_LIST), **_PROBLEMS},
)
async def list_logs(search_id: SearchId, wiring: WiringOf, caller: CallerOf) -> LogList:
    """What the runners of a search and its trials wrote, attempt by attempt.

    Copied into the storage every few seconds while they run, and when they end; kept after their
    nodes are gone. Trials that run inside the runner write into its log.
    """
    return await _list(wiring, caller, search_id, JobKind.SEARCH)


@router.get(
    "/searches/{search_id}/logs/{name}",
    summary="Read a search's log",
    response_class=Response,
    responses={200: _TEXT, **_PROBLEMS},
)
async def read_log(
    request: Request,
    search_id: SearchId,
    name: LogName,
    wiring: WiringOf,
    caller: CallerOf,
    tail: Tail = None,
) -> Response:
    """One log as text, as it was written: terminal colours are left in."""
    return await _read(request, wiring, caller, search_id, JobKind.SEARCH, name, tail)


@router.get(
    "/trainings/{training_id}/logs",
    summary="List a training's logs",
    responses={200: ok("All that are kept.", examples.LOG_LIST), **_PROBLEMS},
)
async def list_logs_of_training(
    training_id: TrainingId, wiring: WiringOf, caller: CallerOf
) -> LogList:
    """What the runners of a training and its trials wrote, attempt by attempt."""
    return await _list(wiring, caller, training_id, JobKind.TRAINING)


@router.get(
    "/trainings/{training_id}/logs/{name}",
    summary="Read a training's log",
    response_class=Response,
    responses={200: _TEXT, **_PROBLEMS},
)
async def read_log_of_training(
    request: Request,
    training_id: TrainingId,
    name: LogName,
    wiring: WiringOf,
    caller: CallerOf,
    tail: Tail = None,
) -> Response:
    """One log as text, as it was written: terminal colours are left in."""
    return await _read(request, wiring, caller, training_id, JobKind.TRAINING, name, tail)


async def _list(wiring: Wiring, caller: Caller, job_id: UUID, kind: JobKind) -> LogList:
    folder = await _folder(wiring, caller, job_id, kind)
    return LogList.of(await reading.ask(folder, logs.kept))


async def _read(
    request: Request,
    wiring: Wiring,
    caller: Caller,
    job_id: UUID,
    kind: JobKind,
    name: str,
    tail: int | None,
) -> Response:
    folder = await _folder(wiring, caller, job_id, kind)
    try:
        content = await reading.ask(folder, partial(logs.read, name=name, tail=tail))
    except FileNotFoundError as error:
        raise NotFoundError("log", name) from error
    return etags.tagged(request, content, "text/plain", cache=etags.REVALIDATED)


async def _folder(wiring: Wiring, caller: Caller, job_id: UUID, kind: JobKind) -> ArtifactFolder:
    """The folder of a job's logs, once it is known that there is such a job for the caller."""
    await caller.run(partial(access.require_search, search_id=job_id, kind=kind))
    return artifacts.logs_of(wiring.settings.storage_root, job_id)
