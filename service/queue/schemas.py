"""What the API says about the queue."""

from collections.abc import Mapping, Sequence
from typing import Self
from uuid import UUID

from search_core.spec.resources import times
from service.schema_base import Answer, Time
from store.models import Dispatcher, Search, Trial
from store.queue import Overview, Waiting
from store.states import TRIAL_ENDED, JobKind, SearchStatus, TrialStatus


class QueuedSearch(Answer):
    """A search in line."""

    search_id: UUID
    """The search, or the training."""
    kind: JobKind
    """Which of the two it is."""
    owner: str
    """Whose it is."""
    name: str
    """Its name."""
    priority: int
    """Higher goes first."""
    position: int
    """Its place, from 1."""
    why: str
    """Why it has not started."""
    estimated_start: Time | None
    """When it may start, at the pace of what runs; null where nothing lets it, or tells."""
    created_at: Time
    """When it was submitted."""

    @classmethod
    def of(cls, waiting: Waiting) -> Self:
        """The answer about a place in the queue."""
        search = waiting.search
        return cls(
            search_id=search.id,
            kind=JobKind(search.kind),
            owner=search.owner,
            name=search.name,
            priority=search.priority,
            position=waiting.position,
            why=waiting.why,
            estimated_start=waiting.estimated_start,
            created_at=search.created_at,
        )


class RunningTrial(Answer):
    """How far a trial of a running search is."""

    number: int
    """Its number within the search."""
    status: TrialStatus
    """Where it is in its life."""
    epoch: int
    """Epochs completed."""
    epochs: int
    """Epochs in all."""


class RunningSearch(Answer):
    """A search that a runner holds."""

    search_id: UUID
    """The search, or the training."""
    kind: JobKind
    """Which of the two it is."""
    owner: str
    """Whose it is."""
    name: str
    """Its name."""
    attempt: int
    """How often it was started."""
    started_at: Time | None
    """When it first started."""
    claimed_at: Time | None
    """When its present attempt began."""
    holder: str | None
    """Who runs it."""
    cpus: int
    """CPU cores that its open trials need together."""
    gpus: float
    """GPUs that its open trials need together."""
    custom: dict[str, float]
    """Custom resources that its open trials need together, by name."""
    trials: Sequence[RunningTrial]
    """Its trials, by number."""

    @classmethod
    def of(cls, search: Search, trials: Sequence[Trial]) -> Self:
        """The answer about a row and its trials."""
        # Those that are stacked share a process and its room.
        num_open = len({trial.stack for trial in trials if trial.status not in TRIAL_ENDED})
        return cls(
            search_id=search.id,
            kind=JobKind(search.kind),
            owner=search.owner,
            name=search.name,
            attempt=search.attempt,
            started_at=search.started_at,
            claimed_at=search.claimed_at,
            holder=search.leased_by,
            cpus=num_open * search.trial_cpus,
            gpus=times(search.trial_gpus, num_open),
            custom={name: times(amount, num_open) for name, amount in search.trial_custom.items()},
            trials=[
                RunningTrial(
                    number=trial.number,
                    status=TrialStatus(trial.status),
                    epoch=trial.epoch,
                    epochs=trial.epochs,
                )
                for trial in trials
            ],
        )


class ClusterNode(Answer):
    """A node of the cluster."""

    cpus: float
    """Its logical CPUs."""
    gpus: float
    """Its logical GPUs."""
    memory: float | None
    """Bytes that trials may use there; null where the cluster does not say."""
    custom: dict[str, float]
    """Its other resources, by name."""


class Cluster(Answer):
    """What the cluster holds, and how much of it the running searches need."""

    nodes: Sequence[ClusterNode]
    """Its nodes; none while no dispatcher runs."""
    cpus: float
    """CPUs of all nodes."""
    gpus: float
    """GPUs of all nodes."""
    custom: dict[str, float]
    """Custom resources of all nodes, by name."""
    reserved_cpus: float
    """CPUs that the running searches' open trials need."""
    reserved_gpus: float
    """GPUs that the running searches' open trials need."""
    reserved_custom: dict[str, float]
    """Custom resources that the running searches' open trials need, by name."""


class DispatcherAnswer(Answer):
    """A dispatcher that was seen lately."""

    id: str
    """Its id."""
    host: str
    """The machine that it runs on."""
    pid: int
    """Its process there."""
    seen_at: Time
    """Its last sign of life."""

    @classmethod
    def of(cls, dispatcher: Dispatcher) -> Self:
        """The answer about a row."""
        return cls(
            id=dispatcher.id,
            host=dispatcher.host,
            pid=dispatcher.pid,
            seen_at=dispatcher.seen_at,
        )


class QueueAnswer(Answer):
    """The whole queue at one moment."""

    counts: dict[SearchStatus, int]
    """Searches and trainings by status; every status is there."""
    waiting: Sequence[QueuedSearch]
    """The first 100 in line."""
    running: Sequence[RunningSearch]
    """The running ones, the longest first, at most 100."""
    cluster: Cluster
    """What there is to run on."""
    dispatchers: Sequence[DispatcherAnswer]
    """Who hands out the work."""

    @classmethod
    def of(cls, overview: Overview, trials: Mapping[UUID, Sequence[Trial]]) -> Self:
        """The answer about an overview and the running searches' trials."""
        capacity = overview.capacity
        return cls(
            counts=overview.counts,
            waiting=[QueuedSearch.of(waiting) for waiting in overview.waiting],
            running=[RunningSearch.of(search, trials[search.id]) for search in overview.running],
            cluster=Cluster(
                nodes=[ClusterNode.model_validate(node) for node in capacity.nodes],
                cpus=capacity.cpus,
                gpus=capacity.gpus,
                custom=capacity.custom,
                reserved_cpus=overview.reserved_cpus,
                reserved_gpus=overview.reserved_gpus,
                reserved_custom=overview.reserved_custom,
            ),
            dispatchers=[DispatcherAnswer.of(dispatcher) for dispatcher in overview.dispatchers],
        )
