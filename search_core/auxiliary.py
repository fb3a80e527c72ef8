"""Auxiliary heads: a second classifier on an inner cell, for training only.

Source: arXiv 1806.09055, appendix A.2.

Legend: n images, c channels, h height, w width, k classes.
"""

from torch import Tensor, nn

_NARROW, _WIDE = 128, 768
_PUBLISHED_SIDES = (7, 8)
_WINDOW = 5


class AuxiliaryHead(nn.Module):
    """Pools to 2x2, then 1x1 and 2x2 convolutions, then a linear classifier.

    Both published heads are this one: CIFAR's takes 8x8, ImageNet's 7x7, with the second batch
    normalisation that DARTS meant it to have. At those sizes the pool is theirs, two overlapping
    5x5 windows along each axis; at any other size it divides the image into quarters.

    Args:
        in_channels: Channels of the inner cell's output.
        size: Its height and width.
        num_classes: Classes to tell apart.
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        height, width = size
        pool: nn.Module = nn.AdaptiveAvgPool2d(2)
        if height in _PUBLISHED_SIDES and width in _PUBLISHED_SIDES:
            pool = nn.AvgPool2d(_WINDOW, stride=(height - _WINDOW, width - _WINDOW))
        self.features = nn.Sequential(
            nn.ReLU(),
            pool,
            nn.Conv2d(in_channels, _NARROW, 1, bias=False),
            nn.BatchNorm2d(_NARROW),
            nn.ReLU(),
            nn.Conv2d(_NARROW, _WIDE, 2, bias=False),
            nn.BatchNorm2d(_WIDE),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(_WIDE, num_classes)

    def forward(self, x_nchw: Tensor) -> Tensor:
        """The logits of x_nchw, [n, k]."""
        logits_nk: Tensor = self.classifier(self.features(x_nchw).flatten(start_dim=1))
        return logits_nk
