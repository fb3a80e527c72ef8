"""The network that contains every path of a HyperCuboid (arXiv 1903.09900, section 3.3).

Legend: n images, c channels, h height, w width, p positions, o operations of a position, k classes.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from search_core import cuboid_size, layers
from search_core.derive import heaviest_path
from search_core.genotype import Genotype
from search_core.marginals import marginals
from search_core.randomness import layers_drawn_from
from search_core.spec import axes
from search_core.spec.hypercuboid import CuboidOperation, HyperCuboidSpace
from search_core.supernet import ALPHA_SCALE, Supernet, mean_entropy
from search_core.weighting import Weighting


class CuboidSupernet(Supernet):
    """A state for each number of channels, brought from position to position by all operations.

    All operations of a position compete: the softmax is over all of them, whatever they read and
    whatever they add to. The states that a position makes are the sums over the operations that
    put out so many channels. Normalisations learn scales and shifts, as published.

    Args:
        space: The cuboid.
        image_shape: Channels, height and width of an image.
        num_classes: Outputs of the head.
        weighting: From softmaxed weights to multipliers.
        weight_generator: Draws the initial weights.
        alpha_generator: Draws the initial alphas, 1e-3 times a standard normal.
    """

    def __init__(
        self,
        space: HyperCuboidSpace,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        weighting: Weighting,
        weight_generator: torch.Generator,
        alpha_generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.space = space
        self.weighting = weighting
        shape = (len(space.positions), len(space.operations))
        self.alpha = nn.Parameter(ALPHA_SCALE * torch.randn(shape, generator=alpha_generator))
        with layers_drawn_from(weight_generator):
            self.stems = nn.ModuleDict(
                {
                    str(channels): layers.build(cuboid_size.stem(image_shape[0], channels))
                    for channels in space.channels
                }
            )
            self.positions = nn.ModuleList(
                Mixture(space.operations, position.stride) for position in space.positions
            )
            self.finals = nn.ModuleDict(
                {
                    str(channels): layers.build(cuboid_size.head(channels, space.final_channels))
                    for channels in space.channels
                }
            )
            self.head = nn.Linear(space.final_channels, num_classes)

    def forward(self, x_nchw: Tensor) -> Tensor:
        """The logits of the images x_nchw, [n, k]."""
        multipliers_po = self.weighting(self.softmaxed(self.alpha))
        states = {channels: self.stems[str(channels)](x_nchw) for channels in self.space.channels}
        for position, multipliers_o in zip(self.positions, multipliers_po, strict=True):
            states = position(states, multipliers_o)
        finals = [self.finals[str(each)](state) for each, state in states.items()]
        final_nchw = reduce(add, finals)
        logits_nk: Tensor = self.head(final_nchw.mean(dim=(2, 3)))
        return logits_nk

    def architecture_parameters(self) -> list[nn.Parameter]:
        """`alpha`, [p, o]."""
        return [self.alpha]

    def architecture_weights(self) -> dict[str, Tensor]:
        """The softmaxed alphas, [p, o], without a gradient."""
        return {"cuboid": self.softmaxed(self.alpha.detach())}

    def genotype(self, *, exclude_none: bool) -> Genotype:
        """The heaviest path; see `search_core.derive`. A cuboid has no `none` to exclude."""
        del exclude_none
        return heaviest_path(self.architecture_weights()["cuboid"], self.space)

    def statistics(self, genotype: Genotype) -> dict[str, float]:
        """Mean entropy of a position's weights in nats, and every axis's marginals."""
        del genotype
        weights_po = self.architecture_weights()["cuboid"]
        return {
            "alpha_entropy": mean_entropy(weights_po),
            **marginals(weights_po.tolist(), self.space),
        }


class Mixture(nn.Module):
    """All operations of one position, summed by multipliers into a state for each width.

    Args:
        operations: In the order of the multipliers.
        stride: 1 keeps the size, 2 halves it rounding up.
    """

    def __init__(self, operations: Sequence[CuboidOperation], stride: int) -> None:
        super().__init__()
        self.joins = tuple((each.in_channels, each.out_channels) for each in operations)
        self.operations = nn.ModuleList(
            layers.build(
                axes.layers(
                    each.candidate.operation,
                    each.in_channels,
                    each.out_channels,
                    stride,
                    dict(each.candidate.settings),
                )
            )
            for each in operations
        )

    def forward(self, states: dict[int, Tensor], multipliers_o: Tensor) -> dict[int, Tensor]:
        """The next states.

        Args:
            states: [n, c, h, w] by channels c.
            multipliers_o: Multipliers of the operations.

        Returns:
            The weighted sums, [n, c, h, w] by channels c, with h and w halved at stride 2.
        """
        terms: dict[int, list[Tensor]] = {channels: [] for channels in states}
        for index, (operation, join) in enumerate(zip(self.operations, self.joins, strict=True)):
            in_channels, out_channels = join
            terms[out_channels].append(multipliers_o[index] * operation(states[in_channels]))
        return {channels: reduce(add, summands) for channels, summands in terms.items()}
