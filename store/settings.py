"""Where the database and the state of this deployment are."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from store.artifacts import is_url


class StoreSettings(BaseSettings):
    """Settings that every process of a deployment shares, from `DARTBOARD_*` variables."""

    model_config = SettingsConfigDict(
        env_prefix="DARTBOARD_", frozen=True, use_attribute_docstrings=True, extra="ignore"
    )

    database_url: str | None = None
    """A PostgreSQL URL. Unset: an embedded PostgreSQL under `home`."""
    home: Path = Field(default=Path(".dartboard"))
    """Folder of the embedded database, the checkpoints and the logs."""
    storage: str | None = Field(default=None, repr=False)
    """A folder or a URL that every node and the API can reach, for checkpoints and logs;
    `checkpoints` under `home` when unset. It may hold credentials and is never shown."""

    @property
    def storage_root(self) -> str:
        """The folder, absolute, or the URL of the artifact storage; see `store.artifacts`."""
        if self.storage is not None and is_url(self.storage):
            return self.storage
        return str(Path(self.storage or self.home / "checkpoints").resolve())
