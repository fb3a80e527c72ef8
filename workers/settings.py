"""Settings of the dispatcher and the runners, from `DARTBOARD_*` variables."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from store.settings import StoreSettings


class WorkerSettings(StoreSettings):
    """What the dispatcher and its runners need to know."""

    executor: Literal["ray", "inline"] = "ray"
    """Where trials run: on a Ray cluster, or one after the other inside the runner's process."""
    ray_address: str | None = None
    """Address of the Ray cluster's head, such as 127.0.0.1:6379."""
    data: Path | None = None
    """Folder of the data sets, the same on every node; `data` under `home` when unset."""
    lease_seconds: float = Field(default=30.0, ge=1.0)
    """How long a claim holds without being renewed; runners renew every third of it."""
    max_failures: int = Field(default=3, ge=0)
    """Crashes and lost leases after which a search fails instead of going on."""
    trial_failures: int = Field(default=2, ge=0)
    """Crashes of one trial's process after which the trial fails instead of going on."""
    node_losses: int = Field(default=5, ge=0)
    """Losses of a trial's node, without an epoch in between, that do not count as crashes."""
    node_patience_seconds: float = Field(default=60.0, ge=1.0)
    """How long no node may be large enough for a search's trials before it is queued again."""
    warm_runners: int = Field(default=1, ge=0, le=16)
    """Runners that each dispatcher keeps ready, with Ray and PyTorch loaded."""
    grace_seconds: float = Field(default=20.0, ge=0.0)
    """How long a stopping dispatcher waits for its runners."""

    @property
    def lease(self) -> timedelta:
        """The lease as a duration."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def tune_results(self) -> Path:
        """The folder of what Tune writes for itself while a search runs, absolute."""
        return (self.home / "tune").resolve()

    @property
    def data_root(self) -> Path:
        """The folder of the data sets, absolute."""
        return (self.data or self.home / "data").resolve()

    @property
    def runner_logs(self) -> Path:
        """The folder of what the runners write, absolute."""
        return (self.home / "logs" / "runners").resolve()


class NodeSettings(BaseSettings):
    """What a trial's process reads on its node, from the environment that Ray was started with."""

    model_config = SettingsConfigDict(env_prefix="DARTBOARD_")

    cpu_stands_for_gpu: bool = False
    """Train on the CPU where Ray says that there is a GPU and PyTorch finds none: for tests of
    clusters on machines without GPUs."""
