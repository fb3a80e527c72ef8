"""Layers of several networks side by side, channel by channel, in one tensor.

A stacked layer computes what each of its members would, for all of them at once: a convolution by
groups of channels, a normalisation channel by channel. Its parameters and buffers are named like a
member's, with one more dimension in front.

Legend: n images, s stacked networks, c channels of one of them, sc the channels of all, h height,
w width, k outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_core.stacking.depthwise import convolve
from search_core.stacking.depthwise_form import Depthwise


class StackedConv(nn.Module):
    """Convolutions as the groups of one."""

    def __init__(self, members: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        first = members[0]
        self.weight = nn.Parameter(of_all([member.weight for member in members]))
        biases = [member.bias for member in members if member.bias is not None]
        self.bias = nn.Parameter(of_all(biases)) if biases else None
        self.stride, self.padding, self.dilation = first.stride, first.padding, first.dilation
        self.groups = len(members) * first.groups
        self._depthwise = _depthwise(first)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, s * c_in, h, w] to [n, s * c_out, h', w']."""
        if self._depthwise is not None and x.device.type == "cpu":
            return convolve(x, self.weight.flatten(0, 1), self._depthwise)
        bias = None if self.bias is None else self.bias.flatten()
        return functional.conv2d(
            x,
            self.weight.flatten(0, 1),
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class StackedNorm(nn.Module):
    """Batch normalisations as one over all channels.

    Attributes:
        records: Whether a pass in training mode changes the running statistics.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, members: Sequence[nn.BatchNorm2d]) -> None:
        super().__init__()
        first = members[0]
        assert first.momentum is not None
        self.eps, self.momentum = first.eps, first.momentum
        self.records = True
        for name in ("weight", "bias"):
            values = [getattr(member, name) for member in members]
            self.register_parameter(name, nn.Parameter(of_all(values)) if first.affine else None)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, of_all([getattr(member, name) for member in members]))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises [n, s * c, h, w]."""
        weight, bias = self.weight, self.bias
        return self._normalise(
            x,
            None if weight is None else weight.flatten(),
            None if bias is None else bias.flatten(),
        )

    def scaled(self, x: Tensor, scale_sc: Tensor) -> Tensor:
        """Normalises and multiplies each channel, in the same pass over memory.

        Args:
            x: [n, s * c, h, w].
            scale_sc: The factors.
        """
        weight, bias = self.weight, self.bias
        if weight is None or bias is None:
            return self._normalise(x, scale_sc, None)
        return self._normalise(x, weight.flatten() * scale_sc, bias.flatten() * scale_sc)

    def _normalise(self, x: Tensor, weight_sc: Tensor | None, bias_sc: Tensor | None) -> Tensor:
        known = self.records or not self.training
        return functional.batch_norm(
            x,
            self.running_mean.flatten() if known else None,
            self.running_var.flatten() if known else None,
            weight_sc,
            bias_sc,
            self.training,
            self.momentum,
            self.eps,
        )


class StackedGroupNorm(nn.Module):
    """Group normalisations as one of more groups."""

    def __init__(self, members: Sequence[nn.GroupNorm]) -> None:
        super().__init__()
        self.num_groups = len(members) * members[0].num_groups
        self.eps = members[0].eps
        self.weight = nn.Parameter(of_all([member.weight for member in members]))
        self.bias = nn.Parameter(of_all([member.bias for member in members]))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises [n, s * c, h, w]."""
        return torch.group_norm(
            x, self.num_groups, self.weight.flatten(), self.bias.flatten(), self.eps
        )


class StackedLinear(nn.Module):
    """Linear layers side by side."""

    def __init__(self, members: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(of_all([member.weight for member in members]))
        self.bias = nn.Parameter(of_all([member.bias for member in members]))

    def forward(self, x_nsc: Tensor) -> Tensor:
        """Maps [n, s, c] to [n, s, k]."""
        logits_snk = torch.baddbmm(
            self.bias.unsqueeze(1), x_nsc.transpose(0, 1), self.weight.transpose(1, 2)
        )
        return logits_snk.transpose(0, 1)


def of_all(tensors: Sequence[Tensor]) -> Tensor:
    """The members' tensors as one, with one more dimension in front."""
    return torch.stack([tensor.detach() for tensor in tensors])


def joined(parts: Sequence[Tensor], num_stacked: int) -> Tensor:
    """Concatenates channels, network by network.

    Args:
        parts: Tensors [n, s * c, h, w], whose c may differ.
        num_stacked: Networks.

    Returns:
        [n, s * (sum of all c), h, w], laid out in memory like the parts.
    """
    if all(part.is_contiguous(memory_format=torch.channels_last) for part in parts):
        last = [apart(part.permute(0, 2, 3, 1), 3, num_stacked) for part in parts]
        return torch.cat(last, dim=4).flatten(3).permute(0, 3, 1, 2)
    return torch.cat([apart(part, 1, num_stacked) for part in parts], dim=2).flatten(1, 2)


def apart(x: Tensor, dim: int, num_stacked: int) -> Tensor:
    """A view of x whose channels, at `dim`, are [s, c]."""
    return x.view(*x.shape[:dim], num_stacked, -1, *x.shape[dim + 1 :])


def scaled(x: Tensor, scale_sc: Tensor | None) -> Tensor:
    """Each channel of x [n, s * c, h, w] times its factor."""
    return x if scale_sc is None else scale_sc.view(-1, 1, 1) * x


def _depthwise(layer: nn.Conv2d) -> Depthwise | None:
    """How a depthwise convolution goes that `convolve` knows."""
    alike = [getattr(layer, name) for name in ("stride", "padding", "dilation")]
    square = all(isinstance(each, tuple) and each[0] == each[1] for each in alike)
    if square and layer.groups == layer.in_channels == layer.out_channels and layer.bias is None:
        return Depthwise(*(int(each[0]) for each in alike))
    return None
