"""What the API says about searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import WithJsonSchema

from search_core.spec import SearchSpec
from service.schema_base import STANDS_FOR, Answer, Time
from service.trials.schemas import TrialAnswer
from store import queue
from store.models import Search, Trial
from store.states import Reason, SearchStatus

StoredSpec = Annotated[dict[str, Any], WithJsonSchema({STANDS_FOR: "SearchSpec"})]
"""A spec as it was stored: it was valid for the version that stored it."""


class WaitingAnswer(Answer):
    """Where a queued search stands."""

    position: int
    """Its place in the queue, from 1."""
    why: str
    """Why it has not started."""


class Recommendation(Answer):
    """The architecture to take from a search."""

    architecture: str
    """Its hash."""
    why: str
    """What speaks for it."""


class SearchAnswer(Answer):
    """A submitted search and everything about its life."""

    id: UUID
    """The search's id, a UUIDv7: ids sort by age."""
    name: str
    """For people; need not be unique."""
    status: SearchStatus
    """Where it is in its life."""
    reason: Reason | None
    """Why it ended or went back to the queue."""
    message: str
    """The same for people, with what to do next."""
    spec: StoredSpec
    """The full spec, with every default."""
    priority: int
    """Higher goes first in the queue."""
    labels: dict[str, str]
    """For finding it again."""
    attempt: int
    """How often it was started."""
    created_at: Time
    """When it was submitted."""
    started_at: Time | None
    """When it first started."""
    ended_at: Time | None
    """When it ended."""
    cancel_requested_at: Time | None
    """When its user asked to cancel it."""
    waiting: WaitingAnswer | None
    """Only while it is queued."""
    trials: Sequence[TrialAnswer]
    """Its trials, by number."""
    recommended: Recommendation | None
    """Once it succeeded."""

    @classmethod
    def of(cls, search: Search, trials: Sequence[Trial], waiting: queue.Waiting | None) -> Self:
        """The answer about a row, its trials and its place in the queue."""
        return cls(
            id=search.id,
            name=search.name,
            status=SearchStatus(search.status),
            reason=None if search.reason is None else Reason(search.reason),
            message=search.message,
            spec=search.spec,
            priority=search.priority,
            labels=search.labels,
            attempt=search.attempt,
            created_at=search.created_at,
            started_at=search.started_at,
            ended_at=search.ended_at,
            cancel_requested_at=search.cancel_requested_at,
            waiting=None
            if waiting is None
            else WaitingAnswer(position=waiting.position, why=waiting.why),
            trials=[TrialAnswer.of(trial) for trial in trials],
            recommended=None
            if search.recommended_hash is None
            else Recommendation(architecture=search.recommended_hash, why=search.recommendation),
        )


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
    """Trials, one for each seed."""
    epochs: int
    """Epochs of each trial."""
    trial_epochs: int
    """Epochs of all trials together."""
    images_for_weights: int
    """Images whose loss trains the weights."""
    images_for_alphas: int
    """Images that train the alphas and measure validation accuracy."""
    batches_per_epoch: int
    """Steps of the weights in an epoch; before each goes one of the alphas."""
    cpus: int
    """CPU cores while all trials run at once; one trial's worth is enough to start."""
    gpus: int
    """GPUs while all trials run at once."""

    @classmethod
    def of(cls, spec: SearchSpec) -> Self:
        """What can be told from the spec alone."""
        num_trials = len(spec.trials.seeds)
        facts = spec.dataset.facts
        images_for_weights = int(facts.num_train * spec.dataset.train_portion)
        return cls(
            spec=spec.model_dump(mode="json"),
            num_trials=num_trials,
            epochs=spec.training.epochs,
            trial_epochs=num_trials * spec.training.epochs,
            images_for_weights=images_for_weights,
            images_for_alphas=facts.num_train - images_for_weights,
            batches_per_epoch=images_for_weights // spec.training.batch_size,
            cpus=num_trials * spec.resources.cpus,
            gpus=num_trials * spec.resources.gpus,
        )
