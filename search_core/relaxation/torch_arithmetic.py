"""What a grouped plan consists of, in PyTorch's operations.

Legend: n images, k operations, c channels, i channels that come in, o channels that go out, h
height, w width, t sums.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_core.relaxation.works import (
    WIDE,
    Convolution,
    Known,
    Normalisation,
    Part,
    Product,
    Reading,
    Slide,
    Sums,
)


class TorchArithmetic:
    """In PyTorch's own differentiable operations, on any device."""

    def convolve(self, slides: Sequence[Slide], weight_koi: Tensor) -> Tensor:
        """See `Arithmetic`."""
        parts_nchw = [
            torch.conv2d(
                _repeated(part.images_nkchw.flatten(1, 2), len(kernels.weight_c1kk)),
                kernels.weight_c1kk,
                stride=kernels.stride,
                padding=kernels.dilation * (kernels.weight_c1kk.shape[2] // 2),
                dilation=kernels.dilation,
                groups=len(kernels.weight_c1kk),
            )
            for part, kernels in slides
        ]
        joined_nchw = torch.cat(parts_nchw, dim=1) if len(parts_nchw) > 1 else parts_nchw[0]
        shape = (len(joined_nchw), len(weight_koi), -1, *joined_nchw.shape[2:])
        return self.multiply(joined_nchw.view(shape), weight_koi)

    def multiply(self, x_nkihw: Tensor, weight_koi: Tensor) -> Tensor:
        """See `Arithmetic`: one grouped convolution, or a product for each operation and image.

        With few channels in a group, libraries are slow at grouped convolutions, backward above
        all. With many, a product for each image would read more weights than pixels.
        """
        k, o, i = weight_koi.shape
        shape = (k, o, *x_nkihw.shape[3:])
        if k == 1 or min(o, i) >= WIDE:
            weight_oi11 = weight_koi.flatten(0, 1)[:, :, None, None]
            return torch.conv2d(x_nkihw.flatten(1, 2), weight_oi11, groups=k).view(-1, *shape)
        return torch.matmul(weight_koi, x_nkihw.flatten(3)).view(-1, *shape)

    def convolve_all(self, works: Sequence[Convolution | Product]) -> list[Tensor]:
        """See `Arithmetic`: one after the other."""
        return [
            self.convolve(*each) if isinstance(each, Convolution) else self.multiply(*each)
            for each in works
        ]

    def normalise(
        self,
        x_nkchw: Tensor,
        scale_kc: Tensor | None,
        shift_kc: Tensor | None,
        *,
        eps: float,
        rectify: bool = False,
        sums: Sums | None = None,
        factor_k: Tensor | None = None,
        base_ntchw: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Arithmetic`."""
        # Single precision even where the images' is a half one.
        exact = torch.promote_types(x_nkchw.dtype, torch.float32)
        measured_2kc = x_nkchw.new_zeros((2, *x_nkchw.shape[1:3]), dtype=exact)
        result_nchw = functional.batch_norm(
            x_nkchw.flatten(1, 2),
            # With a momentum of 1 the running averages become the batch's own statistics.
            measured_2kc[0].flatten(),
            measured_2kc[1].flatten(),
            *_affine(x_nkchw, scale_kc, shift_kc, factor_k),
            training=True,
            momentum=1.0,
            eps=eps,
        )
        result_nkchw = result_nchw.view(x_nkchw.shape)
        return _followed(result_nkchw, rectify, sums, base_ntchw), measured_2kc

    def normalise_all(self, works: Sequence[Normalisation]) -> list[tuple[Tensor, Tensor]]:
        """See `Arithmetic`: one after the other."""
        return [
            self.normalise(
                each.x_nkchw, each.scale_kc, each.shift_kc, eps=each.eps, rectify=each.rectify,
                sums=each.sums, factor_k=each.factor_k, base_ntchw=each.base_ntchw,
            )
            for each in works
        ]  # fmt: skip

    def normalise_by(self, known: Known, work: Normalisation) -> Tensor:
        """See `Arithmetic`."""
        operations = len(known.mean_kc)
        x_nkchw = work.x_nkchw.repeat(1, operations // work.x_nkchw.shape[1], 1, 1, 1)
        result_nchw = functional.batch_norm(
            x_nkchw.flatten(1, 2),
            known.mean_kc.flatten(),
            known.variance_kc.flatten(),
            *_affine(x_nkchw, work.scale_kc, work.shift_kc, work.factor_k),
            eps=work.eps,
        )
        result_nkchw = result_nchw.view(x_nkchw.shape)
        return _followed(result_nkchw, work.rectify, work.sums, work.base_ntchw)

    def mix(
        self,
        features: Sequence[Part],
        weights_tk: Tensor,
        base_ntchw: Tensor | None = None,
    ) -> Tensor:
        """See `Arithmetic`: one product, which reads each feature once."""
        stacked_nkchw = torch.cat([each.images_nkchw for each in features], dim=1)
        mixed_ntr = torch.matmul(weights_tk.to(stacked_nkchw.dtype), stacked_nkchw.flatten(2))
        shape = (len(mixed_ntr), -1, *stacked_nkchw.shape[2:])
        return _above(base_ntchw, mixed_ntr.view(shape))

    def read(
        self,
        x_nchw: Tensor,
        *,
        rectify: bool,
        pools: Sequence[nn.MaxPool2d | nn.AvgPool2d] = (),
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `Arithmetic`."""
        pooled_nchw = [each(x_nchw) for each in pools]
        return (
            x_nchw,
            x_nchw.relu() if rectify else None,
            torch.stack(pooled_nchw, dim=1) if pooled_nchw else None,
        )

    def read_all(
        self, works: Sequence[Reading]
    ) -> list[tuple[Tensor, Tensor | None, Tensor | None]]:
        """See `Arithmetic`: one after the other."""
        return [self.read(each.x_nchw, rectify=each.rectify, pools=each.pools) for each in works]


def _affine(
    x_nkchw: Tensor, scale_kc: Tensor | None, shift_kc: Tensor | None, factor_k: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Scale and shift of all channels, a factor included."""
    if factor_k is not None:
        factor_kc = factor_k[:, None].expand(-1, x_nkchw.shape[2])
        scale_kc = factor_kc if scale_kc is None else factor_kc * scale_kc
        shift_kc = None if shift_kc is None else factor_kc * shift_kc
    return (
        None if scale_kc is None else scale_kc.flatten(),
        None if shift_kc is None else shift_kc.flatten(),
    )


def _followed(
    x_nkchw: Tensor, rectify: bool, sums: Sums | None, base_ntchw: Tensor | None
) -> Tensor:
    """Rectified or added up."""
    if rectify:
        x_nkchw = x_nkchw.relu()
    if sums is None:
        return x_nkchw
    totals_nchw = [
        # Autocast would have a sum in single precision if it did not say what it is in.
        x_nkchw[:, list(members)].sum(dim=1, dtype=x_nkchw.dtype)
        for members in sums
    ]
    return _above(base_ntchw, torch.stack(totals_nchw, dim=1))


def _repeated(x_nchw: Tensor, channels: int) -> Tensor:
    times = channels // x_nchw.shape[1]
    return x_nchw.repeat(1, times, 1, 1) if times > 1 else x_nchw


def _above(base: Tensor | None, x: Tensor) -> Tensor:
    return x if base is None else base + x
