"""Brings a database up to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def configure(url: str) -> Config:
    """Alembic's configuration for a database.

    Args:
        url: A SQLAlchemy URL.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    return config


def upgrade(url: str) -> None:
    """Applies every migration that the database has not had. Safe to run twice, also at once.

    Args:
        url: A SQLAlchemy URL.
    """
    command.upgrade(configure(url), "head")
