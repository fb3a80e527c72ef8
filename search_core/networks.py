"""Networks that a cell genotype stands for, as they are trained from scratch.

Sources: arXiv 1806.09055, section 3.2 and appendix A.2 to A.4; arXiv 1903.09900, section 4.

Legend: n images, c channels, h height, w width, k classes.
"""

from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from search_core.auxiliary import AuxiliaryHead
from search_core.classifier import Classifier, Logits
from search_core.derived_cells import DerivedCell
from search_core.genotype import CellGenotype
from search_core.randomness import layers_drawn_from
from search_core.spec.primitives import Family
from search_core.supernet import check_image_size, reduction_positions

Form = Literal["cifar", "imagenet"]

_STEM_FACTOR = 3
_IMAGENET_STEM_REDUCTIONS = 3


class DerivedNetwork(Classifier):
    """Stem, cells, pooling and classifier of a cell genotype; built by `build`.

    Args:
        genotype: The two cells.
        form: The stem: `cifar` keeps the size, `imagenet` divides it by 8.
        family: Which operations the primitive names stand for.
        channels: Channels of the first cell; each reduction doubles them.
        cells: Depth in cells.
        classes: Classes to tell apart.
        image_shape: Channels, height and width of an image.
        auxiliary: Whether to train an auxiliary head on the second reduction's output.
        choke_channels: Middle channels of the `choke_conv` primitives.
    """

    def __init__(
        self,
        genotype: CellGenotype,
        *,
        form: Form,
        family: Family,
        channels: int,
        cells: int,
        classes: int,
        image_shape: tuple[int, int, int],
        auxiliary: bool,
        choke_channels: int,
    ) -> None:
        super().__init__()
        size = _after_stem(form, image_shape)
        self.stem, self.second_stem, older = _stem(form, image_shape[0], channels)
        newer = older
        self.reductions = reduction_positions(cells)
        self.auxiliary: AuxiliaryHead | None = None
        self.cells = nn.ModuleList()
        # ImageNet's second stem halves what the first cell's older input does not.
        reduction_before = form == "imagenet"
        for index in range(cells):
            reduction = index in self.reductions
            channels = 2 * channels if reduction else channels
            edges = genotype.reduce if reduction else genotype.normal
            concat = genotype.reduce_concat if reduction else genotype.normal_concat
            self.cells.append(
                DerivedCell(
                    edges,
                    concat,
                    family,
                    (older, newer),
                    channels,
                    reduction=reduction,
                    reduction_before=reduction_before,
                    choke_channels=choke_channels,
                )
            )
            older, newer, reduction_before = newer, len(concat) * channels, reduction
            if reduction:
                size = (_halved(size[0]), _halved(size[1]))
            if auxiliary and index == self.reductions[-1]:
                self.auxiliary = AuxiliaryHead(newer, size, classes)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(newer, classes)

    def forward(self, x_nchw: Tensor) -> Logits:
        """The logits of the images x_nchw."""
        older_nchw = self.stem(x_nchw)
        newer_nchw = self.second_stem(older_nchw)
        auxiliary_nk = None
        for index, cell in enumerate(self.cells):
            older_nchw, newer_nchw = newer_nchw, cell(older_nchw, newer_nchw)
            if self.training and self.auxiliary is not None and index == self.reductions[-1]:
                auxiliary_nk = self.auxiliary(newer_nchw)
        return Logits(self.head(self.pool(newer_nchw).flatten(start_dim=1)), auxiliary_nk)


def build(
    genotype: CellGenotype,
    *,
    form: Form = "cifar",
    family: Family,
    channels: int = 36,
    cells: int = 20,
    classes: int = 10,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    auxiliary: bool = False,
    choke_channels: int = 32,
    weight_generator: torch.Generator | None = None,
) -> DerivedNetwork:
    """Builds the network of a genotype.

    Args:
        genotype: The two cells.
        form: The stem: `cifar` keeps the size, `imagenet` divides it by 8.
        family: Which operations the primitive names stand for.
        channels: Channels of the first cell; each reduction doubles them.
        cells: Depth in cells; those at a third and at two thirds reduce.
        classes: Classes to tell apart.
        image_shape: Channels, height and width of an image.
        auxiliary: Whether to train an auxiliary head.
        choke_channels: Middle channels of the `choke_conv` primitives.
        weight_generator: Draws the initial weights; PyTorch's global one does when None.

    Returns:
        The network, in training mode on the CPU.

    Raises:
        UnknownNameError: The family lacks one of the genotype's primitives.
        ValueError: The images are too small for the form.
    """
    drawing = nullcontext() if weight_generator is None else layers_drawn_from(weight_generator)
    with drawing:
        return DerivedNetwork(
            genotype,
            form=form,
            family=family,
            channels=channels,
            cells=cells,
            classes=classes,
            image_shape=image_shape,
            auxiliary=auxiliary,
            choke_channels=choke_channels,
        )


def _stem(form: Form, in_channels: int, channels: int) -> tuple[nn.Module, nn.Module, int]:
    """What makes the first cell's older input, what makes the newer of it, and their channels."""
    if form == "cifar":
        wide = _STEM_FACTOR * channels
        return nn.Sequential(*_conv_norm(in_channels, wide, stride=1)), nn.Identity(), wide
    half = channels // 2
    first = nn.Sequential(
        *_conv_norm(in_channels, half, stride=2),
        nn.ReLU(),
        *_conv_norm(half, channels, stride=2),
    )
    return first, nn.Sequential(nn.ReLU(), *_conv_norm(channels, channels, stride=2)), channels


def _conv_norm(in_channels: int, out_channels: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return (
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _after_stem(form: Form, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    channels, height, width = image_shape
    if form == "imagenet":
        for _ in range(_IMAGENET_STEM_REDUCTIONS):
            height, width = _halved(height), _halved(width)
    check_image_size((channels, height, width))
    return height, width


def _halved(side: int) -> int:
    return (side + 1) // 2
