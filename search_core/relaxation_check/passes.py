"""What a form computes of a batch: losses, gradients as the halves of a step ask for, statistics.

Legend: n images, k classes.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_core.data import LabelledImages
from search_core.orders import frozen
from search_core.precision import in_full, logits
from search_core.supernet import Supernet

# The gradient of a network that is sure and right is mostly rounding, and that of a network which
# knows nothing is small where the targets are even: this is neither.
_SMOOTHING = 0.5


TF32: Final = "tf32"
"""Of a training in float32 whose convolutions round what they multiply."""


@dataclass(frozen=True)
class Measured:
    """What a form computes, by names of parameters and buffers.

    Attributes:
        precision: Of the training.
        loss: In training.
        evaluated: The loss in evaluation, which is never in half precision; where plans do not
            evaluate, the one in training again.
        gradients: Of the halves of a step.
        statistics: Buffers after them.
    """

    precision: str
    loss: Tensor
    evaluated: Tensor
    gradients: Sequence[Mapping[str, Tensor]]
    statistics: Mapping[str, Tensor]

    @property
    def is_finite(self) -> bool:
        """Whether the losses are numbers."""
        return bool(self.loss.isfinite() and self.evaluated.isfinite())


def measure(
    network: Supernet, batch: LabelledImages, precision: str, *, jointly: bool, evaluates: bool
) -> Measured:
    """Has a network compute in the form that it has now.

    Args:
        network: The network. Its running statistics change.
        batch: The images.
        precision: What training computes in, as for `search_core.precision`, or `TF32`. `float32`
            is in full, evaluation too; with any other, float32 is what PyTorch is set to.
        jointly: Whether training also takes gradients of alphas and weights in one pass.
        evaluates: Whether to evaluate as well.
    """
    alphas, weights = network.architecture_parameters(), network.weight_parameters()
    # As the halves of a step ask for them: a form may spare what nobody asks for.
    passes: list[tuple[list[nn.Parameter], list[nn.Parameter]]] = [
        (alphas, weights),
        (weights, alphas),
    ]
    if jointly:
        passes.append(([*alphas, *weights], []))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    gradients = []
    device = batch.labels_n.device
    full = in_full(device) if precision == "float32" else nullcontext()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), full:
        for wanted, others in passes:
            with frozen(others):
                logits_nk = logits(network, batch.images_nchw, precision)
                loss = functional.cross_entropy(
                    logits_nk, batch.labels_n, label_smoothing=_SMOOTHING
                )
                found = torch.autograd.grad(loss, wanted, materialize_grads=True)
            of = zip(wanted, found, strict=True)
            gradients.append({names[id(parameter)]: gradient for parameter, gradient in of})
        evaluated = _evaluated(network, batch) if evaluates else loss.detach()
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    return Measured(precision, loss.detach(), evaluated, gradients, statistics)


@torch.no_grad()
def _evaluated(network: Supernet, batch: LabelledImages) -> Tensor:
    network.eval()
    loss = functional.cross_entropy(network(batch.images_nchw), batch.labels_n)
    network.train()
    return loss
