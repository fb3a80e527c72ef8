"""The hypercuboid of a trial with the weights of its last epoch."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from search_core.alpha_labels import CUBOID
from search_core.genotype import PathGenotype
from search_core.spec import SearchSpec
from search_core.spec.hypercuboid import HyperCuboidSpace
from service.architectures.schemas import genotype_of
from service.problems import ProblemError
from store import access, architectures, searches
from store.access import Principal
from store.jobs import parse_spec
from store.states import JobKind


@dataclass(frozen=True)
class WeightedCuboid:
    """A space and what its operations weigh.

    Attributes:
        space: The space.
        weights: Softmaxed, [position, operation].
        derived: The path that the trial derives: the heaviest, or the best finalist so far.
        step: The epoch that they are of.
        epochs: Epochs of the trial.
        image_shape: Channels, height and width of the images.
        num_classes: Classes to tell apart.
    """

    space: HyperCuboidSpace
    weights: list[list[float]]
    derived: PathGenotype
    step: int
    epochs: int
    image_shape: tuple[int, int, int]
    num_classes: int


def read_cuboid(session: Session, who: Principal, trial_id: UUID) -> WeightedCuboid:
    """The cuboid of a trial.

    Raises:
        NotFoundError: There is no such trial.
        ProblemError: It has none, or not yet.
    """
    access.require_trial(session, who, trial_id)
    trial = searches.get_trial(session, trial_id)
    search = searches.get(session, trial.search_id)
    spec = parse_spec(JobKind(search.kind), search.spec)
    if not isinstance(spec, SearchSpec):
        raise ProblemError(
            "conflict", f"Trial {trial_id} is one of a training; paths are found by searches."
        )
    if not isinstance(spec.space, HyperCuboidSpace):
        raise ProblemError(
            "conflict",
            f"Trial {trial_id} searches cells ({spec.space.kind}), and only a hypercuboid has "
            f"paths; what its alphas weigh is in /v1/trials/{trial_id}/alphas.",
        )
    last = searches.last_alphas(session, trial_id)
    derived = architectures.last_derived(session, trial)
    if last is None or derived is None:
        raise ProblemError(
            "conflict",
            f"Trial {trial_id} has not completed an epoch yet, and nothing has been weighed; it is "
            f"{trial.status}. GET /v1/searches/{search.id}/events tells when it has.",
        )
    facts, path = spec.dataset.facts, genotype_of(derived)
    assert isinstance(path, PathGenotype)
    return WeightedCuboid(
        spec.space,
        last.weights[CUBOID],
        path,
        last.step,
        trial.epochs,
        facts.image_shape,
        facts.num_classes,
    )
