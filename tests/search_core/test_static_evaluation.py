"""Evaluations of the same work for each batch, on a CPU: all but the capture itself."""

import pytest
import torch

from search_core.data import LabelledImages
from search_core.evaluation import evaluate
from search_core.static_evaluation import StaticEvaluation
from tests.search_core.test_graphs import CPU, make_network


def images(count: int) -> LabelledImages:
    generator = torch.Generator().manual_seed(count)
    return LabelledImages(
        torch.randn(count, 1, 8, 8, generator=generator),
        torch.randint(10, (count,), generator=generator),
    )


@pytest.mark.parametrize("count", [3, 8, 11])
def test_it_measures_what_an_evaluation_does(count: int) -> None:
    network = make_network()
    measure = StaticEvaluation(network, CPU, pytest.fail)
    expected = evaluate(network, images(count), most=4)
    assert not network.training
    assert measure(images(count), most=4) == expected
    assert measure(images(count), most=4) == expected


def test_what_is_measured_follows_the_network() -> None:
    network = make_network()
    measure = StaticEvaluation(network, CPU, pytest.fail)
    before = measure(images(8), most=4)
    with torch.no_grad():
        for weight in network.weight_parameters():
            weight.mul_(1.5)
    network.temperature = 3.0
    captured = measure._repeated
    after = measure(images(8), most=4)
    assert after != before
    assert measure._repeated is not captured
    assert after == evaluate(network, images(8), most=4)
    captured = measure._repeated
    assert measure(images(8), most=4) == after
    assert measure._repeated is captured
    network.unplan()
    assert measure(images(8), most=4) == pytest.approx(after, rel=1e-5)
    assert measure._repeated is not captured
