"""What is computed for images of one size, laid out in tables and in memory.

Legend: s stages, t terms (the features, then the chains), g groups of images, l lanes.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch

from search_core.relaxation.forms import ChainForm, Form, StageForm
from search_core.relaxation.kernels import chains, rings
from search_core.relaxation.kernels.compiling import LANES
from search_core.relaxation.lanes import constants

# What kernels take for a number that they read or write and for a product of a depthwise
# convolution, in products of a pointwise one; fitted to a step of each space.
_NUMBER: Final = 15.0
_TAP: Final = 1.5
_FEATURE: Final = 8.0
"""Likewise for a number of a feature, which is only multiplied and added."""


class Tables:
    """The tables of a sum, with everything but addresses.

    Args:
        form: What is computed.
        images: How many there are.
        features: Shapes of the features, [g, c, h, w, l].
        sources: Shapes of the sources.
        dtype: Of all tensors.

    Attributes:
        form: What is computed.
        dtype: Of all tensors.
        totals: Shapes of the targets.
        targets: The target of every term.
        costs: What every term costs; only ratios mean something.
        counts: Values of a channel behind each stage.
        eps_s: Epsilon of every stage's normalisation.
        outputs: Where each stage's output begins in memory, in numbers, and where the last ends.
        statistics: Where its four rows of statistics do.
        rows: How many numbers each row of every stage's statistics is.
        weights: Shape and strides of each weight's gradient, and where it begins, in numbers.
        num_gradients: Numbers of all of these.
        scratch: Numbers of scratch that any stage needs.
        largest: Numbers of the largest input of a stage that is no first one.
    """

    def __init__(
        self,
        form: Form,
        images: int,
        features: Sequence[Sequence[int]],
        sources: Sequence[Sequence[int]],
        dtype: torch.dtype,
    ) -> None:
        self.form = form
        self.dtype = dtype
        self.totals: dict[int, tuple[int, ...]] = {}
        self.targets = [*form.features, *(chain.target for chain in form.chains)]
        costs: list[float] = []
        self.counts: list[int] = []
        self.outputs, self.statistics = [0], [0]
        self.rows: list[int] = []
        self.weights: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []
        self.num_gradients = 0
        self.scratch = self.largest = LANES
        self._stages: list[dict[int, int]] = []
        self._eps: list[float] = []
        self._terms: list[dict[int, int]] = []
        # Of each stage, the indices of its weights among all, with the constants behind them.
        self._addressed: dict[int, list[int]] = {
            column: [] for column in (chains.KERNELS, chains.WEIGHTS, chains.SCALE, chains.SHIFT)
        }
        self._gradients: dict[int, list[int]] = {
            column: [] for column in (chains.D_KERNELS, chains.D_WEIGHTS, chains.D_NORM)
        }
        self._num_weights = sum(chain.num_weights for chain in form.chains)
        self._constants: list[int] = []
        for target, shape in zip(form.features, features, strict=True):
            size = int(np.prod(shape))
            self.totals.setdefault(target, tuple(shape))
            self._terms.append({chains.SIZE: size})
            costs.append(_FEATURE * size)
        costs += [self._add(chain, images, sources[chain.source]) for chain in form.chains]
        self.costs = tuple(costs)
        self.eps_s = np.array(self._eps, np.float64)
        self._stage_table = _table(self._stages, chains.STAGE_COLUMNS)
        self._term_table = _table(self._terms, chains.TERM_COLUMNS)
        # What a table is filled with in every pass: indices, and places in bytes.
        self._weight_indices = _columns(self._addressed)
        self._gradient_places = dtype.itemsize * _columns(self._gradients)
        self._output_places = dtype.itemsize * np.array(self.outputs[:-1], np.int64)
        self._statistic_places = dtype.itemsize * np.array(self.statistics[:-1], np.int64)
        self._folded_places = self._statistic_places + (
            2 * dtype.itemsize * self._stage_table[:, chains.OUTS]
        )
        chain_terms = self._terms[len(form.features) :]
        self._first_stages = np.array([term[chains.FIRST] for term in chain_terms], np.int64)
        self._sources = np.array([chain.source for chain in form.chains], np.int64)

    def of_stages(
        self, weights: Sequence[int], sources: Sequence[int], outputs: int, statistics: int
    ) -> Any:
        """A table of the stages with addresses, [s, STAGE_COLUMNS].

        Args:
            weights: The weights' addresses.
            sources: The sources'.
            outputs: Where the stages' outputs begin.
            statistics: Where their statistics do.
        """
        table = self._stage_table.copy()
        addresses = np.array([*weights, *self._constants], np.int64)
        table[:, list(self._addressed)] = addresses[self._weight_indices]
        table[:, chains.OUTPUT] = outputs + self._output_places
        table[1:, chains.INPUT] = table[:-1, chains.OUTPUT]
        table[self._first_stages, chains.INPUT] = np.array(sources, np.int64)[self._sources]
        table[:, chains.STATISTICS] = statistics + self._statistic_places
        table[:, chains.FOLDED] = statistics + self._folded_places
        return table

    def of_terms(self, features: Sequence[int]) -> Any:
        """A table of the terms with addresses, [t, TERM_COLUMNS].

        Args:
            features: The features' addresses.
        """
        table = self._term_table.copy()
        table[: len(features), chains.FEATURE] = features
        return table

    def put_gradients(self, table_s: Any, address: int) -> None:
        """Puts the addresses of the weights' gradients into a table of stages.

        Args:
            table_s: The table.
            address: Where the gradients begin.
        """
        table_s[:, list(self._gradients)] = address + self._gradient_places

    def _add(self, chain: ChainForm, images: int, source: Sequence[int]) -> float:
        """Lays out an operation; returns what it costs."""
        groups, _, height, width, _ = source
        self._terms.append({chains.FIRST: len(self._stages), chains.NUMBER: len(chain.stages)})
        cost = 0.0
        mode = rings.RECTIFIED if chain.rectified else rings.AS_IS
        for stage in chain.stages:
            sizes = rings.Sizes(
                images,
                stage.ins,
                stage.outs,
                height,
                width,
                stage.kernel,
                stage.stride,
                stage.dilation,
            )
            self._stages.append({**dict(enumerate(sizes)), chains.MODE: mode})
            self._eps.append(stage.eps)
            self.scratch = max(self.scratch, rings.scratch_size(sizes))
            if mode == rings.NORMALISED:
                self.largest = max(self.largest, groups * LANES * height * width * stage.ins)
            cost += _NUMBER * groups * LANES * height * width * stage.ins
            height, width = -(-height // stage.stride), -(-width // stage.stride)
            pixels = groups * LANES * height * width
            cost += pixels * stage.ins * (_TAP * stage.kernel**2 + stage.outs)
            cost += _NUMBER * pixels * stage.outs
            self.counts.append(images * height * width)
            self.outputs.append(self.outputs[-1] + pixels * stage.outs)
            self.statistics.append(self.statistics[-1] + 4 * stage.outs)
            self.rows += 4 * [stage.outs]
            self._add_weights(stage)
            mode = rings.NORMALISED
        shape = (groups, chain.stages[-1].outs, height, width, LANES)
        self.totals.setdefault(chain.target, shape)
        return cost

    def _add_weights(self, stage: StageForm) -> None:
        """Gives every weight an index, and its gradient a place."""
        kernels, weights = stage.ins * stage.kernel**2, stage.ins * stage.outs
        first = self.num_gradients
        self._gradients[chains.D_KERNELS].append(first)
        self._gradients[chains.D_WEIGHTS].append(first + kernels)
        self._gradients[chains.D_NORM].append(first + kernels + weights)
        self._addressed[chains.KERNELS].append(len(self.weights))
        if stage.kernel:
            self._add_weight((stage.ins, 1, stage.kernel, stage.kernel), first)
        self._addressed[chains.WEIGHTS].append(len(self.weights))
        self._add_weight((stage.outs, stage.ins, 1, 1), first + kernels)
        for number, (column, values) in enumerate(
            zip((chains.SCALE, chains.SHIFT), constants(stage.outs, self.dtype), strict=True)
        ):
            if stage.affine:
                self._addressed[column].append(len(self.weights))
                self._add_weight((stage.outs,), first + kernels + weights + number * stage.outs)
            else:
                self._addressed[column].append(self._num_weights + len(self._constants))
                self._constants.append(values.ctypes.data)
        self.num_gradients += kernels + weights + 2 * stage.outs

    def _add_weight(self, shape: tuple[int, ...], gradient: int) -> None:
        self.weights.append((shape, torch.empty(shape, device="meta").stride(), gradient))


def _columns(columns: dict[int, list[int]]) -> Any:
    """A row of numbers for each stage, in the order of the columns."""
    return np.array([*columns.values()], np.int64).T


def _table(rows: Sequence[dict[int, int]], columns: int) -> Any:
    table = np.zeros((len(rows), columns), np.int64)
    for index, row in enumerate(rows):
        for column, value in row.items():
            table[index, column] = value
    return table
