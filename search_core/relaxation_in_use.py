"""Which relaxation a search computes with: a planned one until it fails, and the plain one then."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from search_core.data import Images
from search_core.errors import DataNotFoundError, is_out_of_memory
from search_core.kernels_ahead import compile_ahead
from search_core.relaxation_check import largest_difference
from search_core.reports import SearchWarning
from search_core.spec.algorithm import AlgorithmSpec, RelaxationForm
from search_core.supernet import Supernet

_T = TypeVar("_T")


class RelaxationInUse:
    """Plans a network, checks the plan, and gives it up where it fails: slower, never wrong.

    Once given up, a plan stays given up, in the run that is resumed from this one too: both forms
    differ in their rounding, and a resumed run is to give the same bits. An error of the plain form
    as well is no failure of the plan, and neither is a lack of memory or of images; they are let
    through.

    Args:
        network: The network, on its device.
        algorithm: Says which relaxation is wanted, and which gradients are taken.
        batch_size: Of the training.
    """

    def __init__(self, network: Supernet, algorithm: AlgorithmSpec, batch_size: int) -> None:
        self._network = network
        self._batch_size = batch_size
        self._takes_jointly = algorithm.order == "second"
        self._is_checked = False
        self._failure: str | None = None
        self._is_told = False
        self._kept: list[tuple[list[Tensor], list[Tensor]]] | None = None
        self._device = next(network.parameters()).device
        # There are no kernels for lower precisions on a CPU.
        is_possible = self._device.type != "cpu" or network.precision == "float32"
        if is_possible and _is_wanted(algorithm, self._device):
            try:
                network.plan()
            except Exception as error:
                self._give_up(error, f"it could not be made: {_named(error)}")

    @property
    def form(self) -> RelaxationForm:
        """What the mixtures are computed by now."""
        return "fast" if self._network.planned else "plain"

    def check(self, images: Images) -> None:
        """Compares both forms, the first time it is called in this process.

        Args:
            images: Images to train on.
        """
        if self._is_checked or not self._network.planned:
            return
        self._is_checked = True
        try:
            compile_ahead(
                self._network,
                images,
                batch_size=self._batch_size,
                jointly=self._takes_jointly,
            )
            difference = largest_difference(
                self._network, images, batch_size=self._batch_size, jointly=self._takes_jointly
            )
        except Exception as error:
            self._give_up(error, f"it failed on its first images: {_named(error)}")
            return
        if difference.excess > 1:
            self._give_up(None, f"it does not compute what the plain form does: {difference}")

    def compute(self, work: Callable[[], _T], purpose: str = "training") -> _T:
        """Computes something with the network; once more and plainly if a plan fails.

        Args:
            work: The gradients of half a step, or an evaluation. It writes nothing that lasts but
                running statistics, which are put back before it is called again, and draws no
                random numbers that count.
            purpose: What it is part of, for people.

        Returns:
            What it returned.
        """
        # What is being captured is not done yet. Where that fails, it is done as it is.
        if not self._network.planned or _is_capturing(self._device):
            return work()
        self._keep_statistics()
        try:
            return work()
        except Exception as error:
            if _is_none_of_a_plan(error) or not self._has_kept_all():
                raise
            failure = f"it failed in {purpose}: {_named(error)}"
        # Here and not above, where the error still holds what the failed attempt had computed.
        self._put_statistics_back()
        self._network.unplan()
        try:
            result = work()
        except Exception:
            self._network.plan()
            raise
        self._failure = failure
        return result

    def news(self) -> tuple[SearchWarning, ...]:
        """What has not been told yet: that the plan was given up, and why."""
        if self._failure is None or self._is_told:
            return ()
        self._is_told = True
        message = (
            f"the fast relaxation was given up, because {self._failure}; the search goes on in the "
            "plain form, which is slower and takes more memory: its results are right"
        )
        return (SearchWarning("relaxation_fell_back", message),)

    def state_dict(self) -> dict[str, Any]:
        """Why the plan was given up, or None, and whether that was told."""
        return {"failure": self._failure, "is_told": self._is_told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on in the form of the run that wrote the state.

        A plan that has failed in this process already stays given up, whatever the state says.

        Args:
            state: What `state_dict` returned.
        """
        self._is_checked = False
        if state["failure"] is not None:
            self._network.unplan()
            self._failure, self._is_told = state["failure"], state["is_told"]

    def _give_up(self, error: Exception | None, why: str) -> None:
        if error is not None and _is_none_of_a_plan(error):
            raise error
        self._network.unplan()
        self._failure = why

    def _keep_statistics(self) -> None:
        if self._kept is None:
            # By type: PyTorch copies a list of one type in a few kernels.
            by_type: dict[torch.dtype, list[Tensor]] = {}
            for buffer in self._network.buffers():
                by_type.setdefault(buffer.dtype, []).append(buffer)
            self._kept = [
                (buffers, [torch.empty_like(buffer) for buffer in buffers])
                for buffers in by_type.values()
            ]
        for buffers, kept in self._kept:
            torch._foreach_copy_(kept, buffers)

    def _has_kept_all(self) -> bool:
        """Whether no operation has made a buffer anew, where PyTorch's write into theirs."""
        assert self._kept is not None
        known = {id(buffer) for buffers, _ in self._kept for buffer in buffers}
        return all(id(buffer) in known for buffer in self._network.buffers())

    def _put_statistics_back(self) -> None:
        assert self._kept is not None
        for buffers, kept in self._kept:
            torch._foreach_copy_(buffers, kept)
        self._kept = None


def _is_wanted(algorithm: AlgorithmSpec, device: torch.device) -> bool:
    if algorithm.sampling is not None and algorithm.sampling.alphas == "paths":
        return False  # no mixture is ever computed
    return algorithm.relaxation == "fast" or (
        algorithm.relaxation == "auto" and device.type in ("cpu", "cuda")
    )


def _is_none_of_a_plan(error: Exception) -> bool:
    # Evaluations, and the comparison at the start, read images, from files maybe.
    return is_out_of_memory(error) or isinstance(error, OSError | DataNotFoundError)


def _is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
