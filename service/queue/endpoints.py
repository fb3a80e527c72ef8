"""`/v1/queue`: the whole queue at one moment."""

from fastapi import APIRouter
from sqlalchemy.orm import Session

from service import examples
from service.caller import CallerOf
from service.openapi import READING, ok, problems
from service.queue.schemas import QueueAnswer
from store import queue, searches
from store.access import Principal

router = APIRouter(prefix="/v1/queue", tags=["queue"])


@router.get(
    "",
    summary="Look at the queue",
    responses={
        200: ok("The queue now.", examples.QUEUE),
        **problems(*READING),
    },
)
async def read_queue(caller: CallerOf) -> QueueAnswer:
    """Counts by status, who waits in which place and why, who runs where, and what there is.

    Counts, places and the cluster are everybody's; of the searches themselves only those are listed
    that you see.
    """
    return await caller.run(_overview)


def _overview(session: Session, who: Principal) -> QueueAnswer:
    overview = queue.overview(session, seen_by=who)
    ids = [search.id for search in overview.running]
    return QueueAnswer.of(overview, searches.trials_of(session, ids))
