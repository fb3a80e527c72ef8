"""The queue, the cluster, and whether the server is ready."""

from collections.abc import Mapping
from uuid import UUID

from dartboard.models.base import Result, Time


class WaitingSearch(Result):
    """A line of the queue's waiting list."""

    search_id: UUID
    kind: str = "search"
    """Or a training."""
    owner: str = "local"
    name: str
    priority: int
    position: int
    why: str
    estimated_start: Time | None = None
    created_at: Time


class TrialProgress(Result):
    """How far a trial of a running search is."""

    number: int
    status: str
    epoch: int
    epochs: int


class RunningSearch(Result):
    """A line of the queue's running list."""

    search_id: UUID
    kind: str = "search"
    """Or a training."""
    owner: str = "local"
    name: str
    attempt: int
    started_at: Time | None = None
    """When it first started."""
    claimed_at: Time | None = None
    """When its present attempt began."""
    holder: str | None = None
    """Who runs it."""
    cpus: float
    gpus: float
    custom: Mapping[str, float] = {}
    """Custom resources that its open trials need together, by name."""
    trials: tuple[TrialProgress, ...] = ()


class Node(Result):
    """A node of the cluster."""

    cpus: float
    gpus: float
    memory: float | None = None
    """Bytes that trials may use there; None where the cluster does not say."""
    custom: Mapping[str, float] = {}
    """Its other resources, by name."""


class Cluster(Result):
    """What the cluster holds and how much of it is spoken for."""

    nodes: tuple[Node, ...]
    cpus: float
    gpus: float
    reserved_cpus: float
    reserved_gpus: float
    custom: Mapping[str, float] = {}
    """Custom resources of all nodes, by name."""
    reserved_custom: Mapping[str, float] = {}


class DispatcherSeen(Result):
    """A dispatcher that was seen lately."""

    id: str
    host: str
    pid: int
    seen_at: Time


class Queue(Result):
    """The whole queue at one moment."""

    counts: Mapping[str, int]
    """Searches by status."""
    waiting: tuple[WaitingSearch, ...]
    running: tuple[RunningSearch, ...]
    cluster: Cluster
    dispatchers: tuple[DispatcherSeen, ...]


class Check(Result):
    """One thing that a server needs to be ready."""

    ok: bool
    detail: str = ""


class Readiness(Result):
    """Whether a server can take searches and run them."""

    ready: bool
    checks: Mapping[str, Check]
