"""Kernels for a GPU of what a grouped plan consists of, with their gradients.

PyTorch's own are slow where a plan needs them: a depthwise convolution has few channels, a batch
normalisation gives each of them to one block, and a weighted sum is taken of tensors that only it
reads. These are written in Triton, which comes with PyTorch's builds for CUDA. They read operations
side by side out of a larger tensor without copying it, compute in single precision whatever they
read, keep nothing that no gradient asks for, and add up in an order that never changes.
"""

from search_core.relaxation.fused.mixing import mix
from search_core.relaxation.fused.normalisation import normalise, normalise_all, normalise_by
from search_core.relaxation.fused.reading import read, read_all
from search_core.relaxation.fused.separable import convolve, convolve_all, multiply

__all__ = [
    "convolve",
    "convolve_all",
    "mix",
    "multiply",
    "normalise",
    "normalise_all",
    "normalise_by",
    "read",
    "read_all",
]
