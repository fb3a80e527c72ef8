"""`/v1/queue`: the whole queue at one moment."""

from fastapi import APIRouter
from sqlalchemy.orm import Session

from service import examples
from service.openapi import ok, problems
from service.queue.schemas import QueueAnswer
from service.wiring import DatabaseOf
from store import queue, searches

router = APIRouter(prefix="/v1/queue", tags=["queue"])


@router.get(
    "",
    summary="Look at the queue",
    responses={
        200: ok("The queue now.", examples.QUEUE),
        **problems("invalid-parameter", "unavailable"),
    },
)
async def read_queue(database: DatabaseOf) -> QueueAnswer:
    """Counts by status, who waits in which place and why, who runs where, and what there is."""
    return await database.run(_overview)


def _overview(session: Session) -> QueueAnswer:
    overview = queue.overview(session)
    ids = [search.id for search in overview.running]
    return QueueAnswer.of(overview, searches.trials_of(session, ids))
