"""What the networks that are trained from scratch have in common, whatever they are derived from.

Legend: n images, c channels, h height, w width, k classes.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from search_core.drop_path import DropPath


class Logits(NamedTuple):
    """What a network says of a batch of images.

    Attributes:
        main_nk: The classifier's logits.
        auxiliary_nk: The auxiliary head's; None without one, and always in eval mode.
    """

    main_nk: Tensor
    auxiliary_nk: Tensor | None


class Classifier(nn.Module, ABC):
    """A network of images that ends in a linear classifier.

    Attributes:
        head: The classifier.
    """

    head: nn.Linear

    @abstractmethod
    def forward(self, x_nchw: Tensor) -> Logits:
        """The logits of the images x_nchw."""

    def set_drop_path(self, probability: float, generator: torch.Generator | None = None) -> None:
        """Sets the chance of every operation but identities to be dropped while training.

        A network without such operations, as that of a path is, stays as it is.

        Args:
            probability: From 0 to below 1; see `search_core.drop_path.drop_path_probability`.
            generator: What to draw from, on the network's device; PyTorch's own when None.

        Raises:
            ValueError: The probability is outside its range.
        """
        if not 0 <= probability < 1:
            raise ValueError(f"a drop path probability of {probability}: it must be in [0, 1)")
        for module in self.modules():
            if isinstance(module, DropPath):
                module.probability, module.generator = probability, generator
