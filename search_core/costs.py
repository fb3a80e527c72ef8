"""What layers cost, counted from their description. Free of torch.

Parameters, multiply-adds and the paper's multiply-adds are those that `search_core.profile` counts
on the built modules, for one image in eval mode. Memory is an estimate of what training takes.

Legend: h height, w width.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from search_core.spec.layers import (
    Activation,
    Convolution,
    Layer,
    Layers,
    Normalisation,
    Pool,
)

EVALUATION_FACTOR = 2
"""A search measures its network on batches this many times as large as it trains on."""

LARGEST_EVALUATION = 512
"""Images that are looked at together, at most; a path of a sampled search is calibrated on so many
(`search_core.evaluation`)."""

Size = tuple[int, int]
"""Height and width of a feature map in pixels."""


@dataclass(frozen=True)
class Cost:
    """What a network, or a part of it, costs.

    Attributes:
        parameters: Weights of all layers.
        multiply_adds: Multiply-adds of convolutions and linear layers for one image.
        paper_multiply_adds: The count of arXiv 1903.09900, which also charges normalisations,
            activations and pools; see `search_core.profile`.
    """

    parameters: int = 0
    multiply_adds: int = 0
    paper_multiply_adds: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Both together."""
        return Cost(
            self.parameters + other.parameters,
            self.multiply_adds + other.multiply_adds,
            self.paper_multiply_adds + other.paper_multiply_adds,
        )


@dataclass(frozen=True)
class Count:
    """An operation at a place in a network.

    Attributes:
        cost: What it costs.
        saved: Elements for one image that are kept from the forward to the backward pass.
        held: Elements for one image that are there at once without a backward pass, at most.
        out_size: Height and width of its output.
    """

    cost: Cost
    saved: int
    held: int
    out_size: Size


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of all."""
    return sum(costs, Cost())


def linear(inputs: int, outputs: int) -> Cost:
    """A linear layer with a bias."""
    weights = inputs * outputs
    return Cost(weights + outputs, weights, weights)


def global_pool(channels: int, size: Size) -> Cost:
    """The average over all pixels."""
    return Cost(paper_multiply_adds=channels * size[0] * size[1])


def count(layers: Layers, in_channels: int, size: Size) -> Count:
    """Counts an operation.

    Args:
        layers: What it is made of.
        in_channels: Channels that come in.
        size: Height and width of what comes in.

    Returns:
        The count.
    """
    cost, saved, held, channels = Cost(), 0, 0, in_channels
    for layer in layers:
        in_elements = channels * size[0] * size[1]
        size = _out_size(layer, size)
        if isinstance(layer, Convolution):
            channels = layer.out_channels
        out_elements = channels * size[0] * size[1]
        cost += _cost(layer, in_elements, out_elements)
        saved += _saved(layer, in_elements, out_elements)
        held = max(held, in_elements + out_elements)
    return Count(cost, saved, held, size)


def after(stride: int, size: Size) -> Size:
    """Height and width after a stride, rounded up."""
    return -(-size[0] // stride), -(-size[1] // stride)


def _out_size(layer: Layer, size: Size) -> Size:
    return after(layer.stride, size) if isinstance(layer, Convolution | Pool) else size


def _cost(layer: Layer, in_elements: int, out_elements: int) -> Cost:
    if isinstance(layer, Convolution):
        taps = layer.kernel_size**2 * (1 if layer.depthwise else layer.in_channels)
        plain = taps * out_elements
        return Cost(taps * layer.out_channels, plain, plain)
    if isinstance(layer, Normalisation):
        return Cost(2 * layer.channels, 0, 2 * out_elements)
    if isinstance(layer, Activation):
        return Cost(paper_multiply_adds=out_elements)
    return Cost(paper_multiply_adds=in_elements)


def _saved(layer: Layer, in_elements: int, out_elements: int) -> int:
    if isinstance(layer, Pool) and layer.kind == "max":
        # The winners' positions are 8 bytes each, two of the elements that are counted here.
        return in_elements + 2 * out_elements
    if isinstance(layer, Activation) and layer.kind == "relu":
        # Its output is the next convolution's input, which is counted there.
        return 0
    return in_elements
