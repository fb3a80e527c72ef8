"""Size and cost of a network: parameters, multiply-adds, and multiply-adds as the paper counts.

Both counts are for one image in eval mode, so an auxiliary head costs nothing. The paper's
(arXiv 1903.09900) also charges normalisations, activations and pools.

Legend: n images, c channels, h height, w width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search_core.layers import ACTIVATIONS

_ACTIVATIONS = tuple(ACTIVATIONS.values())
_POOLS = (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Profile:
    """What a network costs.

    Attributes:
        parameters: Parameters of the layers that an image passes in eval mode. Neither an
            auxiliary head nor the alphas of a supernet are among them.
        multiply_adds: Multiply-adds of convolutions and linear layers for one image.
        paper_multiply_adds: The paper's count for one image, which adds to them 2 for each element
            of an affine normalisation and 1 of another, 1 for each element of an activation, and 1
            for each element that goes into a pool. Sums and concatenations are free. The paper has
            ReLUs and batch normalisations only; the others count like them.
    """

    parameters: int
    multiply_adds: int
    paper_multiply_adds: int


def profile(network: nn.Module, image_shape: tuple[int, int, int]) -> Profile:
    """Counts by passing one image through the network. The network stays as it was.

    Args:
        network: Any network of images, on any device.
        image_shape: Channels, height and width of an image.

    Returns:
        The counts.
    """
    layers: dict[nn.Module, None] = {}
    plain, extra = 0, 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal plain, extra
        layers[layer] = None
        plain += _multiply_adds(layer, output)
        extra += _paper_extra(layer, inputs[0], output)

    some = next(network.parameters())
    modes = {module: module.training for module in network.modules()}
    leaves = (module for module in network.modules() if next(module.children(), None) is None)
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        network.eval()
        with torch.no_grad():
            network(some.new_zeros((1, *image_shape)))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    parameters = {id(each): each.numel() for layer in layers for each in layer.parameters()}
    return Profile(sum(parameters.values()), plain, plain + extra)


def _multiply_adds(layer: nn.Module, output: Tensor) -> int:
    if isinstance(layer, nn.Conv2d):
        return layer.weight[0].numel() * output.numel()
    if isinstance(layer, nn.Linear):
        return layer.weight.numel()
    return 0


def _paper_extra(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    if isinstance(layer, _BatchNorm | nn.GroupNorm):
        return (2 if layer.affine else 1) * output.numel()
    if isinstance(layer, _ACTIVATIONS):
        return output.numel()
    if isinstance(layer, _POOLS):
        return given.numel()
    return 0
