"""Measuring a network on images it is not trained on.

Legend: n images, k classes.
"""

import torch
from torch import nn
from torch.nn import functional

from search_core.data import Images, LabelledImages

_BATCH = 512


@torch.no_grad()
def evaluate(network: nn.Module, images: Images | LabelledImages) -> tuple[float, float]:
    """Loss and accuracy in eval mode, in which batch normalisations use their running statistics.

    The network is left in eval mode.

    Args:
        network: From images to logits [n, k].
        images: On the network's device; they are not augmented.

    Returns:
        The mean cross-entropy in nats, and the fraction classified right.
    """
    network.eval()
    loss_sum, num_correct = 0.0, 0
    for batch in images.in_order(_BATCH):
        logits_nk = network(batch.images_nchw)
        loss_sum += float(functional.cross_entropy(logits_nk, batch.labels_n, reduction="sum"))
        num_correct += int((logits_nk.argmax(dim=1) == batch.labels_n).sum())
    return loss_sum / len(images), num_correct / len(images)
