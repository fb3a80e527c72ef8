"""What the server answers, as frozen values.

Fields that this version does not know are left out, so that a newer server can be talked to. Times
are in UTC. A metric that was not finite is None.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, PlainSerializer

from search_core.genotype import Genotype, PathGenotype
from search_core.spec import SearchSpec
from search_core.spec.retraining import RetrainingSpec


def rfc3339(moment: datetime) -> str:
    """A moment as the API writes it: in UTC, with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
"""A moment, which is written as JSON just as the API wrote it."""


class Result(BaseModel):
    """Any answer."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class Waiting(Result):
    """A queued search's place in the queue."""

    position: int
    """From 1."""
    why: str
    """What it waits for."""
    estimated_start: Time | None = None
    """At the pace of what runs; None where nothing lets it start, or tells when."""


class Recommendation(Result):
    """The architecture that a search recommends."""

    architecture: str
    """Its hash."""
    why: str
    """Why this one."""


class TestMeasurement(Result):
    """What the weights of one epoch are worth on test images."""

    __test__: ClassVar = False  # for pytest, which takes a class of this name for a test

    epoch: int
    loss: float | None
    accuracy: float
    """On the test split, as a fraction."""
    extra_accuracies: Mapping[str, float] = {}
    """On each further test set, by name."""


class TestResult(Result):
    """What a trial of a training came to."""

    __test__: ClassVar = False

    last: TestMeasurement
    """The weights after the last epoch."""
    best: TestMeasurement | None = None
    """Those of the best epoch by validation accuracy; None where no images were held out."""


class TrialCounts(Result):
    """How many trials there are: `completed + failed + pending` is always `total`."""

    total: int
    completed: int
    """Came to an architecture: at their last epoch, or stopped early."""
    failed: int
    """Ended without one: by an error, or cancelled."""
    pending: int
    """Wait or run."""


class Trial(Result):
    """One run of a search or of a training: a point, with one seed."""

    id: UUID
    search_id: UUID
    number: int
    """From 0 within the search."""
    seed: int
    parameters: Mapping[str, Any] | None = None
    """What it has in place of the spec's own values, by dotted path; None until a sampler that
    learns from other trials has drawn it."""
    status: str
    """queued, running, succeeded, stopped (early, by a scheduler), failed or cancelled."""
    reason: str | None = None
    message: str = ""
    epoch: int
    """Epochs completed."""
    epochs: int
    """Epochs in all."""
    metrics: Mapping[str, float | None] = {}
    """Values by name, of the last completed epoch."""
    best_validation_accuracy: float | None = None
    relaxation: str | None = None
    """How a search's trial computes its mixtures: fast, by a plan, or plain; None before it has
    trained, and of a training."""
    architecture: str | None = None
    """The hash of what it derived or trained, once it succeeded or was stopped."""
    result: TestResult | None = None
    """Of a training, once it succeeded: what it is worth on the test images."""
    started_at: Time | None = None
    ended_at: Time | None = None


class Log(Result):
    """A log that is kept of a search or training."""

    name: str
    trial: int | None = None
    """The number of the trial that wrote it; None of the runner's."""
    attempt: int
    """The attempt that it was written in, from 1."""
    size: int
    """Bytes that are kept."""
    modified_at: Time
    """When it was last copied into the storage."""


class Job(Result):
    """What a search and a training have in common."""

    id: UUID
    owner: str = "local"
    """Whose it is."""
    name: str
    status: str
    """queued, running, paused, succeeded, failed or cancelled."""
    reason: str | None = None
    """Why it ended, or why it went back to the queue."""
    message: str = ""
    spec: Mapping[str, Any]
    """The full spec, as JSON values."""
    priority: int = 0
    labels: Mapping[str, str] = {}
    attempt: int = 0
    """How often it has been started."""
    created_at: Time
    started_at: Time | None = None
    ended_at: Time | None = None
    cancel_requested_at: Time | None = None
    pause_requested_at: Time | None = None
    """Only until it is paused."""
    preempt_requested_at: Time | None = None
    """Only until it has made room for another."""
    claimed_at: Time | None = None
    """When its present attempt began; None unless it runs."""
    ran_seconds: float = 0.0
    """How long its attempts ran, without the one that runs now."""
    waiting: Waiting | None = None
    """While it is queued; None right after its submission: `Client.get` knows."""
    counts: TrialCounts | None = None
    """How many trials have ended, and how; None of a server that does not count."""
    trials: tuple[Trial, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether it has succeeded, failed or been cancelled."""
        return self.ended_at is not None

    @property
    def best_validation_accuracy(self) -> float | None:
        """The best of all trials' epochs; None before the first one ended."""
        return max(
            (
                trial.best_validation_accuracy
                for trial in self.trials
                if trial.best_validation_accuracy is not None
            ),
            default=None,
        )


class Search(Job):
    """A submitted search."""

    recommended: Recommendation | None = None

    def parsed_spec(self) -> SearchSpec:
        """The spec, typed.

        Raises:
            pydantic.ValidationError: The server is newer and its spec has what this version lacks.
        """
        return SearchSpec.model_validate(dict(self.spec))


class Training(Job):
    """A submitted training from scratch; its trials have the results."""

    def parsed_spec(self) -> RetrainingSpec:
        """The spec, typed.

        Raises:
            pydantic.ValidationError: The server is newer and its spec has what this version lacks.
        """
        return RetrainingSpec.model_validate(dict(self.spec), strict=False)


class Event(Result):
    """Something that happened to a search."""

    number: int
    """From 1 within the search, without a gap."""
    kind: str
    """A dotted name, such as `trial.epoch`."""
    trial_id: UUID | None = None
    data: Mapping[str, Any] = {}
    created_at: Time


class EventPage(Result):
    """A page of a search's events, oldest first."""

    items: tuple[Event, ...]
    last: int
    """The number of the search's newest event."""


class Point(Result):
    """One point of a metric's series."""

    step: int
    """The epoch, from 1."""
    value: float | None


class AlphaLabel(Result):
    """What a row or a column of alphas stands for."""

    text: str
    """For people."""
    facts: Mapping[str, Any]
    """The same for programs."""


class AlphaGroup(Result):
    """One table of a space: a row is a choice to make, a column a candidate for it."""

    rows: tuple[AlphaLabel, ...]
    columns: tuple[AlphaLabel, ...]


class AlphaTables(Result):
    """What the candidates weighed after an epoch."""

    step: int
    """The epoch, from 1."""
    weights: Mapping[str, tuple[tuple[float, ...], ...]]
    """By group, row by row."""


class AlphaSeries(Result):
    """What the candidates of a trial weigh, epoch by epoch."""

    trial_id: UUID
    last_step: int
    """The trial's last completed epoch."""
    groups: Mapping[str, AlphaGroup]
    """What rows and columns stand for."""
    items: tuple[AlphaTables, ...]


class Path(Result):
    """A path through a hypercuboid, and what its network costs."""

    score: float
    """Sum of the weights of its operations."""
    architecture: str
    """Its hash."""
    parameters: int
    multiply_adds: int
    paper_multiply_adds: int
    text: str
    """The text form."""
    genotype: PathGenotype


class PathWithin(Result):
    """The best path within a budget."""

    measure: str
    """`parameters` or `multiply_adds`."""
    budget: int
    path: Path


class Paths(Result):
    """The best paths at a trial's last completed epoch."""

    trial_id: UUID
    step: int
    """The epoch whose weights were read."""
    epochs: int
    """Epochs of the trial."""
    items: tuple[Path, ...]
    """The best first."""
    derived: Path
    """What the trial derives: the first, or the best of its finalists so far."""
    within: PathWithin | None = None
    """The best one within the budget, if one was given."""


class RankedArchitecture(Result):
    """What one trial of a search derived."""

    architecture: str
    """Its hash."""
    trial: int
    """The trial's number."""
    trial_id: UUID
    seed: int
    parameters: Mapping[str, Any] = {}
    """What the trial had in place of the spec's own values."""
    status: str = "succeeded"
    """Or stopped: the trial ended early."""
    validation_accuracy: float | None = None
    recommended: bool
    genotype: Genotype


class Discovery(Result):
    """A trial that derived an architecture."""

    search_id: UUID
    search_name: str
    trial_id: UUID
    trial_number: int
    seed: int
    family: str | None = None
    validation_accuracy: float | None = None


class Architecture(Result):
    """An architecture, addressed by its content."""

    hash: str
    kind: str
    genotype: Genotype
    text: str
    """The text form; of cells the published one."""
    created_at: Time
    found_by: tuple[Discovery, ...] = ()


class SpaceSize(Result):
    """How large a space is, counted before anything is built. None: not known beforehand."""

    positions: int | None = None
    """Operations of one path through a hypercuboid."""
    operations: int
    """Operations that are weighted against others: the number of alphas."""
    architectures: int
    """Architectures that can be derived."""
    parameters: int | None = None
    """Weights of the network that contains them all."""
    multiply_adds: int | None = None
    """Multiply-adds of that network for one image."""
    training_bytes: int | None = None
    """Memory that training it takes: an estimate from above."""


class DryRun(Result):
    """What a submission would do."""

    spec: Mapping[str, Any]
    """The full spec, with every default."""
    num_trials: int
    epochs: int
    """Epochs of the longest trial."""
    trial_epochs: int
    """Epochs of all trials together, if none is stopped early."""
    batches_per_epoch: int
    """Steps of the weights in an epoch."""
    finalist_batches_per_epoch: int | None = None
    """Steps in an epoch of a finalist; None without, and of a training."""
    cpus: int
    """CPU cores while all trials run at once; one trial's worth is enough to start."""
    gpus: float
    """GPUs while all trials run at once."""
    custom: Mapping[str, float] = {}
    """Custom resources while all trials run at once, by name."""
    size: SpaceSize | None = None
    """How large the space is; None of a training."""


class Preset(Result):
    """Settings worth starting from."""

    name: str
    summary: str
    kind: str = "search"
    """What starts from it: a search, or a training, whose architecture is still to be named."""
    spec: Mapping[str, Any]


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
