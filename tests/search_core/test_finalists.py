"""Finalists of a search: real tiny runs on digits, and the rules of who wins."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from search_core.cuboid_size import searched_size
from search_core.derive import best_paths
from search_core.errors import CheckpointError, DivergedError
from search_core.finalists import recipe
from search_core.search import BatchProgress, EpochReport, SearchRun
from search_core.spec import AlgorithmSpec, Finalists, SearchSpec
from search_core.spec.points import point_epochs, trial_points
from search_core.training import TrainingReport, TrainingRun
from tests.search_core.test_search import bits, finish, kill_after, through_a_file

SPACE = {
    "kind": "hypercuboid",
    "axes": {"channels": [4, 8]},
    "levels": 2,
    "strides": [2],
    "final_channels": 16,
}


def make(finalists: dict[str, Any] | None = None, **sections: Any) -> SearchSpec:
    """Two epochs of search and three finalists of two epochs, four and five batches each."""
    body: dict[str, Any] = {
        "space": SPACE,
        "algorithm": {"weighting": "max_w", "architecture_learning_rate": 0.1},
        "training": {"epochs": 2, "batch_size": 150, "learning_rate": 0.1},
    }
    for name, section in sections.items():
        body[name] = {**body.get(name, {}), **section}
    body["algorithm"]["finalists"] = {"paths": 3, "epochs": 2, **(finalists or {})}
    return SearchSpec.model_validate(body)


Accuracies = Callable[[dict[int, list[float | None]]], None]


@pytest.fixture
def accuracies(monkeypatch: pytest.MonkeyPatch) -> Accuracies:
    """Lets finalists train as they do, and replaces what their epochs measured; None diverges.

    By rank, which a new `TrainingRun` moves on.
    """

    def replace(by_rank: dict[int, list[float | None]]) -> None:
        made: list[TrainingRun] = []
        run_epoch = TrainingRun.run_epoch

        def scripted(self: TrainingRun, on_batch: Any = None) -> TrainingReport:
            if self not in made:
                made.append(self)
            epoch = self.epoch
            report = run_epoch(self, on_batch)
            accuracy = by_rank[made.index(self) + 1][epoch]
            if accuracy is None:
                raise DivergedError(f"diverged at epoch {epoch + 1}")
            metrics = {**report.metrics, "validation_accuracy": accuracy}
            return TrainingReport(report.epoch, report.epochs, metrics, report.best_epoch)

        monkeypatch.setattr(TrainingRun, "run_epoch", scripted)

    return replace


def ranked(report: EpochReport, count: int = 3) -> list[Any]:
    space = make().space
    return [each.genotype for each in best_paths(report.alphas["cuboid"], space, count)]  # type: ignore[arg-type]


def test_finalists_are_trained_after_the_search_and_the_best_is_its_result() -> None:
    spec = make({"validation_portion": 0.4})
    run = SearchRun(spec, 3)
    seen: list[BatchProgress] = []
    reports = []
    while not run.finished:
        reports.append(run.run_epoch(seen.append))
    assert [report.epoch for report in reports] == list(range(1, 9))
    assert {report.epochs for report in reports} == {8} == {spec.total_epochs}
    assert run.epoch == 8
    with pytest.raises(RuntimeError, match="finished: 8 epochs are done"):
        run.run_epoch()
    # 718 images of the search's half, 862 of a finalist's.
    batches = {1: 4, 2: 4, **dict.fromkeys(range(3, 9), 5)}
    assert [(each.epoch, each.batch) for each in seen] == [
        (epoch, batch + 1) for epoch, count in batches.items() for batch in range(count)
    ]
    searched, phase = reports[:2], reports[2:]
    assert all("finalist" not in report.metrics for report in searched)
    assert [(report.metrics["finalist"], report.metrics["finalist_epoch"]) for report in phase] == [
        (rank, epoch) for rank in (1, 2, 3) for epoch in (1, 2)
    ]
    # The alphas are those that the search ended with.
    assert all(report.alphas == searched[-1].alphas for report in phase)
    paths = ranked(searched[-1])
    assert searched[-1].genotype == paths[0]
    # What each is worth is what a training of it by the search's settings comes to.
    expected = []
    for path in paths:
        assert spec.algorithm.finalists is not None
        training = TrainingRun(recipe(spec, spec.algorithm.finalists, path), 3)
        while not training.finished:
            trained = training.run_epoch()
        expected.append(trained.metrics["validation_accuracy"])
    ends = phase[1::2]
    assert [report.metrics["finalist_accuracy"] for report in ends] == expected
    assert [report.metrics["validation_accuracy"] for report in ends] == [
        max(expected[: rank + 1]) for rank in range(3)
    ]
    assert run.genotype() == phase[-1].genotype == paths[expected.index(max(expected))]
    for report in phase:
        assert all(math.isfinite(value) for value in report.metrics.values())
        assert {"train_loss", "learning_rate", "seconds", "alpha_entropy"} <= set(report.metrics)
        assert not report.warnings


def test_the_search_itself_is_what_it_is_without_finalists() -> None:
    with_them = SearchRun(make(), 0)
    body = make().model_dump(mode="json")
    body["algorithm"]["finalists"] = None
    without = SearchRun(SearchSpec.model_validate(body, strict=False), 0)
    assert bits(finish(without)) == bits([with_them.run_epoch(), with_them.run_epoch()])
    assert without.finished
    assert not with_them.finished


def test_a_finalist_is_trained_with_the_search_s_own_settings() -> None:
    spec = make(
        dataset={"name": "digits", "train_portion": 0.7},
        training={"weight_decay": 0.01, "momentum": 0.5, "schedule": {"kind": "constant"}},
        augmentation={"cutout": 3},
    )
    path = best_paths([[1 / 8] * 8] * 2, spec.space, 1)[0].genotype  # type: ignore[arg-type]
    assert spec.algorithm.finalists is not None
    made = recipe(spec, spec.algorithm.finalists, path)
    assert made.augmentation == spec.augmentation
    assert made.num_trained_on == int(1437 * 0.7)
    for name, value in spec.training.model_dump(exclude={"epochs"}).items():
        assert made.training.model_dump()[name] == value
    assert made.training.epochs == 2
    assert (made.training.label_smoothing, made.training.precision) == (0.0, "float32")


@pytest.mark.parametrize("num_batches", [1, 8, 9, 12, 13, 14, 18, 19, 31, 37, 38])
def test_a_run_that_was_killed_anywhere_gives_the_same_bits(num_batches: int) -> None:
    # 4 + 4 batches of the search, then 3 finalists of 2 epochs of 5 or 6.
    whole = finish(SearchRun(make(), 0))
    killed = SearchRun(make(), 0)
    kill_after(killed, num_batches)
    state = through_a_file(killed.state_dict())
    resumed = SearchRun(make(), 0)
    resumed.load_state_dict(state)
    assert resumed.epoch == killed.epoch
    assert resumed.genotype() == killed.genotype()
    reports = finish(resumed)
    assert bits(reports) == bits(whole[-len(reports) :])
    assert resumed.genotype() == whole[-1].genotype


def test_a_run_that_is_resumed_after_every_epoch_gives_the_same_bits() -> None:
    whole = finish(SearchRun(make(), 0))
    reports: list[EpochReport] = []
    run = SearchRun(make(), 0)
    while not run.finished:
        reports.append(run.run_epoch())
        state = through_a_file(run.state_dict())
        run = SearchRun(make(), 0)
        run.load_state_dict(state)
        assert run.genotype() == reports[-1].genotype
    assert bits(reports) == bits(whole)


def test_a_state_of_other_finalists_is_refused() -> None:
    state = SearchRun(make(), 0).state_dict()
    with pytest.raises(CheckpointError, match="another spec"):
        SearchRun(make({"epochs": 3}), 0).load_state_dict(state)


def test_of_equal_finalists_the_heavier_path_wins(accuracies: Accuracies) -> None:
    accuracies({1: [0.9, 0.5], 2: [0.1, 0.8], 3: [0.9, 0.8]})
    reports = finish(SearchRun(make(), 0))
    paths = ranked(reports[-1])
    # While the first is trained it is the heaviest; what an epoch before its last had is no matter.
    assert [report.genotype for report in reports[2:]] == [paths[0]] * 3 + [paths[1]] * 3
    assert [report.metrics["validation_accuracy"] for report in reports[2:]] == [
        0.9, 0.5, 0.5, 0.8, 0.8, 0.8
    ]  # fmt: skip


def test_a_finalist_that_diverges_is_out(accuracies: Accuracies) -> None:
    accuracies({1: [None], 2: [0.4, 0.3], 3: [0.9, None]})
    run = SearchRun(make(), 0)
    reports = finish(run)
    paths = ranked(reports[-1])
    # The epochs that the first does not train any more are passed over.
    assert [report.epoch for report in reports] == [1, 2, 4, 5, 6, 7, 8]
    assert run.epoch == 8
    first, *_, last = reports[2:]
    assert first.metrics["finalist_diverged"] == 1
    assert "validation_accuracy" not in first.metrics
    assert first.genotype == paths[1]
    (warning,) = first.warnings
    assert warning.kind == "finalist_diverged"
    assert "finalist 1 of 3 is out: it diverged at epoch 1" in warning.message
    assert last.metrics["finalist"] == 3
    assert last.metrics["validation_accuracy"] == 0.3
    assert run.genotype() == last.genotype == paths[1]


def test_where_all_diverge_the_heaviest_path_stands(accuracies: Accuracies) -> None:
    accuracies({1: [None], 2: [0.4, None], 3: [None]})
    run = SearchRun(make(), 0)
    reports = finish(run)
    assert reports[-1].epoch == run.epoch == 8
    assert run.genotype() == ranked(reports[-1])[0]
    assert "validation_accuracy" not in reports[-1].metrics
    assert "the heaviest path stands unmeasured" in reports[-1].warnings[0].message
    resumed = SearchRun(make(), 0)
    resumed.load_state_dict(through_a_file(run.state_dict()))
    assert resumed.finished
    assert resumed.genotype() == run.genotype()


def test_a_real_divergence_does_not_end_the_search() -> None:
    run = SearchRun(make(), 0)
    run.run_epoch()
    run.run_epoch()

    def poison(progress: BatchProgress) -> None:
        if progress.batch == 1:
            assert run._finalists is not None
            assert run._finalists._run is not None
            with torch.no_grad():
                next(run._finalists._run.network.parameters()).fill_(math.nan)

    report = run.run_epoch(poison)
    assert report.metrics["finalist_diverged"] == 1
    assert "diverged at epoch 1, batch 2: the training loss is nan" in report.warnings[0].message
    reports = finish(run)
    assert reports[-1].metrics["validation_accuracy"] > 0


def test_a_search_that_stops_on_collapse_has_no_finalists() -> None:
    spec = make(
        space={"axes": {"channels": [4], "operation": ["skip_connect", "conv"]}, "levels": 2},
        algorithm={"stop_on_collapse_epochs": 2},
    )
    run = SearchRun(spec, 0)
    space = spec.space
    with torch.no_grad():
        for index, operation in enumerate(space.operations):  # type: ignore[union-attr]
            skips = operation.candidate.operation == "skip_connect"
            run.network.architecture_parameters()[0][:, index] = 9.0 if skips else -9.0
    reports = finish(run)
    assert [report.epoch for report in reports] == [1, 2]
    assert [each.kind for each in reports[-1].warnings] == ["collapse", "stopped_on_collapse"]


@pytest.mark.parametrize(
    ("finalists", "sections", "place", "says"),
    [
        ({"paths": 33}, {}, ["algorithm", "finalists", "paths"], "with 32 paths; ask for fewer"),
        (
            {"validation_portion": 0.9},
            {},
            ["algorithm", "finalists", "validation_portion"],
            "above the 143 images that train a finalist",
        ),
        (
            {"epochs": 1},
            {"training": {"schedule": {"kind": "cosine_power", "warmup_epochs": 1}}},
            ["algorithm", "finalists", "epochs"],
            "warmup_epochs 1 leaves nothing of a finalist's 1 epochs",
        ),
        (
            {},
            {"space": {"kind": "darts", "axes": {}}},
            ["algorithm", "finalists"],
            "finalists is for the space 'hypercuboid' only, and this is 'darts'",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(
    finalists: dict[str, Any], sections: dict[str, Any], place: list[str], says: str
) -> None:
    body = make().model_dump(mode="json")
    for name, section in sections.items():
        body[name] |= section
    if sections.get("space"):
        body["space"] = {"kind": "darts"}
    body["algorithm"]["finalists"] |= finalists
    with pytest.raises(ValidationError) as caught:
        SearchSpec.model_validate(body, strict=False)
    (error,) = caught.value.errors()
    assert list(error["ctx"]["path"]) == place
    assert says in error["msg"]


@pytest.mark.parametrize(
    "fields", [{"paths": 1}, {"paths": 65}, {"epochs": 0}, {"validation_portion": 0.0}]
)
def test_bounds(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Finalists(**fields)
    assert AlgorithmSpec().finalists is None
    assert Finalists().total_epochs == 90


@pytest.mark.parametrize(
    ("trials", "epochs"),
    [
        ({"seeds": [0, 1]}, [8, 8]),
        ({"grid": {"algorithm.finalists.paths": [2, 3]}}, [6, 8]),
        ({"grid": {"algorithm.finalists": [None, {"paths": 4}]}}, [2, 62]),
        ({"grid": {"training.epochs": [1, 3], "algorithm.finalists.epochs": [1, 5]}},
         [4, 6, 16, 18]),
        ({"grid": {"training.learning_rate": [0.1, 0.2]}}, [8, 8]),
        ({"sample": {"algorithm.finalists.epochs": {"randint": [1, 4]},
                     "training.epochs": {"randint": [1, 3]}}, "sampler": "tpe"}, [15]),
    ],
)  # fmt: skip
def test_every_point_knows_its_epochs(trials: dict[str, Any], epochs: list[int]) -> None:
    spec = make(trials=trials)
    assert [point_epochs(spec, point) for point in trial_points(spec.trials)] == epochs


def test_grace_is_held_against_all_epochs() -> None:
    asha = {"seeds": [0, 1], "scheduler": {"kind": "asha", "grace_epochs": 7}}
    assert make(trials=asha).trials.scheduler is not None
    with pytest.raises(ValidationError, match="leave nothing of 8 epochs"):
        make(trials={**asha, "scheduler": {"kind": "asha", "grace_epochs": 8}})


def test_memory_counts_what_measuring_a_finalist_holds() -> None:
    body = make().model_dump(mode="json")
    body["algorithm"]["finalists"] = None
    without = searched_size(SearchSpec.model_validate(body, strict=False))
    with_them = searched_size(make())
    assert without is not None
    assert with_them is not None
    assert with_them.training_bytes > without.training_bytes
