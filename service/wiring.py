"""What the application holds for its endpoints, and how they ask for it."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.database import Database
from service.events.feed import EventFeed
from service.jobs.submissions import Submissions
from service.settings import ServiceSettings


@dataclass(frozen=True)
class Wiring:
    """What lives as long as the application."""

    settings: ServiceSettings
    database: Database
    feed: EventFeed
    submissions: Submissions


# Asynchronous, as every dependency here: FastAPI runs others in a thread, at each request.
async def _wiring(request: Request) -> Wiring:
    wiring: Wiring = request.app.state.wiring
    return wiring


async def _database(request: Request) -> Database:
    wiring: Wiring = request.app.state.wiring
    return wiring.database


WiringOf = Annotated[Wiring, Depends(_wiring)]
"""An endpoint's parameter: all of it."""

DatabaseOf = Annotated[Database, Depends(_database)]
"""An endpoint's parameter: the database."""
