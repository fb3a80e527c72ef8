"""Whole networks by a GPU's kernels, interpreted where there is none, against the plain form."""

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional

from search_core.orders import frozen
from search_core.relaxation import GroupedPlan, grouped, sharing, stages
from tests.search_core.fused_checks import DEVICE, EXACT, TOLERANCE
from tests.search_core.test_relaxation import (
    batch,
    buffers,
    distance,
    loss_and_gradients,
    spec_of,
    supernet,
)

PRIMITIVES = ["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"]
CELLS = {"channels": 2, "cells": 3, "primitives": PRIMITIVES}
CUBOID = {
    "kind": "hypercuboid",
    "axes": {"channels": [2, 4], "operation": ["sharp_sep_conv", "resizable_pool"]},
    "levels": 2,
    "strides": [1, 2],
    "final_channels": 4,
}


@pytest.mark.parametrize(
    "space",
    [{"kind": "darts", **CELLS, "nodes": 2}, {"kind": "sharp_darts", **CELLS, "nodes": 1}, CUBOID],
    ids=["darts", "sharp_darts", "hypercuboid"],
)
def test_a_network_is_the_same_function(
    fused: Any, space: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (8, 5)
    spec = spec_of(space)
    plain = supernet(spec, size, EXACT).to(DEVICE)
    planned = copy.deepcopy(plain)
    planned.plan(GroupedPlan)
    for module in (grouped, sharing, stages):
        monkeypatch.setattr(module, "arithmetic_for", lambda _: fused)
    images = batch(size, EXACT).to(DEVICE)
    loss, gradients = loss_and_gradients(plain, images)
    our_loss, our_gradients = loss_and_gradients(planned, images)
    assert float(our_loss) == pytest.approx(float(loss), rel=TOLERANCE)
    assert distance(our_gradients, gradients) < 100 * TOLERANCE
    assert distance(buffers(planned), buffers(plain)) < 100 * TOLERANCE
    # In the alphas' half what no alpha leads to has no gradients.
    of_alphas = []
    for network in (plain, planned):
        with frozen(network.weight_parameters()):
            loss = functional.cross_entropy(network(images.images_nchw), images.labels_n)
            of_alphas.append(torch.autograd.grad(loss, network.architecture_parameters()))
    assert distance(*of_alphas) < 100 * TOLERANCE
    plain.eval()
    planned.eval()
    with torch.no_grad():
        expected = plain(images.images_nchw)
        ours = planned(images.images_nchw)
        assert float((ours - expected).norm()) < 1e-5 * float(expected.norm())
