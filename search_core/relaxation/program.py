"""A sum of operations for images of one size, computed forward and backward by kernels.

Only what each pointwise convolution puts out is kept for the backward pass; the rest is computed
again. Normalisations are not applied but folded into what follows.

Legend: s stages, t terms (the features, then the chains), g groups of images, l lanes.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_core.relaxation import parallel
from search_core.relaxation.kernels import chains, jobs, sum_jobs
from search_core.relaxation.passes import Gradients, Inputs, Kept, Needs
from search_core.relaxation.room import buffer, large_pages
from search_core.relaxation.tables import Tables


class Program:
    """A sum for images of one size.

    Args:
        tables: What is computed, laid out.

    Attributes:
        form: What is computed.
        targets: The targets, ascending.
        counts: Values of a channel behind each stage.
    """

    def __init__(self, tables: Tables) -> None:
        self.form = tables.form
        self._tables = tables
        self._empty = torch.empty(0, dtype=tables.dtype)
        self._free: list[Tensor] = []
        self.targets = sorted(self._tables.totals)
        self.counts = self._tables.counts
        # By what is asked for, which is the same in most passes.
        self._differentiable: dict[tuple[bool, ...], frozenset[int]] = {}
        self._needed: dict[tuple[bool, ...], list[bool]] = {}

    def forward(
        self, multipliers: Sequence[float], inputs: Inputs
    ) -> tuple[dict[int, Tensor], Kept]:
        """Computes the targets.

        Args:
            multipliers: [t].
            inputs: What they are computed of.

        Returns:
            The targets, and what a backward pass needs.
        """
        kept = self._room()
        table_s = self._stages(kept, inputs)
        multipliers_t = np.array(multipliers, np.float64)

        shares = parallel.shares(self._tables.costs)
        parts = [self._room_for_totals(share, inputs) for share in shares]

        self._run(parts, table_s, multipliers_t, None)
        return parallel.added([part.tensors for part in parts]), kept

    def backward(
        self,
        d_totals: dict[int, Tensor],
        kept: Kept,
        multipliers: Sequence[float],
        inputs: Inputs,
        needs: Needs,
    ) -> Gradients:
        """Computes the gradients.

        Args:
            d_totals: Of the targets, contiguous.
            kept: What the forward pass kept.
            multipliers: [t].
            inputs: As they were.
            needs: Which gradients are needed.

        Returns:
            The gradients.
        """
        tables = self._tables
        table_s = self._stages(kept, inputs)
        d_weights = self._empty.new_empty(tables.num_gradients)
        tables.put_gradients(table_s, d_weights.data_ptr())
        multipliers_t = np.array(multipliers, np.float64)
        d_multipliers_t = np.zeros(len(multipliers), np.float64)
        d_features = [
            torch.empty_like(feature) if needed and source is None else None
            for feature, needed, source in zip(
                inputs.features, needs.features, inputs.same, strict=True
            )
        ]

        shares = parallel.shares(tables.costs)
        parts = [self._room_for_gradients(share, inputs, needs) for share in shares]
        for part in parts:
            for t, d_feature in enumerate(d_features):
                if d_feature is not None:
                    part.table_t[t, chains.D_SOURCE] = d_feature.data_ptr()
                    part.table_t[t, chains.FIRST_OF_D_SOURCE] = True
            for t in part.terms:
                part.table_t[t, chains.D_TOTAL] = d_totals[tables.targets[t]].data_ptr()

        self._run(parts, table_s, multipliers_t, d_multipliers_t)
        # Each part has added up the sources' gradients by itself, and always in the same order.
        d_sources = parallel.added([part.tensors for part in parts])
        return Gradients(
            d_multipliers_t.tolist(),
            d_features,
            [d_sources.get(index) for index in range(len(inputs.sources))],
            [
                d_weights.as_strided(shape, stride, first) if needed else None
                for needed, (shape, stride, first) in zip(
                    needs.weights, tables.weights, strict=True
                )
            ],
        )

    def measured(self, kept: Kept) -> list[tuple[Tensor, Tensor]]:
        """Mean and biased variance of every stage's output.

        Args:
            kept: What a forward pass kept.
        """
        rows = torch.split(kept.statistics, self._tables.rows)
        return list(zip(rows[::4], rows[1::4], strict=True))

    def differentiable(self, needs_multipliers: bool, needs: Needs) -> frozenset[int]:
        """The targets that depend on something whose gradient is needed.

        Args:
            needs_multipliers: Whether those of the multipliers are.
            needs: Which others are.
        """
        key = (needs_multipliers, *needs.features, *needs.sources, *needs.weights)
        if key not in self._differentiable:
            of_chains = zip(
                self.form.chains, self._needed_by_chains(tuple(needs.weights)), strict=True
            )
            self._differentiable[key] = frozenset(
                [
                    target
                    for target, needed in zip(self.form.features, needs.features, strict=True)
                    if needs_multipliers or needed
                ]
                + [
                    chain.target
                    for chain, needed in of_chains
                    if needs_multipliers or needs.sources[chain.source] or needed
                ]
            )
        return self._differentiable[key]

    def _room(self) -> Kept:
        """Memory for what is kept; that of a pass that nobody needs any more, if there is one.

        Fresh memory of this size would be mapped page by page in every step.
        """
        outputs = (
            self._free.pop()
            if self._free
            else large_pages(self._tables.outputs[-1], self._empty.numpy().dtype)
        )
        kept = Kept(outputs, self._empty.new_empty(self._tables.statistics[-1]))
        weakref.finalize(kept, self._free.append, outputs).atexit = False
        return kept

    def _stages(self, kept: Kept, inputs: Inputs) -> Any:
        return self._tables.of_stages(
            _addresses(inputs.weights),
            _addresses(inputs.sources),
            kept.outputs.data_ptr(),
            kept.statistics.data_ptr(),
        )

    def _run(
        self, parts: Sequence["_Part"], table_s: Any, multipliers_t: Any, d_multipliers_t: Any
    ) -> None:
        """Computes all parts, backward if there is a place for the multipliers' gradients."""
        tables, item = self._tables, self._empty.element_size()
        scratch = buffer("scratch", len(parts) * tables.scratch, self._empty)
        buffers = buffer("gradients", len(parts) * 2 * tables.largest, self._empty)
        job = [0] * jobs.COLUMNS
        job[sum_jobs.STAGES], job[sum_jobs.NUM_STAGES] = table_s.ctypes.data, len(table_s)
        job[sum_jobs.EPS] = tables.eps_s.ctypes.data
        job[sum_jobs.MULTIPLIERS] = multipliers_t.ctypes.data
        job[sum_jobs.SCRATCH], job[sum_jobs.SCRATCH_SIZE] = scratch.ctypes.data, tables.scratch
        job[sum_jobs.BUFFERS], job[sum_jobs.LARGEST] = buffers.ctypes.data, tables.largest
        work = sum_jobs.FORWARD
        if d_multipliers_t is not None:
            work = sum_jobs.BACKWARD
            job[sum_jobs.D_MULTIPLIERS] = d_multipliers_t.ctypes.data
        job[jobs.WORK] = work.address(item)
        table: list[int] = []
        for part in parts:
            job[sum_jobs.TERMS], job[sum_jobs.NUM_TERMS] = (
                part.table_t.ctypes.data,
                len(part.table_t),
            )
            job[sum_jobs.CHOSEN], job[sum_jobs.NUM_CHOSEN] = part.terms.ctypes.data, len(part.terms)
            table += job
            job[sum_jobs.SCRATCH] += tables.scratch * item
            job[sum_jobs.BUFFERS] += 2 * tables.largest * item
        parallel.run(jobs.worker().address, table, len(parts))

    def _needed_by_chains(self, of_weights: tuple[bool, ...]) -> list[bool]:
        """Of which chains the gradient of any weight is needed."""
        if of_weights not in self._needed:
            found, first = [], 0
            for chain in self.form.chains:
                found.append(any(of_weights[first : first + chain.num_weights]))
                first += chain.num_weights
            self._needed[of_weights] = found
        return self._needed[of_weights]

    def _room_for_totals(self, share: Sequence[int], inputs: Inputs) -> "_Part":
        """Some terms, with room for what they add up to."""
        table_t, totals = self._tables.of_terms(_addresses(inputs.features)), {}
        for t in share:
            target = self._tables.targets[t]
            if target not in totals:
                totals[target] = self._empty.new_empty(self._tables.totals[target])
                table_t[t, chains.FIRST_OF_TOTAL] = True
            table_t[t, chains.TOTAL] = totals[target].data_ptr()
        return _Part(np.array(share, np.int64), table_t, totals)

    def _room_for_gradients(self, share: Sequence[int], inputs: Inputs, needs: Needs) -> "_Part":
        """Some terms, with room for the gradients of their sources."""
        table_t = self._tables.of_terms(_addresses(inputs.features))
        found: dict[int, Tensor] = {}
        needed = self._needed_by_chains(tuple(needs.weights))
        for t in share:
            index = t - len(inputs.features)
            if index < 0:
                source = inputs.same[t]
            else:
                table_t[t, chains.NEEDS_WEIGHTS] = needed[index]
                source = self.form.chains[index].source
            if source is not None and needs.sources[source]:
                if source not in found:
                    found[source] = torch.empty_like(inputs.sources[source])
                    table_t[t, chains.FIRST_OF_D_SOURCE] = True
                table_t[t, chains.D_SOURCE] = found[source].data_ptr()
        return _Part(np.array(share, np.int64), table_t, found)


@dataclass(frozen=True)
class _Part:
    """The terms that one thread computes.

    Attributes:
        terms: Their indices.
        table_t: A table of all terms, with the addresses that these need.
        tensors: What they add to.
    """

    terms: Any
    table_t: Any
    tensors: dict[int, Tensor]


def _addresses(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
