"""Trials, and what was measured of them."""

from collections.abc import Sequence
from typing import Literal

from dartboard.calls.refs import JobRef, SearchId, path_of
from dartboard.lists import Page
from dartboard.models import (
    AlphaSeries,
    Paths,
    Point,
    Result,
    Trial,
)
from dartboard.transport import Transport, parse_answer, segment


class _Series(Result):
    series: dict[str, tuple[Point, ...]]


class TrialCalls:
    """The calls of `dartboard.Client` about trials."""

    _transport: Transport

    def trials(self, search_id: JobRef) -> tuple[Trial, ...]:
        """The trials of a search, by number.

        Raises:
            NotFoundError: There is no such search.
        """
        response = self._transport.get(f"{path_of(search_id)}/trials")
        return parse_answer(response, Page[Trial]).items

    def trial(self, trial_id: SearchId) -> Trial:
        """A trial as it is now.

        Raises:
            NotFoundError: There is no such trial.
        """
        return parse_answer(self._transport.get(f"/v1/trials/{segment(trial_id)}"), Trial)

    def retry_trial(self, trial_id: SearchId) -> Trial:
        """Runs a failed trial again, with its parameters, from its last checkpoint.

        Its search, if it has ended, goes back to the queue and runs this trial only.

        Returns:
            The trial as it is now. Retrying one that waits or runs is no error.

        Raises:
            NotFoundError: There is no such trial.
            ConflictError: It has its result, or its search was cancelled.
        """
        response = self._transport.post(f"/v1/trials/{segment(trial_id)}/retry")
        return parse_answer(response, Trial)

    def metrics(
        self, trial_id: SearchId, names: Sequence[str] = (), *, after_step: int | None = None
    ) -> dict[str, tuple[Point, ...]]:
        """The series of a trial, by name; a point for each epoch.

        Args:
            trial_id: The trial.
            names: Only these series; all when empty. `marginal.*` stands for all that begin so.
            after_step: Only points with a larger step.

        Raises:
            NotFoundError: There is no such trial.
        """
        response = self._transport.get(
            f"/v1/trials/{segment(trial_id)}/metrics",
            params={"names": [*names], "after_step": after_step},
        )
        return parse_answer(response, _Series).series

    def alphas(self, trial_id: SearchId, *, after_step: int | None = None) -> AlphaSeries:
        """What the candidates of a trial weigh after each epoch, with labels of rows and columns.

        Args:
            trial_id: The trial.
            after_step: Only later epochs; of more than 200 the first ones.

        Raises:
            NotFoundError: There is no such trial.
            ConflictError: It is one of a training.
        """
        response = self._transport.get(
            f"/v1/trials/{segment(trial_id)}/alphas", params={"after_step": after_step}
        )
        return parse_answer(response, AlphaSeries)

    def paths(
        self,
        trial_id: SearchId,
        k: int = 10,
        *,
        within_parameters: int | None = None,
        within_multiply_adds: int | None = None,
    ) -> Paths:
        """The k best paths of a trial's hypercuboid at its last completed epoch, with their costs.

        Args:
            trial_id: The trial.
            k: How many, at most 100.
            within_parameters: Find the best path with at most so many weights, too.
            within_multiply_adds: Or the best one with at most so many multiply-adds.

        Raises:
            NotFoundError: There is no such trial.
            ConflictError: It searches cells, or has not completed an epoch.
            ProblemError: No path is within the budget; says what the cheapest one costs.
        """
        response = self._transport.get(
            f"/v1/trials/{segment(trial_id)}/paths",
            params={
                "k": k,
                "within_parameters": within_parameters,
                "within_multiply_adds": within_multiply_adds,
            },
        )
        return parse_answer(response, Paths)

    def cuboid_picture(
        self,
        trial_id: SearchId,
        format: Literal["svg", "dot"] = "svg",  # noqa: A002  (reads well where it is called)
    ) -> bytes:
        """A drawing of a trial's whole hypercuboid by the weights of its last completed epoch.

        Args:
            trial_id: The trial.
            format: An SVG picture, or Graphviz's DOT.

        Raises:
            NotFoundError: There is no such trial.
            ConflictError: It searches cells, or has not completed an epoch.
        """
        path = f"/v1/trials/{segment(trial_id)}/cuboid.{format}"
        return self._transport.get(path, accept="*/*").content
