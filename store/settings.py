"""Where the database and the state of this deployment are."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class StoreSettings(BaseSettings):
    """Settings that every process of a deployment shares, from `DARTBOARD_*` variables."""

    model_config = SettingsConfigDict(
        env_prefix="DARTBOARD_", frozen=True, use_attribute_docstrings=True, extra="ignore"
    )

    database_url: str | None = None
    """A PostgreSQL URL. Unset: an embedded PostgreSQL under `home`."""
    home: Path = Field(default=Path(".dartboard"))
    """Folder of the embedded database, the checkpoints and the logs."""
