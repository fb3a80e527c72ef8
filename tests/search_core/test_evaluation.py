import pytest
import torch
from torch import nn
from torch.nn import functional

from search_core.data import LabelledImages
from search_core.evaluation import evaluate


def test_the_mean_over_all_images_in_eval_mode() -> None:
    num_images = 1100  # more than two batches, and no multiple of one
    generator = torch.Generator().manual_seed(0)
    images = LabelledImages(
        torch.randn((num_images, 1, 2, 2), generator=generator),
        torch.randint(3, (num_images,), generator=generator),
    )
    norm = nn.BatchNorm2d(1)
    network = nn.Sequential(norm, nn.Flatten(), nn.Linear(4, 3))
    loss, accuracy = evaluate(network, images)
    assert not network.training
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 0
    with torch.no_grad():
        logits_nk = network(images.images_nchw)
    expected = float(functional.cross_entropy(logits_nk, images.labels_n))
    hits = (logits_nk.argmax(dim=1) == images.labels_n).float()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert accuracy == pytest.approx(float(hits.mean()), rel=1e-6)
