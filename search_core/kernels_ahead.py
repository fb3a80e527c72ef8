"""Compiling what a planned network will launch on a GPU, all at the same time.

A network's first steps launch some hundreds of kernels, which take minutes to compile one after the
other.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final

import torch

from search_core import relaxation
from search_core.costs import EVALUATION_FACTOR, LARGEST_EVALUATION
from search_core.data import Images, LabelledImages
from search_core.evaluation import look_at
from search_core.relaxation.arithmetic import TORCH, arithmetic_for
from search_core.relaxation_check import copy_of, lower_precision, measure, num_compared
from search_core.supernet import Supernet

_MOST_PROCESSES: Final = 16


def compile_ahead(
    network: Supernet, images: Images | LabelledImages, *, batch_size: int, jointly: bool
) -> None:
    """Compiles what the comparison of both forms, training and evaluation launch.

    That it was done is noted in Triton's cache. Where it cannot be done, kernels are compiled when
    they are launched.

    Args:
        network: A planned network, on its device. It stays as it is.
        images: Some on that device, for their size.
        batch_size: Of the training.
        jointly: Whether training also takes gradients of alphas and weights in one pass.
    """
    if arithmetic_for(next(network.parameters())) is TORCH:
        return
    # Nothing is lost but time: what is wrong is told by the first step.
    with suppress(Exception):
        compiling = import_module("search_core.relaxation.fused.compiling")
        [one] = images.take(torch.arange(1)).in_order(1)
        asked = _Passes(network, one, batch_size, jointly=jointly)
        name = f"dartboard-{asked.name(compiling.toolchain())}"
        with compiling.alone_in_the_cache() as folder:
            if (folder / name).exists():
                return
            with compiling.nothing_launched() as kernels:
                asked.make()
            if compiling.compile_all(kernels, min(_MOST_PROCESSES, len(os.sched_getaffinity(0)))):
                (folder / name).touch()


class _Passes:
    """What a search computes, on images that are all black.

    Args:
        network: Its network.
        images: One, for its size and its device.
        batch_size: Of the training.
        jointly: Whether training also takes gradients of alphas and weights in one pass.
    """

    def __init__(
        self, network: Supernet, images: LabelledImages, batch_size: int, *, jointly: bool
    ) -> None:
        self._network = network
        self._images = images
        self._batch_size = batch_size
        self._jointly = jointly
        self._lower = lower_precision(network, images.labels_n.device)

    def name(self, toolchain: str) -> str:
        """The same for networks that launch the same kernels.

        Args:
            toolchain: What compiles them, and what for.
        """
        said = (
            toolchain,
            repr(self._network),
            [tuple(each.shape) for each in self._network.parameters()],
            tuple(self._images.images_nchw.shape[1:]),
            self._batch_size,
            self._jointly,
            self._lower,
        )
        hashed = hashlib.sha256(repr(said).encode())
        for source in sorted(Path(relaxation.__file__).parent.rglob("*.py")):
            hashed.update(source.read_bytes())
        return hashed.hexdigest()

    def make(self) -> None:
        """Makes them all."""
        network = copy_of(self._network)
        network.plan()
        compared, trained = num_compared(self._batch_size), self._batch_size
        self._train(network, compared, ["float32", self._lower], evaluates=True)
        # The finite difference of the second order is in full whatever the training is in.
        in_full = ["float32"] if self._jointly else []
        self._train(network, trained, [self._lower or "float32", *in_full], evaluates=False)
        network.eval()
        with torch.no_grad():
            look_at(network, self._black(min(EVALUATION_FACTOR * trained, LARGEST_EVALUATION)))

    def _train(
        self, network: Supernet, number: int, precisions: Sequence[str | None], *, evaluates: bool
    ) -> None:
        for precision in filter(None, precisions):
            measure(
                network,
                self._black(number),
                precision,
                jointly=self._jointly,
                evaluates=evaluates and network.evaluates_by_plans,
            )

    def _black(self, number: int) -> LabelledImages:
        images_nchw, labels_n = self._images.images_nchw, self._images.labels_n
        return LabelledImages(
            images_nchw.new_zeros((number, *images_nchw.shape[1:])), labels_n.new_zeros(number)
        )
