"""What several operations need of the same state, computed once.

Legend: n images, t sums, c channels, h height, w width.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from search_core.relaxation import lanes, layers, pools, stacks
from search_core.relaxation.arithmetic import arithmetic_for
from search_core.relaxation.lanes import Lanes, State
from search_core.relaxation.statistics import RunningStatistics, known_statistics

_Prefix = tuple[nn.Module, ...]

Targets = tuple[Hashable, ...]
"""The names of states that are sums side by side."""


class Shared:
    """The states of one forward pass, with what has been made of them so far.

    A state is known as images, in lanes, or both; it is brought from one to the other when somebody
    asks.

    Args:
        statistics: Where normalisations leave theirs.
        layout: How images lie in memory; None where that does not matter.
    """

    def __init__(
        self,
        statistics: RunningStatistics,
        layout: torch.memory_format | None = None,
    ) -> None:
        self._statistics = statistics
        self._layout = layout
        self._images: dict[Hashable, Tensor] = {}
        self._lanes: dict[Hashable, Lanes] = {}
        # Mean and variance, and of how many values, if it is the biased one.
        self._measured: dict[Hashable, tuple[Tensor, Tensor, int | None]] = {}
        self._sums: dict[Targets, Tensor] = {}

    def take(self, targets: Sequence[Hashable]) -> dict[Targets, Tensor]:
        """Takes out what is known of sums that are not complete.

        Args:
            targets: Their names.

        Returns:
            By the names of those that lie side by side, [n, t, c, h, w].
        """
        wanted = frozenset(targets)
        for names in list(self._sums):
            if not (wanted.isdisjoint(names) or wanted.issuperset(names)):
                each_ntchw = stacks.split(self._sums.pop(names), [1] * len(names))
                self._sums |= zip([(name,) for name in names], each_ntchw, strict=True)
        return {each: self._sums.pop(each) for each in list(self._sums) if wanted.issuperset(each)}

    def leave(self, sums: Mapping[Targets, Tensor]) -> None:
        """Keeps sums, to which more may be added; a state is complete when somebody asks for it.

        Args:
            sums: As taken, and what has come to them. Those of the same name are added up.
        """
        names = Counter(name for names in sums for name in names)
        several: dict[Hashable, Tensor] = {}
        for targets, sums_ntchw in sums.items():
            if all(names[target] == 1 for target in targets):
                self._sums[targets] = sums_ntchw
                continue
            for target, part_nchw in zip(targets, sums_ntchw.unbind(1), strict=True):
                known = several.get(target)
                several[target] = part_nchw if known is None else known + part_nchw
        for target, sum_nchw in several.items():
            self._sums[target,] = sum_nchw.unsqueeze(1)

    def _settle(self, source: Hashable) -> None:
        """Makes a state of a sum, if it is one."""
        for targets, sums_ntchw in self._sums.items():
            if source not in targets:
                continue
            del self._sums[targets]
            place = targets.index(source)
            around = (targets[:place], (source,), targets[place + 1 :])
            parts = [part for part in around if part]
            split = stacks.split(sums_ntchw, [len(part) for part in parts])
            for part, part_ntchw in zip(parts, split, strict=True):
                if part == (source,):
                    self.add(source, part_ntchw.squeeze(1))
                else:
                    self._sums[part] = part_ntchw
            return

    def add(self, source: Hashable, state: State) -> None:
        """Adds a state.

        Args:
            source: Its name.
            state: The state, [n, c, h, w] or in lanes.
        """
        if isinstance(state, Lanes):
            self._lanes[source,] = state
        elif self._layout is None:
            self._images[source,] = state
        else:
            self._images[source,] = state.contiguous(memory_format=self._layout)

    def state(self, source: Hashable) -> State:
        """A state as it is known, in lanes or not.

        Args:
            source: Its name.
        """
        self._settle(source)
        known = self._lanes.get((source,))
        return self._images[source,] if known is None else known

    def get(self, source: Hashable, prefix: _Prefix = ()) -> Tensor:
        """A state after some layers; asked once for each operation, whose statistics it records.

        Args:
            source: The state's name.
            prefix: The layers; each has a sharing key.

        Returns:
            [n, c, h, w].
        """
        self._settle(source)
        key: tuple[Hashable, ...] = (source,)
        x_nchw = self._as_images(key)
        for layer in prefix:
            key = (*key, _sharing_key(layer))
            if key not in self._images and key not in self._lanes:
                if isinstance(layer, nn.BatchNorm2d):
                    self._images[key] = self._normalise(key, layer, x_nchw)
                elif pools.has_kernel(layer):
                    pool = cast("nn.MaxPool2d | nn.AvgPool2d", layer)
                    self._images[key] = arithmetic_for(x_nchw).pool(x_nchw, pool)
                else:
                    self._images[key] = layer(x_nchw)
            self._record(key, layer)
            x_nchw = self._as_images(key)
        return x_nchw

    def in_lanes(self, source: Hashable, prefix: _Prefix = ()) -> Lanes:
        """The same in lanes.

        Args:
            source: The state's name.
            prefix: The layers; each has a sharing key.
        """
        if not all(_keeps_lanes(layer) for layer in prefix):
            self.get(source, prefix)
            return self._in_lanes((source, *map(layers.sharing_key, prefix)))
        key: tuple[Hashable, ...] = (source,)
        state = self._in_lanes(key)
        for layer in prefix:
            key = (*key, layers.sharing_key(layer))
            if key not in self._images and key not in self._lanes:
                self._lanes[key] = self._applied(key, layer, state)
            self._record(key, layer)
            state = self._in_lanes(key)
        return state

    def concatenated(self, sources: Sequence[Hashable]) -> State:
        """The channels of several states, one behind the other.

        Args:
            sources: Their names.

        Returns:
            In lanes, where all of them are.
        """
        if all((source,) in self._lanes for source in sources):
            return lanes.concatenated([self._lanes[source,] for source in sources])
        return torch.cat([self.get(source) for source in sources], dim=1)

    def _as_images(self, key: Hashable) -> Tensor:
        if key not in self._images:
            self._images[key] = lanes.out_of(self._lanes[key])
        return self._images[key]

    def _in_lanes(self, key: Hashable) -> Lanes:
        if key not in self._lanes:
            self._lanes[key] = lanes.into(self._images[key])
        return self._lanes[key]

    def _applied(self, key: Hashable, layer: nn.Module, state: Lanes) -> Lanes:
        if isinstance(layer, nn.BatchNorm2d):
            normalised, mean_c, variance_c = pools.normalise(state, layer.eps)
            height, width = state.values.shape[2:4]
            self._measured[key] = (mean_c, variance_c, state.images * height * width)
            return normalised
        if pools.has_kernel(layer):
            return pools.pool(state, cast("nn.MaxPool2d | nn.AvgPool2d", layer))
        return Lanes(layer(state.values), state.images)

    def _normalise(self, key: Hashable, norm: nn.BatchNorm2d, x_nchw: Tensor) -> Tensor:
        result_nkchw, measured_2kc = arithmetic_for(x_nchw).normalise(
            x_nchw.unsqueeze(1), None, None, eps=norm.eps, known_2kc=known_statistics([norm])
        )
        mean_c, variance_c = measured_2kc[:, 0].unbind()
        self._measured[key] = (mean_c, variance_c, None)
        return result_nkchw.squeeze(1)

    def _record(self, key: Hashable, layer: nn.Module) -> None:
        if isinstance(layer, nn.BatchNorm2d) and layer.training:
            mean_c, variance_c, count = self._measured[key]
            if count is None:
                self._statistics.record(layer, mean_c, variance_c)
            else:
                self._statistics.record_biased(layer, mean_c, variance_c, count)


def _sharing_key(layer: nn.Module) -> Hashable:
    """What layers have in common that make the same of a state."""
    if isinstance(layer, nn.BatchNorm2d) and not layer.training:
        return id(layer)  # It has running statistics of its own.
    return layers.sharing_key(layer)


def _keeps_lanes(layer: nn.Module) -> bool:
    """Whether a layer, which has a sharing key, can be applied in lanes."""
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        return pools.has_kernel(layer)
    # Activations see single values, whatever the layout, and halves whole pixels.
    return True
