"""Steps that wait for nothing, on a CPU: all but the capture itself."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from search_core import epoch_training, graphs, relaxation_in_use
from search_core.bilevel import BilevelStep
from search_core.data import LabelledImages
from search_core.errors import DivergedError
from search_core.graphs import Repeated, StaticStep, Workshop
from search_core.optimizers import set_rate
from search_core.randomness import stream
from search_core.relaxation import GroupedPlan, grouped, sharing, stages
from search_core.relaxation.torch_arithmetic import TorchArithmetic
from search_core.search import BatchProgress, SearchRun
from search_core.spaces import build_supernet
from search_core.spec import AlgorithmSpec, DartsSpace, SearchSpec, TrainingSpec
from search_core.states import load_optimizer, snapshot
from search_core.static_evaluation import StaticEvaluation
from search_core.supernet import Supernet
from search_core.tally import Fault, Tally
from search_core.weighting import scalar
from tests.search_core.test_search import SPACES, bits, finish, kill_after, through_a_file

SpecMaker = Callable[..., SearchSpec]
BatchMaker = Callable[..., LabelledImages]
CPU = torch.device("cpu")


def make_network() -> Supernet:
    network = build_supernet(
        DartsSpace(kind="darts", channels=2, cells=3, nodes=2),
        (1, 8, 8),
        10,
        weighting=scalar,
        weight_generator=stream(0, "weights"),
        alpha_generator=stream(0, "alphas"),
    )
    network.plan(GroupedPlan)
    return network


def make_step(network: Supernet, order: str = "first", *, capturable: bool = False) -> BilevelStep:
    return BilevelStep(
        network,
        AlgorithmSpec.model_validate({"order": order, "architecture_learning_rate": 0.1}),
        TrainingSpec(learning_rate=0.1),
        capturable=capturable,
    )


def pretended(network: Supernet, device: str) -> Supernet:
    """The network without numbers, which nobody can ask for; on a GPU that need not be there."""
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            empty = torch.empty(weight.shape, dtype=weight.dtype, device=device)
            module.register_parameter(name, nn.Parameter(empty))
        for name, buffer in list(module.named_buffers(recurse=False)):
            empty = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
            module.register_buffer(name, empty)
    return network


@pytest.mark.parametrize("order", ["first", "second"])
def test_a_static_step_is_the_step(order: str, make_batch: BatchMaker) -> None:
    networks = [make_network(), make_network()]
    usual, step = (make_step(network, order) for network in networks)
    static = StaticStep(step, CPU)
    static.start(0, 0.0, 0)
    losses, hits = [], []
    for seed in range(4):
        train, validation = make_batch(8, seed=seed), make_batch(8, seed=10 + seed)
        result = usual(train, validation, alphas=seed > 0)
        losses.append(result.loss)
        hits.append(result.num_correct)
        static(train, validation, alphas=seed > 0)
    totals = static.read()
    assert (totals.loss_sum, totals.num_correct, totals.fault) == (sum(losses), sum(hits), None)
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_a_static_step_asks_the_device_for_nothing(order: str, precision: str) -> None:
    network = make_network()
    network.precision = precision
    with FakeTensorMode():
        step = make_step(pretended(network, "cpu"), order, capturable=True)
        static = StaticStep(step, CPU)
        batch = LabelledImages(torch.empty(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64))
        static.start(0, 0.0, 0)
        for _ in range(2):  # the second finds momenta
            static(batch, batch)
        with pytest.raises(DataDependentOutputException):
            static.read()


def test_nothing_of_a_forward_pass_is_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network()
    for module in (
        grouped,
        sharing,
        stages,
    ):  # tensors without numbers have no addresses for kernels
        monkeypatch.setattr(module, "arithmetic_for", lambda _: TorchArithmetic())
    with FakeTensorMode(), torch.no_grad():
        pretended(network, "cuda")
        logits_nk = network(torch.empty(8, 1, 8, 8, device="cuda"))
        assert logits_nk.device.type == "cuda"
        tally = Tally(logits_nk.device)
        tally.start(0, 0.0, 0)
        tally.note("the training loss", logits_nk.sum())
        tally.add(logits_nk.sum(), (logits_nk.argmax(dim=1) == 0).sum())


def test_the_optimizers_of_a_gpu_are_the_usual_ones(make_batch: BatchMaker) -> None:
    networks = [make_network(), make_network()]
    steps = [make_step(networks[0]), make_step(networks[1], capturable=True)]
    for seed in range(3):
        for step in steps:
            set_rate(step.weight_optimizer, 0.1 / (seed + 1))
            step(make_batch(8, seed=seed), make_batch(8, seed=10 + seed))
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    rate = steps[1].weight_optimizer.param_groups[0]["lr"]
    assert isinstance(rate, Tensor)
    assert float(rate) == pytest.approx(0.1 / 3)


@pytest.mark.parametrize("to_gpu", [True, False])
def test_states_of_optimizers_go_from_one_kind_to_the_other(
    to_gpu: bool, make_batch: BatchMaker
) -> None:
    first, second = make_network(), make_network()
    before = make_step(first, capturable=not to_gpu)
    for seed in range(2):
        before(make_batch(8, seed=seed), make_batch(8, seed=10 + seed))
    after = make_step(second, capturable=to_gpu)
    second.load_state_dict(first.state_dict())
    for old, new in (
        (before.weight_optimizer, after.weight_optimizer),
        (before.architecture_optimizer, after.architecture_optimizer),
    ):
        load_optimizer(new, snapshot(old.state_dict()["state"]))
        assert [group["fused"] for group in new.param_groups] == [True if to_gpu else None]
    for step in (before, after):
        step(make_batch(8, seed=5), make_batch(8, seed=6))
    assert float(after.architecture_optimizer.state_dict()["state"][0]["step"]) == 3
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_gradient_that_lies_otherwise_is_laid_out_as_its_weight(make_batch: BatchMaker) -> None:
    network = make_network()
    network.to(memory_format=torch.channels_last)
    step = make_step(network, capturable=True)
    seen: list[bool] = []
    original = step.weight_optimizer.step

    def look() -> None:
        seen.extend(
            weight.grad is not None and weight.grad.stride() == weight.stride()
            for weight in network.weight_parameters()
        )
        original()

    step.weight_optimizer.step = look
    step(make_batch(8, seed=0), make_batch(8, seed=1))
    assert seen
    assert all(seen)


@pytest.mark.parametrize(
    ("kind", "order"), [("darts", "first"), ("darts", "second"), ("hypercuboid", "first")]
)
def test_a_search_in_static_steps_gives_the_same_bits(
    make_spec: SpecMaker,
    kind: str,
    order: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = make_spec(
        space=SPACES[kind],
        algorithm={"relaxation": "fast", "order": order, "warmup_epochs": 1},
        training={"batch_size": 150},
    )
    expected = bits(finish(SearchRun(spec, 7)))
    request.getfixturevalue("_static_on_a_cpu")
    monkeypatch.setattr(epoch_training, "READ_EVERY", 2)
    run = SearchRun(spec, 7)
    assert run._training._static is not None
    assert bits(finish(run)) == expected
    run = SearchRun(spec, 7)
    kill_after(run, 5)  # between two readings of the second epoch
    resumed = SearchRun(spec, 7)
    resumed.load_state_dict(through_a_file(run.state_dict()))
    assert bits(finish(resumed)) == expected[1:]
    assert bits(finish(run)) == expected[1:]


@pytest.mark.usefixtures("_static_on_a_cpu")
def test_a_run_may_go_back_to_a_state_of_its_own(make_spec: SpecMaker) -> None:
    run = SearchRun(make_spec(), 0)
    kill_after(run, 1)
    state = through_a_file(run.state_dict())
    expected = bits(finish(run))
    again = SearchRun(make_spec(), 0)
    kill_after(again, 2)
    again.load_state_dict(state)
    assert bits(finish(again)) == expected


def test_the_temperature_may_change_by_epoch(
    make_spec: SpecMaker, request: pytest.FixtureRequest
) -> None:
    spec = make_spec(algorithm={"relaxation": "fast", "temperature": 2.0, "final_temperature": 0.5})
    expected = bits(finish(SearchRun(spec, 0)))
    request.getfixturevalue("_static_on_a_cpu")
    assert bits(finish(SearchRun(spec, 0))) == expected


@pytest.mark.usefixtures("_static_on_a_cpu")
def test_divergence_is_told_with_its_batch_when_it_is_read(make_spec: SpecMaker) -> None:
    spec = make_spec(algorithm={"relaxation": "fast"}, training={"batch_size": 100})

    def poison(progress: BatchProgress) -> None:
        if progress.batch == 2:
            with torch.no_grad():
                run.network.weight_parameters()[-1].fill_(math.inf)

    run = SearchRun(spec, 0)
    with pytest.raises(
        DivergedError, match=r"epoch 1, batch 3: the validation loss is .*; try a learning_rate"
    ):
        run.run_epoch(poison)

    def save(progress: BatchProgress) -> None:
        poison(progress)
        if progress.batch == 4:
            run.state_dict()

    run = SearchRun(spec, 0)
    with pytest.raises(DivergedError, match="epoch 1, batch 3"):
        run.run_epoch(save)


@pytest.mark.usefixtures("_static_on_a_cpu")
@pytest.mark.parametrize(
    ("sections", "is_static"),
    [
        ({"algorithm": {"relaxation": "fast"}}, True),
        ({"algorithm": {"relaxation": "auto"}}, True),
        ({"algorithm": {"relaxation": "plain"}}, False),
        (
            {"algorithm": {"relaxation": "fast", "sampling": {}}, "space": SPACES["hypercuboid"]},
            False,
        ),
        (
            {
                "algorithm": {"relaxation": "fast"},
                "space": {**SPACES["hypercuboid"], "skip_below": 0.1},
            },
            False,
        ),
    ],
)
def test_which_searches_are_static(
    make_spec: SpecMaker, sections: dict[str, Any], is_static: bool
) -> None:
    assert (SearchRun(make_spec(**sections), 0)._training._static is not None) == is_static
    assert not relaxation_in_use._is_wanted(make_spec().algorithm, torch.device("mps"))


def test_a_search_tells_once_why_it_was_not_captured(
    make_spec: SpecMaker, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("_static_on_a_cpu")
    run = SearchRun(make_spec(algorithm={"relaxation": "fast"}), 0)
    assert run._training._static is not None
    run._training._static._steps.note_failure("operation not permitted")
    [warning] = run.run_epoch().warnings
    assert warning.kind == "not_captured"
    assert "operation not permitted" in warning.message
    assert not run.run_epoch().warnings


class Recorded(Workshop):
    """Does what a GPU does, with a list in place of a graph."""

    def __init__(self, error: Exception | None = None) -> None:
        self.said: list[str] = []
        self._error = error

    def warm_up(self, work: Callable[[], None]) -> None:
        self.said.append("warm-up")
        work()

    def capture(self, work: Callable[[], None]) -> Any:
        self.said.append("capture")
        if self._error is not None:
            raise self._error
        return self

    def replay(self) -> None:
        self.said.append("replay")


def test_work_is_captured_after_its_warm_up() -> None:
    done: list[int] = []
    failures: list[str] = []
    workshop = Recorded()
    work = Repeated(lambda: done.append(1), workshop, failures.append)
    for _ in range(graphs.WARM_UP + 2):
        work()
    assert workshop.said == ["warm-up"] * graphs.WARM_UP + ["capture", "replay", "replay"]
    assert (len(done), failures) == (graphs.WARM_UP, [])


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("no\nmemory"), Exception("no memory")],
    ids=["PyTorch", "other"],
)
def test_work_that_cannot_be_captured_is_done_as_it_is(error: Exception) -> None:
    done: list[int] = []
    failures: list[str] = []
    workshop = Recorded(error)
    work = Repeated(lambda: done.append(1), workshop, failures.append)
    for _ in range(graphs.WARM_UP + 3):
        work()
    assert workshop.said == ["warm-up"] * graphs.WARM_UP + ["capture"]
    assert (len(done), failures) == (graphs.WARM_UP + 3, ["no memory"])


def test_what_was_captured_for_plans_is_forgotten_with_them(make_batch: BatchMaker) -> None:
    network = make_network()
    step = make_step(network)
    static = StaticStep(step, CPU)
    batch = make_batch(8, seed=0)
    static(batch, batch)
    halves = static._alphas, static._weights
    static(batch, batch)
    assert (static._alphas, static._weights) == halves
    static.fill(batch, batch)
    static.train_alphas()
    network.unplan()  # as a plan does that fails in the first half
    static.train_weights()
    assert static._weights is not halves[1]


def test_what_was_captured_is_forgotten_with_the_plans_that_came_before(
    make_batch: BatchMaker,
) -> None:
    network = make_network()
    static = StaticStep(make_step(network), CPU)
    evaluation = StaticEvaluation(network, CPU, static.note_failure)
    batch = make_batch(8, seed=0)
    static(batch, batch)
    evaluation(batch, most=8)
    halves, repeated = (static._alphas, static._weights), evaluation._repeated
    network.unplan()  # as a comparison does
    network.plan()
    static(batch, batch)
    evaluation(batch, most=8)
    assert not {static._alphas, static._weights} & set(halves)
    assert evaluation._repeated is not repeated


def test_checks_are_the_steps_own_between_static_ones(make_batch: BatchMaker) -> None:
    network = make_network()
    step = make_step(network)
    static = StaticStep(step, CPU)
    static.start(0, 0.0, 0)
    with torch.no_grad():
        network.weight_parameters()[-1].fill_(math.inf)
    batch = make_batch(8, seed=0)
    static(batch, batch)
    assert static.read().fault is not None
    with pytest.raises(DivergedError):
        step(batch, batch)


def test_a_batch_of_another_shape_is_a_mistake(make_batch: BatchMaker) -> None:
    static = StaticStep(make_step(make_network()), CPU)
    static.fill(make_batch(8, seed=0), make_batch(8, seed=1))
    with pytest.raises(AssertionError):
        static.fill(make_batch(4, seed=0), make_batch(8, seed=1))


def test_a_tally_keeps_the_first_fault() -> None:
    tally = Tally(CPU)
    tally.start(3, 1.5, 2)
    for value in (1.0, math.nan, math.inf):
        tally.note("the training loss", torch.tensor(value))
        tally.add(torch.tensor(0.25), torch.tensor(4))
    totals = tally.read()
    assert totals.fault == Fault(5, "the training loss is nan")
    assert (totals.loss_sum, totals.num_correct) == (2.25, 14)
    tally.start(0, 0.0, 0)
    assert tally.read().fault is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_a_captured_step_is_the_step(order: str, precision: str, make_batch: BatchMaker) -> None:
    device = torch.device("cuda")
    network = make_network().to(device)
    network.precision = precision
    twin = copy.deepcopy(network)
    static = StaticStep(make_step(network, order, capturable=True), device)
    usual = make_step(twin, order, capturable=True)
    static.start(0, 0.0, 0)
    loss_sum = 0.0
    for seed in range(graphs.WARM_UP + 4):
        batches = [make_batch(8, seed=2 * seed + half).to(device) for half in range(2)]
        static(batches[0], batches[1])
        loss_sum += usual(batches[0], batches[1]).loss
    assert static.take_failure() is None
    assert static.read().loss_sum == pytest.approx(loss_sum, rel=1e-3)
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)
