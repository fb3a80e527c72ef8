"""What searches found: architectures, and paths through a HyperCuboid."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from dartboard.models.base import Result, Time
from search_core.genotype import Genotype, PathGenotype


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
