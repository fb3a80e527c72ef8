"""The baseline: a FastAPI endpoint that inserts one row, under the same uvicorn and PostgreSQL."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from sqlalchemy import text

from store.sessions import driver_url, make_async_engine


def main() -> int:
    """Serves on the port that the command line names, with the database of the environment."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = make_async_engine(driver_url(os.environ["DARTBOARD_DATABASE_URL"]))
        async with engine.begin() as connection:
            await connection.execute(
                text(
                    "CREATE TABLE IF NOT EXISTS bare (id uuid PRIMARY KEY DEFAULT uuidv7(),"
                    " body jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now())"
                )
            )
        app.state.engine = engine
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/", status_code=201)
    async def insert(request: Request) -> dict[str, Any]:
        body = (await request.body()).decode()
        async with app.state.engine.begin() as connection:
            row = await connection.execute(
                text("INSERT INTO bare (body) VALUES (CAST(:body AS jsonb)) RETURNING id"),
                {"body": body},
            )
            return {"id": str(row.scalar_one())}

    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
