"""What a trial should try next: Optuna's tree-structured Parzen estimator, as a pure function.

Nothing is kept between two suggestions. The study is made anew of what the store has, and the
random numbers of a suggestion depend on which one it is; so whoever asks after a crash is told what
would have been told without it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue

from search_core.spec import SampleSpec
from search_core.spec.points import canonical

if TYPE_CHECKING:
    import optuna

_MOST_RANDOM: Final = 10


class Fate(Enum):
    """What has become of a trial that was tried."""

    OPEN = auto()
    """It waits or runs: nothing is known of its worth."""
    FINISHED = auto()
    """It came to its last epoch."""
    STOPPED = auto()
    """It was stopped early."""


@dataclass(frozen=True)
class Observation:
    """A point that was drawn before.

    Attributes:
        drawn: Its values, of the paths that are sampled.
        fate: What has become of it.
        epoch: The last epoch that it completed.
        accuracy: The validation accuracy after that epoch; None of an open one.
    """

    drawn: Mapping[str, JsonValue]
    fate: Fate
    epoch: int = 0
    accuracy: float | None = None


def suggest(
    samples: Mapping[str, SampleSpec],
    observations: Sequence[Observation],
    *,
    num_samples: int,
    seed: str,
) -> dict[str, JsonValue]:
    """Draws a point where TPE expects the highest validation accuracy.

    At random until a quarter of all samples, at least 2 and at most 10, have ended.

    Args:
        samples: What each path may be.
        observations: What was drawn before.
        num_samples: How many are drawn in all.
        seed: Text that makes this suggestion differ from every other one.

    Returns:
        A value for each path.
    """
    # Here and not above: it takes half a second, and most searches do without.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {path: _distribution(samples[path]) for path in sorted(samples)}
    sampler = optuna.samplers.TPESampler(
        seed=int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4]),
        n_startup_trials=min(_MOST_RANDOM, max(2, num_samples // 4)),
        # Running ones count as bad, so that those that start together differ.
        constant_liar=True,
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([_frozen(each, samples, distributions) for each in observations])
    drawn = study.ask(distributions).params
    return {path: _value(samples[path], drawn[path]) for path in samples}


def _distribution(sample: SampleSpec) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if sample.uniform is not None:
        return FloatDistribution(*sample.uniform)
    if sample.loguniform is not None:
        return FloatDistribution(*sample.loguniform, log=True)
    if sample.randint is not None:
        return IntDistribution(*sample.randint)
    assert sample.choice is not None
    # By place: a choice may be an object, which Optuna does not take.
    return CategoricalDistribution(range(len(sample.choice)))


def _frozen(
    observation: Observation,
    samples: Mapping[str, SampleSpec],
    distributions: "dict[str, optuna.distributions.BaseDistribution]",
) -> "optuna.trial.FrozenTrial":
    from optuna.trial import TrialState, create_trial

    given: dict[str, Any] = {}
    if observation.fate is Fate.FINISHED:
        given = {"value": observation.accuracy}
    elif observation.fate is Fate.STOPPED:
        given = {"intermediate_values": {observation.epoch: observation.accuracy}}
    states = {
        Fate.OPEN: TrialState.RUNNING,
        Fate.FINISHED: TrialState.COMPLETE,
        Fate.STOPPED: TrialState.PRUNED,
    }
    return create_trial(
        state=states[observation.fate],
        params={path: _place(sample, observation.drawn[path]) for path, sample in samples.items()},
        distributions=distributions,
        **given,
    )


def _place(sample: SampleSpec, value: JsonValue) -> Any:
    if sample.choice is None:
        return value
    return [canonical(each) for each in sample.choice].index(canonical(value))


def _value(sample: SampleSpec, place: Any) -> JsonValue:
    return place if sample.choice is None else sample.choice[place]  # type: ignore[no-any-return]
