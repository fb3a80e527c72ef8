"""Runs of stacked seeds: each ends as it would alone."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from search_core import graphs, optimizers, search
from search_core.bilevel import BatchResult
from search_core.data import LabelledImages
from search_core.errors import DivergedError
from search_core.graphs import Repeated, StaticStep
from search_core.pace import reproducible
from search_core.reports import EpochReport
from search_core.search import SearchRun
from search_core.spec import AlgorithmSpec, SearchSpec
from search_core.stacking import StackedRun
from search_core.stacking import step as stacked_steps
from search_core.supernet import CellSupernet
from tests.search_core.test_search import kill_after
from tests.search_core.test_stacking import SEEDS, SPACES

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
    """A search too short for the last digits of single precision to grow into the results."""
    merged: dict[str, Any] = {
        "algorithm": {"architecture_learning_rate": 0.001},
        "augmentation": {"cutout": 2},
        "training": {"learning_rate": 0.01},
    }
    return make_spec(**{**merged, **sections})


def test_a_stack_has_the_results_that_each_seed_has_alone(make_spec: SpecMaker) -> None:
    spec = tame(make_spec)
    reports = run_stacked([SearchRun(spec, seed) for seed in SEEDS])
    for seed, own in zip(SEEDS, reports, strict=True):
        assert_same_results(own, run_alone(spec, seed)[1])


def test_a_gpus_stack_has_them_too(make_spec: SpecMaker, request: pytest.FixtureRequest) -> None:
    spec = tame(make_spec)
    expected = [run_alone(spec, seed)[1] for seed in SEEDS]
    request.getfixturevalue("_static_on_a_cpu")
    runs = [SearchRun(spec, seed) for seed in SEEDS]
    for run in runs:
        kill_after(run, 1)  # Their sums begin in static steps.
    for own, theirs in zip(run_stacked(runs), expected, strict=True):
        assert_same_results(own, theirs)


@pytest.fixture
def _optimizers_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has runs train alone as on a GPU, with optimizers that can be captured."""
    monkeypatch.setattr(search, "is_static", lambda *_: True)


@pytest.mark.usefixtures("_optimizers_of_a_gpu")
@pytest.mark.parametrize("kind", ["darts", "hypercuboid"])
def test_a_stack_leaves_optimizers_as_a_gpu_wants_them(make_spec: SpecMaker, kind: str) -> None:
    spec = tame(make_spec, space=SPACES[kind])
    runs = [SearchRun(spec, seed) for seed in SEEDS]
    stacked = StackedRun(runs)
    stacked.run_epoch()
    assert stacked._step is not None
    assert isinstance(stacked._step.weight_optimizer.param_groups[0]["lr"], float)
    resumed = SearchRun(spec, SEEDS[0])
    state = runs[0].state_dict()
    moments = state["weight_optimizer"]
    for moment in moments.values():  # as a state may be that was written before
        if moment["momentum_buffer"].dim() == 2:
            moment["momentum_buffer"] = moment["momentum_buffer"].t().contiguous().t()
    resumed.load_state_dict(state)
    for run in (*runs, resumed):
        optimizer = run.step.weight_optimizer
        assert isinstance(optimizer.param_groups[0]["lr"], Tensor)
        for weight in run.network.weight_parameters():
            assert optimizer.state[weight]["momentum_buffer"].stride() == weight.stride()
    losses = [run.run_epoch().metrics["train_loss"] for run in (runs[0], resumed)]
    expected = run_alone(spec, SEEDS[0])[1][1].metrics["train_loss"]
    assert losses == pytest.approx([expected] * 2, rel=1e-2)


@pytest.mark.parametrize("capturable", [True, False])
def test_steps_are_counted_where_each_optimizer_counts_them(capturable: bool) -> None:
    with FakeTensorMode():
        own = [nn.Parameter(torch.empty(3, 4, device="cuda")) for _ in SEEDS]
        algorithm = AlgorithmSpec()
        members = [optimizers.for_alphas([p], algorithm, capturable=capturable) for p in own]
        together = nn.Parameter(torch.empty(len(SEEDS), 3, 4, device="cuda"))
        stacked = optimizers.for_alphas([together], algorithm, capturable=False)
        together.grad = torch.empty_like(together)
        # Its first moments.
        stacked._init_group(stacked.param_groups[0], [], [], [], [], [], [])  # type: ignore[no-untyped-call]
        stacked_steps._distribute(stacked, members)
        for member, parameter in zip(members, own, strict=True):
            state = member.state[parameter]
            assert state["step"].device.type == ("cuda" if capturable else "cpu")
            assert state["exp_avg"].device == parameter.device
        stacked_steps._collect(stacked, members)
        assert stacked.state[together]["step"].device.type == "cpu"


@pytest.mark.usefixtures("_optimizers_of_a_gpu")
def test_what_was_captured_alone_is_not_repeated_after_a_stack(
    make_spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Graph:
        """Work on tensors where they were when it was captured, as a graph is."""

        def __init__(self, work: Callable[[], None]) -> None:
            self._work = work
            self._places = self._now()

        def replay(self) -> None:
            assert self._now() == self._places
            self._work()

        def _now(self) -> list[int]:
            return [weight.data_ptr() for weight in run.network.weight_parameters()]

    class Pretended(graphs.Workshop):
        def __init__(self, device: torch.device) -> None: ...

        def warm_up(self, work: Callable[[], None]) -> None:
            work()

        def capture(self, work: Callable[[], None]) -> Any:
            return Graph(work)

    def pretend(self: StaticStep) -> tuple[Repeated, Repeated]:
        workshop = Pretended(torch.device("cpu"))
        return (
            Repeated(self._train_alphas, workshop, pytest.fail),
            Repeated(self._train_weights, workshop, pytest.fail),
        )

    monkeypatch.setattr(graphs.StaticStep, "_halves", pretend)
    spec = tame(make_spec, training={"batch_size": 100, "epochs": 3})
    run, other = (SearchRun(spec, seed) for seed in SEEDS[:2])
    run.run_epoch()
    other.run_epoch()
    stacked = StackedRun([run, other])
    spoil(other)
    assert isinstance(stacked.run_epoch()[other], DivergedError)
    assert stacked.runs == [run]
    report = stacked.run_epoch()[run]
    assert isinstance(report, EpochReport)
    assert_same_results([report], [run_alone(spec, SEEDS[0])[1][2]])


def test_one_that_diverges_in_a_gpus_stack_ends_alone(
    make_spec: SpecMaker, request: pytest.FixtureRequest
) -> None:
    spec = tame(make_spec)
    expected = run_alone(spec, SEEDS[1])[1]
    request.getfixturevalue("_static_on_a_cpu")
    runs = [SearchRun(spec, seed) for seed in SEEDS[:2]]
    spoil(runs[0])
    stacked = StackedRun(runs)
    outcomes = stacked.run_epoch()
    error = outcomes[runs[0]]
    assert isinstance(error, DivergedError)
    assert "epoch 1, batch 1" in str(error)
    # The other one has made its second batch in static steps, which go on with its sums.
    reports = [outcomes[runs[1]], stacked.run_epoch()[runs[1]]]
    assert_same_results([each for each in reports if isinstance(each, EpochReport)], expected)


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


def test_a_resumed_stack_has_the_same_bits(make_spec: SpecMaker) -> None:
    spec = make_spec(algorithm={"order": "second"})
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


@pytest.mark.parametrize("where", ["alphas", "weights", "measuring"])
def test_one_that_diverges_ends_alone(make_spec: SpecMaker, where: str) -> None:
    spec = tame(make_spec)
    runs = [SearchRun(spec, seed) for seed in SEEDS]
    stacked = StackedRun(runs)
    stacked.run_epoch()
    # In the second epoch, and in its second batch where it is one of training.
    spoilt = runs[1]
    if where == "measuring":
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


def test_the_last_one_left_goes_on_alone(make_spec: SpecMaker) -> None:
    spec = tame(make_spec)
    runs = [SearchRun(spec, seed) for seed in SEEDS[:2]]
    spoil(runs[0])
    stacked = StackedRun(runs)
    outcomes = [stacked.run_epoch()[runs[1]]]
    assert stacked.runs == runs[1:]
    outcomes.append(stacked.run_epoch()[runs[1]])
    reports = [each for each in outcomes if isinstance(each, EpochReport)]
    assert_same_results(reports, run_alone(spec, SEEDS[1])[1])


def test_one_that_stops_early_leaves_the_stack(make_spec: SpecMaker) -> None:
    spec = tame(make_spec, algorithm={"stop_on_collapse_epochs": 1}, training={"epochs": 3})
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


def test_finalists_are_trained_one_after_the_other(make_spec: SpecMaker) -> None:
    spec = SearchSpec.model_validate(
        {
            "space": {
                "kind": "hypercuboid",
                "axes": {"channels": [2, 4]},
                "levels": 1,
                "strides": [2],
                "final_channels": 8,
            },
            "algorithm": {"finalists": {"paths": 2, "epochs": 1}},
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
