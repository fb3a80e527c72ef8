"""`/`, `/healthz` and `/readyz`: the API about itself."""

from fastapi import APIRouter, Request, Response, status
from sqlalchemy.orm import Session

from service import examples
from service.health.schemas import Alive, Check, CheckName, Readiness, Root
from service.openapi import ok, problems
from service.wiring import DatabaseOf
from store import queue
from store.errors import DatabaseUnavailableError
from store.models import SCHEMA_REVISION
from store.sessions import schema_revision

router = APIRouter(tags=["service"])


@router.get(
    "/",
    summary="Begin here",
    responses={
        200: ok("Where to go.", examples.ROOT),
        **problems("invalid-parameter"),
    },
)
async def read_root(request: Request) -> Root:
    """Name, version and the paths worth knowing."""
    return Root(
        name="Dartboard",
        version=request.app.version,
        links={
            "searches": "/v1/searches",
            "queue": "/v1/queue",
            "presets": "/v1/presets",
            "openapi": "/openapi.json",
            "docs": "/docs",
            "health": "/healthz",
            "readiness": "/readyz",
        },
    )


@router.get(
    "/healthz",
    summary="Is the API alive?",
    responses={
        200: ok("It is.", examples.ALIVE),
        **problems("invalid-parameter"),
    },
)
async def read_health() -> Alive:
    """Answers as long as the process does; looks at nothing else."""
    return Alive()


@router.get(
    "/readyz",
    summary="Would a search run now?",
    responses={
        200: ok("It would.", examples.READY),
        503: ok("Something is missing; its check says what to do.", examples.NOT_READY, Readiness),
        **problems("invalid-parameter"),
    },
)
async def read_readiness(response: Response, database: DatabaseOf) -> Readiness:
    """Looks whether PostgreSQL answers, has this version's tables, and a dispatcher runs."""
    try:
        checks = await database.run(_checks)
    except DatabaseUnavailableError as error:
        unknown = Check(ok=False, detail="not looked at: the database is away")
        checks = {
            "database": Check(ok=False, detail=str(error)),
            "schema": unknown,
            "dispatcher": unknown,
        }
    ready = all(check.ok for check in checks.values())
    if not ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return Readiness(ready=ready, checks=checks)


def _checks(session: Session) -> dict[CheckName, Check]:
    revision = schema_revision(session)
    database = Check(ok=True, detail="PostgreSQL answers")
    if revision != SCHEMA_REVISION:
        at = "has no tables yet" if revision is None else f"is at revision {revision}"
        detail = f"the database {at}, this version needs {SCHEMA_REVISION}: "
        detail += "run `python -m migrations` of this version"
        return {
            "database": database,
            "schema": Check(ok=False, detail=detail),
            "dispatcher": Check(ok=False, detail="not looked at: migrate first"),
        }
    num_seen = len(queue.dispatchers_seen(session))
    return {
        "database": database,
        "schema": Check(ok=True, detail=f"at revision {revision}"),
        "dispatcher": Check(ok=True, detail=f"{num_seen} seen lately")
        if num_seen
        else Check(
            ok=False, detail="none seen lately: start one with `python -m workers.dispatcher`"
        ),
    }
