"""Compiling what a planned network will call, all at the same time.

On a GPU a network's first steps launch some hundreds of kernels, which take minutes to compile one
after the other. A CPU's are a few large ones, the same for all networks.
"""

import hashlib
import logging
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from search_core.costs import EVALUATION_FACTOR, LARGEST_EVALUATION
from search_core.data import Images, LabelledImages
from search_core.evaluation import look_at
from search_core.relaxation import processes
from search_core.relaxation.arithmetic import TORCH, arithmetic_for
from search_core.relaxation.kernels.ahead import compile_for_cpu
from search_core.relaxation_check import copy_of, lower_precision, measure, num_compared
from search_core.supernet import Supernet

_LOG = logging.getLogger(__name__)


def compile_ahead(
    network: Supernet, images: Images | LabelledImages, *, batch_size: int, jointly: bool
) -> None:
    """Compiles what the comparison of both forms, training and evaluation call.

    That it was tried is noted where compiled kernels are kept. What was not compiled is compiled
    when it is called; why is logged.

    Args:
        network: A planned network, on its device. It stays as it is.
        images: Some on that device, for their size.
        batch_size: Of the training.
        jointly: Whether training also takes gradients of alphas and weights in one pass.
    """
    weight = next(network.parameters())
    try:
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            compile_for_cpu()
        if arithmetic_for(weight) is not TORCH:
            _compile_for_gpu(network, images, batch_size, jointly=jointly)
    except Exception:
        # Nothing is lost but time: what is wrong with a network is told by its first step.
        _LOG.warning("kernels are compiled when they are called", exc_info=True)


def _compile_for_gpu(
    network: Supernet, images: Images | LabelledImages, batch_size: int, *, jointly: bool
) -> None:
    compiling = import_module("search_core.relaxation.fused.compiling")
    [one] = images.take(torch.arange(1)).in_order(1)
    asked = _Passes(network, one, batch_size, jointly=jointly)
    note = compiling.cache() / f"dartboard-{asked.digest(compiling.toolchain())}"
    if note.exists():
        return
    with processes.alone_in(compiling.cache()):
        if note.exists():
            return
        try:
            with compiling.nothing_launched() as wanted:
                asked.make()
            compiling.compile_all(wanted)
        finally:
            note.touch()  # the next search would fare no better


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

    def digest(self, toolchain: str) -> str:
        """The same for networks that launch the same kernels.

        Args:
            toolchain: What compiles them, and what for.
        """
        identity = (
            toolchain,
            torch.__version__,
            repr(self._network),
            [tuple(each.shape) for each in self._network.parameters()],
            tuple(self._images.images_nchw.shape[1:]),
            self._batch_size,
            self._jointly,
            self._lower,
        )
        hashed = hashlib.sha256(repr(identity).encode())
        for source in sorted(Path(__file__).parent.rglob("*.py")):
            hashed.update(source.read_bytes())
        return hashed.hexdigest()

    def make(self) -> None:
        """Computes them, one after the other; what comes out is of no use."""
        network = copy_of(self._network)
        network.plan()
        compared, trained = num_compared(self._batch_size), self._batch_size
        self._train(network, compared, ["float32", self._lower], evaluates=True)
        # The finite difference of the second order is in full whatever the training is in.
        in_full = ["float32"] if self._jointly else []
        precisions = dict.fromkeys([self._lower or "float32", *in_full])
        self._train(network, trained, list(precisions), evaluates=False)
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
