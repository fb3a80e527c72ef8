"""Refuses a spec one of whose points is no valid spec, and says which value makes it so."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails

from search_core.spec.point_paths import Place, path_errors, point_error
from search_core.spec.points import (
    Parameters,
    canonical,
    grid_combinations,
    point_epochs,
    point_spec,
    trial_points,
)
from search_core.spec.trials import TrialsSpec

_MOST_ERRORS = 20
_MOST_ENDS_TRIED = 2000
_LONGEST_VALUE = 40


@dataclass
class _Problem:
    """What is wrong with one value of the grid or of a sample.

    Attributes:
        value: The value.
        error: The error of the field that it was put into.
        given: What the rest of the first point was where it was refused.
        num_points: In how many points it was refused.
    """

    value: JsonValue
    error: ErrorDetails
    given: Parameters = field(default_factory=dict)
    num_points: int = 0


def check_points(spec: Any) -> None:
    """Validates every point of a spec as the spec that it stands for.

    Args:
        spec: A search's or a training's; it is valid itself.

    Raises:
        pydantic.ValidationError: With an error for each value that is wrong, at its place under
            `trials`.
    """
    trials: TrialsSpec = spec.trials
    if not (trials.grid or trials.sample or trials.is_adaptive):
        return
    errors = [*path_errors(spec)]
    if not errors:
        problems = _refused(spec)
        errors = [
            point_error(place, problem.value, **_context(trials, place, problem))
            for place, problem in problems.items()
        ] or [*_repetitions(spec)]
    if not errors:
        errors = [*_ineffective(spec)]
    if errors:
        raise ValidationError.from_exception_data(type(spec).__name__, errors[:_MOST_ERRORS])


def _refused(spec: Any) -> dict[Place, _Problem]:
    """The values that are refused, by their places under `trials`."""
    trials: TrialsSpec = spec.trials
    problems: dict[Place, _Problem] = {}
    for grid, path, index in _ends(trials):
        _try_end(spec, grid, path, index, problems)
        if len(problems) >= _MOST_ERRORS:
            break
    if problems:
        return problems  # what is drawn between wrong ends says nothing more
    for parameters in _points(trials):
        _try(spec, parameters, problems, {})
        if len(problems) >= _MOST_ERRORS:
            break
    return problems


def _points(trials: TrialsSpec) -> Iterator[Parameters]:
    """Each point once, without its seeds; of points whose samples are not drawn yet, none."""
    for point in trial_points(trials):
        if point.seed == trials.seeds[0] and point.parameters is not None:
            yield point.parameters


def _ends(trials: TrialsSpec) -> Iterator[tuple[Parameters, str, int]]:
    """Each end of each sample, at each combination of the grid, or at one if there are many."""
    num_ends = sum(len(sample.ends) for sample in trials.sample.values())
    combinations = grid_combinations(trials)
    if num_ends * len(combinations) > _MOST_ENDS_TRIED:
        combinations = combinations[:1]
    for grid in combinations:
        for path, sample in trials.sample.items():
            for index in range(len(sample.ends)):
                yield grid, path, index


def _try(
    spec: Any,
    parameters: Parameters,
    problems: dict[Place, _Problem],
    places: Mapping[str, Place],
) -> None:
    """Validates a point and blames one of its values for each error.

    Args:
        spec: The spec.
        parameters: The point.
        problems: Where what is wrong is added.
        places: The places of values that are ends of samples, by path.
    """
    try:
        point_spec(spec, parameters)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            path = _blamed(parameters, item)
            place = places.get(path) or _place(spec.trials, path, parameters[path])
            given = {other: value for other, value in parameters.items() if other != path}
            problem = problems.setdefault(place, _Problem(parameters[path], item, given))
            problem.num_points += 1


def _try_end(
    spec: Any, grid: Parameters, path: str, index: int, problems: dict[Place, _Problem]
) -> None:
    """Validates an end of a sample beside the first ends of the others, or beside the last ones.

    What is wrong beside all of the first may be right beside larger values.
    """
    samples = spec.trials.sample
    found: dict[Place, _Problem] = {}
    for other_end in (0, -1):
        ends = {other: sample.ends[other_end] for other, sample in samples.items()}
        parameters = {**grid, **ends, path: samples[path].ends[index]}
        tried: dict[Place, _Problem] = {}
        places: dict[str, Place] = {
            other: ("sample", other, sample.kind, other_end % len(sample.ends))
            for other, sample in samples.items()
        }
        places[path] = ("sample", path, samples[path].kind, index)
        _try(spec, parameters, tried, places)
        if not tried:
            return
        found = found or tried
    for place, problem in found.items():
        problems.setdefault(place, problem)


def _place(trials: TrialsSpec, path: str, value: JsonValue) -> Place:
    if path not in trials.grid:
        return ("sample", path)
    texts = [canonical(each) for each in trials.grid[path]]
    return ("grid", path, texts.index(canonical(value)))


def _blamed(parameters: Parameters, item: ErrorDetails) -> str:
    """The path of the value that an error is about, or has most to do with."""
    context = item.get("ctx", {})
    # Between the path's own parts stand the tags of the unions on the way.
    place = [str(part) for part in (*item["loc"], *context.get("path", ()))]
    paths = sorted(parameters, key=lambda path: path.count("."), reverse=True)
    for path in paths:
        if _is_part(path.split("."), place):
            return path
    for path in paths:
        if _is_part(place, path.split(".")):
            return path
    for path in paths:
        # Such as "min_learning_rate 0.001 is above the learning_rate 0.0001".
        if re.search(rf"\b{re.escape(path.rpartition('.')[2])}\b", item["msg"]):
            return path
    return paths[-1]


def _is_part(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether all of a sequence stands in another in the same order."""
    rest = iter(whole)
    return all(each in rest for each in part)


def _context(trials: TrialsSpec, place: Place, problem: _Problem) -> dict[str, Any]:
    given = ""
    if place[0] == "grid":
        path = str(place[1])
        num_with_it = sum(
            canonical(point.get(path)) == canonical(problem.value) for point in _points(trials)
        )
        if problem.num_points < num_with_it:
            given = f"with {_words(problem.given)}: "
    elif len(place) == 2:  # a value that was drawn
        beside = f" with {_words(problem.given)}" if problem.given else ""
        given = f"draws {_word(problem.value)}{beside}, where "
    elif problem.given:
        given = f"{_word(problem.value)} with {_words(problem.given)}: "
    message = f"{given}{problem.error['msg']}"
    return {"message": message, "given": given, "error": problem.error}


def _repetitions(spec: Any) -> Iterator[InitErrorDetails]:
    trials: TrialsSpec = spec.trials
    for path, sample in trials.sample.items():
        seen: set[str] = set()
        for index, value in enumerate(sample.choice or ()):
            text = _identity(spec, {path: value})
            if text in seen:
                message = f"{_word(value)} must not repeat"
                yield point_error(("sample", path, "choice", index), value, message=message)
            seen.add(text)
    for path, values in trials.grid.items():
        texts = [canonical(value) for value in values]
        for index, text in enumerate(texts):
            if text in texts[:index]:
                message = f"{_word(values[index])} must not repeat: the same point gives the same "
                message += "trials"
                yield point_error(("grid", path, index), values[index], message=message)
                return
    first: dict[str, Parameters] = {}
    for parameters in _points(trials):
        text = _identity(spec, parameters)
        other = first.setdefault(text, parameters)
        if other is not parameters:
            message = f"{_words(parameters)} is the same point as {_words(other)}; leave one out"
            differing = [
                path
                for path, value in parameters.items()
                if canonical(value) != canonical(other[path])
            ]
            place = _place(trials, differing[0], parameters[differing[0]])
            yield point_error(place, parameters[differing[0]], message=message)
            return


def _identity(spec: Any, parameters: Parameters) -> str:
    """The same text for points that mean the same spec."""
    if any(isinstance(value, dict | list) for value in parameters.values()):
        # Objects may differ in fields that have their defaults.
        return canonical(point_spec(spec, parameters).model_dump(mode="json"))
    # Where 1 is as valid as 1.0, it is the same number.
    return canonical(
        {path: float(value) if type(value) is int else value for path, value in parameters.items()}
    )


def _ineffective(spec: Any) -> Iterator[InitErrorDetails]:
    """What a scheduler and a sampler that learns need of the points."""
    trials: TrialsSpec = spec.trials
    if not trials.is_adaptive:
        return
    combinations = [*_points(trials)] or [*grid_combinations(trials)]
    points = [point_spec(spec, parameters) for parameters in combinations]
    name = "sampler" if trials.sampler == "tpe" else "scheduler"
    if any(getattr(point, "validation_portion", 1.0) == 0 for point in points):
        yield point_error(
            (name,),
            getattr(trials, name),
            message="it goes by the validation accuracy, and with a validation_portion of 0 there "
            "is none: hold images out, or leave it out",
        )
    scheduler = trials.scheduler
    most = max(point_epochs(spec, point) for point in trial_points(trials))
    if scheduler is not None and scheduler.grace_epochs >= most:
        yield point_error(
            ("scheduler", "grace_epochs"),
            scheduler.grace_epochs,
            message=f"{scheduler.grace_epochs} epochs of grace leave nothing of {most} epochs to "
            "stop early",
        )


def _words(parameters: Parameters) -> str:
    return ", ".join(f"{path} = {_word(value)}" for path, value in parameters.items())


def _word(value: JsonValue) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
