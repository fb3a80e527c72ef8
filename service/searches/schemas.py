"""What the API says about searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from search_core.spec import SearchSpec, trial_points
from search_core.spec.points import point_epochs
from search_core.spec.resources import times
from service.jobs.schemas import JobAnswer
from service.schema_base import STANDS_FOR, Answer
from service.searches.size import SpaceSize
from store import queue
from store.models import Search, Trial
from store.states import JobKind

MOST_AT_ONCE: Final = 100
"""Searches in a batch."""

StoredSpec = Annotated[dict[str, Any], WithJsonSchema({STANDS_FOR: "SearchSpec"})]
"""A spec as it was stored: it was valid for the version that stored it."""


class Recommendation(Answer):
    """The architecture to take from a search."""

    architecture: str
    """Its hash."""
    why: str
    """What speaks for it."""


class SearchAnswer(JobAnswer):
    """A submitted search and everything about its life."""

    kind: ClassVar[JobKind] = JobKind.SEARCH

    spec: StoredSpec
    """The full spec, with every default."""
    recommended: Recommendation | None
    """Once it succeeded."""

    @classmethod
    def facts(
        cls, search: Search, trials: Sequence[Trial], waiting: queue.Waiting | None
    ) -> dict[str, Any]:
        """The fields of every job, and what it recommends."""
        recommended = search.recommended_hash and Recommendation(
            architecture=search.recommended_hash, why=search.recommendation
        )
        return {**super().facts(search, trials, waiting), "recommended": recommended}


class SearchPageAnswer(Answer):
    """A page of searches."""

    items: Sequence[SearchAnswer]
    """At most `limit` of them."""
    next_cursor: str | None
    """Pass it as `cursor` for the next page; null on the last one."""


class DryRun(Answer):
    """What a spec would run, without running it."""

    spec: StoredSpec
    """The full spec, with every default."""
    num_trials: int
    """Trials: seeds x combinations of the grid x samples."""
    epochs: int
    """Epochs of the longest trial."""
    trial_epochs: int
    """Epochs of all trials together; what a scheduler stops early, or TPE draws lower, is less."""
    images_for_weights: int
    """Images whose loss trains the weights. This and the next two are the spec's own, which points
    may vary."""
    images_for_alphas: int
    """Images that train the alphas and measure validation accuracy."""
    batches_per_epoch: int
    """Steps of the weights in an epoch; before each goes one of the alphas."""
    finalist_batches_per_epoch: int | None
    """Steps in an epoch of a finalist, as the spec itself has them; null without."""
    cpus: int
    """CPU cores while all trials run at once; one trial's worth is enough to start."""
    gpus: float
    """GPUs while all trials run at once."""
    custom: dict[str, float]
    """Custom resources while all trials run at once, by name."""
    size: SpaceSize
    """How large the space is."""

    @classmethod
    def of(cls, spec: SearchSpec, size: SpaceSize) -> Self:
        """What can be told from the spec alone."""
        points = trial_points(spec.trials)
        epochs = [point_epochs(spec, point) for point in points]
        num_processes = len({point.stack for point in points})
        facts, finalists = spec.dataset.facts, spec.algorithm.finalists
        images_for_weights = int(facts.num_train * spec.dataset.train_portion)
        return cls(
            spec=spec.model_dump(mode="json"),
            num_trials=len(epochs),
            epochs=max(epochs),
            trial_epochs=sum(epochs),
            images_for_weights=images_for_weights,
            images_for_alphas=facts.num_train - images_for_weights,
            batches_per_epoch=images_for_weights // spec.training.batch_size,
            finalist_batches_per_epoch=None
            if finalists is None
            else finalists.num_trained_on(facts.num_train) // spec.training.batch_size,
            cpus=num_processes * spec.resources.cpus,
            gpus=times(spec.resources.gpus, num_processes),
            custom={
                name: times(amount, num_processes) for name, amount in spec.resources.custom.items()
            },
            size=size,
        )


class SearchBatch(BaseModel):
    """Searches to submit at once."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    searches: list[StoredSpec] = Field(min_length=1, max_length=MOST_AT_ONCE)
    """Their specs. They wait in this order where their priorities are equal."""


class SearchBatchAnswer(Answer):
    """Searches that were submitted at once."""

    items: Sequence[SearchAnswer]
    """In the order of their specs."""


class DryRunBatch(Answer):
    """What some specs would run, without running them."""

    items: Sequence[DryRun]
    """In the order of the specs."""
