"""A GPU's normalisations and weighted sums, interpreted where there is none, against PyTorch's."""

from typing import Any

import pytest
import torch

from search_core.relaxation.stacks import whole
from search_core.relaxation.torch_arithmetic import TorchArithmetic
from search_core.relaxation.works import Known, Normalisation, Part
from tests.search_core.fused_checks import TOLERANCE, apart, check, draw


@pytest.mark.parametrize(("scaled", "shifted"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    "settings", [{}, {"rectify": True}, {"sums": ((0,),)}], ids=["alone", "rectified", "summed"]
)
@pytest.mark.parametrize("shape", [(3, 2, 5, 5, 7), (1, 3, 4, 9, 9), (2, 1, 80, 16, 16)])
def test_normalise(
    fused: Any, shape: tuple[int, ...], settings: dict[str, Any], scaled: bool, shifted: bool
) -> None:
    if "sums" in settings:
        settings = {"sums": (tuple(range(shape[1])),)}
    # Far from zero, where differences of large sums would be nothing but rounding.
    x_nkchw = (draw(*shape) + 100).detach().requires_grad_()
    scale_kc = draw(*shape[1:3], name="scale") if scaled else None
    shift_kc = draw(*shape[1:3], name="shift") if shifted else None
    expected, measured = TorchArithmetic().normalise(
        x_nkchw, scale_kc, shift_kc, eps=1e-5, **settings
    )
    ours, our_measured = fused.normalise(x_nkchw, scale_kc, shift_kc, eps=1e-5, **settings)
    inputs = [each for each in (x_nkchw, scale_kc, shift_kc) if each is not None]
    # PyTorch's own eps is a double; a kernel's argument is not. In single precision a mean of 100
    # is rounded by some millionths, which is as much of a normalised value.
    check(ours, expected, inputs, max(5 * TOLERANCE, 1e-8))
    torch.testing.assert_close(our_measured, measured, rtol=max(TOLERANCE, 1e-6), atol=0)
    torch.testing.assert_close(
        fused.normalise(apart(x_nkchw), scale_kc, shift_kc, eps=1e-5, **settings)[0], ours
    )


@pytest.mark.parametrize("is_based", [False, True])
def test_sums_of_some_operations_each(fused: Any, is_based: bool) -> None:
    sums = ((0, 3), (4, 1, 5), (2,))
    x_nkchw, scale_kc = draw(3, 6, 4, 5, 7), draw(6, 4, name="scale")
    base_ntchw = draw(3, 3, 4, 5, 7, name="base") if is_based else None
    ours, expected = (
        form.normalise(x_nkchw, scale_kc, None, eps=1e-5, sums=sums, base_ntchw=base_ntchw)[0]
        for form in (fused, TorchArithmetic())
    )
    inputs = [each for each in (x_nkchw, scale_kc, base_ntchw) if each is not None]
    check(ours, expected, inputs, max(TOLERANCE, 1e-8))


@pytest.mark.parametrize("scaled", [False, True])
def test_sums_of_operations_times_factors(fused: Any, scaled: bool) -> None:
    sums = ((0, 3), (4, 1, 5), (2,))
    x_nkchw, factor_k = draw(3, 6, 4, 5, 7), draw(6, name="factor")
    affine = [draw(6, 4, name=name) for name in ("scale", "shift")] if scaled else [None, None]
    base_ntchw = draw(3, 3, 4, 5, 7, name="base")
    ours, expected = (
        form.normalise(
            x_nkchw, *affine, eps=1e-5, sums=sums, factor_k=factor_k, base_ntchw=base_ntchw
        )[0]
        for form in (fused, TorchArithmetic())
    )
    inputs = [each for each in (x_nkchw, factor_k, base_ntchw, *affine) if each is not None]
    check(ours, expected, inputs, max(TOLERANCE, 1e-8))


@pytest.mark.parametrize("operations", [3, 6])
@pytest.mark.parametrize("settings", [{}, {"rectify": True}, {"sums": ()}])
def test_known_statistics(fused: Any, operations: int, settings: dict[str, Any]) -> None:
    x_nkchw = draw(2, 3, 4, 1, 2)
    known = Known(*draw(2, operations, 4, name="known").square().detach())
    scale_kc, shift_kc = (draw(operations, 4, name=name) for name in ("scale", "shift"))
    if "sums" in settings:
        first, *others = range(operations)
        settings = {"sums": ((first,), tuple(others)), "factor_k": draw(operations, name="factor")}
    work = Normalisation(x_nkchw, scale_kc, shift_kc, 1e-5, **settings)
    with torch.no_grad():
        ours, expected = (form.normalise_by(known, work) for form in (fused, TorchArithmetic()))
    assert ours.shape == expected.shape
    assert float((ours - expected).norm()) <= 1e-6 * float(expected.norm())
    with pytest.raises(RuntimeError, match="no derivative"):
        fused.normalise_by(known, work)


def test_a_base_alone_has_a_gradient(fused: Any) -> None:
    x_nkchw, base_ntchw = draw(2, 2, 3, 4, 4).detach(), draw(2, 1, 3, 4, 4, name="base")
    result, _ = fused.normalise(
        x_nkchw, None, None, eps=1e-5, sums=((0, 1),), base_ntchw=base_ntchw
    )
    (gradient,) = torch.autograd.grad(result.sum(), base_ntchw)
    assert torch.equal(gradient, torch.ones_like(base_ntchw))


def test_one_value_for_a_channel_is_refused(fused: Any) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fused.normalise(draw(1, 2, 3, 1, 1), None, None, eps=1e-5)


@pytest.mark.parametrize("num_sums", [1, 3])
@pytest.mark.parametrize("is_based", [False, True])
def test_mix(fused: Any, num_sums: int, is_based: bool) -> None:
    alone, twice = draw(3, 4, 5, 7, name="a"), draw(3, 4, 5, 7, name="b")
    stack_nkchw, partly = draw(3, 2, 4, 5, 7, name="c"), draw(3, 3, 4, 5, 7, name="d")
    sources = [alone, apart(twice).requires_grad_(), stack_nkchw, partly]
    features = [
        whole(sources[0].unsqueeze(1)),
        whole(sources[1].unsqueeze(1)),
        Part(stack_nkchw, 1, 1),
        Part(partly, 2, 1),
        Part(stack_nkchw, 0, 1),
        Part(partly, 2, 1),  # once more
    ]
    weights_tk = draw(num_sums, 6, name="weights")
    base_ntchw = draw(3, num_sums, 4, 5, 7, name="base") if is_based else None
    ours = fused.mix(features, weights_tk, base_ntchw)
    expected = TorchArithmetic().mix(features, weights_tk, base_ntchw)
    inputs = [*sources, weights_tk, *([] if base_ntchw is None else [base_ntchw])]
    check(ours, expected, inputs)
    check(
        fused.mix(features, weights_tk.detach(), base_ntchw),
        TorchArithmetic().mix(features, weights_tk.detach(), base_ntchw),
        sources,
    )


def test_what_is_summed_up_with_higher_precision_has_it(fused: Any) -> None:
    features = [
        whole(draw(2, 1, 4, 3, 3, name=name, dtype=torch.bfloat16).detach()) for name in "ab"
    ]
    weights_tk = draw(2, 2, name="weights", dtype=torch.float32).detach()
    base_ntchw = draw(2, 2, 4, 3, 3, name="base", dtype=torch.float32).requires_grad_()
    ours = fused.mix(features, weights_tk, base_ntchw)
    assert ours.dtype == torch.float32
    exact = [whole(each.stack_nkchw.float()) for each in features]
    expected = TorchArithmetic().mix(exact, weights_tk, base_ntchw)
    torch.testing.assert_close(ours, expected)
