"""Comparing both forms of a network on its first images; on others where it may be a kink."""

import copy

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from search_core.data import Images, LabelledImages
from search_core.precision import rounds_to_tf32
from search_core.relaxation_check.differences import (
    FORWARD_TOLERANCE,
    Difference,
    in_lower_precision,
    in_single_precision,
)
from search_core.relaxation_check.passes import TF32, Measured, measure
from search_core.supernet import Supernet

# A quarter of a batch, so that the plain form does not take more memory here than a plan takes to
# train; but with fewer, a normalisation of small images has next to nothing to average over.
_FEWEST, _MOST = 4, 8
_TRIES = 3


def largest_difference(
    network: Supernet, images: Images, *, batch_size: int, jointly: bool = False
) -> Difference:
    """Compares losses, gradients and running statistics of a planned network with its plain form's.

    A copy of the network does it, with random numbers of its own: nothing that training depends on
    changes. Both forms begin with the same random numbers; operations that draw some may draw them
    in another order in each, and then differ.

    Args:
        network: A planned network.
        images: Images to train on, of which the first few are taken; of others where a difference
            may have been a kink.
        batch_size: Of the training.
        jointly: Whether training also takes gradients of alphas and weights in one pass.

    Returns:
        The largest difference by its tolerance. Nothing is compared where the plain loss is not
        finite: that is not for a plan to mend.
    """
    num_images = num_compared(batch_size)
    few = images.take(torch.arange(min(len(images), _TRIES * num_images)))
    copied = copy_of(network)
    found: Difference | None = None
    for batch in list(few.in_order(num_images)):
        if len(batch) < num_images and found is not None:
            break
        difference = _difference(copied, batch, jointly=jointly)
        if found is None or difference.excess < found.excess:
            found = difference
        if found.excess <= 1:
            break
    assert found is not None
    return found


def num_compared(batch_size: int) -> int:
    """Images on which both forms are compared at a time.

    Args:
        batch_size: Of the training.
    """
    return min(batch_size, max(_FEWEST, min(batch_size // 4, _MOST)))


def copy_of(network: Supernet) -> Supernet:
    """A plain copy, with statistics of the last batch alone.

    Args:
        network: A planned network, which stays one.
    """
    network.unplan()  # a plan may hold what cannot be copied
    try:
        copied = copy.deepcopy(network).train()
    finally:
        network.plan()
    for module in copied.modules():
        if isinstance(module, _BatchNorm) and module.momentum is not None:
            module.momentum = 1.0
    return copied


def lower_precision(network: Supernet, device: torch.device) -> str | None:
    """What a search trains in, if that is not single precision.

    Args:
        network: Of the search.
        device: Where it trains.
    """
    if network.precision != "float32":
        return network.precision
    return TF32 if rounds_to_tf32(device) else None


def _difference(copied: Supernet, batch: LabelledImages, *, jointly: bool) -> Difference:
    ours, exact = _both(copied, batch, "float32", jointly=jointly)
    if not exact.is_finite:
        return Difference("the loss", 0.0, FORWARD_TOLERANCE)
    found = in_single_precision(ours, exact)
    lower = lower_precision(copied, batch.labels_n.device)
    if lower is None or found.excess > 1:
        return found
    ours, rounded = _both(copied, batch, lower, jointly=jointly)
    if not rounded.is_finite:
        return found
    in_lower = in_lower_precision(ours, rounded, exact)
    return max(found, in_lower, key=lambda difference: difference.excess)


def _both(
    copied: Supernet, batch: LabelledImages, precision: str, *, jointly: bool
) -> tuple[Measured, Measured]:
    """What a plan computes, and the plain form; the buffers are as before then."""
    buffers = list(copied.buffers())
    before = [buffer.clone() for buffer in buffers]

    def measured(evaluates: bool) -> Measured:
        found = measure(copied, batch, precision, jointly=jointly, evaluates=evaluates)
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        return found

    copied.plan()
    evaluates = copied.evaluates_by_plans
    ours = measured(evaluates)
    copied.unplan()
    return ours, measured(evaluates)
