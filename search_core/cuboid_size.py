"""The size of a HyperCuboid and of its paths, counted before anything is built. Free of torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from search_core import costs
from search_core.costs import EVALUATION_FACTOR, LARGEST_EVALUATION, Cost, Count, Size
from search_core.genotype.path import PathGenotype
from search_core.spec import axes
from search_core.spec.hypercuboid import CuboidOperation, HyperCuboidSpace
from search_core.spec.layers import Convolution, Layers, Normalisation
from search_core.spec.operations import sharp_sep_conv
from search_core.spec.search import SearchSpec

_BYTES = 4
"""Of a float32."""

_SLACK = {False: 1.25, True: 1.6}
"""By how much training takes more than what is counted, by whether it is of the second order:
gradients that are passed on, layers that are rearranged for fast kernels, holes in the heap.
`benchmarks/cuboid_memory.py` measures it."""

_LIBRARIES = 64 * 2**20
"""Bytes that PyTorch takes for itself once it computes."""


def stem(image_channels: int, out_channels: int) -> Layers:
    """What brings an image to a first state."""
    return (Convolution(image_channels, out_channels, 3), Normalisation("batch", out_channels))


def head(in_channels: int, final_channels: int) -> Layers:
    """What brings a last state to the channels that are pooled and classified."""
    return sharp_sep_conv(in_channels, final_channels, 1)


@dataclass(frozen=True)
class CuboidSize:
    """How large a cuboid is.

    Attributes:
        num_positions: Operations of one path.
        num_operations: Weighted operations in all: the number of alphas.
        num_paths: Architectures in the space.
        parameters: Weights of the network that is trained.
        multiply_adds: Its multiply-adds for one image.
        training_bytes: Estimate of the memory that a step of training takes, at most.
    """

    num_positions: int
    num_operations: int
    num_paths: int
    parameters: int
    multiply_adds: int
    training_bytes: int


class CuboidCosts:
    """What the parts of a cuboid cost on images of one shape.

    Args:
        space: The cuboid.
        image_shape: Channels, height and width of an image.
        num_classes: Classes to tell apart.
    """

    def __init__(
        self, space: HyperCuboidSpace, image_shape: tuple[int, int, int], num_classes: int
    ) -> None:
        self.space = space
        self._image_channels, height, width = image_shape
        self._num_classes = num_classes
        sizes: list[Size] = [(height, width)]
        for position in space.positions:
            sizes.append(costs.after(position.stride, sizes[-1]))
        self.sizes = tuple(sizes)
        """Height and width before each position, and after the last."""

    def stem(self, channels: int) -> Count:
        """The stem of one channel count."""
        return costs.count(
            stem(self._image_channels, channels), self._image_channels, self.sizes[0]
        )

    def head(self, channels: int) -> Count:
        """The head's convolution for one channel count, without pool and classifier."""
        return costs.count(head(channels, self.space.final_channels), channels, self.sizes[-1])

    @cached_property
    def classifier(self) -> Cost:
        """The pool and the linear layer."""
        final = self.space.final_channels
        return costs.global_pool(final, self.sizes[-1]) + costs.linear(final, self._num_classes)

    @cached_property
    def operations(self) -> tuple[tuple[Count, ...], ...]:
        """By position, then in the order of the space's operations."""
        # Positions with the same stride on images of the same size cost the same.
        rows: dict[tuple[int, Size], tuple[Count, ...]] = {}
        places = [
            (position.stride, size)
            for position, size in zip(self.space.positions, self.sizes, strict=False)
        ]
        for stride, size in places:
            if (stride, size) not in rows:
                rows[stride, size] = tuple(
                    self._operation(each, stride, size) for each in self.space.operations
                )
        return tuple(rows[place] for place in places)

    def size(
        self,
        batch_size: int,
        *,
        second_order: bool = False,
        one_path: bool = False,
        measured_by_path: bool = False,
        num_stacked: int = 1,
        num_computing: int = 1,
    ) -> CuboidSize:
        """The size of the whole cuboid.

        Args:
            batch_size: Images of a step.
            second_order: Whether the weights are kept twice more.
            one_path: Whether only one path at a time is trained, and never all of them.
            measured_by_path: Whether single paths are measured besides: the derived one after each
                epoch, or the finalists.
            num_stacked: Networks that are trained in one process; memory counts the weights of all.
            num_computing: So many of them keep what they compute at the same time.

        Returns:
            The size.
        """
        channels = self.space.channels
        counts = [self.stem(each) for each in channels]
        counts += [each for position in self.operations for each in position]
        counts += [self.head(each) for each in channels]
        cost = costs.total(each.cost for each in counts) + self.classifier
        saved = self._saved_by_a_path() if one_path else self._saved_by_all(counts)
        # The weights, their gradients and their momenta; the second order's are one state more
        # of the weights, and one more of the gradients.
        copies = 5 if second_order else 3
        elements = num_stacked * copies * cost.parameters + num_computing * batch_size * saved
        # Not instead of it: the allocator keeps what training took.
        held = self._held_by_a_path() if one_path else self._held_by_all()
        measuring = _BYTES * EVALUATION_FACTOR * batch_size * held
        if measured_by_path:
            measuring += _BYTES * LARGEST_EVALUATION * self._held_by_a_path()
        return CuboidSize(
            num_positions=len(self.space.positions),
            num_operations=len(self.space.positions) * len(self.space.operations),
            num_paths=self.space.num_paths,
            parameters=cost.parameters,
            multiply_adds=cost.multiply_adds,
            training_bytes=_LIBRARIES
            + round(_SLACK[second_order] * _BYTES * elements)
            + num_computing * measuring,
        )

    def _saved_by_all(self, counts: Sequence[Count]) -> int:
        """Elements for one image that are kept from the forward to the backward pass."""
        # Every operation's output is kept once more, for the gradient of its weight.
        outputs = sum(
            operation.out_channels * size[0] * size[1]
            for size in self.sizes[1:]
            for operation in self.space.operations
        )
        return sum(each.saved for each in counts) + outputs

    def _saved_by_a_path(self) -> int:
        """The same of one path, at most: the stem, operations and head that keep most."""
        stems = [self.stem(each) for each in self.space.channels]
        heads = [self.head(each) for each in self.space.channels]
        parts = [stems, *self.operations, heads]
        return sum(max(each.saved for each in part) for part in parts)

    def _held_by_a_path(self) -> int:
        """Elements for one image that a forward pass on one path holds, at most."""
        stems = [self.stem(each) for each in self.space.channels]
        heads = [self.head(each) for each in self.space.channels]
        return max(each.held for part in (stems, *self.operations, heads) for each in part)

    def _held_by_all(self) -> int:
        """Elements for one image that a forward pass without gradients holds, at most."""
        channels, final = sum(self.space.channels), self.space.final_channels
        last = self.sizes[-1][0] * self.sizes[-1][1]
        heads = max(self.head(each).held for each in self.space.channels)
        held = [channels * last + heads + final * last]
        for row, size, next_size in zip(self.operations, self.sizes, self.sizes[1:], strict=False):
            # The states before and after, and one operation with its product.
            states = channels * (size[0] * size[1] + next_size[0] * next_size[1])
            widest = max(self.space.channels) * next_size[0] * next_size[1]
            held.append(states + max(each.held for each in row) + widest)
        return max(held)

    def _operation(self, operation: CuboidOperation, stride: int, size: Size) -> Count:
        in_channels, out_channels, candidate = operation
        made = axes.layers(
            candidate.operation, in_channels, out_channels, stride, dict(candidate.settings)
        )
        return costs.count(made, in_channels, size)


def searched_size(spec: SearchSpec, num_stacked: int | None = None) -> CuboidSize | None:
    """The size of the cuboid that a search trains, on its images and by its algorithm.

    Args:
        spec: The search.
        num_stacked: Seeds that train in one process; None for as many as the spec stacks.

    Returns:
        The size; None of a space of cells.
    """
    if not isinstance(spec.space, HyperCuboidSpace):
        return None
    facts, sampling = spec.dataset.facts, spec.algorithm.sampling
    num_stacked = spec.trials.stack if num_stacked is None else num_stacked
    # On a GPU, what is computed stays where it was captured.
    is_captured = (
        spec.resources.gpus > 0 and spec.algorithm.relaxation != "plain" and spec.steps_are_alike
    )
    return CuboidCosts(spec.space, facts.image_shape, facts.num_classes).size(
        spec.training.batch_size,
        second_order=spec.algorithm.order == "second",
        one_path=sampling is not None and sampling.alphas == "paths",
        measured_by_path=sampling is not None or spec.algorithm.finalists is not None,
        num_stacked=num_stacked,
        num_computing=num_stacked if spec.stacks_side_by_side or is_captured else 1,
    )


def path_cost(genotype: PathGenotype, image_shape: tuple[int, int, int], num_classes: int) -> Cost:
    """What a path's network costs.

    Args:
        genotype: The path.
        image_shape: Channels, height and width of an image.
        num_classes: Classes to tell apart.

    Returns:
        The cost; `search_core.profile` counts the same on the built network.
    """
    image_channels, *rest = image_shape
    size: Size = (rest[0], rest[1])
    first, last = genotype.steps[0], genotype.steps[-1]
    cost = costs.count(stem(image_channels, first.in_channels), image_channels, size).cost
    for step in genotype.steps:
        counted = costs.count(step.layers, step.in_channels, size)
        cost, size = cost + counted.cost, counted.out_size
    final = genotype.final_channels
    cost += costs.count(head(last.out_channels, final), last.out_channels, size).cost
    return cost + costs.global_pool(final, size) + costs.linear(final, num_classes)
