"""What the API says about paths through a hypercuboid."""

from collections.abc import Sequence
from typing import Literal, Self
from uuid import UUID

from search_core.cuboid_size import path_cost
from search_core.derive import CostMeasure, RankedPath, best_paths, heaviest_path_within, path_score
from service.architectures.schemas import GenotypeJson
from service.paths.cuboid import WeightedCuboid
from service.schema_base import Answer


class PathAnswer(Answer):
    """A path, and what its network costs on the search's images."""

    score: float
    """Sum of the weights of its operations: the higher, the more the search prefers it."""
    architecture: str
    """Its hash. It has a page under /v1/architectures once an epoch derives it."""
    parameters: int
    """Weights of its network, stem, head and classifier included."""
    multiply_adds: int
    """Multiply-adds for one image, of convolutions and linear layers."""
    paper_multiply_adds: int
    """The same as the sharpDARTS paper counts them."""
    text: str
    """The text form."""
    genotype: GenotypeJson
    """The JSON form, as a training takes it."""

    @classmethod
    def of(cls, path: RankedPath, cuboid: WeightedCuboid) -> Self:
        """The answer about a derived path."""
        cost = path_cost(path.genotype, cuboid.image_shape, cuboid.num_classes)
        return cls(
            score=path.score,
            architecture=path.genotype.hash,
            parameters=cost.parameters,
            multiply_adds=cost.multiply_adds,
            paper_multiply_adds=cost.paper_multiply_adds,
            text=path.genotype.to_text(),
            genotype=path.genotype.model_dump(mode="json"),
        )


class PathWithin(Answer):
    """The best path of those that cost no more than a budget."""

    measure: Literal["parameters", "multiply_adds"]
    """What is limited."""
    budget: int
    """The most that it may cost."""
    path: PathAnswer
    """The path."""


class PathList(Answer):
    """The best paths at a trial's last completed epoch."""

    trial_id: UUID
    """The trial."""
    step: int
    """The epoch whose weights were read."""
    epochs: int
    """Epochs of the trial: until the last one the paths may still change."""
    items: Sequence[PathAnswer]
    """The k best, the best first; fewer where the cuboid has fewer."""
    derived: PathAnswer
    """What the trial derives: the first of the items, or where it trains finalists the best of
    these so far."""
    within: PathWithin | None
    """The best one within the budget that was asked for."""

    @classmethod
    def of(
        cls,
        trial_id: UUID,
        cuboid: WeightedCuboid,
        k: int,
        budget: tuple[Literal["parameters", "multiply_adds"], int] | None,
    ) -> Self:
        """Derives the paths.

        Raises:
            ValueError: No path is within the budget; says what the cheapest one costs.
        """
        score = path_score(cuboid.weights, cuboid.space, cuboid.derived)
        within = None
        if budget is not None:
            measure, most = budget
            within = PathWithin(
                measure=measure, budget=most, path=PathAnswer.of(_within(cuboid, *budget), cuboid)
            )
        return cls(
            trial_id=trial_id,
            step=cuboid.step,
            epochs=cuboid.epochs,
            items=[
                PathAnswer.of(path, cuboid) for path in best_paths(cuboid.weights, cuboid.space, k)
            ],
            derived=PathAnswer.of(RankedPath(cuboid.derived, score), cuboid),
            within=within,
        )


def _within(cuboid: WeightedCuboid, measure: CostMeasure, budget: int) -> RankedPath:
    return heaviest_path_within(
        cuboid.weights,
        cuboid.space,
        budget,
        measure=measure,
        image_shape=cuboid.image_shape,
        num_classes=cuboid.num_classes,
    )
