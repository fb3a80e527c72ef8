"""Removes what has been kept for long enough, now and then, in the background of an API process."""

import asyncio
import logging
from typing import Final

from sqlalchemy.orm import Session

from service.database import Database
from store import deliveries, idempotency, queue
from store.errors import DatabaseUnavailableError

EVERY_SECONDS: Final = 600.0

_logger = logging.getLogger(__name__)


def forget(session: Session) -> None:
    """Removes old answers to creates, and deliveries that ended long ago; sums counts up."""
    queue.fold_counts(session)
    num_answers, num_deliveries = idempotency.forget(session), deliveries.forget(session)
    if num_answers or num_deliveries:
        _logger.info("removed %d kept answers, %d deliveries", num_answers, num_deliveries)


async def keep_house(database: Database) -> None:
    """Does so every ten minutes until it is cancelled. Several processes may."""
    while True:
        try:
            await database.run(forget)
        except DatabaseUnavailableError as error:
            _logger.debug("nothing was removed: %s", error)
        except Exception:
            _logger.exception("removing what is old failed; trying again later")
        await asyncio.sleep(EVERY_SECONDS)
