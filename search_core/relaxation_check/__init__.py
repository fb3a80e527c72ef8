"""Whether a planned supernet computes what the plain form does, tried on a few images.

A forward pass is continuous in its rounding, so a loss and what the normalisations measure are
compared strictly. A gradient is not: of the millions of values before a network's ReLUs, single
precision puts some on the other side of the kink, where the gradient jumps. Measured on networks of
16 channels and 8 cells, that moves the gradient of one parameter or another by up to 5 %, and all
of them together by up to 1 %; for other images others. A wrong kernel moves the gradients of its
own weights by far more, whatever the images.

Where a search trains in a lower precision, that is compared as well, TF32 included: other kernels
compute it, or the same ones of other types. Half precision moves gradients by 15 to 75 % of their
norms, in either form, and a single tensor's by next to nothing or by all of it, as chance has it:
so the mean over all tensors is held against what the plain form's are moved by.
"""

from search_core.relaxation_check.comparison import (
    copy_of,
    largest_difference,
    lower_precision,
    num_compared,
)
from search_core.relaxation_check.differences import Difference
from search_core.relaxation_check.passes import measure

__all__ = [
    "Difference",
    "copy_of",
    "largest_difference",
    "lower_precision",
    "measure",
    "num_compared",
]
