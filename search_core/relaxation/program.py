"""A sum of operations for images of one size: the tables that kernels follow.

Only what each pointwise convolution puts out is kept for the backward pass; the rest is computed
again. Normalisations are not applied but folded into what follows.

Legend: s stages, t terms (the features, then the chains), g groups of images, l lanes.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_core.relaxation import parallel
from search_core.relaxation.forms import Form
from search_core.relaxation.kernels import chains, stages
from search_core.relaxation.kernels.compiling import LANES
from search_core.relaxation.lanes import Numbers, constants


@dataclass(frozen=True)
class Kept:
    """What a backward pass needs of a forward pass.

    Attributes:
        outputs: Of all stages.
        statistics: Mean and biased variance, then scale and shift, of each stage.
    """

    outputs: Tensor
    statistics: Tensor


@dataclass(frozen=True)
class Gradients:
    """What a backward pass finds.

    Attributes:
        multipliers: [t].
        features: None where they are not needed.
        sources: Likewise.
        weights: Likewise.
    """

    multipliers: list[float]
    features: list[Tensor | None]
    sources: list[Tensor | None]
    weights: list[Tensor | None]


class Program:
    """The tables of a sum.

    Args:
        form: What is computed.
        images: How many there are.
        features: Shapes of the features, [g, c, h, w, l].
        sources: Shapes of the sources.
        dtype: Of all tensors.

    Attributes:
        totals: Shapes of the targets.
        counts: Values of a channel behind each stage.
    """

    def __init__(
        self,
        form: Form,
        images: int,
        features: Sequence[Sequence[int]],
        sources: Sequence[Sequence[int]],
        dtype: torch.dtype,
    ) -> None:
        self._form = form
        self._dtype = dtype
        self._item = torch.empty(0, dtype=dtype).element_size()
        self._sources = [tuple(shape) for shape in sources]
        self.totals: dict[int, tuple[int, ...]] = {}
        self.counts: list[int] = []
        self._costs: list[float] = []
        # Where each chain's first stage is, and how many it has.
        self._spans: list[tuple[int, int]] = []
        rows: list[dict[int, int]] = []
        terms: list[dict[int, int]] = []
        for target, shape in zip(form.features, features, strict=True):
            size = int(np.prod(shape))
            self.totals.setdefault(target, tuple(shape))
            terms.append({chains.SIZE: size})
            self._costs.append(size)
        weights = constant = 0
        # Weights by stage: indices into the addresses of all, with the constants behind them.
        self._addressed: dict[int, list[int]] = {
            column: [] for column in (chains.KERNELS, chains.WEIGHTS, chains.SCALE, chains.SHIFT)
        }
        num_weights = sum(chain.num_weights for chain in form.chains)
        self._constants: list[Numbers] = []
        self._outputs: list[int] = [0]
        self._statistics: list[int] = [0]
        self._scratch = self._largest = 0
        self._eps: list[float] = []
        self._shapes: list[tuple[int, ...]] = []
        self._gradients: dict[int, list[int]] = {
            column: [] for column in (chains.D_KERNELS, chains.D_WEIGHTS, chains.D_NORM)
        }
        self._where: list[tuple[int, int]] = []
        gradient = 0
        for chain in form.chains:
            groups, _, height, width, _ = sources[chain.source]
            self._spans.append((len(rows), len(chain.stages)))
            terms.append({chains.FIRST: len(rows), chains.NUMBER: len(chain.stages)})
            cost = 0.0
            for index, stage in enumerate(chain.stages):
                mode = stages.NORMALISED
                if not index:
                    mode = stages.RECTIFIED if chain.rectified else stages.AS_IS
                rows.append(
                    {
                        chains.IMAGES: images,
                        chains.INS: stage.ins,
                        chains.OUTS: stage.outs,
                        chains.HEIGHT: height,
                        chains.WIDTH: width,
                        chains.KERNEL: stage.kernel,
                        chains.STRIDE: stage.stride,
                        chains.DILATION: stage.dilation,
                        chains.MODE: mode,
                    }
                )
                self._eps.append(stage.eps)
                self._scratch = max(
                    self._scratch,
                    stages.scratch_size(
                        stage.ins, stage.outs, width, stage.kernel, stage.stride, stage.dilation
                    ),
                )
                size = groups * LANES * height * width
                if index:
                    self._largest = max(self._largest, size * stage.ins)
                height, width = -(-height // stage.stride), -(-width // stage.stride)
                cost += groups * LANES * height * width * stage.ins * (stage.kernel**2 + stage.outs)
                self.counts.append(images * height * width)
                self._outputs.append(
                    self._outputs[-1] + groups * LANES * height * width * stage.outs
                )
                self._statistics.append(self._statistics[-1] + 4 * stage.outs)
                # Weights, and where their gradients go, in the order of the tensors.
                of_kernels = stage.ins * stage.kernel**2
                of_weights, of_norm = stage.ins * stage.outs, 2 * stage.outs
                self._gradients[chains.D_KERNELS].append(gradient)
                self._gradients[chains.D_WEIGHTS].append(gradient + of_kernels)
                self._gradients[chains.D_NORM].append(gradient + of_kernels + of_weights)
                if stage.kernel:
                    self._addressed[chains.KERNELS].append(weights)
                    self._shapes.append((stage.ins, 1, stage.kernel, stage.kernel))
                    self._where.append((gradient, of_kernels))
                    weights += 1
                else:
                    self._addressed[chains.KERNELS].append(weights)
                self._addressed[chains.WEIGHTS].append(weights)
                self._shapes.append((stage.outs, stage.ins, 1, 1))
                self._where.append((gradient + of_kernels, of_weights))
                weights += 1
                if stage.affine:
                    for column in (chains.SCALE, chains.SHIFT):
                        self._addressed[column].append(weights)
                        self._shapes.append((stage.outs,))
                        self._where.append(
                            (
                                gradient
                                + of_kernels
                                + of_weights
                                + (column == chains.SHIFT) * stage.outs,
                                stage.outs,
                            )
                        )
                        weights += 1
                else:
                    for column, values in zip(
                        (chains.SCALE, chains.SHIFT), constants(stage.outs, dtype), strict=True
                    ):
                        self._addressed[column].append(num_weights + constant)
                        self._constants.append(values)
                        constant += 1
                gradient += of_kernels + of_weights + of_norm
            self._costs.append(cost)
            self.totals.setdefault(
                chain.target, (groups, chain.stages[-1].outs, height, width, LANES)
            )
        self._num_gradients = gradient
        self._stage_table = _table(rows, chains.STAGE_COLUMNS)
        self._term_table = _table(terms, chains.TERM_COLUMNS)
        self._eps_s = np.array(self._eps, np.float64)
        self._constant_addresses = [values.ctypes.data for values in self._constants]

    def forward(
        self,
        multipliers: Sequence[float],
        features: Sequence[Tensor],
        sources: Sequence[Tensor],
        weights: Sequence[Tensor],
    ) -> tuple[dict[int, Tensor], Kept]:
        """Computes the targets.

        Args:
            multipliers: [t].
            features: Contiguous.
            sources: Contiguous.
            weights: Contiguous.

        Returns:
            The targets, and what a backward pass needs.
        """
        kept = Kept(
            torch.empty(self._outputs[-1], dtype=self._dtype),
            torch.empty(self._statistics[-1], dtype=self._dtype),
        )
        table_s = self._stages(kept, sources, weights)
        multipliers_t = np.array(multipliers, np.float64)

        def compute(share: Sequence[int]) -> dict[int, Tensor]:
            table_t = self._terms(features)
            totals = self._spread(table_t, share, chains.TOTAL)
            chains.forward(
                table_s, self._eps_s, table_t, multipliers_t, np.array(share),
                _buffer("scratch", max(self._scratch, LANES), self._dtype),
            )  # fmt: skip
            return totals

        parts = parallel.each(compute, parallel.shares(self._costs))
        return parallel.added(parts), kept

    def backward(
        self,
        d_totals: dict[int, Tensor],
        kept: Kept,
        multipliers: Sequence[float],
        features: Sequence[Tensor],
        sources: Sequence[Tensor],
        weights: Sequence[Tensor],
        needs_features: Sequence[bool],
        needs_sources: Sequence[bool],
        needs_weights: Sequence[bool],
    ) -> Gradients:
        """Computes the gradients.

        Args:
            d_totals: Of the targets, contiguous.
            kept: What the forward pass kept.
            multipliers: [t].
            features: As they were.
            sources: Likewise.
            weights: Likewise.
            needs_features: Which features' gradients are needed.
            needs_sources: Likewise.
            needs_weights: Likewise.

        Returns:
            The gradients.
        """
        table_s = self._stages(kept, sources, weights)
        multipliers_t = np.array(multipliers, np.float64)
        d_multipliers_t = np.zeros(len(multipliers), np.float64)
        d_features = [
            torch.empty_like(feature) if needed else None
            for feature, needed in zip(features, needs_features, strict=True)
        ]
        d_weights = torch.empty(self._num_gradients, dtype=self._dtype)
        for column, offsets in self._gradients.items():
            table_s[:, column] = d_weights.data_ptr() + self._item * np.array(offsets, np.int64)
        needed_by_chain = self._by_chain(needs_weights)
        targets = [*self._form.features, *(chain.target for chain in self._form.chains)]

        def compute(share: Sequence[int]) -> dict[int, Tensor]:
            table_t = self._terms(features)
            d_sources: dict[int, Tensor] = {}
            for t in share:
                table_t[t, chains.D_TOTAL] = d_totals[targets[t]].data_ptr()
                if t < len(features):
                    d_feature = d_features[t]
                    if d_feature is not None:
                        table_t[t, chains.D_FEATURE] = d_feature.data_ptr()
                    continue
                chain = t - len(features)
                table_t[t, chains.NEEDS_WEIGHTS] = needed_by_chain[chain]
                source = self._form.chains[chain].source
                if needs_sources[source]:
                    if source not in d_sources:
                        d_sources[source] = torch.zeros(self._sources[source], dtype=self._dtype)
                    table_t[t, chains.D_SOURCE] = d_sources[source].data_ptr()
            largest = max(self._largest, LANES)
            chains.backward(
                table_s, self._eps_s, table_t, multipliers_t, np.array(share),
                _buffer("gradients", 2 * largest, self._dtype)[: 2 * largest].reshape(2, largest),
                _buffer("scratch", max(self._scratch, LANES), self._dtype), d_multipliers_t,
            )  # fmt: skip
            return d_sources

        parts = parallel.each(compute, parallel.shares(self._costs))
        d_sources = parallel.added(parts)
        return Gradients(
            d_multipliers_t.tolist(),
            d_features,
            [d_sources.get(index) for index in range(len(sources))],
            [
                d_weights[start : start + size].view(shape) if needed else None
                for needed, shape, (start, size) in zip(
                    needs_weights, self._shapes, self._where, strict=True
                )
            ],
        )

    def measured(self, kept: Kept) -> list[tuple[Tensor, Tensor]]:
        """Mean and biased variance of every stage's output.

        Args:
            kept: What a forward pass kept.
        """
        found = []
        for start, end in zip(self._statistics[:-1], self._statistics[1:], strict=True):
            outs = (end - start) // 4
            found.append(
                (
                    kept.statistics[start : start + outs],
                    kept.statistics[start + outs : start + 2 * outs],
                )
            )
        return found

    def _stages(self, kept: Kept, sources: Sequence[Tensor], weights: Sequence[Tensor]) -> Any:
        table = self._stage_table.copy()
        item = self._item
        outputs = kept.outputs.data_ptr() + item * np.array(self._outputs[:-1], np.int64)
        table[:, chains.OUTPUT] = outputs
        table[1:, chains.INPUT] = outputs[:-1]
        for chain, (first, _) in zip(self._form.chains, self._spans, strict=True):
            table[first, chains.INPUT] = sources[chain.source].data_ptr()
        statistics = kept.statistics.data_ptr() + item * np.array(self._statistics[:-1], np.int64)
        table[:, chains.STATISTICS] = statistics
        table[:, chains.FOLDED] = statistics + 2 * item * table[:, chains.OUTS]
        addresses = np.array(
            [*(weight.data_ptr() for weight in weights), *self._constant_addresses], np.int64
        )
        for column, indices in self._addressed.items():
            table[:, column] = addresses[indices]
        return table

    def _terms(self, features: Sequence[Tensor]) -> Any:
        table = self._term_table.copy()
        for t, feature in enumerate(features):
            table[t, chains.FEATURE] = feature.data_ptr()
        return table

    def _spread(self, table_t: Any, share: Sequence[int], column: int) -> dict[int, Tensor]:
        """Makes room for the targets of some terms."""
        found: dict[int, Tensor] = {}
        targets = [*self._form.features, *(chain.target for chain in self._form.chains)]
        for t in share:
            target = targets[t]
            if target not in found:
                found[target] = torch.zeros(self.totals[target], dtype=self._dtype)
            table_t[t, column] = found[target].data_ptr()
        return found

    def _by_chain(self, needed: Sequence[bool]) -> list[bool]:
        found, first = [], 0
        for chain in self._form.chains:
            found.append(any(needed[first : first + chain.num_weights]))
            first += chain.num_weights
        return found


def _table(rows: Sequence[dict[int, int]], columns: int) -> Any:
    table = np.zeros((len(rows), columns), np.int64)
    for index, row in enumerate(rows):
        for column, value in row.items():
            table[index, column] = value
    return table


_thread = threading.local()


def _buffer(name: str, size: int, dtype: torch.dtype) -> Numbers:
    """Memory of this thread for what is not needed for long: at least so many numbers."""
    buffers: dict[Any, Numbers] = _thread.__dict__.setdefault("buffers", {})
    known = buffers.get((name, dtype))
    if known is None or known.size < size:
        known = buffers[name, dtype] = torch.empty(size, dtype=dtype).numpy()
    return known
