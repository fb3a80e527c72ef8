"""Alembic's entry: runs the migrations over one connection."""

from alembic import context
from sqlalchemy import create_engine, pool, text

from store.models import Base

_ADVISORY_LOCK = 7_230_180_990


def run() -> None:
    """Migrates online, alone: a second migration waits for the first and then has nothing to do."""
    engine = create_engine(context.config.attributes["url"], poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_type=True,
            compare_server_default=True,
        )
        with context.begin_transaction():
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            context.run_migrations()


run()
