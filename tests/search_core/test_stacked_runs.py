"""Runs of stacked seeds: each ends as it would alone."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from search_core import relaxation_check, relaxation_in_use
from search_core.bilevel import BatchResult
from search_core.data import LabelledImages
from search_core.errors import DivergedError
from search_core.pace import reproducible
from search_core.relaxation_check import Difference
from search_core.reports import EpochReport
from search_core.search import SearchRun
from search_core.spec import SearchSpec
from search_core.spec.presets import merge
from search_core.stacking import StackedRun, networks
from search_core.stacking.step import StackedStep
from search_core.supernet import CellSupernet, Supernet
from tests.search_core.test_stacking import SEEDS

SpecMaker = Callable[..., SearchSpec]


def run_alone(spec: SearchSpec, seed: int) -> tuple[SearchRun, list[EpochReport]]:
    run = SearchRun(spec, seed)
    reports = []
    while not run.finished:
        reports.append(run.run_epoch())
    return run, reports


def run_stacked(runs: Sequence[SearchRun]) -> list[list[EpochReport]]:
    stacked = StackedRun(runs)
    reports: dict[SearchRun, list[EpochReport]] = {run: [] for run in runs}
    while stacked.runs:
        for run, outcome in stacked.run_epoch().items():
            assert isinstance(outcome, EpochReport)
            reports[run].append(outcome)
    return [reports[run] for run in runs]


def assert_same_results(reports: Sequence[EpochReport], expected: Sequence[EpochReport]) -> None:
    assert len(reports) == len(expected)
    for ours, theirs in zip(reports, expected, strict=True):
        assert (ours.epoch, ours.genotype) == (theirs.epoch, theirs.genotype)
        assert ours.metrics.keys() == theirs.metrics.keys()
        for name, value in reproducible(theirs.metrics).items():
            assert ours.metrics[name] == pytest.approx(value, rel=1e-2, abs=1e-2), name


def spoil(run: SearchRun) -> None:
    """Makes its logits no numbers."""
    assert isinstance(run.network, CellSupernet)
    with torch.no_grad():
        run.network.head.bias.fill_(float("nan"))


def tame(make_spec: SpecMaker, **sections: Any) -> SearchSpec:
    """A search whose seeds lie side by side, too short for rounding to grow into its results."""
    base: dict[str, Any] = {
        "algorithm": {"architecture_learning_rate": 0.001, "relaxation": "plain"},
        "augmentation": {"cutout": 2},
        "training": {"learning_rate": 0.01},
    }
    return make_spec(**merge(base, sections))


@pytest.fixture
def seeds_of_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of seeds in each step that is made side by side."""
    made: list[int] = []
    original = StackedStep.train_weights

    def train_weights(self: StackedStep, train: Any) -> list[BatchResult]:
        results = original(self, train)
        made.append(len(results))
        return results

    monkeypatch.setattr(StackedStep, "train_weights", train_weights)
    return made


def test_a_stack_has_the_results_that_each_seed_has_alone(
    make_spec: SpecMaker, seeds_of_steps: list[int]
) -> None:
    spec = tame(make_spec)
    reports = run_stacked([SearchRun(spec, seed) for seed in SEEDS])
    assert seeds_of_steps == [len(SEEDS)] * 6
    for seed, own in zip(SEEDS, reports, strict=True):
        assert_same_results(own, run_alone(spec, seed)[1])


CUBOID: dict[str, Any] = {
    "kind": "hypercuboid",
    "axes": {"channels": [2, 4]},
    "levels": 1,
    "strides": [2],
    "final_channels": 8,
}


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"algorithm": {"relaxation": "fast", "order": "second"}},
        {"algorithm": {"relaxation": "plain"}, "training": {"precision": "bfloat16"}},
        {
            "space": CUBOID,
            "algorithm": {"relaxation": "plain", "sampling": {"alphas": "paths"}},
        },
        {"space": {**CUBOID, "skip_below": 0.3}, "algorithm": {"relaxation": "plain"}},
    ],
    ids=["auto", "fast", "bfloat16", "sampling", "skipping"],
)
def test_what_does_not_go_side_by_side_has_the_bits_that_each_seed_has_alone(
    make_spec: SpecMaker, seeds_of_steps: list[int], sections: dict[str, Any]
) -> None:
    if sections.get("space"):
        merged = {"training": {"epochs": 2, "batch_size": 200}, **sections}
        spec = SearchSpec.model_validate(merged)
    else:
        spec = make_spec(**sections)
    assert_bits_of_each_alone(spec)
    assert seeds_of_steps == []


def test_on_a_gpu_they_have_the_bits_that_each_has_alone(
    make_spec: SpecMaker, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("_static_on_a_cpu")
    assert_bits_of_each_alone(make_spec())


def assert_bits_of_each_alone(spec: SearchSpec) -> None:
    runs = [SearchRun(spec, seed) for seed in SEEDS]
    for run, own in zip(runs, run_stacked(runs), strict=True):
        alone, expected = run_alone(spec, run.seed)
        for ours, theirs in zip(own, expected, strict=True):
            assert reproducible(ours.metrics) == reproducible(theirs.metrics)
            assert (ours.genotype, ours.alphas) == (theirs.genotype, theirs.alphas)
            assert ours.relaxation == theirs.relaxation
        trained = alone.network.state_dict()
        for name, value in run.network.state_dict().items():
            assert torch.equal(value, trained[name]), name


def test_one_after_the_other_each_reports_the_time_of_all(make_spec: SpecMaker) -> None:
    class Clock:
        """A second later whenever it is asked."""

        now = 0.0

        def __call__(self) -> float:
            self.now += 1.0
            return self.now

    alone = SearchRun(make_spec(), SEEDS[0], clock=Clock())
    expected = alone.run_epoch().metrics
    clock = Clock()
    runs = [SearchRun(make_spec(), seed, clock=clock) for seed in SEEDS]
    for outcome in StackedRun(runs, clock).run_epoch().values():
        assert isinstance(outcome, EpochReport)
        told = outcome.metrics
        assert told["seconds"] == len(SEEDS) * expected["seconds"]
        for name in ("steps_per_second", "images_per_second"):
            assert told[name] == pytest.approx(expected[name] / len(SEEDS))

    runs = [SearchRun(make_spec(), seed, clock=clock) for seed in SEEDS]
    spoil(runs[0])
    began = clock.now
    outcomes = StackedRun(runs, clock).run_epoch()
    assert isinstance(outcomes[runs[0]], DivergedError)
    for run in runs[1:]:
        outcome = outcomes[run]
        assert isinstance(outcome, EpochReport)
        # What the one that diverged took is waited for, too.
        assert 2 * expected["seconds"] < outcome.metrics["seconds"] <= clock.now - began


def test_one_whose_plan_fails_says_so_and_the_others_stay_fast(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [SearchRun(make_spec(), seed) for seed in SEEDS]
    original = relaxation_check.largest_difference

    def compare(network: Supernet, *args: Any, **options: Any) -> Difference:
        if network is runs[1].network:
            raise RuntimeError("a kernel is missing")
        return original(network, *args, **options)

    monkeypatch.setattr(relaxation_in_use, "largest_difference", compare)
    stacked = StackedRun(runs)
    told = []
    for _ in range(2):
        for outcome in stacked.run_epoch().values():
            assert isinstance(outcome, EpochReport)
            told.append((outcome.relaxation, [warning.kind for warning in outcome.warnings]))
    assert told == [
        ("fast", []),
        ("plain", ["relaxation_fell_back"]),
        ("fast", []),
        ("fast", []),
        ("plain", []),
        ("fast", []),
    ]


def test_a_network_without_a_stacked_form_is_trained_by_itself(
    make_spec: SpecMaker, seeds_of_steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "FORMS", {})
    assert_bits_of_each_alone(tame(make_spec))
    assert seeds_of_steps == []


def test_alone_and_stacked_go_on_from_each_others_states(make_spec: SpecMaker) -> None:
    spec = tame(make_spec)
    first = StackedRun([SearchRun(spec, seed) for seed in SEEDS])
    first.run_epoch()
    for seed, member in zip(SEEDS, first.runs, strict=True):
        alone = SearchRun(spec, seed)
        alone.load_state_dict(member.state_dict())
        assert_same_results([alone.run_epoch()], [run_alone(spec, seed)[1][1]])

    begun = [SearchRun(spec, seed) for seed in SEEDS]
    for run in begun:
        run.run_epoch()
    resumed = [SearchRun(spec, seed) for seed in SEEDS]
    for one, other in zip(resumed, begun, strict=True):
        one.load_state_dict(other.state_dict())
    for seed, own in zip(SEEDS, run_stacked(resumed), strict=True):
        assert_same_results(own, run_alone(spec, seed)[1][1:])


@pytest.mark.parametrize("relaxation", ["plain", "auto"])
def test_a_resumed_stack_has_the_same_bits(make_spec: SpecMaker, relaxation: str) -> None:
    spec = make_spec(algorithm={"order": "second", "relaxation": relaxation})
    whole = [SearchRun(spec, seed) for seed in SEEDS]
    run_stacked(whole)
    interrupted = StackedRun([SearchRun(spec, seed) for seed in SEEDS])
    interrupted.run_epoch()
    resumed = [SearchRun(spec, seed) for seed in SEEDS]
    for one, other in zip(resumed, interrupted.runs, strict=True):
        one.load_state_dict(other.state_dict())
    run_stacked(resumed)
    for one, other in zip(resumed, whole, strict=True):
        ours, theirs = one.state_dict()["network"], other.state_dict()["network"]
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("relaxation", ["plain", "auto"])
@pytest.mark.parametrize("where", ["alphas", "weights", "measuring"])
def test_one_that_diverges_ends_alone(make_spec: SpecMaker, where: str, relaxation: str) -> None:
    spec = tame(make_spec, algorithm={"relaxation": relaxation})
    runs = [SearchRun(spec, seed) for seed in SEEDS]
    stacked = StackedRun(runs)
    stacked.run_epoch()
    # In the second epoch, and in its second batch where it is one of training.
    spoilt = runs[1]
    if where == "measuring" and relaxation == "auto":
        close = spoilt.close_epoch

        def spoil_before_closing() -> EpochReport:
            spoil(spoilt)
            return close()

        spoilt.close_epoch = spoil_before_closing  # type: ignore[method-assign, assignment]
    elif where == "measuring":
        take = spoilt.take

        def spoil_before_measuring(result: BatchResult, seconds: float = 0.0) -> None:
            take(result, seconds)
            if not spoilt.batches_left:
                spoil(spoilt)

        spoilt.take = spoil_before_measuring  # type: ignore[method-assign]
    else:
        draw = spoilt.draw

        def spoilt_draw() -> tuple[LabelledImages, LabelledImages]:
            train, validation = draw()
            if spoilt.place[1] == 1:
                images = validation if where == "alphas" else train
                images.images_nchw.fill_(float("nan"))
            return train, validation

        spoilt.draw = spoilt_draw  # type: ignore[method-assign]
    outcomes = stacked.run_epoch()
    error = outcomes[spoilt]
    assert isinstance(error, DivergedError)
    place = "end of epoch 2" if where == "measuring" else "epoch 2, batch 2"
    assert place in str(error)
    assert "try a learning_rate below" in str(error)
    assert stacked.runs == []  # the others are finished
    for index in (0, 2):
        report = outcomes[runs[index]]
        assert isinstance(report, EpochReport)
        assert_same_results([report], [run_alone(spec, SEEDS[index])[1][1]])


def test_one_that_diverges_on_a_gpu_leaves_the_others_their_bits(
    make_spec: SpecMaker, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("_static_on_a_cpu")
    runs = [SearchRun(make_spec(), seed) for seed in SEEDS]
    spoil(runs[1])
    stacked = StackedRun(runs)
    error = stacked.run_epoch()[runs[1]]
    assert isinstance(error, DivergedError)
    assert "epoch 1, batch 1" in str(error)
    assert stacked.runs == [runs[0], runs[2]]
    assert set(stacked.run_epoch()) == {runs[0], runs[2]}
    for run in (runs[0], runs[2]):
        trained = run_alone(make_spec(), run.seed)[0].network.state_dict()
        for name, value in run.network.state_dict().items():
            assert torch.equal(value, trained[name]), name


@pytest.mark.parametrize("relaxation", ["plain", "auto"])
def test_the_last_one_left_goes_on_alone(make_spec: SpecMaker, relaxation: str) -> None:
    spec = tame(make_spec, algorithm={"relaxation": relaxation})
    runs = [SearchRun(spec, seed) for seed in SEEDS[:2]]
    spoil(runs[0])
    stacked = StackedRun(runs)
    outcomes = [stacked.run_epoch()[runs[1]]]
    assert stacked.runs == runs[1:]
    outcomes.append(stacked.run_epoch()[runs[1]])
    reports = [each for each in outcomes if isinstance(each, EpochReport)]
    assert_same_results(reports, run_alone(spec, SEEDS[1])[1])


@pytest.mark.parametrize("relaxation", ["plain", "auto"])
def test_one_that_stops_early_leaves_the_stack(make_spec: SpecMaker, relaxation: str) -> None:
    stopping = {"stop_on_collapse_epochs": 1, "relaxation": relaxation}
    spec = tame(make_spec, algorithm=stopping, training={"epochs": 3})
    runs = [SearchRun(spec, seed) for seed in SEEDS]
    collapsed = runs[2]
    skip = spec.space.primitives.index("skip_connect")  # type: ignore[union-attr]
    with torch.no_grad():
        collapsed.network.architecture_parameters()[0][:, skip] = 50.0
    stacked = StackedRun(runs)
    stacked.run_epoch()
    assert stacked.runs == runs[:2]
    assert collapsed.finished
    assert set(stacked.run_epoch()) == set(runs[:2])


@pytest.mark.parametrize("relaxation", ["plain", "auto"])
def test_finalists_are_trained_one_after_the_other(relaxation: str) -> None:
    spec = SearchSpec.model_validate(
        {
            "space": CUBOID,
            "algorithm": {"finalists": {"paths": 2, "epochs": 1}, "relaxation": relaxation},
            "training": {"epochs": 1, "batch_size": 200, "learning_rate": 0.01},
        }
    )
    reports = run_stacked([SearchRun(spec, seed) for seed in SEEDS[:2]])
    for seed, own in zip(SEEDS, reports, strict=False):
        assert len(own) == 3
        assert_same_results(own, run_alone(spec, seed)[1])


def test_runs_at_different_places_are_refused(make_spec: SpecMaker) -> None:
    spec = make_spec()
    ahead = SearchRun(spec, 0)
    ahead.run_epoch()
    with pytest.raises(ValueError, match="epoch 1, batch 0, epoch 0, batch 0"):
        StackedRun([ahead, SearchRun(spec, 1)])
