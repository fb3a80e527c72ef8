"""What operations have come to, many side by side in one tensor.

Legend: n images, k operations, c channels, h height, w width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from search_core.relaxation.works import Part


@dataclass(frozen=True)
class _Place:
    """Where an operation's tensor is; a source is a stack of one that several may share."""

    stack_nkchw: Tensor
    position: int
    is_source: bool


@dataclass
class _Run:
    """Operations side by side in a stack, or several times the same source."""

    place: _Place
    length: int = 1

    def extend(self, place: _Place) -> bool:
        """Takes one more in, if it comes next."""
        position = self.place.position + (0 if place.is_source else self.length)
        if place.stack_nkchw is not self.place.stack_nkchw or place.position != position:
            return False
        self.length += 1
        return True

    def tensors(self) -> list[Tensor]:
        """What to put side by side, [n, k, c, h, w]."""
        if self.place.is_source:
            return [self.place.stack_nkchw] * self.length
        if self.length == self.place.stack_nkchw.shape[1]:
            # Narrowed, its gradient would be copied into zeros.
            return [self.place.stack_nkchw]
        return [self.place.stack_nkchw.narrow(1, self.place.position, self.length)]


class Stacks:
    """The tensors of operations on their way from the sources to the sum.

    Args:
        sources_nchw: What each operation reads; several may read the same tensor.
    """

    def __init__(self, sources_nchw: Sequence[Tensor]) -> None:
        views = {id(source): source.unsqueeze(1) for source in sources_nchw}
        self._places = [_Place(views[id(source)], 0, True) for source in sources_nchw]
        self._gathered: dict[tuple[tuple[int, int], ...], Tensor] = {}

    def shape(self, index: int) -> tuple[int, ...]:
        """Channels, height and width of an operation's tensor.

        Args:
            index: The operation.
        """
        return tuple(self._places[index].stack_nkchw.shape[2:])

    def gather(self, indices: Sequence[int]) -> Tensor:
        """The tensors of some operations side by side, [n, k, c, h, w].

        Args:
            indices: The operations; their tensors have the same shape.
        """
        runs = self._runs(indices)
        if not all(run.place.is_source for run in runs):
            return _joined(runs)
        # The kernels of several sizes read the same states.
        key = tuple((id(run.place.stack_nkchw), run.length) for run in runs)
        if key not in self._gathered:
            self._gathered[key] = _joined(runs)
        return self._gathered[key]

    def part(self, indices: Sequence[int]) -> Part:
        """Where the tensors of some operations are side by side, joined if they are nowhere.

        Args:
            indices: The operations; their tensors have the same shape.
        """
        runs = self._runs(indices)
        if len(runs) > 1 or (runs[0].place.is_source and runs[0].length > 1):
            return whole(self.gather(indices))
        return Part(runs[0].place.stack_nkchw, runs[0].place.position, runs[0].length)

    def repeated(self, indices: Sequence[int]) -> Part:
        """The tensors of some operations, once only where they are the same several times over.

        Args:
            indices: The operations; their tensors have the same shape.

        Returns:
            As `part`, with fewer than the operations if these begin anew after so many.
        """
        places = [self._places[index] for index in indices]
        stacks = [id(place.stack_nkchw) for place in places]
        period = stacks.index(stacks[0], 1) if stacks[0] in stacks[1:] else len(stacks)
        if all(place.is_source for place in places) and stacks == (
            stacks[:period] * (len(stacks) // period)
        ):
            return self.part(indices[:period])
        return self.part(indices)

    def _runs(self, indices: Sequence[int]) -> list[_Run]:
        runs: list[_Run] = []
        for index in indices:
            place = self._places[index]
            if not runs or not runs[-1].extend(place):
                runs.append(_Run(place))
        return runs

    def together(self, indices: Sequence[int]) -> list[list[int]]:
        """The operations by the stack that they are in, each in the order in which they lie there.

        Args:
            indices: The operations.
        """
        groups: dict[int, list[int]] = {}
        for index in sorted(indices, key=lambda each: self._places[each].position):
            groups.setdefault(id(self._places[index].stack_nkchw), []).append(index)
        return list(groups.values())

    def put(self, indices: Sequence[int], stack_nkchw: Tensor) -> None:
        """Replaces the tensors of some operations.

        Args:
            indices: The operations.
            stack_nkchw: Their tensors side by side.
        """
        for position, index in enumerate(indices):
            self._places[index] = _Place(stack_nkchw, position, False)

    def put_apart(self, parts: Sequence[Sequence[int]], stack_nkchw: Tensor) -> None:
        """Replaces the tensors of some operations that go different ways from here on.

        Args:
            parts: The operations; those of a part stay together.
            stack_nkchw: Their tensors side by side, part by part.
        """
        if len(parts) == 1:
            self.put(parts[0], stack_nkchw)
            return
        lengths = [len(part) for part in parts]
        for part, part_nkchw in zip(parts, split(stack_nkchw, lengths), strict=True):
            self.put(part, part_nkchw)


def whole(stack_nkchw: Tensor) -> Part:
    """All of a stack.

    Args:
        stack_nkchw: The stack.
    """
    return Part(stack_nkchw, 0, stack_nkchw.shape[1])


def dense(x: Tensor) -> Tensor:
    """The tensor, copied unless all but its first dimension lies without gaps.

    Args:
        x: Any tensor of two dimensions or more.
    """
    expected = 1
    for length, stride in zip(reversed(x.shape[1:]), reversed(x.stride()[1:]), strict=True):
        if length != 1 and stride != expected:
            return x.contiguous()
        expected *= length
    return x


def split(stack_nkchw: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Parts of what lies side by side.

    Args:
        stack_nkchw: A stack.
        lengths: Of the parts.

    Returns:
        [n, k, c, h, w] each.
    """
    if len(lengths) == 1:
        return [stack_nkchw]  # else its gradient would be copied
    shape = stack_nkchw.shape[2:]
    # Their gradients are joined: see below.
    parts_nchw = torch.split(
        stack_nkchw.flatten(1, 2), [length * shape[0] for length in lengths], dim=1
    )
    return [
        part_nchw.view(len(stack_nkchw), length, *shape)
        for part_nchw, length in zip(parts_nchw, lengths, strict=True)
    ]


def _joined(runs: Sequence[_Run]) -> Tensor:
    tensors = [tensor for run in runs for tensor in run.tensors()]
    if len(tensors) == 1:
        return tensors[0]
    # Of more than four dimensions CUDA joins them one by one.
    joined_nchw = torch.cat([each.flatten(1, 2) for each in tensors], dim=1)
    return joined_nchw.view(len(joined_nchw), -1, *tensors[0].shape[2:])
