"""The trials that a spec asks for, and what is refused when one of them makes no sense."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search_core.spec import SearchSpec, point_spec, trial_points
from search_core.spec.points import point_epochs
from search_core.spec.retraining import RetrainingSpec

RATE = "training.learning_rate"
ASHA = {"kind": "asha"}


def spec(trials: dict[str, Any], **fields: Any) -> SearchSpec:
    """As the API reads it."""
    body = {"preset": "digits-quick", "trials": {"seeds": [0], **trials}, **fields}
    return SearchSpec.model_validate_json(json.dumps(body))


def places(trials: dict[str, Any], **fields: Any) -> list[tuple[str | int, ...]]:
    """Where a spec with these trials is wrong."""
    with pytest.raises(ValidationError) as raised:
        spec(trials, **fields)
    return [
        (*error["loc"][1:], *error.get("ctx", {}).get("path", ()))
        for error in raised.value.errors(include_url=False)
        if error["loc"][0] == "trials"
    ]


def messages(trials: dict[str, Any], **fields: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        spec(trials, **fields)
    return "\n".join(error["msg"] for error in raised.value.errors(include_url=False))


def test_seeds_grid_and_samples_are_combined_each_with_each() -> None:
    asked = spec(
        {
            "seeds": [4, 7],
            "grid": {RATE: [0.1, 0.2], "augmentation.cutout": [0, 4]},
            "sample": {"training.momentum": {"choice": [0.0, 0.5, 0.9]}},
            "num_samples": 3,
        }
    )
    points = trial_points(asked.trials)
    assert [point.number for point in points] == list(range(24))
    assert [point.seed for point in points] == [4, 7] * 12
    assert len({json.dumps([point.seed, point.parameters]) for point in points}) == 24
    # One draw for all combinations: whole blocks of eight have the same momentum.
    momenta = [(point.parameters or {})["training.momentum"] for point in points]
    assert all(len(set(momenta[first : first + 8])) == 1 for first in (0, 8, 16))
    assert sorted({str(momentum) for momentum in momenta}) == ["0.0", "0.5", "0.9"]


def test_without_anything_that_varies_there_is_a_trial_for_each_seed() -> None:
    points = trial_points(spec({"seeds": [3, 5]}).trials)
    assert [(point.seed, point.parameters) for point in points] == [(3, {}), (5, {})]


def test_a_database_that_sorts_keys_changes_no_trial() -> None:
    asked = spec(
        {
            "grid": {RATE: [0.1, 0.2], "augmentation.cutout": [0, 4]},
            "sample": {
                "training.momentum": {"uniform": [0, 0.9]},
                "training.gradient_clip": {"loguniform": [1, 10]},
            },
            "num_samples": 4,
        }
    )
    stored = json.loads(json.dumps(asked.model_dump(mode="json"), sort_keys=True))
    again = SearchSpec.model_validate(stored, strict=False)
    assert trial_points(again.trials) == trial_points(asked.trials)


@given(seed=st.integers(0, 2**32 - 1))
def test_draws_depend_on_the_seed_only_and_stay_inside(seed: int) -> None:
    trials = {
        "sample": {
            RATE: {"loguniform": [1e-3, 0.1]},
            "augmentation.cutout": {"randint": [0, 2]},
        },
        "num_samples": 5,
        "sampler_seed": seed,
    }
    asked = spec(trials, training={"schedule": {"kind": "constant"}})
    points = trial_points(asked.trials)
    assert points == trial_points(asked.trials)
    for point in points:
        assert point.parameters is not None
        assert 1e-3 <= float(str(point.parameters[RATE])) <= 0.1
        assert point.parameters["augmentation.cutout"] in (0, 1, 2)


def test_both_ends_of_randint_are_drawn_and_nothing_is_drawn_twice() -> None:
    asked = spec({"sample": {"augmentation.cutout": {"randint": [0, 4]}}, "num_samples": 5})
    drawn = [
        (point.parameters or {})["augmentation.cutout"] for point in trial_points(asked.trials)
    ]
    assert sorted(int(str(value)) for value in drawn) == [0, 1, 2, 3, 4]


def test_a_point_is_the_spec_with_its_values_in_their_places() -> None:
    asked = spec({"seeds": [2, 9], "grid": {RATE: [0.1, 0.2]}, "scheduler": ASHA})
    point = point_spec(asked, {RATE: 0.2, "space.channels": 6})
    expected = spec({"seeds": [2, 9]}, training={"learning_rate": 0.2}, space={"channels": 6})
    assert point == expected.model_copy(update={"preset": None})


def test_tpe_draws_later() -> None:
    asked = spec(
        {
            "grid": {RATE: [0.1, 0.2]},
            "sample": {"training.epochs": {"randint": [2, 5]}},
            "num_samples": 3,
            "sampler": "tpe",
        }
    )
    points = trial_points(asked.trials)
    assert [point.parameters for point in points] == [None] * 6
    assert [point.grid for point in points[:2]] == [{RATE: 0.1}, {RATE: 0.2}]
    assert [point_epochs(asked, point) for point in points] == [8] * 6
    assert point_epochs(asked.model_copy(update={"training": asked.training.model_copy(
        update={"epochs": 3})}), points[0]) == 5  # fmt: skip


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ({"grid": {"training.learning_rat": [1]}}, [("grid", "training.learning_rat")]),
        ({"grid": {"training.epochs.x": [1]}}, [("grid", "training.epochs.x")]),
        ({"grid": {RATE: ["a", -1, 0.1]}}, [("grid", RATE, 0), ("grid", RATE, 1)]),
        ({"grid": {"training.batch_size": [64, 5000]}}, [("grid", "training.batch_size", 1)]),
        (
            {"grid": {"dataset.train_portion": [0.5, 0.9], "training.batch_size": [64, 600]}},
            [("grid", "training.batch_size", 1)],
        ),
        ({"grid": {RATE: []}}, [("grid", RATE)]),
        ({"grid": {RATE: [0.1, 0.1]}}, [("grid", RATE, 1)]),
        ({"grid": {RATE: [1, 1.0]}}, [("grid", RATE, 1)]),
        ({"grid": {"training": [{}], RATE: [1]}}, [("grid", RATE)]),
        ({"sample": {RATE: {"loguniform": [1e-4, 0.1]}}}, [("sample", RATE, "loguniform", 0)]),
        ({"sample": {RATE: {"loguniform": [0, 0.1]}}}, [("sample", RATE, "loguniform", 0)]),
        ({"sample": {RATE: {"uniform": [0.2, 0.1]}}}, [("sample", RATE, "uniform", 1)]),
        (
            {"sample": {"training.epochs": {"uniform": [1, 5]}}},
            [("sample", "training.epochs", "uniform", end) for end in (0, 1)],
        ),
        (
            {"sample": {"training.epochs": {"choice": [1, 0, 2]}}},
            [("sample", "training.epochs", "choice", 1)],
        ),
        (
            {"sample": {"training.epochs": {"choice": [1, 2, 1]}}},
            [("sample", "training.epochs", "choice", 2)],
        ),
        ({"sample": {RATE: {}}}, [("sample", RATE)]),
        ({"sample": {RATE: {"uniform": [1, 2], "choice": [1, 2]}}}, [("sample", RATE)]),
        ({"grid": {RATE: [0.1]}, "sample": {RATE: {"uniform": [1, 2]}}}, [("sample", RATE)]),
        (
            {"sample": {"training.epochs": {"randint": [1, 3]}}, "num_samples": 4},
            [("num_samples",)],
        ),
        ({"num_samples": 2}, [("num_samples",)]),
        ({"sampler": "tpe"}, [("sampler",)]),
        ({"scheduler": ASHA}, [("scheduler",)]),
        (
            {"seeds": [0, 1], "scheduler": {**ASHA, "grace_epochs": 8}},
            [("scheduler", "grace_epochs")],
        ),
        ({"grid": {RATE: [0.1], "resources.cpus": [1]}}, [("grid", "resources.cpus")]),
        ({"seeds": list(range(200)), "grid": {"training.epochs": list(range(1, 7))}}, [()]),
    ],
)  # fmt: skip
def test_the_place_of_what_is_wrong_is_named(
    trials: dict[str, Any], expected: list[tuple[str | int, ...]]
) -> None:
    assert places(trials) == expected


@pytest.mark.parametrize("path", ["name", "labels.a", "priority", "trials.seeds", "resources.gpus",
                                  "preset"])  # fmt: skip
def test_what_all_trials_share_cannot_vary(path: str) -> None:
    assert f"{path.split('.')[0]} cannot vary: " in messages({"grid": {path: [1]}})


def test_messages_say_what_the_rest_of_the_point_was_where_that_matters() -> None:
    portions = {"dataset.train_portion": [0.5, 0.9]}
    told = messages({"grid": {**portions, "training.batch_size": [600]}})
    assert told.startswith("with dataset.train_portion = 0.9: batch_size 600 is above")
    assert messages({"grid": {**portions, "training.batch_size": [2000]}}).startswith("batch_size")
    assert "1,200 trials; the most are 1,000" in messages(
        {"seeds": list(range(200)), "grid": {"training.epochs": list(range(1, 7))}}
    )
    assert "did you mean 'learning_rate'?" in messages({"grid": {"training.learning_rat": [1]}})


def test_what_goes_by_validation_accuracy_needs_some() -> None:
    body = {
        "architecture": "DARTS_V2",
        "preset": "retrain-digits",
        "trials": {"grid": {"validation_portion": [0.1, 0.0]}, "scheduler": ASHA},
    }
    with pytest.raises(ValidationError, match="validation accuracy"):
        RetrainingSpec.model_validate_json(json.dumps(body))


def test_the_grid_of_a_training_may_vary_what_is_trained() -> None:
    body = {
        "architecture": "DARTS_V2",
        "preset": "retrain-digits",
        "trials": {
            "grid": {"architecture": ["DARTS_V1", "SHARP_DARTS"], "network.family": ["sharp"]}
        },
    }
    asked = RetrainingSpec.model_validate_json(json.dumps(body))
    trained = [point_spec(asked, point.parameters or {}) for point in trial_points(asked.trials)]
    assert [each.architecture for each in trained] == ["DARTS_V1", "SHARP_DARTS"]


def test_an_axis_that_the_spec_leaves_at_its_default_may_vary() -> None:
    channels = [[8, 16], [8, 16, 32]]
    cuboid = {"preset": None, "space": {"kind": "hypercuboid"}, "dataset": {"name": "digits"}}
    asked = spec({"grid": {"space.axes.channels": channels}}, **cuboid)
    points = [point_spec(asked, point.parameters or {}) for point in trial_points(asked.trials)]
    assert [point.model_dump(mode="json")["space"]["axes"]["channels"] for point in points] == (
        channels
    )
    assert places({"grid": {"space.axes.chanels": [[8]]}}, **cuboid) == [
        ("grid", "space.axes.chanels", 0)
    ]
    overlapping = {"space.axes": [{"channels": [8]}], "space.axes.channels": channels}
    assert places({"grid": overlapping}, **cuboid) == [("grid", "space.axes.channels")]


def test_seeds_of_a_point_are_stacked_in_their_order() -> None:
    asked = spec({"seeds": [4, 7, 9], "stack": 2, "grid": {RATE: [0.1, 0.2]}})
    points = trial_points(asked.trials)
    assert [point.stack for point in points] == [0, 0, 1, 2, 2, 3]
    alone = trial_points(spec({"seeds": [4, 7, 9], "grid": {RATE: [0.1, 0.2]}}).trials)
    assert [point.stack for point in alone] == list(range(6))
    # As a trial sees it, which has the memory of its whole stack to look after.
    assert point_spec(asked, points[0].parameters or {}).trials.stack == 2


@pytest.mark.parametrize(
    ("trials", "fields", "told"),
    [
        ({"stack": 2}, {}, "a stack of 2 needs as many seeds, and there is 1"),
        ({"stack": 4, "seeds": [0, 1]}, {}, "a stack of 4 needs as many seeds, and there are 2"),
        ({"stack": 2, "seeds": [0, 1], "scheduler": ASHA}, {}, "asha stops trials one by one"),
        ({"stack": 0}, {}, "greater than or equal to 1"),
        ({"stack": 17}, {}, "less than or equal to 16"),
    ],
)
def test_what_cannot_be_stacked_is_refused(
    trials: dict[str, Any], fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        spec(trials, **fields)
    (error,) = raised.value.errors(include_url=False)
    assert (*error["loc"], *error.get("ctx", {}).get("path", ())) == ("trials", "stack")
    assert told in error["msg"]


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({}, False),
        ({"algorithm": {"relaxation": "fast"}}, False),
        ({"algorithm": {"relaxation": "plain"}}, True),
        ({"algorithm": {"relaxation": "plain"}, "training": {"precision": "bfloat16"}}, False),
        ({"algorithm": {"relaxation": "plain", "sampling": {}}}, False),
        ({"algorithm": {"relaxation": "plain"}, "space": {"skip_below": 0.1}}, False),
    ],
)
def test_what_computes_alike_and_plainly_is_stacked_side_by_side(
    sections: dict[str, Any], told: bool
) -> None:
    trials = {"stack": 2, "seeds": [0, 1]}
    asked = spec(trials, preset="hypercuboid-digits-quick", **sections)
    assert asked.stacks_side_by_side is told


def test_trainings_are_not_stacked() -> None:
    body = {"architecture": "DARTS_V2", "trials": {"seeds": [0, 1], "stack": 2}}
    with pytest.raises(ValidationError, match="only the seeds of a search are stacked"):
        RetrainingSpec.model_validate_json(json.dumps(body))
