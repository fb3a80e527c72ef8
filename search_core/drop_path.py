"""Drop path: whole operations are left out at random during training (arXiv 1806.09055, A.2).

Legend: n images, c channels, h height, w width.
"""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes an operation's output for some images, and scales it up for the others.

    Attributes:
        probability: Chance that an image loses the output; 0, which does nothing, at first.
        generator: What the chance is drawn from, on the images' device; PyTorch's own when None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probability = 0.0
        self.generator: torch.Generator | None = None

    def forward(self, x_nchw: Tensor) -> Tensor:
        """In training mode x_nchw with some images zeroed and the same mean, otherwise x_nchw."""
        if not self.training or self.probability == 0:
            return x_nchw
        keep = 1 - self.probability
        kept_n111 = x_nchw.new_empty((len(x_nchw), 1, 1, 1)).bernoulli_(
            keep, generator=self.generator
        )
        return x_nchw * kept_n111 / keep


def drop_path_probability(maximum: float, epoch: int, epochs: int) -> float:
    """The linear increase over a training (arXiv 1806.09055, appendix A.2).

    Args:
        maximum: What it would reach after the last epoch.
        epoch: Completed epochs.
        epochs: Epochs of the training.

    Returns:
        The probability for the next epoch; 0 in the first.
    """
    return maximum * epoch / epochs
