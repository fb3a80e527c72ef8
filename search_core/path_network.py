"""The network of a path through a HyperCuboid, as it is trained from scratch.

Source: arXiv 1903.09900, section 3.3. The published code leaves a path's last operation out of its
network; here every one is in.

Legend: n images, c channels, h height, w width, k classes.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from search_core import cuboid_size, layers
from search_core.classifier import Classifier, Logits
from search_core.genotype import PathGenotype
from search_core.randomness import layers_drawn_from


class PathNetwork(Classifier):
    """Stem, every operation of the path, a SharpSepConv, a global pool and a linear classifier.

    Args:
        genotype: The path.
        classes: Classes to tell apart.
        image_channels: Channels of an image. Any height and width will do.
    """

    def __init__(self, genotype: PathGenotype, *, classes: int, image_channels: int) -> None:
        super().__init__()
        first, last = genotype.steps[0], genotype.steps[-1]
        final = genotype.final_channels
        self.stem = layers.build(cuboid_size.stem(image_channels, first.in_channels))
        self.steps = nn.Sequential(*(layers.build(step.layers) for step in genotype.steps))
        self.final = layers.build(cuboid_size.head(last.out_channels, final))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(final, classes)

    def forward(self, x_nchw: Tensor) -> Logits:
        """The logits of the images x_nchw; there is no auxiliary head, and nothing is dropped."""
        final_nchw = self.final(self.steps(self.stem(x_nchw)))
        return Logits(self.head(self.pool(final_nchw).flatten(start_dim=1)), None)


def build(
    genotype: PathGenotype,
    *,
    classes: int = 10,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    weight_generator: torch.Generator | None = None,
) -> PathNetwork:
    """Builds the network of a path.

    Args:
        genotype: The path.
        classes: Classes to tell apart.
        image_shape: Channels, height and width of an image.
        weight_generator: Draws the initial weights; PyTorch's global one does when None.

    Returns:
        The network, in training mode on the CPU.
    """
    drawing = nullcontext() if weight_generator is None else layers_drawn_from(weight_generator)
    with drawing:
        return PathNetwork(genotype, classes=classes, image_channels=image_shape[0])
