"""How the parts of a home are."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from dartboard.local import postgres
from dartboard.local.parts import PARTS, PartName, Plan, Service
from dartboard.local.processes import is_alive
from dartboard.local.state import State

PartState = Literal["running", "stopped", "crashed", "external"]


@dataclass(frozen=True)
class PartStatus:
    """How one part is.

    Attributes:
        name: Which one.
        state: `crashed`: it was started and is gone without a `dartboard down`. `external`: the
            environment names somebody else's, which is not ours to look after.
        pid: Its process id, while it runs.
        since: When it was started.
        address: Where it is reached.
    """

    name: PartName
    state: PartState
    pid: int | None = None
    since: datetime | None = None
    address: str | None = None

    @property
    def fine(self) -> bool:
        """Whether it runs, or is not ours to run."""
        return self.state in ("running", "external")


def status(plan: Plan) -> tuple[PartStatus, ...]:
    """Every part, in the order in which they are started."""
    return tuple(_postgres(plan) if name == "postgres" else _service(plan, name) for name in PARTS)


def _postgres(plan: Plan) -> PartStatus:
    if plan.database_url is not None:
        # The URL may hold a password.
        return PartStatus("postgres", "external", address="DARTBOARD_DATABASE_URL")
    found = postgres.running(plan.layout)
    if found is None:
        return PartStatus("postgres", "stopped")
    pid, since = found
    return PartStatus("postgres", "running", pid, datetime.fromtimestamp(since, UTC))


def _service(plan: Plan, name: Service) -> PartStatus:
    if name == "cluster" and plan.ray_address is not None:
        return PartStatus("cluster", "external", address=plan.ray_address)
    record = State(plan.layout.state).read().get(name)
    if record is None:
        return PartStatus(name, "stopped")
    since = datetime.fromtimestamp(record.since, UTC)
    if not is_alive(record.started):
        return PartStatus(name, "crashed", since=since, address=record.address)
    return PartStatus(name, "running", record.started.pid, since, record.address)
