"""Bilevel steps that are the same work every time, so that a GPU can repeat them by itself.

A step is thousands of small kernels, and to launch them takes longer than to run them. After a few
steps on a GPU both halves of one are captured in CUDA graphs, each of which is launched as a whole
from then on. What a captured step reads and writes has to stay where it is: batches are copied into
buffers, and what is measured is added up on the device (`search_core.tally`).

On a CPU the same work is simply done again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

import torch

from search_core.bilevel import BilevelStep
from search_core.data import LabelledImages
from search_core.supernet import Supernet
from search_core.tally import Tally, Totals

WARM_UP: Final = 3
"""Steps before one is captured: libraries choose their kernels, optimizers make their buffers."""


class StaticStep:
    """Bilevel steps on buffers of their own.

    Args:
        step: The steps; its optimizers are capturable where the device is a GPU. While one is made
            here, its checks are this object's, which does not wait for what they would say.
        device: Where the network is.
    """

    def __init__(self, step: BilevelStep, device: torch.device) -> None:
        self._failures: list[str] = []
        self._step = step
        self._device = device
        self._tally = Tally(device)
        self._buffers: tuple[LabelledImages, LabelledImages] | None = None
        self._captured_for = captured_for(step.network)
        self._alphas, self._weights = self._halves()

    def __call__(
        self, train: LabelledImages, validation: LabelledImages, *, alphas: bool = True
    ) -> None:
        """Makes a step, without waiting for it.

        Args:
            train: The batch of the weights' half; all have the same shape.
            validation: The batch of the alphas' half, likewise.
            alphas: Whether the alphas are trained, and not the weights only.
        """
        self.fill(train, validation)
        if alphas:
            self.train_alphas()
        self.train_weights()

    def fill(self, train: LabelledImages, validation: LabelledImages) -> None:
        """Copies the batches of the next step to where it reads them.

        Args:
            train: As for a step.
            validation: Likewise.
        """
        if self._buffers is None:
            self._buffers = buffer_like(train), buffer_like(validation)
        for buffer, batch in zip(self._buffers, (train, validation), strict=True):
            copy_into(buffer, batch)

    def train_alphas(self) -> None:
        """Makes the first half of a step on what it was filled with."""
        self._forget_what_is_outdated()
        self._alphas()

    def train_weights(self) -> None:
        """Makes the second half."""
        self._forget_what_is_outdated()
        self._weights()

    def start(self, batch: int, loss_sum: float, num_correct: int) -> None:
        """Begins an epoch, or goes on within one; see `Tally.start`.

        Args:
            batch: Batches done in it.
            loss_sum: Their losses.
            num_correct: Their hits.
        """
        self._tally.start(batch, loss_sum, num_correct)

    def read(self) -> Totals:
        """Waits for all steps, and says what they measured."""
        return self._tally.read()

    def note_failure(self, why: str) -> None:
        """Notes that something could not be captured.

        Args:
            why: The reason.
        """
        self._failures.append(why)

    def take_failure(self) -> str | None:
        """Why steps could not be captured, told once; None where they were, or were not yet."""
        failures = list(self._failures)
        self._failures.clear()
        return failures[0] if failures else None

    def forget(self) -> None:
        """Captures anew, because tensors that a step uses have been replaced, or not at all again.

        What the graphs keep is given back.
        """
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # they may still be at work
        self._captured_for = captured_for(self._step.network)
        self._alphas, self._weights = self._halves()

    def _forget_what_is_outdated(self) -> None:
        if self._captured_for != captured_for(self._step.network):
            self.forget()

    def _halves(self) -> tuple["Repeated", "Repeated"]:
        # Always one after the other, and nothing in it outlives a half: both may use its memory.
        workshop = Workshop(self._device) if self._device.type == "cuda" else None
        return (
            Repeated(self._train_alphas, workshop, self.note_failure),
            Repeated(self._train_weights, workshop, self.note_failure),
        )

    def _train_alphas(self) -> None:
        assert self._buffers is not None
        self._step.network.train()
        with self._noting():
            self._step.train_alphas(*self._buffers)

    def _train_weights(self) -> None:
        assert self._buffers is not None
        self._step.network.train()
        with self._noting():
            [measured] = self._step.descend(self._buffers[0])
        self._tally.add(measured.loss, measured.num_correct)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        check, self._step.check = self._step.check, self._tally.note
        try:
            yield
        finally:
            self._step.check = check


class Workshop:
    """Where work on a GPU is captured: a stream, and memory for what is computed on the way.

    Args:
        device: The GPU.

    Attributes:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = _stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Callable[[], None]) -> None:
        """Does the work on the stream, for which libraries keep handles and workspaces.

        Args:
            work: As for `Repeated`.
        """
        present = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(present)
        try:
            with torch.cuda.stream(self._stream):
                work()
        finally:
            present.wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """The work as a graph. It has not been done by this, nor by an attempt that fails.

        Args:
            work: As for `Repeated`.

        Raises:
            Exception: It cannot be captured.
        """
        present = torch.cuda.current_stream(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, as those that read images ahead, may go on with what they do.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                work()
        except Exception:
            # It may have come before the stream was put back.
            torch.cuda.set_stream(present)
            torch.cuda.synchronize(self.device)
            raise
        return graph


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The same for all work of a device: libraries keep a workspace for each that they see."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Repeated:
    """Work on the same tensors every time, captured after it has been done a few times.

    Args:
        work: It takes and returns nothing, and asks the device for nothing.
        workshop: Where to capture it; None does it as it is every time.
        on_failure: Told why it could not be captured. It is then done as it is for good.
    """

    def __init__(
        self,
        work: Callable[[], None],
        workshop: Workshop | None,
        on_failure: Callable[[str], None],
    ) -> None:
        self._work = work
        self._workshop = workshop
        self._on_failure = on_failure
        self._times = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Does the work."""
        if self._graph is not None:
            self._graph.replay()
        elif self._workshop is None:
            self._work()
        elif self._times < WARM_UP:
            self._times += 1
            self._workshop.warm_up(self._work)
        else:
            self._capture(self._workshop)
            self()

    def _capture(self, workshop: Workshop) -> None:
        try:
            self._graph = workshop.capture(self._work)
        except Exception as error:  # of a compiler, too, which has classes of its own
            self._workshop = None
            self._on_failure(" ".join(str(error).split()) or type(error).__name__)


def captured_for(network: Supernet) -> tuple[float, int]:
    """What a network's captured work is captured for: with anything else it is another work.

    Args:
        network: The network.

    Returns:
        The temperature, which is a number in the kernels' arguments, and which plans compute: what
        they keep, such as the order of multipliers, lies where those that came before had none.
    """
    return network.temperature, network.plans_made if network.planned else 0


def buffer_like(batch: LabelledImages) -> LabelledImages:
    """A buffer for batches.

    Args:
        batch: One of them; all have the same shape.
    """
    return LabelledImages(torch.empty_like(batch.images_nchw), torch.empty_like(batch.labels_n))


def copy_into(buffer: LabelledImages, batch: LabelledImages) -> None:
    """Copies a batch to where repeated work reads it.

    Args:
        buffer: For batches like it.
        batch: The batch.
    """
    assert buffer.images_nchw.shape == batch.images_nchw.shape
    buffer.images_nchw.copy_(batch.images_nchw, non_blocking=True)
    buffer.labels_n.copy_(batch.labels_n, non_blocking=True)
