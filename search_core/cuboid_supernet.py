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
from search_core.derive.graph import Choices
from search_core.derive.paths import heaviest_choices
from search_core.genotype import Genotype
from search_core.marginals import marginals
from search_core.randomness import layers_drawn_from
from search_core.relaxation import (
    MixturePlan,
    Multipliers,
    Planner,
    RunningStatistics,
    Shared,
    State,
    Term,
    as_images,
)
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

    Attributes:
        trained_by_paths: Whether its weights are trained one path at a time, so that the mixture of
            all says nothing of what a path is worth.
    """

    relative_cost: Tensor

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
        self.trained_by_paths = False
        shape = (len(space.positions), len(space.operations))
        counts = cuboid_size.CuboidCosts(space, image_shape, num_classes).operations
        costs_po = torch.tensor(
            [[float(each.cost.multiply_adds) for each in row] for row in counts]
        )
        # A constant, which no checkpoint needs.
        self.register_buffer(
            "relative_cost",
            costs_po / costs_po.mean(dim=1).sum().clamp_min(1.0),
            persistent=False,
        )
        self.alpha = nn.Parameter(ALPHA_SCALE * torch.randn(shape, generator=alpha_generator))
        with layers_drawn_from(weight_generator):
            self.stems = nn.ModuleDict(
                {
                    str(channels): layers.build(cuboid_size.stem(image_shape[0], channels))
                    for channels in space.channels
                }
            )
            self.positions = nn.ModuleList(
                Mixture(space.operations, position.stride, space.skip_below)
                for position in space.positions
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
        states: dict[int, State] = {
            channels: self.stems[str(channels)](x_nchw) for channels in self.space.channels
        }
        for position, multipliers_o in zip(self.positions, multipliers_po, strict=True):
            states = position(states, multipliers_o)
        finals = [self.finals[str(each)](as_images(state)) for each, state in states.items()]
        final_nchw = reduce(add, finals)
        logits_nk: Tensor = self.head(final_nchw.mean(dim=(2, 3)))
        return logits_nk

    def path_logits(self, x_nchw: Tensor, path: Choices) -> Tensor:
        """The logits of the images x_nchw on one path alone, as if its multipliers were 1, [n, k].

        Args:
            x_nchw: The images.
            path: The index of an operation for each position.
        """
        chosen = [self.space.operations[index] for index in path]
        state_nchw = self.stems[str(chosen[0].in_channels)](x_nchw)
        for position, index in zip(self.positions, path, strict=True):
            assert isinstance(position, Mixture)
            state_nchw = position.operations[index](state_nchw)
        final_nchw = self.finals[str(chosen[-1].out_channels)](state_nchw)
        logits_nk: Tensor = self.head(final_nchw.mean(dim=(2, 3)))
        return logits_nk

    def expected_cost(self) -> Tensor:
        """Multiply-adds of the operations, each times its weight, as a share of the mean's."""
        return (self.softmaxed(self.alpha) * self.relative_cost).sum()

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

    def derived(self) -> nn.Module:
        """The network; the heaviest path alone where paths were trained one at a time."""
        if not self.trained_by_paths:
            return self
        return OnePath(self, heaviest_choices(self.architecture_weights()["cuboid"], self.space))

    def statistics(self, genotype: Genotype) -> dict[str, float]:
        """Mean entropy of a position's weights in nats, and every axis's marginals."""
        del genotype
        weights_po = self.architecture_weights()["cuboid"]
        return {
            "alpha_entropy": mean_entropy(weights_po),
            **marginals(weights_po.tolist(), self.space),
        }


class OnePath(nn.Module):
    """One path of a cuboid's network.

    Args:
        network: The network.
        path: The index of an operation for each position.
    """

    def __init__(self, network: CuboidSupernet, path: Choices) -> None:
        super().__init__()
        self.network = network
        self.path = path

    def forward(self, x_nchw: Tensor) -> Tensor:
        """The logits of the images x_nchw, [n, k]."""
        return self.network.path_logits(x_nchw, self.path)


class Mixture(nn.Module):
    """All operations of one position, summed by multipliers into a state for each width.

    Args:
        operations: In the order of the multipliers.
        stride: 1 keeps the size, 2 halves it rounding up.
        skip_below: Multipliers below it count as 0, but for the largest into each state.
    """

    def __init__(
        self, operations: Sequence[CuboidOperation], stride: int, skip_below: float
    ) -> None:
        super().__init__()
        self.skip_below = skip_below
        self._plan: MixturePlan | None = None
        self._multipliers: Multipliers | None = None
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

    def forward(self, states: dict[int, State], multipliers_o: Tensor) -> dict[int, State]:
        """The next states.

        Args:
            states: [n, c, h, w] by channels c.
            multipliers_o: Multipliers of the operations.

        Returns:
            The weighted sums, [n, c, h, w] by channels c, with h and w halved at stride 2; in lanes
            where a plan has computed them so.
        """
        plan = self._plan
        if plan is not None and (self.training or self.evaluates_by_plan) and plan.applies:
            return self._planned(plan, states, multipliers_o)
        # Term by term, so that without gradients only the sums are held.
        sums: dict[int, Tensor] = {}
        skipped = self.skipped(multipliers_o) if self.skip_below else frozenset()
        for index, (operation, join) in enumerate(zip(self.operations, self.joins, strict=True)):
            if index in skipped:
                continue
            in_channels, out_channels = join
            term = multipliers_o[index] * operation(as_images(states[in_channels]))
            known = sums.get(out_channels)
            sums[out_channels] = term if known is None else known + term
        return {channels: sums[channels] for channels in states}

    def plan(self, planner: Planner) -> None:
        """Lets a plan compute the states; see `search_core.relaxation`.

        Operations may be skipped only if they are computed one by one, so then there is no plan.

        Args:
            planner: Makes the plan.
        """
        if self.skip_below:
            return
        self._plan = planner(
            [
                Term(("in", join[0]), ("out", join[1]), index, operation)
                for index, (operation, join) in enumerate(
                    zip(self.operations, self.joins, strict=True)
                )
            ]
        )
        self._multipliers = Multipliers([self._plan])

    def unplan(self) -> None:
        """Computes the states operation by operation again."""
        self._plan = self._multipliers = None

    @property
    def planned(self) -> bool:
        """Whether a plan computes the states."""
        return self._plan is not None

    @property
    def evaluates_by_plan(self) -> bool:
        """Whether it does so in evaluation, too."""
        return self._plan is not None and self._plan.evaluates

    def _planned(
        self, plan: MixturePlan, states: dict[int, State], multipliers_o: Tensor
    ) -> dict[int, State]:
        statistics = RunningStatistics()
        shared = Shared(statistics, is_dense=plan.is_dense)
        for channels, state in states.items():
            shared.add(("in", channels), state)
        assert self._multipliers is not None
        [multipliers_k] = self._multipliers.of(multipliers_o)
        plan(shared, multipliers_k, statistics)
        statistics.write()
        return {channels: shared.state(("out", channels)) for channels in states}

    def skipped(self, multipliers_o: Tensor) -> frozenset[int]:
        """Indices of the operations that are not worth computing.

        Args:
            multipliers_o: Multipliers of the operations.
        """
        multipliers = multipliers_o.tolist()
        largest: dict[int, int] = {}
        for index, (_, out_channels) in enumerate(self.joins):
            best = largest.setdefault(out_channels, index)
            if multipliers[index] > multipliers[best]:
                largest[out_channels] = index
        kept = set(largest.values())
        return frozenset(
            index
            for index, multiplier in enumerate(multipliers)
            if multiplier < self.skip_below and index not in kept
        )
