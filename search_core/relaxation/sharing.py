"""What several operations need of the same state, computed once.

Legend: n images, c channels, h height, w width.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_core.relaxation import lanes, layers
from search_core.relaxation.lanes import Lanes
from search_core.relaxation.statistics import RunningStatistics


class Shared:
    """The states of one forward pass, with what has been made of them so far.

    Args:
        statistics: Where normalisations leave theirs.
    """

    def __init__(self, statistics: RunningStatistics) -> None:
        self._statistics = statistics
        self._known: dict[Hashable, Tensor] = {}
        self._lanes: dict[Hashable, Lanes] = {}
        self._measured: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def add(self, source: Hashable, state: Tensor | Lanes) -> None:
        """Adds a state.

        Args:
            source: Its name.
            state: The state, [n, c, h, w] or in lanes.
        """
        if isinstance(state, Lanes):
            self._lanes[source,] = state
        else:
            self._known[source,] = state

    def get(self, source: Hashable, prefix: tuple[nn.Module, ...] = ()) -> Tensor:
        """A state after some layers; asked once for each operation, whose statistics it records.

        Args:
            source: The state's name.
            prefix: The layers; each has a sharing key.
        """
        key: tuple[Hashable, ...] = (source,)
        if key not in self._known:
            self._known[key] = lanes.out_of(self._lanes[key])
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

    def in_lanes(self, source: Hashable, prefix: tuple[nn.Module, ...] = ()) -> Lanes:
        """The same in lanes.

        Args:
            source: The state's name.
            prefix: The layers; each has a sharing key.
        """
        key = (source, *map(layers.sharing_key, prefix))
        if not prefix and key in self._lanes:
            return self._lanes[key]
        x_nchw = self.get(source, prefix)
        if key not in self._lanes:
            self._lanes[key] = lanes.into(x_nchw)
        return self._lanes[key]

    def concatenated(self, sources: Sequence[Hashable]) -> Tensor:
        """The channels of several states, one behind the other.

        Args:
            sources: Their names.
        """
        if all((source,) in self._lanes for source in sources):
            return lanes.out_of(lanes.concatenated([self._lanes[source,] for source in sources]))
        return torch.cat([self.get(source) for source in sources], dim=1)

    def _normalise(self, key: Hashable, norm: nn.BatchNorm2d, x_nchw: Tensor) -> Tensor:
        mean_c = x_nchw.new_zeros(x_nchw.shape[1])
        variance_c = torch.zeros_like(mean_c)
        # With a momentum of 1 the running averages become the batch's own statistics.
        result_nchw = functional.batch_norm(
            x_nchw, mean_c, variance_c, training=True, momentum=1.0, eps=norm.eps
        )
        self._measured[key] = (mean_c, variance_c)
        return result_nchw
