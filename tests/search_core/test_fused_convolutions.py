"""A GPU's convolutions, interpreted where there is none, against PyTorch's."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from search_core.relaxation.stacks import whole
from search_core.relaxation.torch_arithmetic import TorchArithmetic
from search_core.relaxation.works import (
    Convolution,
    Kernels,
    Normalisation,
    Part,
    Product,
    Slide,
)
from tests.search_core.fused_checks import apart, check, draw


@pytest.mark.parametrize("size", [(8, 8), (7, 11)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (3, 2), (5, 2), (7, 1)])
def test_convolve(
    fused: Any, kernel: int, dilation: int, stride: int, size: tuple[int, int]
) -> None:
    x_nkchw, taps = draw(3, 2, 3, *size), draw(6, 1, kernel, kernel, name="w")
    weight_koi = draw(2, 5, 3, name="p")
    kernels = Kernels(taps, stride, dilation)
    expected = TorchArithmetic().convolve([Slide(whole(x_nkchw), kernels)], weight_koi)
    ours = fused.convolve([Slide(whole(x_nkchw), kernels)], weight_koi)
    check(ours, expected, [x_nkchw, taps, weight_koi])
    torch.testing.assert_close(
        fused.convolve([Slide(whole(apart(x_nkchw)), kernels)], weight_koi), ours
    )


def test_convolutions_of_several_images_side_by_side(fused: Any) -> None:
    large, small = draw(3, 2, 4, 9, 8), draw(3, 1, 4, 5, 4, name="small")
    taps = [draw(each, 1, kernel, kernel, name=f"w{kernel}") for each, kernel in ((8, 3), (8, 5))]
    last = draw(4, 1, 7, 7, name="w7")
    weight_koi = draw(5, 6, 4, name="p")
    slides = [
        Slide(whole(large), Kernels(taps[0], 2, 1)),
        Slide(whole(small), Kernels(last, 1, 1)),
        Slide(whole(large), Kernels(taps[1], 2, 2)),
    ]
    check(
        fused.convolve(slides, weight_koi),
        TorchArithmetic().convolve(slides, weight_koi),
        [large, small, *taps, last, weight_koi],
    )


def test_no_task_needs_what_another_makes(fused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slides of the same part add to its gradient in turn; all else may come in any order."""
    large, small, alone = draw(2, 3, 4, 6, 6), draw(2, 1, 4, 6, 6, name="s"), draw(2, 2, 4, 6, 6)
    taps = [draw(4, 1, size, size, name=f"w{index}") for index, size in enumerate((3, 5, 3, 3))]
    weights = [draw(4, 5, 4, name="p"), draw(2, 3, 4, name="q")]
    places = (Part(large, 0, 1), Part(large, 0, 1), Part(large, 1, 1), whole(small))
    slides = [Slide(part, Kernels(each, 1, 1)) for part, each in zip(places, taps, strict=True)]
    works = [Convolution(slides, weights[0]), Product(alone, weights[1])]
    inputs = [large, small, alone, *taps, *weights]

    def made() -> list[Tensor]:
        results = fused.convolve_all(works)
        normalised = fused.normalise_all(
            [Normalisation(each, None, None, 1e-5) for each in results]
        )
        results += [each for each, _ in normalised]
        loss = sum((each * each.detach().cos()).sum() for each in results)
        return [*results, *torch.autograd.grad(loss, inputs)]

    expected = made()
    for module in ("separable", "together"):
        monkeypatch.setattr(f"search_core.relaxation.fused.{module}.at_once", backwards)
    assert all(map(torch.equal, made(), expected))


def backwards(tasks: Sequence[Any]) -> list[Any]:
    """Does tasks, the last one first."""
    return [task.work() for task in reversed(tasks)][::-1]


def test_parts_that_overlap_are_refused(fused: Any) -> None:
    stack_nkchw, taps = draw(2, 3, 4, 6, 6), draw(8, 1, 3, 3, name="w")
    slides = [Slide(Part(stack_nkchw, first, 2), Kernels(taps, 1, 1)) for first in (0, 1)]
    with pytest.raises(ValueError, match="overlap"):
        fused.convolve(slides, draw(4, 4, 4, name="p"))


def test_each_part_of_a_stack_is_read_where_it_lies(fused: Any) -> None:
    stack_nkchw = draw(2, 4, 4, 6, 6)
    slides = [
        Slide(
            Part(stack_nkchw, first, length),
            Kernels(draw(4 * length, 1, size, size, name=f"w{size}"), 1, 1),
        )
        for first, length, size in ((0, 2, 3), (3, 1, 5))  # nobody reads the third
    ]
    weight_koi = draw(3, 5, 4, name="p")
    inputs = [stack_nkchw, weight_koi, *(each.kernels.weight_c1kk for each in slides)]
    check(
        fused.convolve(slides, weight_koi), TorchArithmetic().convolve(slides, weight_koi), inputs
    )


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)])
def test_the_same_images_for_several_kernels(fused: Any, stride: int, dilation: int) -> None:
    x_nkchw = draw(2, 2, 3, 6, 7)
    taps = [draw(18, 1, size, size, name=f"w{size}") for size in (3, 5)]
    weight_koi = draw(12, 4, 3, name="p")
    slides = [Slide(whole(x_nkchw), Kernels(each, stride, dilation)) for each in taps]
    check(
        fused.convolve(slides, weight_koi),
        TorchArithmetic().convolve(slides, weight_koi),
        [x_nkchw, *taps, weight_koi],
    )


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 3)])
def test_kernels_that_overlap_little(fused: Any, kernel: int, stride: int) -> None:
    x_nkchw, taps = draw(2, 1, 3, 7, 6), draw(3, 1, kernel, kernel, name="w")
    weight_koi = draw(1, 4, 3, name="p")
    slides = [Slide(whole(x_nkchw), Kernels(taps, stride, 1))]
    check(
        fused.convolve(slides, weight_koi),
        TorchArithmetic().convolve(slides, weight_koi),
        [x_nkchw, taps, weight_koi],
    )


def test_more_rows_and_columns_than_a_program_has(fused: Any) -> None:
    x_nkchw, taps = draw(2, 1, 2, 35, 37), draw(2, 1, 5, 5, name="w")
    weight_koi = draw(1, 2, 2, name="p")
    for stride in (1, 2):
        slides = [Slide(whole(x_nkchw), Kernels(taps, stride, 1))]
        check(
            fused.convolve(slides, weight_koi),
            TorchArithmetic().convolve(slides, weight_koi),
            [x_nkchw, taps, weight_koi],
        )


@pytest.mark.parametrize("wanted", [[0], [1], [2], [0, 2], [1, 2]])
def test_any_gradients_of_a_convolution(fused: Any, wanted: list[int]) -> None:
    inputs = [draw(3, 2, 4, 6, 6), draw(8, 1, 3, 3, name="w"), draw(2, 5, 4, name="p")]
    of_both = []
    for form in (fused, TorchArithmetic()):
        given = [each if index in wanted else each.detach() for index, each in enumerate(inputs)]
        slides = [Slide(whole(given[0]), Kernels(given[1], 1, 1))]
        of_both.append(form.convolve(slides, given[2]))
    check(of_both[0], of_both[1], [inputs[index] for index in wanted])


def test_what_is_between_is_not_kept_nor_what_only_weights_need(fused: Any) -> None:
    x_nkchw, taps = draw(2, 1, 4, 6, 6), draw(4, 1, 3, 3, name="w")
    weight_koi = draw(1, 5, 4, name="p")
    kept: list[torch.Size] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.shape)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        fused.convolve([Slide(whole(x_nkchw), Kernels(taps, 1, 1))], weight_koi)
        assert kept.count(x_nkchw.shape) == 1
        kept.clear()
        fixed = Kernels(taps.detach(), 1, 1)
        fused.convolve([Slide(whole(x_nkchw), fixed)], weight_koi.detach())
        fused.multiply(x_nkchw, weight_koi.detach())
    assert all(math.prod(shape) < x_nkchw.numel() for shape in kept)
