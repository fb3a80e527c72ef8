import pytest
import torch
from torch import nn

from search_core.networks import Form, build
from search_core.profile import profile
from search_core.randomness import stream
from search_core.spaces import build_supernet
from search_core.spec import DartsSpace
from search_core.spec.primitives import Family
from search_core.weighting import scalar
from tests.search_core.published_cells import cells as published_cells

CIFAR = ("cifar", (3, 32, 32), 36, 20, 10)
IMAGENET = ("imagenet", (3, 224, 224), 48, 14, 1000)


@pytest.mark.parametrize(
    ("name", "family", "setting", "parameters", "millions"),
    [
        ("SHARPSEPCONV_DARTS", "sharp", CIFAR, 3_555_622, "578.605"),
        ("DARTS_V2", "sharp", CIFAR, 3_529_270, "576.006"),
        ("DARTS_V2", "darts", CIFAR, 3_349_342, "547.473"),
        ("SHARP_DARTS", "sharp", CIFAR, 1_974_934, "356.729"),
        ("SHARPSEPCONV_DARTS", "sharp", IMAGENET, 4_973_728, "572.981"),
    ],
)
@pytest.mark.parametrize("auxiliary", [False, True])
def test_published_sizes_and_costs(
    name: str,
    family: Family,
    setting: tuple[Form, tuple[int, int, int], int, int, int],
    parameters: int,
    millions: str,
    auxiliary: bool,
) -> None:
    form, image_shape, channels, cells, classes = setting
    with torch.device("meta"):  # only shapes matter
        network = build(
            published_cells(name),
            form=form,
            family=family,
            channels=channels,
            cells=cells,
            classes=classes,
            image_shape=image_shape,
            auxiliary=auxiliary,
        )
    found = profile(network, image_shape)
    assert found.parameters == parameters
    assert f"{found.paper_multiply_adds / 1e6:.3f}" == millions
    assert found.multiply_adds < found.paper_multiply_adds
    own = sum(parameter.numel() for parameter in network.parameters())
    assert (own > parameters) == auxiliary


def test_counts_worked_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(6, affine=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    found = profile(network, (4, 8, 8))
    convolution, linear = 3 * 3 * 4 * (6 // 2) * 8 * 8, 6 * 5
    assert found.multiply_adds == convolution + linear
    extra = 2 * 384 + 384 + 384 + 96 + 96
    assert found.paper_multiply_adds == found.multiply_adds + extra
    assert found.parameters == 6 * 2 * 9 + 12 + 6 * 5 + 5


def test_profiling_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    profile(network, (1, 8, 8))
    assert [module.training for module in network] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_layer_that_runs_twice_costs_twice_and_counts_once() -> None:
    layer = nn.Linear(3, 3)
    found = profile(nn.Sequential(nn.Flatten(), layer, layer), (3, 1, 1))
    assert (found.parameters, found.multiply_adds) == (12, 18)


def test_alphas_are_not_counted() -> None:
    network = build_supernet(
        DartsSpace(kind="darts", channels=2, cells=3, nodes=1),
        (1, 8, 8),
        10,
        weighting=scalar,
        weight_generator=stream(0, "weights"),
        alpha_generator=stream(0, "alphas"),
    )
    weights = sum(weight.numel() for weight in network.weight_parameters())
    assert profile(network, (1, 8, 8)).parameters == weights
