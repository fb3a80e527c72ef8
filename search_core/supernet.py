"""Networks that contain every architecture of a space: what a search trains.

`Supernet` is all that a search knows of a space; `CellSupernet` is the one of the cell spaces.

Legend: n images, c channels, h height, w width, e edges of a cell, p primitives, k classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from search_core import derive
from search_core.cells import RelaxedCell
from search_core.genotype import CellGenotype, Genotype
from search_core.randomness import layers_drawn_from
from search_core.relaxation import Planned, Planner, State, as_images, planner_for
from search_core.spec.primitives import SKIP
from search_core.spec.spaces import REDUCTIONS, CellSpace
from search_core.weighting import Weighting

ALPHA_SCALE = 1e-3
"""Initial alphas are this many standard normals."""

_STEM_FACTOR = 3


class Supernet(nn.Module, ABC):
    """A network with architecture parameters, the interface between a search and its space.

    The alphas are registered parameters, so that they are saved, moved and cast with the weights.

    Attributes:
        temperature: Divides the alphas before the softmax; the search sets it for every epoch.
        precision: What training computes in; see `search_core.precision`. The search sets it.
        plans_made: How often plans were made: each time anew, they keep tensors of their own.
    """

    temperature: float = 1.0
    precision: str = "float32"
    plans_made: int = 0

    @abstractmethod
    def architecture_parameters(self) -> list[nn.Parameter]:
        """The alphas, in a fixed order."""

    @abstractmethod
    def architecture_weights(self) -> dict[str, Tensor]:
        """The softmaxed alphas by group, each [choices to make, candidates], without a gradient."""

    @abstractmethod
    def genotype(self, *, exclude_none: bool) -> Genotype:
        """The architecture that the alphas stand for now.

        Args:
            exclude_none: Never derive the primitive `none`, where the space has one.
        """

    @abstractmethod
    def statistics(self, genotype: Genotype) -> dict[str, float]:
        """Figures about the alphas and the genotype derived from them, by metric name."""

    def softmaxed(self, alpha: Tensor) -> Tensor:
        """What competing candidates weigh.

        Args:
            alpha: [..., k] for k candidates.

        Returns:
            The weights, [..., k]; each group adds up to 1.
        """
        return (alpha / self.temperature).softmax(dim=-1)

    def expected_cost(self) -> Tensor:
        """The cost that the alphas expect, relative to the mean; a scalar with a gradient.

        Raises:
            NotImplementedError: Candidates of this space do not say what they cost.
        """
        raise NotImplementedError(f"{type(self).__name__} does not know what its candidates cost")

    def plan(self, planner: Planner | None = None) -> None:
        """Lets plans compute mixtures: the same function in less time.

        On a GPU they do so in evaluation, too. Parameters and their names stay as they are; see
        `search_core.relaxation`.

        Args:
            planner: Makes the plans; None takes the form that suits the network's device.
        """
        if planner is None:
            planner = planner_for(next(self.parameters()).device)
        self.plans_made += 1
        for module in self._planned_modules:
            module.plan(planner)

    def unplan(self) -> None:
        """Lets mixtures be computed plainly again, operation by operation."""
        for module in self._planned_modules:
            module.unplan()

    @property
    def planned(self) -> bool:
        """Whether any mixture is computed by a plan."""
        return any(module.planned for module in self._planned_modules)

    @property
    def evaluates_by_plans(self) -> bool:
        """Whether any mixture is computed by a plan in evaluation, too."""
        return any(module.evaluates_by_plan for module in self._planned_modules)

    def derived(self) -> nn.Module:
        """What measures an epoch's accuracy: from images to logits. The network itself."""
        return self

    def weight_parameters(self) -> list[nn.Parameter]:
        """All parameters that are not alphas, in the order of `parameters()`."""
        return list(self._weights)

    @cached_property
    def _weights(self) -> tuple[nn.Parameter, ...]:
        # Asked for several times in every step, and walking through thousands of modules is slow.
        alphas = {id(alpha) for alpha in self.architecture_parameters()}
        return tuple(parameter for parameter in self.parameters() if id(parameter) not in alphas)

    @cached_property
    def _planned_modules(self) -> tuple[Planned, ...]:
        # Likewise: to ask each whether it is one takes 80 ms.
        return tuple(
            module
            for module in self.modules()
            if module is not self and isinstance(module, Planned)
        )


class CellSupernet(Supernet):
    """A stem, cells of mixed edges and a linear head (arXiv 1806.09055, sections 2 and 3.1).

    The cells at a third and at two thirds of the depth halve the size and double the channels. All
    normal cells share `alpha_normal`, all reduction cells `alpha_reduce`.

    Args:
        space: Depth, width, nodes, primitives and family.
        image_shape: Channels, height and width of an image.
        num_classes: Outputs of the head.
        weighting: From softmaxed weights to multipliers.
        weight_generator: Draws the initial weights.
        alpha_generator: Draws the initial alphas, 1e-3 times a standard normal.

    Raises:
        ValueError: The images are too small to be halved by both reductions.
    """

    def __init__(
        self,
        space: CellSpace,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        weighting: Weighting,
        weight_generator: torch.Generator,
        alpha_generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_image_size(image_shape)
        self.primitives = space.primitives
        self.weighting = weighting
        shape = (space.num_edges, len(space.primitives))
        self.alpha_normal = nn.Parameter(
            ALPHA_SCALE * torch.randn(shape, generator=alpha_generator)
        )
        self.alpha_reduce = nn.Parameter(
            ALPHA_SCALE * torch.randn(shape, generator=alpha_generator)
        )
        self.reductions = reduction_positions(space.cells)
        with layers_drawn_from(weight_generator):
            stem_channels = _STEM_FACTOR * space.channels
            self.stem = nn.Sequential(
                nn.Conv2d(image_shape[0], stem_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(stem_channels),
            )
            self.cells = nn.ModuleList()
            older, newer, channels = stem_channels, stem_channels, space.channels
            for index in range(space.cells):
                reduction = index in self.reductions
                channels = 2 * channels if reduction else channels
                self.cells.append(
                    RelaxedCell(
                        space,
                        (older, newer),
                        channels,
                        reduction=reduction,
                        reduction_before=index - 1 in self.reductions,
                    )
                )
                older, newer = newer, space.nodes * channels
            self.head = nn.Linear(newer, num_classes)

    def forward(self, x_nchw: Tensor) -> Tensor:
        """The logits of the images x_nchw, [n, k]."""
        normal_ep = self.weighting(self.softmaxed(self.alpha_normal))
        reduce_ep = self.weighting(self.softmaxed(self.alpha_reduce))
        older: State = self.stem(x_nchw)
        newer = older
        for index, cell in enumerate(self.cells):
            multipliers_ep = reduce_ep if index in self.reductions else normal_ep
            older, newer = newer, cell(older, newer, multipliers_ep)
        logits_nk: Tensor = self.head(as_images(newer).mean(dim=(2, 3)))
        return logits_nk

    def architecture_parameters(self) -> list[nn.Parameter]:
        """`alpha_normal` and `alpha_reduce`, each [e, p]."""
        return [self.alpha_normal, self.alpha_reduce]

    def architecture_weights(self) -> dict[str, Tensor]:
        """The softmaxed alphas of both kinds of cell, each [e, p], without a gradient."""
        return {
            "normal": self.softmaxed(self.alpha_normal.detach()),
            "reduce": self.softmaxed(self.alpha_reduce.detach()),
        }

    def genotype(self, *, exclude_none: bool) -> Genotype:
        """Both cells as derived from the alphas; see `search_core.derive`."""
        weights = self.architecture_weights()
        return derive.cell_genotype(
            weights["normal"], weights["reduce"], self.primitives, exclude_none=exclude_none
        )

    def statistics(self, genotype: Genotype) -> dict[str, float]:
        """Mean entropy of an edge's weights in nats, by cell, and the normal cell's skips."""
        weights = self.architecture_weights()
        assert isinstance(genotype, CellGenotype)
        skips = sum(edge.primitive == SKIP for edge in genotype.normal)
        return {
            "alpha_entropy_normal": mean_entropy(weights["normal"]),
            "alpha_entropy_reduce": mean_entropy(weights["reduce"]),
            "skip_connects": float(skips),
        }


def reduction_positions(num_cells: int) -> tuple[int, ...]:
    """Indices of the reduction cells among the cells of a network.

    Args:
        num_cells: Depth of the network in cells.

    Returns:
        The indices, ascending; one only where a third and two thirds coincide.
    """
    return tuple(sorted({num_cells // 3, 2 * num_cells // 3}))


def check_image_size(image_shape: Sequence[int]) -> None:
    """Refuses images that the reductions cannot halve.

    Args:
        image_shape: Channels, height and width.

    Raises:
        ValueError: Height or width is below 2 to the power of the reductions.
    """
    _, height, width = image_shape
    smallest = 2**REDUCTIONS
    if min(height, width) < smallest:
        raise ValueError(
            f"images of {height}x{width} pixels are too small for {REDUCTIONS} reductions, which "
            f"need at least {smallest}x{smallest}; choose a data set with larger images"
        )


def mean_entropy(weights: Tensor) -> float:
    """Mean entropy in nats of weights [choices to make, candidates] that each add up to 1."""
    return float(torch.special.entr(weights.double()).sum(dim=-1).mean())
