"""What several operations need of the same state, computed once.

Legend: n images, c channels, h height, w width, d dilation.
"""

from collections.abc import Hashable

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_core.relaxation import layers
from search_core.relaxation.phases import to_phases
from search_core.relaxation.statistics import RunningStatistics


class Shared:
    """The states of one forward pass, with what has been made of them so far.

    Args:
        statistics: Where normalisations leave theirs.
        layout: How states lie in memory.
    """

    def __init__(
        self,
        statistics: RunningStatistics,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        self._statistics = statistics
        self._layout = layout
        self._known: dict[Hashable, Tensor] = {}
        self._measured: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def add(self, source: Hashable, state_nchw: Tensor) -> None:
        """Adds a state.

        Args:
            source: Its name.
            state_nchw: The state.
        """
        self._known[(source,)] = state_nchw.contiguous(memory_format=self._layout)

    def get(self, source: Hashable, prefix: tuple[nn.Module, ...]) -> Tensor:
        """A state after some layers; asked once for each operation, whose statistics it records.

        Args:
            source: The state's name.
            prefix: The layers; each has a sharing key.
        """
        key: tuple[Hashable, ...] = (source,)
        x_nchw = self._known[key]
        for layer in prefix:
            key = (*key, layers.sharing_key(layer))
            known = self._known.get(key)
            if isinstance(layer, nn.BatchNorm2d):
                if known is None:
                    known = self._normalise(key, layer, x_nchw)
                self._statistics.record(layer, *self._measured[key])
            elif known is None:
                known = layer(x_nchw)
            self._known[key] = x_nchw = known
        return x_nchw

    def phases(self, x_nchw: Tensor, d: int) -> Tensor:
        """The pixels d apart of what `get` returned as images of their own.

        Args:
            x_nchw: What it returned.
            d: Divides height and width.

        Returns:
            [d * d * n, c, h / d, w / d].
        """
        key = ("phases", d, id(x_nchw))
        if key not in self._known:
            self._known[key] = to_phases(x_nchw, d)
        return self._known[key]

    def subsampled(self, x_nchw: Tensor, d: int) -> Tensor:
        """Every d-th pixel along both axes of what `get` returned.

        Args:
            x_nchw: What it returned.
            d: Pixels from one to the next.
        """
        key = ("subsampled", d, id(x_nchw))
        if key not in self._known:
            every_nchw = x_nchw[:, :, ::d, ::d]
            self._known[key] = every_nchw.contiguous(memory_format=torch.channels_last)
        return self._known[key]

    def _normalise(self, key: Hashable, norm: nn.BatchNorm2d, x_nchw: Tensor) -> Tensor:
        assert norm.running_mean is not None
        # Of the buffers' type, single precision even where the state's is a half one.
        mean_c, variance_c = norm.running_mean.new_zeros((2, x_nchw.shape[1])).unbind()
        # With a momentum of 1 the running averages become the batch's own statistics.
        result_nchw = functional.batch_norm(
            x_nchw, mean_c, variance_c, training=True, momentum=1.0, eps=norm.eps
        )
        self._measured[key] = (mean_c, variance_c)
        return result_nchw
