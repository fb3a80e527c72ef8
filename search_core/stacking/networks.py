"""Puts supernets of several seeds side by side, and their images.

Legend: n images, s stacked networks, c channels of one of them, h height, w width.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from search_core.cuboid_supernet import CuboidSupernet
from search_core.stacking.cells import StackedCells
from search_core.stacking.cuboids import StackedCuboid
from search_core.stacking.supernet import StackedSupernet
from search_core.supernet import CellSupernet, Supernet

FORMS: Final[dict[type[Supernet], Callable[[Any], StackedSupernet]]] = {
    CellSupernet: StackedCells,
    CuboidSupernet: StackedCuboid,
}
"""The stacked form of every supernet that has one."""


def has_form(network: Supernet) -> bool:
    """Whether there is a stacked form of such networks."""
    return type(network) in FORMS


def stack_supernets(members: Sequence[Supernet]) -> StackedSupernet:
    """Puts supernets side by side; see `StackedSupernet`.

    Args:
        members: Supernets of one spec, on one device.

    Returns:
        The network; it shares its parameters and buffers with them.

    Raises:
        ValueError: There is no stacked form of such networks.
    """
    form = FORMS.get(type(members[0]))
    if form is None:
        raise ValueError(
            f"there is no stacked form of {type(members[0]).__name__}: train its seeds one after "
            "the other"
        )
    stacked = form(members)
    _share(stacked, members)
    return stacked


@torch.no_grad()
def _share(stacked: StackedSupernet, members: Sequence[Supernet]) -> None:
    """Makes the members' parameters and buffers views of the stacked ones."""
    tensors = {**dict(stacked.named_parameters()), **dict(stacked.named_buffers())}
    # In the same order too, so that optimizers count the same parameters alike.
    names = [[name for name, _ in each.named_parameters()] for each in (stacked, members[0])]
    assert names[0] == names[1]
    for index, member in enumerate(members):
        own = {**dict(member.named_parameters()), **dict(member.named_buffers())}
        for name, tensor in tensors.items():
            own[name].data = tensor.data[index]


def images_of(batches: Sequence[Tensor]) -> Tensor:
    """The images of all networks side by side, in the layout that the device is fastest with.

    Args:
        batches: [n, c, h, w] of each network.

    Returns:
        [n, s * c, h, w].
    """
    together = torch.cat(list(batches), dim=1)
    if together.device.type == "cpu":
        # Depthwise convolutions and pools of a CPU are several times faster so.
        return together.contiguous(memory_format=torch.channels_last)
    return together
