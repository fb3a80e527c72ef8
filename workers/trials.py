"""The seam between a runner and whatever executes its trials."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from search_core.genotype import Genotype
from search_core.spec.algorithm import RelaxationForm
from store.artifacts import ArtifactFolder
from store.epoch_reports import EpochResult
from store.jobs import JobSpec
from store.states import Reason


@dataclass(frozen=True)
class TrialPlan:
    """One trial that still has to run.

    Attributes:
        trial_id: Its row.
        number: Its number within the search.
        seed: Its seed.
        spec: What it runs: the job's spec with the values of the trial's point in their places.
        folder: Where its checkpoints are, reachable from every node.
        data_root: Where the data sets are, on every node.
    """

    trial_id: UUID
    number: int
    seed: int
    spec: JobSpec
    folder: ArtifactFolder
    data_root: Path


class TrialPlans(Protocol):
    """Hands out the trials that have to run, in the order in which they should start."""

    @property
    def num_open(self) -> int:
        """How many there were; fewer may come."""

    @property
    def most_live(self) -> int | None:
        """How many processes may run at once; None for as many as there is room for."""

    @property
    def are_drawn_late(self) -> bool:
        """Whether a plan is better the later it is asked for, since others may end before."""

    def next(self) -> Sequence[TrialPlan] | None:
        """The next one, once its parameters are recorded, with those that are stacked on it.

        They differ in their seeds, and run in one process. None comes after the last.

        Raises:
            LeaseLostError: The search belongs to somebody else.
        """


class EarlyStopping(Protocol):
    """Decides which trials are not worth their remaining epochs."""

    def stops(self, trial_id: UUID, result: EpochResult) -> bool:
        """Whether a trial ends after this epoch. The same epoch gets the same answer again."""

    def why(self, result: EpochResult) -> str:
        """The reason for stopping a trial after this epoch, for people."""


class TrialSink(Protocol):
    """Takes what trials report. Called from one thread, in order for each trial.

    A method may block while the database is away. It raises `LeaseLostError` when the search
    belongs to somebody else, after which nothing more may be reported.
    """

    def starting(self, trial_id: UUID) -> None:
        """A trial has its place, and loads what it needs."""

    def started(
        self,
        trial_id: UUID,
        *,
        from_epoch: int,
        node: str,
        pid: int,
        relaxation: RelaxationForm | None,
    ) -> None:
        """A trial trains, from its checkpoint of `from_epoch`, in a process on a node.

        `relaxation` is what a search's mixtures are computed by.
        """

    def epoch_ended(self, trial_id: UUID, result: EpochResult) -> None:
        """A trial completed an epoch and its checkpoint is safe."""

    def succeeded(
        self, trial_id: UUID, genotype: Genotype, result: Mapping[str, Any] | None = None
    ) -> None:
        """A trial completed its last epoch and derived, or trained, an architecture.

        `result` is a training's: what the trained network is worth on the test images.
        """

    def stopped(self, trial_id: UUID, genotype: Genotype, message: str) -> None:
        """A trial was stopped early, with the architecture of the last epoch that it completed."""

    def interrupted(self, trial_id: UUID, reason: Reason, message: str) -> None:
        """A trial's process, or its node, was lost; it goes on from its checkpoint."""

    def failed(self, trial_id: UUID, reason: Reason, message: str) -> None:
        """A trial ended without a result."""


class Halt(threading.Event):
    """Set while a search is to be let go after the epochs that run.

    Attributes:
        was_set: Whether it was set since `begin`, and so may have stopped a trial, though its user
            thought better of it then.
    """

    def __init__(self) -> None:
        """Nobody asked yet."""
        super().__init__()
        self.was_set = False

    def set(self) -> None:
        """Asks for it."""
        self.was_set = True
        super().set()

    def begin(self) -> None:
        """Forgets what was asked before, unless it still is."""
        self.was_set = self.is_set()


class TrialExecutor(Protocol):
    """Runs the trials of one search, or of one training, to their ends."""

    def run(
        self,
        plans: TrialPlans,
        sink: TrialSink,
        stopping: EarlyStopping | None,
        halt: threading.Event,
    ) -> None:
        """Runs trials and reports each one's start, epochs and end to the sink.

        Args:
            plans: The trials that still have to run; each resumes from its folder.
            sink: Where the reports go.
            stopping: Asked after each epoch but a trial's last whether it goes on; None lets all
                run to their end.
            halt: Once it is set, starts no trial, lets each that runs complete its epoch, and
                returns. Whoever set it knows that some have not ended.

        Raises:
            LeaseLostError: From the sink.
            ExecutorError: The trials cannot be run now, such as without a cluster.
        """


class ExecutorError(Exception):
    """The trials of a search cannot be run now; the search goes back to the queue.

    Attributes:
        reason: Why.
    """

    def __init__(self, message: str, reason: Reason) -> None:
        """Says what happened, as a sentence without its full stop, and the typed reason."""
        super().__init__(message)
        self.reason = reason
