"""Which trials a spec asks for: every combination of its seeds, its grid and its samples.

A point is a set of values by dotted path, `{"training.learning_rate": 0.1}`, and a trial is a point
with a seed. Paths are taken in alphabetical order, so that a spec which went through a database
that does not keep the order of keys still means the same trials.
"""

import copy
import itertools
import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import JsonValue

from search_core.spec.base import SpecModel
from search_core.spec.finalists import Finalists
from search_core.spec.trials import TrialsSpec

Parameters = Mapping[str, JsonValue]
"""Values by dotted path into a spec."""

SpecT = TypeVar("SpecT", bound=SpecModel)

_TRIES_PER_SAMPLE = 1000

_EPOCHS: Final = (
    "training.epochs",
    "algorithm.finalists.paths",
    "algorithm.finalists.epochs",
)
"""What decides how many epochs a trial has."""


@dataclass(frozen=True)
class TrialPoint:
    """One trial of a spec.

    Attributes:
        number: From 0.
        stack: From 0: trials of the same stack run in one process. Where none are stacked, each
            has its own.
        seed: Its seed.
        sample: Which draw it is, from 0.
        grid: The values that the grid gives it.
        parameters: All values that make it differ from the spec; None while its sample is not
            drawn yet.
    """

    number: int
    stack: int
    seed: int
    sample: int
    grid: Parameters
    parameters: Parameters | None


def trial_points(trials: TrialsSpec) -> tuple[TrialPoint, ...]:
    """All trials, by number: for each sample all combinations of the grid, for each all seeds.

    Seeds vary fastest, so that the runs of one point are neighbours; samples vary slowest, so that
    a sampler which learns hears of every combination before it draws again.
    """
    draws: tuple[Parameters | None, ...] = (
        (None,) * trials.num_samples if trials.sampler == "tpe" else _draws(trials)
    )
    combinations = itertools.product(
        enumerate(draws), grid_combinations(trials), enumerate(trials.seeds)
    )
    num_seeds = len(trials.seeds)
    stacks_a_point = -(-num_seeds // trials.stack)
    return tuple(
        TrialPoint(
            number,
            number // num_seeds * stacks_a_point + index // trials.stack,
            seed,
            sample,
            grid,
            None if drawn is None else {**grid, **drawn},
        )
        for number, ((sample, drawn), grid, (index, seed)) in enumerate(combinations)
    )


def grid_combinations(trials: TrialsSpec) -> tuple[Parameters, ...]:
    """All combinations of the grid's values; a single empty one without a grid."""
    paths = sorted(trials.grid)
    return tuple(
        dict(zip(paths, values, strict=True))
        for values in itertools.product(*(trials.grid[path] for path in paths))
    )


def point_spec(spec: SpecT, parameters: Parameters) -> SpecT:
    """The spec of one point: with its values in their places, and without the other points.

    Args:
        spec: A search's or a training's.
        parameters: The point's values.

    Returns:
        A spec that is validated like one that was submitted. Its `trials` are the seeds alone, and
        how they are stacked.

    Raises:
        pydantic.ValidationError: The values make the spec invalid.
        KeyError: A path leads through what is not there.
    """
    plain = with_parameters(plain_spec(spec), parameters)
    # As JSON, in which a body comes too: what is refused there is refused here.
    return type(spec).model_validate_json(json.dumps(plain))


def with_parameters(plain: Mapping[str, Any], parameters: Parameters) -> dict[str, Any]:
    """A spec as JSON values with a point's values in their places; not validated.

    Raises:
        KeyError: A path leads through what is not there.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(plain))
    for path, value in parameters.items():
        place = changed
        *above, last = path.split(".")
        for name in above:
            place = place[name]
        place[last] = value
    return changed


def plain_spec(spec: SpecModel) -> dict[str, Any]:
    """A spec as JSON values, without its preset, whose fields it has, and without its points."""
    plain = spec.model_dump(mode="json")
    plain["preset"] = None
    plain["trials"] = {name: plain["trials"][name] for name in ("seeds", "stack")}
    return plain


def point_epochs(spec: Any, point: TrialPoint) -> int:
    """Epochs of a point's trial; the most that it may have, while its sample is not drawn yet."""
    if point.parameters is not None:
        return _epochs(spec, point.parameters)
    # More of one never makes the others fewer, so that each may be chosen by itself.
    most = dict(point.grid)
    for path in filter(_changes_epochs, spec.trials.sample):
        drawn = ({**most, path: value} for value in spec.trials.sample[path].ends)
        most = max([most, *drawn], key=lambda parameters: _epochs(spec, parameters))
    return _epochs(spec, most)


def _epochs(spec: Any, parameters: Parameters) -> int:
    """Epochs of a valid point, without the cost of making a spec of each."""
    if not any(_changes_epochs(path) for path in parameters):
        return int(spec.total_epochs)
    plain = with_parameters(plain_spec(spec), parameters)
    training_epochs = _field(type(spec.training), plain["training"], "epochs")
    finalists = plain.get("algorithm", {}).get("finalists")
    if finalists is None:
        return training_epochs
    return training_epochs + math.prod(
        _field(Finalists, finalists, name) for name in ("paths", "epochs")
    )


def _field(model: type[SpecModel], plain: Mapping[str, Any], name: str) -> int:
    """The number in a field, which has its default where an object leaves it out."""
    return int(plain.get(name, model.model_fields[name].default))


def _changes_epochs(path: str) -> bool:
    """Whether a value at this path may change how many epochs a trial has."""
    return any(f"{each}.".startswith(f"{path}.") for each in _EPOCHS)


def canonical(value: Any) -> str:
    """The same text for equal JSON values."""
    return json.dumps(value, sort_keys=True)


def _draws(trials: TrialsSpec) -> tuple[Parameters, ...]:
    """Draws at random, without repetition where there are enough values.

    Each path has a sequence of its own: another path beside it changes nothing in it.
    """
    paths = sorted(trials.sample)
    generators = {path: random.Random(f"{trials.sampler_seed} {path}") for path in paths}  # noqa: S311
    draws: dict[str, Parameters] = {}
    for _ in range(_TRIES_PER_SAMPLE * trials.num_samples):
        drawn = {path: trials.sample[path].draw(generators[path]) for path in paths}
        draws.setdefault(canonical(drawn), drawn)
        if len(draws) == trials.num_samples:
            break
    return tuple(draws.values())
