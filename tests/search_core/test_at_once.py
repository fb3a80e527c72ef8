"""What does not depend on each other: as one function, and on streams of its own."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.search_step import Stepper, parse
from search_core.randomness import stream as generator

pytest.importorskip("triton")

from search_core.relaxation.fused import streams, together
from search_core.relaxation.fused.adding import added
from search_core.relaxation.fused.streams import Task, at_once, in_turn
from search_core.relaxation.fused.together import Call, run
from tests.search_core.fused_checks import DEVICE


class _Stream:
    """A stream of a GPU that is not there."""

    def __init__(self, name: str, said: list[str]) -> None:
        self.name = name
        self.device = "gpu"
        self._said = said

    def wait_stream(self, other: "_Stream") -> None:
        self._said.append(f"{self.name} waits for {other.name}")


class _Gpu:
    """A GPU that is being captured, and what happens on it, line by line."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._current = [_Stream("whole", self.said)]
        self.streams = [_Stream(f"stream {each}", self.said) for each in range(streams._STREAMS)]
        self.cuda = SimpleNamespace(
            is_available=lambda: True,
            is_current_stream_capturing=lambda: True,
            current_stream=lambda: self._current[-1],
            stream=self._on,
        )

    def do(self, what: str) -> str:
        """Something that a task does."""
        self.said.append(f"{what} on {self._current[-1].name}")
        return what

    @property
    def done(self) -> list[str]:
        """What tasks did, and where."""
        return [each for each in self.said if " on " in each]

    @contextmanager
    def _on(self, which: _Stream) -> Iterator[None]:
        self._current.append(which)
        try:
            yield
        finally:
            self._current.pop()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> _Gpu:
    gpu = _Gpu()
    monkeypatch.setattr(streams, "torch", gpu)
    monkeypatch.setattr(streams, "_streams", lambda _: gpu.streams)
    return gpu


def test_tasks_wait_for_what_was_before_and_are_waited_for(gpu: _Gpu) -> None:
    tasks = [
        Task(partial(gpu.do, "small"), 1),
        Task(partial(gpu.do, "large"), 10),
        Task(partial(gpu.do, "middle"), 5),
    ]
    assert at_once(tasks) == ["small", "large", "middle"]
    assert gpu.said == [
        "stream 0 waits for whole",
        "stream 1 waits for whole",
        "stream 2 waits for whole",
        "large on stream 0",
        "middle on stream 1",
        "small on stream 2",
        "whole waits for stream 0",
        "whole waits for stream 1",
        "whole waits for stream 2",
    ]


def test_each_goes_where_there_is_the_least_to_do(gpu: _Gpu) -> None:
    del gpu.streams[2:]
    costs = {"a": 6, "b": 1, "c": 3, "d": 2}
    tasks = [Task(partial(gpu.do, name), cost) for name, cost in costs.items()]
    assert at_once(tasks) == list(costs)
    assert gpu.done == [
        "a on stream 0",
        "c on stream 1",
        "d on stream 1",
        "b on stream 1",
    ]


def test_what_is_within_a_task_stays_on_its_stream(gpu: _Gpu) -> None:
    inner = [Task(partial(gpu.do, name)) for name in ("first", "second")]
    assert at_once([Task(lambda: at_once(inner)), Task(lambda: [gpu.do("other")])]) == [
        ["first", "second"],
        ["other"],
    ]
    assert gpu.done == [
        "first on stream 0",
        "second on stream 0",
        "other on stream 1",
    ]


def test_a_task_that_fails_leaves_no_stream_behind(gpu: _Gpu) -> None:
    def fail() -> str:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        at_once([Task(fail), Task(partial(gpu.do, "other"))])
    assert gpu.said[-2:] == ["whole waits for stream 0", "whole waits for stream 1"]


def test_one_task_needs_no_other_stream(gpu: _Gpu) -> None:
    turns = in_turn([Task(partial(gpu.do, "first"), 2), Task(partial(gpu.do, "second"), 3)])
    assert turns.cost == 5
    assert at_once([turns]) == [None]
    assert gpu.said == ["first on whole", "second on whole"]


def test_what_is_not_captured_is_done_in_order() -> None:
    done: list[int] = []
    at_once([Task(partial(done.append, number), number) for number in range(5)])
    assert done == list(range(5))


class _Scaled(torch.autograd.Function):
    """Of some values and a factor, and how often it was differentiated."""

    backwards = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float, scale: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.settings = factor
        return x * factor if scale is None else x * factor * scale

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        _Scaled.backwards += 1
        x, scale = ctx.saved_tensors
        [d_y] = d_outputs
        d_x = d_y * ctx.settings if ctx.needs_input_grad[0] else None
        if scale is None or d_x is None:
            return d_x, None, None
        return d_x * scale, None, (d_y * x * ctx.settings).sum()


class _Squared(torch.autograd.Function):
    """Squares, and how many there are, through which no gradient goes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        count = torch.tensor(x.numel())
        ctx.save_for_backward(x)
        ctx.mark_non_differentiable(count)
        ctx.set_materialize_grads(False)
        return x * x, count

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        [x] = ctx.saved_tensors
        assert d_outputs[0] is not None
        return (2 * x * d_outputs[0],)


def draw(name: str) -> Tensor:
    values = torch.randn(3, generator=generator(0, name), dtype=torch.float64)
    return values.to(DEVICE).requires_grad_()


def a_scale() -> Tensor:
    return torch.tensor(1.5, dtype=torch.float64, device=DEVICE)


def calls_of(x: Tensor, z: Tensor, scale: Tensor) -> list[Call[Any]]:
    return [
        Call(_Scaled, (x, 3.0, None), lambda y: y),
        Call(_Squared, (x,), lambda made: (made[0].view(3, 1), made[1])),
        Call(_Scaled, (z, 2.0, scale), lambda y: y),
    ]


def test_functions_together_are_the_same_as_each_alone() -> None:
    x, z = draw("x"), draw("z")
    scale = a_scale().requires_grad_()
    found = []
    for results in (
        run(calls_of(x, z, scale)),
        [each for call in calls_of(x, z, scale) for each in run([call])],
    ):
        first, (squares, count), last = results
        assert int(count) == 3
        assert not count.requires_grad
        loss = (first * squares.flatten()).sum() + last.square().sum()
        found.append((first, squares, last, *torch.autograd.grad(loss, (x, z, scale))))
    for ours, expected in zip(*found, strict=True):
        assert torch.equal(ours, expected)


def test_gradients_of_what_several_read_are_added_up_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers: list[int] = []

    def count(tensors: Sequence[Tensor]) -> Tensor:
        numbers.append(len(tensors))
        return added(tensors)

    monkeypatch.setattr(together, "added", count)
    x, z = draw("x"), draw("z")
    scale = a_scale().requires_grad_()
    first, (squares, _), last = run([*calls_of(x, z, scale)])
    assert len(first.grad_fn.next_functions) == 3
    torch.autograd.grad((first + squares.flatten() + last).sum(), (x, z, scale))
    assert numbers == [2]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_sums_are_those_of_higher_precision(number: int) -> None:
    parts = [
        torch.randn(3, 700, generator=generator(0, str(each))).to(DEVICE, torch.bfloat16).t()
        for each in range(number)
    ]
    total = added(parts)
    exact = torch.stack([each.float() for each in parts]).sum(dim=0)
    torch.testing.assert_close(total, exact.bfloat16())


def test_what_nobody_asks_for_is_not_computed() -> None:
    x, z = draw("x"), draw("z")
    scale = a_scale()
    _, (squares, _), _ = run(calls_of(x, z, scale))
    before = _Scaled.backwards
    d_x, d_z = torch.autograd.grad(squares.sum(), (x, z), allow_unused=True)
    assert torch.equal(d_x, 2 * x.detach())
    assert d_z is None
    assert _Scaled.backwards == before


def test_what_has_no_gradients_alone_has_none_beside_others() -> None:
    """A cell's input that depends on no alpha, for one."""
    x, z = draw("x").detach(), draw("z")
    before = _Scaled.backwards
    scaled, (squares, _), other = run(calls_of(x, z, a_scale()))
    assert not scaled.requires_grad
    assert not squares.requires_grad
    [d_z] = torch.autograd.grad((scaled * squares.flatten() * other).sum(), z)
    torch.testing.assert_close(d_z, 3 * (scaled * squares.flatten()))
    assert _Scaled.backwards == before + 1


def test_gradients_can_be_taken_twice_where_the_graph_is_kept() -> None:
    x, z = draw("x"), draw("z")
    results = run(calls_of(x, z, a_scale()))
    loss = results[0].sum() + results[2].sum()
    once = torch.autograd.grad(loss, (x, z), retain_graph=True)
    assert all(map(torch.equal, once, torch.autograd.grad(loss, (x, z))))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, (x, z))


def test_a_change_of_what_was_read_is_noticed() -> None:
    x, z = draw("x"), draw("z")
    results = run(calls_of(x, z, a_scale()))
    with torch.no_grad():
        x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(results[1][0].sum(), x)


def test_nothing_is_kept_where_no_gradient_is_asked_for() -> None:
    x, z = draw("x"), draw("z")
    with torch.no_grad():
        results = run(calls_of(x, z, a_scale()))
    assert not any(each.requires_grad for each in (results[0], results[1][0], results[2]))
    assert torch.equal(results[0], 3 * x.detach())


def test_functions_keep_nothing_of_their_own_behind() -> None:
    """What they saved is automatic differentiation's, which frees it when it has been used."""
    context = together._Context((True,))
    context.save_for_backward(torch.zeros(1), None)
    assert len(context.saved_tensors) == 2
    x, z = draw("x"), draw("z")
    results = run(calls_of(x, z, a_scale()))
    settings = results[0].grad_fn.settings
    assert not any(each.saved_tensors or each.silent for each in settings[1])
    results[0].sum().backward()
    assert not any(each.saved_tensors or each.silent for each in settings[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("space", "dtype"),
    [("darts", "float32"), ("darts", "bfloat16"), ("hypercuboid", "float32")],
)
def test_captured_steps_are_the_same_to_the_bit(
    space: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    options = parse(["--space", space, "--dtype", dtype, "--device", "cuda", "--cells", "4"])
    may_part = streams._may_part
    parted: dict[str, set[bool]] = {}

    def note() -> bool:
        # Gradients are computed in a thread of their own.
        parted.setdefault(threading.current_thread().name, set()).add(may_part())
        return may_part()

    found = []
    for parts in (note, lambda: False):
        monkeypatch.setattr(streams, "_may_part", parts)
        stepper = Stepper("fast", options)
        stepper.warm_up()
        for _ in range(3):
            stepper()
        found.append(stepper.network.state_dict())
    assert len(parted) > 1
    assert all(True in each for each in parted.values())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(each, found[1][name]) for name, each in found[0].items())
