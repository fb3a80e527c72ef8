"""Measuring a network on images it is not trained on.

Legend: n images, k classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from search_core.costs import LARGEST_EVALUATION
from search_core.data import Images, LabelledImages

_BATCH = LARGEST_EVALUATION


@torch.no_grad()
def calibrate(network: nn.Module, images: Images | LabelledImages) -> None:
    """Sets the running statistics of batch normalisations to those of a pass over the images.

    Weights that were trained in many networks, as parts of different paths, have seen inputs of all
    of them; what one of these networks is worth is measured with its own statistics.

    Args:
        network: From images to logits. It is left in training mode.
        images: On the network's device.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    network.train()
    for number, batch in enumerate(images.in_order(_BATCH), start=1):
        for norm in norms:
            # The plain mean over the batches; without a momentum, each norm would ask its device
            # for their number.
            norm.momentum = 1 / number
        network(batch.images_nchw)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def evaluate(
    network: nn.Module, images: Images | LabelledImages, *, most: int = _BATCH
) -> tuple[float, float]:
    """Loss and accuracy in eval mode, in which batch normalisations use their running statistics.

    The network is left in eval mode.

    Args:
        network: From images to logits [n, k].
        images: On the network's device; they are not augmented.
        most: Images to look at together, at most 512.

    Returns:
        The mean cross-entropy in nats, and the fraction classified right.
    """
    network.eval()
    losses, hits = [], []
    for batch in images.in_order(min(most, _BATCH)):
        loss, num_correct = look_at(network, batch)
        losses.append(loss)
        hits.append(num_correct)
    # Read at the end: a device that is asked after every batch would wait for the next one.
    loss_sum = sum(torch.stack(losses).tolist())
    return loss_sum / len(images), int(torch.stack(hits).sum()) / len(images)


def look_at(network: nn.Module, batch: LabelledImages) -> tuple[Tensor, Tensor]:
    """What one batch adds to an evaluation, without waiting for it.

    Args:
        network: From images to logits [n, k].
        batch: The batch.

    Returns:
        The sum of its images' cross-entropies in nats, and how many are classified right; scalars.
    """
    logits_nk = network(batch.images_nchw)
    loss = functional.cross_entropy(logits_nk, batch.labels_n, reduction="sum")
    return loss, (logits_nk.argmax(dim=1) == batch.labels_n).sum()
