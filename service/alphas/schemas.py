"""What the API says about the alphas of a trial."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Self
from uuid import UUID

from search_core.alpha_labels import Label, TableLabels, alpha_labels
from search_core.spec import SearchSpec
from service.schema_base import Answer
from store.models import Alphas, Trial

_COLUMNS = ("step", "group", "row", "column", "weight")


class LabelAnswer(Answer):
    """What a row or a column of a table stands for."""

    text: str
    """For people."""
    facts: dict[str, Any]
    """The same for programs: of a cell's edge `node` and `source`, where 0 and 1 are the cell's
    inputs and 2 + i is node i; of a primitive `primitive`; of a position `level` and `stride`; of
    an operation `in_channels`, `out_channels`, `operation` and `settings`."""

    @classmethod
    def of(cls, label: Label) -> Self:
        """The answer about a label."""
        return cls(text=label.text, facts=dict(label.facts))


class AlphaGroup(Answer):
    """One table of a space: each row is a choice to make, each column a candidate for it."""

    rows: Sequence[LabelAnswer]
    """The edges of a cell, or the positions of a hypercuboid."""
    columns: Sequence[LabelAnswer]
    """The primitives, or the operations of a position."""

    @classmethod
    def of(cls, labels: TableLabels) -> Self:
        """The answer about a group's labels."""
        return cls(
            rows=[LabelAnswer.of(label) for label in labels.rows],
            columns=[LabelAnswer.of(label) for label in labels.columns],
        )


class AlphaTables(Answer):
    """The weights after an epoch."""

    step: int
    """The epoch, from 1."""
    weights: dict[str, list[list[float]]]
    """By group, row by row: the softmaxed alphas, so that each row adds up to 1."""


class AlphaSeries(Answer):
    """What the candidates of a trial weigh, epoch by epoch."""

    trial_id: UUID
    """The trial."""
    last_step: int
    """Its last completed epoch: there is more where the last item's step is smaller."""
    groups: dict[str, AlphaGroup]
    """`normal` and `reduce` of cells, or `cuboid`: what rows and columns stand for."""
    items: Sequence[AlphaTables]
    """At most `limit` epochs, in their order."""

    @classmethod
    def of(cls, trial: Trial, spec: SearchSpec, tables: Sequence[Alphas]) -> Self:
        """The answer about rows, which come by step."""
        return cls(
            trial_id=trial.id,
            last_step=trial.epoch,
            groups={
                name: AlphaGroup.of(labels) for name, labels in alpha_labels(spec.space).items()
            },
            items=[AlphaTables(step=table.step, weights=table.weights) for table in tables],
        )

    def to_csv(self) -> str:
        """The same as CSV: a line for each weight, with the labels of its row and column."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for item in self.items:
            for name, rows in item.weights.items():
                writer.writerows(_lines(item.step, name, self.groups, rows))
        return text.getvalue()


def _lines(
    step: int, name: str, groups: Mapping[str, AlphaGroup], rows: Sequence[Sequence[float]]
) -> list[tuple[object, ...]]:
    group = groups[name]
    return [
        (step, name, row.text, column.text, repr(weight))
        for row, weights in zip(group.rows, rows, strict=True)
        for column, weight in zip(group.columns, weights, strict=True)
    ]
