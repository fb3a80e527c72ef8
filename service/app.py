"""The application: its parts put together, and what lives as long as it does."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI

from service import openapi, problems, reference
from service.alphas import endpoints as alphas
from service.architectures import endpoints as architectures
from service.database import Database
from service.events import endpoints as events
from service.events.feed import EventFeed
from service.head import HeadMiddleware
from service.health import endpoints as health
from service.housekeeping import keep_house
from service.jobs.submissions import Submissions
from service.keys import endpoints as keys
from service.logs import endpoints as logs
from service.newline import NewlineMiddleware
from service.owners import endpoints as owners
from service.parameters import refuse_unknown_query_parameters
from service.paths import endpoints as paths
from service.presets import endpoints as presets
from service.queue import endpoints as queue
from service.searches import batch
from service.searches import endpoints as searches
from service.settings import ServiceSettings
from service.trainings import endpoints as trainings
from service.trials import endpoints as trials
from service.webhooks import endpoints as webhooks
from service.webhooks import log as deliveries
from service.webhooks.deliverer import Deliverer
from service.webhooks.sending import Sender
from service.wiring import Wiring
from store.sessions import database_url, make_async_engine

_ASK_AGAIN_SECONDS = 5.0

_logger = logging.getLogger(__name__)

_DESCRIPTION = """
Differentiable architecture search as a service. Submit a search with `POST /v1/searches`, follow it
with `GET /v1/searches/{id}/events`, and fetch what it found as JSON, as text and as a picture under
`/v1/architectures`. The rivals of what a hypercuboid came to are in `/v1/trials/{id}/paths`. What
an architecture is worth, a training from scratch tells: `/v1/trainings`.

Everything about searches takes a key: `Authorization: Bearer dbk_...`. A search is its key owner's;
others see it if its label `team` names a team of theirs, or if they are admins. What somebody does
not see is a 404 for them.

Times are RFC 3339 in UTC. Lists page by an opaque cursor. Unknown fields and unknown query
parameters are refused. Every error is `application/problem+json` (RFC 9457) with a stable `type`, a
`detail` that says what to do, and for a bad spec the JSON pointer of each offending field.
""".strip()


def create_app(settings: ServiceSettings) -> FastAPI:
    """The application.

    Args:
        settings: Where its database is, and how its streams behave.

    Returns:
        An ASGI application. Its lifespan opens and closes what `app.state.wiring` holds.
    """
    app = FastAPI(
        title="Dartboard",
        version=version("dartboard"),
        summary="Architecture search over HTTP",
        description=_DESCRIPTION,
        lifespan=_lifespan,
        dependencies=[Depends(refuse_unknown_query_parameters)],
        # Both load scripts from a public CDN; `service.reference` does not.
        docs_url=None,
        # A redirect has no body that says why; the problem of a wrong path names the right one.
        redirect_slashes=False,
        redoc_url=None,
    )
    app.state.settings = settings
    app.add_middleware(NewlineMiddleware)
    app.add_middleware(HeadMiddleware)
    problems.install(app)
    for domain in (
        searches,
        batch,
        trainings,
        events,
        trials,
        alphas,
        paths,
        logs,
        architectures,
        queue,
        webhooks,
        deliveries,
        keys,
        owners,
        presets,
        health,
    ):
        app.include_router(domain.router)
    app.include_router(reference.router)
    app.openapi = openapi.document(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: ServiceSettings = app.state.settings
    url = await asyncio.to_thread(database_url, settings)
    engine = make_async_engine(url, pool_size=settings.database_connections)
    feed, database = EventFeed(url), Database(engine)
    app.state.wiring = Wiring(settings, database, feed, Submissions(database))
    try:
        async with Sender(allow_private=settings.webhooks_allow_private) as sender:
            work = [feed.run(), keep_house(database)]
            if settings.webhooks_senders:
                work.append(_deliverer(settings, database, feed, sender).run())
            tasks = [asyncio.create_task(each) for each in work]
            try:
                yield
            finally:
                feed.close()
                await _end(tasks)
    finally:
        await engine.dispose()


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    # Asked again: a library that turns a cancellation into an error of its own has used it up.
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_ASK_AGAIN_SECONDS)
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            _logger.error("work in the background had ended early", exc_info=outcome)


def _deliverer(
    settings: ServiceSettings, database: Database, feed: EventFeed, sender: Sender
) -> Deliverer:
    return Deliverer(
        database,
        feed,
        sender,
        at_once=settings.webhooks_senders,
        poll_seconds=settings.webhooks_poll_seconds,
        rng=random.Random(),  # noqa: S311  (spreads attempts, guards nothing)
    )
