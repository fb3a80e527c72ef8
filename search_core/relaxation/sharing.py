"""What several operations need of the same state, computed once.

Legend: n images, t sums, c channels, h height, w width.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from search_core.relaxation import lanes, layers, pools, stacks
from search_core.relaxation.arithmetic import arithmetic_for
from search_core.relaxation.lanes import Lanes, State
from search_core.relaxation.statistics import RunningStatistics, known_statistics
from search_core.relaxation.works import Normalisation, Part, Reading

_Prefix = tuple[nn.Module, ...]
_Pool = nn.MaxPool2d | nn.AvgPool2d

Targets = tuple[Hashable, ...]
"""The names of states that are sums side by side."""


class Shared:
    """The states of one forward pass, with what has been made of them so far.

    A state is known as images, in lanes, or both; it is brought from one to the other when somebody
    asks.

    Args:
        statistics: Where normalisations leave theirs.
        is_dense: Whether all but the first dimension of images is to lie without gaps.
    """

    def __init__(
        self,
        statistics: RunningStatistics,
        *,
        is_dense: bool = False,
    ) -> None:
        self._statistics = statistics
        self._is_dense = is_dense
        self._images: dict[Hashable, Tensor] = {}
        self._stacked: dict[Hashable, Part] = {}
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
        else:
            self._images[source,] = stacks.dense(state) if self._is_dense else state

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
        return self._as_images(self._known(source, prefix))

    def part(self, source: Hashable, prefix: _Prefix = ()) -> Part:
        """The same where it lies, beside others perhaps.

        Args:
            source: See `get`.
            prefix: Likewise.
        """
        key = self._known(source, prefix)
        if key not in self._stacked:
            # The same one for all who ask.
            self._stacked[key] = stacks.whole(self._as_images(key).unsqueeze(1))
        return self._stacked[key]

    def look(self, wanted: Mapping[Hashable, Sequence[_Prefix]]) -> None:
        """Makes together what many operations read of some states.

        Args:
            wanted: What they read of each, by its name. The states are images.
        """
        left = {}
        for source, prefixes in wanted.items():
            self._settle(source)
            left[source] = list(_looks(prefixes))
        while any(left.values()):
            now = [(source, looks.pop(0)) for source, looks in left.items() if looks]
            works = [
                Reading(
                    self._images[source,], look.rectified is not None, list(look.pools.values())
                )
                for source, look in now
            ]
            results = arithmetic_for(works[0].x_nchw).read_all(works)
            for (source, look), (state_nchw, rectified_nchw, pooled_npchw) in zip(
                now, results, strict=True
            ):
                self._images[source,] = state_nchw
                if rectified_nchw is not None:
                    self._images[source, look.rectified] = rectified_nchw
                if pooled_npchw is not None:
                    self._keep([(source, key) for key in look.pools], pooled_npchw)
                    self._normalise_pools(source, look.pools, wanted[source], pooled_npchw)

    def _normalise_pools(
        self,
        source: Hashable,
        group: Mapping[Hashable, nn.Module],
        prefixes: Sequence[_Prefix],
        pooled_npchw: Tensor,
    ) -> None:
        """Normalises pools together, if all of them are in the same way."""
        norms = {
            _sharing_key(prefix[0]): prefix[1]
            for prefix in prefixes
            if len(prefix) > 1 and isinstance(prefix[1], nn.BatchNorm2d) and prefix[1].training
        }
        kinds = {_sharing_key(norms[key]) if key in norms else None for key in group}
        if len(kinds) > 1 or None in kinds:
            return
        keys = [(source, key, _sharing_key(norms[key])) for key in group]
        norm = norms[next(iter(group))]
        assert isinstance(norm, nn.BatchNorm2d)
        result_npchw, measured_2pc = arithmetic_for(pooled_npchw).normalise(
            pooled_npchw, None, None, eps=norm.eps
        )
        self._keep(keys, result_npchw)
        for key, mean_c, variance_c in zip(keys, *measured_2pc, strict=True):
            self._measured[key] = (mean_c, variance_c, None)

    def _keep(self, keys: Sequence[Hashable], stack_nkchw: Tensor) -> None:
        for position, key in enumerate(keys):
            self._stacked[key] = Part(stack_nkchw, position, 1)

    def _known(self, source: Hashable, prefix: _Prefix) -> tuple[Hashable, ...]:
        """The key of a state after some layers, which is made unless it is there already."""
        self._settle(source)
        key: tuple[Hashable, ...] = (source,)
        for layer in prefix:
            before, key = key, (*key, _sharing_key(layer))
            if not any(key in known for known in (self._images, self._lanes, self._stacked)):
                x_nchw = self._as_images(before)
                if isinstance(layer, nn.BatchNorm2d):
                    self._images[key] = self._normalise(key, layer, x_nchw)
                elif pools.has_kernel(layer):
                    _, _, pooled_npchw = arithmetic_for(x_nchw).read(
                        x_nchw, rectify=False, pools=[cast("_Pool", layer)]
                    )
                    assert pooled_npchw is not None
                    self._images[key] = pooled_npchw.squeeze(1)
                else:
                    self._images[key] = layer(x_nchw)
            self._record(key, layer)
        return key

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
        if key not in self._images and key in self._stacked:
            stack_nkchw = self._stacked[key].stack_nkchw
            beside = {
                each: part
                for each, part in self._stacked.items()
                if part.stack_nkchw is stack_nkchw
            }
            # All of them: the gradient of one alone would be copied into zeros.
            parts_nkchw = stacks.split(stack_nkchw, [1] * stack_nkchw.shape[1])
            for each, part in beside.items():
                self._images[each] = parts_nkchw[part.first].squeeze(1)
        elif key not in self._images:
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
            return pools.pool(state, cast("_Pool", layer))
        return Lanes(layer(state.values), state.images)

    def _normalise(self, key: Hashable, norm: nn.BatchNorm2d, x_nchw: Tensor) -> Tensor:
        arithmetic, x_nkchw = arithmetic_for(x_nchw), x_nchw.unsqueeze(1)
        known = known_statistics([norm])
        if known is not None:
            result_nkchw = arithmetic.normalise_by(
                known, Normalisation(x_nkchw, None, None, norm.eps)
            )
            return result_nkchw.squeeze(1)
        result_nkchw, measured_2kc = arithmetic.normalise(x_nkchw, None, None, eps=norm.eps)
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


class _Look(NamedTuple):
    """What is made of a state in one pass over it.

    Attributes:
        rectified: What the ReLU has in common that reads it; None if there is none.
        pools: Pools with the same windows, by what they have in common.
    """

    rectified: Hashable | None
    pools: Mapping[Hashable, _Pool]


def _looks(prefixes: Sequence[_Prefix]) -> Iterator[_Look]:
    """The passes over a state."""
    firsts = {_sharing_key(prefix[0]): prefix[0] for prefix in prefixes if prefix}
    windows: dict[Hashable, dict[Hashable, _Pool]] = {}
    rectified = None
    for key, layer in firsts.items():
        if type(layer) is nn.ReLU:
            rectified = key
        elif pools.has_kernel(layer):
            pool = cast("_Pool", layer)
            windows.setdefault((pool.kernel_size, pool.stride), {})[key] = pool
    if rectified is not None and not windows:
        yield _Look(rectified, {})
    for group in windows.values():
        yield _Look(rectified, group)
        rectified = None


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
