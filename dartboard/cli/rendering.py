"""Searches, trials and genotypes as people read them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dartboard.cli import marginals, output, pace
from dartboard.cli.points import point_text, trial_text
from dartboard.cli.progress import SearchProgress
from dartboard.models import Job, RankedArchitecture, Search, Training, Trial, TrialCounts
from search_core.genotype import CellGenotype, Edge, Genotype, PathGenotype, PathStep

_MOST_FINDINGS: Final = 8


def search_table(searches: Iterable[Search | Training]) -> Table:
    """One line for each search."""
    made = output.table(
        "id", "name", "status", "epochs", "best accuracy", "age", right=("epochs", "best accuracy")
    )
    for search in searches:
        status = output.status_text(search.status)
        if search.waiting is not None:
            status.append(f" (place {search.waiting.position})")
        elif search.cancel_requested_at is not None and not search.ended:
            status.append(" (cancelling)")
        elif search.pause_requested_at is not None:
            status.append(" (pausing)")
        made.add_row(
            str(search.id),
            search.name or "-",
            status,
            _epochs(search.trials),
            output.fraction(search.best_validation_accuracy),
            output.age(search.created_at),
        )
    return made


def search_page(
    progress: SearchProgress, ranked: Sequence[RankedArchitecture]
) -> Iterator[RenderableType]:
    """All of a search, part by part; a string is printed without wrapping."""
    search = progress.search
    yield Text.assemble(
        (search.name or "(no name)", "bold"), "  ", output.status_text(search.status)
    )
    facts = Table.grid(padding=(0, 2, 0, 0))
    for label, value in _facts(search):
        facts.add_row(Text(label, style="dim"), value)
    yield facts
    yield ""
    yield trial_table(
        search.trials, {trial_id: trial.state for trial_id, trial in progress.trials.items()}
    )
    if paces := [*pace.lines(search.trials)]:
        yield ""
        yield from paces
    for trial in search.trials:
        shares = marginals.lines(trial.metrics)
        if shares:
            yield ""
            yield f"Trial {trial.number}: shares of the weights by axis, after epoch {trial.epoch}"
            yield from shares
    if progress.notes:
        yield ""
    for note in progress.notes.values():
        yield f"warning: {note}"
    if ranked and isinstance(search, Search):
        yield ""
        yield from findings(search, ranked)
    if isinstance(search, Training):
        yield from results(search)


def findings(search: Search, ranked: Sequence[RankedArchitecture]) -> Iterator[RenderableType]:
    """Each trial's genotype, by number, and the recommended one with the reason.

    Of many trials only what the recommended one derived; of one that was stopped early nothing.
    """
    finished = [found for found in ranked if found.status != "stopped" or found.recommended]
    shown = [
        found
        for found in sorted(finished, key=lambda each: each.trial)
        if len(finished) <= _MOST_FINDINGS or found.recommended
    ]
    for found in shown:
        yield Text.assemble(
            ("Trial ", "bold"),
            (trial_text(found.trial, found.seed, found.parameters), "bold"),
            f": validation accuracy {output.fraction(found.validation_accuracy)}",
        )
        yield f"  architecture {found.architecture}"
        yield genotype_lines(found.genotype)
    if len(shown) < len(ranked):
        yield (
            f"{len(ranked) - len(shown)} more: `dartboard genotype {search.id} --trial NUMBER` "
            "prints one"
        )
    if search.recommended is not None:
        yield Text.assemble(("Recommended", "bold green"), f": {search.recommended.why}")
        yield f"  architecture {search.recommended.architecture}"


def results(training: Training) -> Iterator[RenderableType]:
    """What each trial of a training is worth on the test images, by number."""
    for trial in training.trials:
        if trial.result is None:
            continue
        last, best = trial.result.last, trial.result.best
        yield Text.assemble(
            (f"Trial {trial_text(trial.number, trial.seed, trial.parameters)}", "bold"),
            f": test accuracy {output.fraction(last.accuracy)} after the last "
            "epoch"
            + (
                f", {output.fraction(best.accuracy)} at epoch {best.epoch}, which has the "
                "best validation accuracy"
                if best is not None
                else ""
            ),
        )
        for name, accuracy in last.extra_accuracies.items():
            yield f"  {name}: {output.fraction(accuracy)}"


def genotype_lines(genotype: Genotype) -> str:
    """The text form, a line for each node or step; it reads back as the one-line form does."""
    if isinstance(genotype, PathGenotype):
        return _path_lines(genotype)
    return _cell_lines(genotype)


def path_line(genotype: PathGenotype) -> str:
    """A path in one line: its channels, and what is done between them; `v` halves the size."""
    said = str(genotype.steps[0].in_channels)
    for step in genotype.steps:
        settings = " ".join(f"{axis}={choice}" for axis, choice in step.settings.items())
        done = f"{step.operation} {settings}".rstrip()
        said += f" -{done}{' v' * (step.stride == 2)}-> {step.out_channels}"
    return said


def _path_lines(genotype: PathGenotype) -> str:
    steps = ",\n".join(f"    {_step(step)}" for step in genotype.steps)
    return f"  Path(final_channels={genotype.final_channels}, steps=[\n{steps}])"


def _step(step: PathStep) -> str:
    plain = (step.level, step.stride, step.in_channels, step.out_channels, step.operation)
    return repr((*plain, step.settings) if step.settings else plain)


def _cell_lines(genotype: CellGenotype) -> str:
    return (
        "  Genotype(\n"
        f"    normal={_edges(genotype.normal)},\n"
        f"    normal_concat={list(genotype.normal_concat)},\n"
        f"    reduce={_edges(genotype.reduce)},\n"
        f"    reduce_concat={list(genotype.reduce_concat)})"
    )


def _edges(edges: Sequence[Edge]) -> str:
    pairs = [
        ", ".join(repr(tuple(edge)) for edge in edges[first : first + 2])
        for first in range(0, len(edges), 2)
    ]
    return "[\n      " + ",\n      ".join(pairs) + "]"


def trial_table(trials: Sequence[Trial], states: Mapping[UUID, str]) -> Table:
    """One line for each trial, with its state by its id."""
    numbers = ("trial", "seed", "epoch", "train loss", "val. loss", "val. accuracy", "best")
    varies = any(trial.parameters for trial in trials) or any(
        trial.parameters is None for trial in trials
    )
    made = output.table(
        *numbers[:2],
        *(("parameters",) if varies else ()),
        "status",
        *numbers[2:],
        "",
        right=numbers,
    )
    for trial in trials:
        metrics = trial.metrics
        made.add_row(
            str(trial.number),
            str(trial.seed),
            *((point_text(trial.parameters),) if varies else ()),
            output.status_text(states[trial.id]),
            f"{trial.epoch}/{trial.epochs}",
            output.fraction(metrics.get("train_loss")),
            output.fraction(metrics.get("validation_loss")),
            output.fraction(metrics.get("validation_accuracy")),
            output.fraction(trial.best_validation_accuracy),
            _trial_note(trial),
        )
    return made


def _trial_note(trial: Trial) -> Text:
    if trial.status != "failed":
        return Text()
    return Text(f"{trial.message} Again: dartboard retry --trial {trial.id}", style="red")


def waiting_sentence(search: Job) -> str:
    """Where a search is, and if it is in the queue why it waits."""
    if search.waiting is not None:
        begins = search.waiting.estimated_start
        when = "" if begins is None else f", starts in about {output.until(begins)}"
        return f"queued, place {search.waiting.position}: {search.waiting.why}{when}"
    if search.cancel_requested_at is not None and not search.ended:
        return f"{search.status}, and ends within seconds"
    if search.pause_requested_at is not None:
        return f"{search.status}, and pauses after its epochs"
    if search.preempt_requested_at is not None:
        return f"{search.status}, and makes room for another after its epochs"
    if search.status == "paused":
        return f"paused; it goes on with `dartboard resume {search.id}`"
    return search.status


def _facts(search: Job) -> Iterator[tuple[str, str]]:
    yield "id", str(search.id)
    yield "state", _state(search)
    if isinstance(search, Training):
        yield "trains", _trained(search)
    else:
        yield "space", _space(search)
    if search.counts is not None and search.counts.total > 1:
        yield "trials", _counts(search.counts)
    yield "priority", str(search.priority)
    if search.labels:
        yield "labels", ", ".join(f"{key}={value}" for key, value in search.labels.items())
    yield (
        "submitted",
        f"{search.created_at:%Y-%m-%d %H:%M:%S} UTC, {output.age(search.created_at)} ago",
    )
    if search.started_at is not None:
        # Without what it waited or was paused in between.
        ran = search.ran_seconds
        if search.claimed_at is not None:
            ran += (datetime.now(UTC) - search.claimed_at).total_seconds()
        attempts = f", attempt {search.attempt}" if search.attempt > 1 else ""
        label = "ran for" if search.claimed_at is None else "runs for"
        yield label, f"{output.duration(ran)}{attempts}"


def _counts(counts: TrialCounts) -> str:
    named = {"completed": counts.completed, "failed": counts.failed, "pending": counts.pending}
    parts = [f"{count} {name}" for name, count in named.items() if count]
    return f"{counts.total}: {', '.join(parts)}"


def _state(search: Job) -> str:
    state = waiting_sentence(search)
    if search.reason is not None and search.reason != "completed":
        state += f" ({search.reason})"
    return f"{state}. {search.message}" if search.message else state


def _space(search: Job) -> str:
    space, dataset = search.spec.get("space", {}), search.spec.get("dataset", {})
    if "axes" in space:
        axes = [f"{axis} {'|'.join(map(str, these))}" for axis, these in space["axes"].items()]
        levels = f"{space.get('levels', '?')} levels"
        return f"{space['kind']} ({', '.join([*axes, levels])}) on {dataset.get('name', '?')}"
    sizes = [f"{space[key]} {key}" for key in ("channels", "cells", "nodes") if key in space]
    if "primitives" in space:
        sizes.append(f"{len(space['primitives'])} primitives")
    return f"{space.get('kind', '?')} ({', '.join(sizes)}) on {dataset.get('name', '?')}"


def _trained(training: Training) -> str:
    architecture = training.spec.get("architecture")
    named = architecture if isinstance(architecture, str) else "a genotype"
    network, dataset = training.spec.get("network", {}), training.spec.get("dataset", {})
    sizes = [f"{network[key]} {key}" for key in ("channels", "cells") if key in network]
    kind = network.get("kind", "?")
    return f"{named} ({', '.join(sizes) or kind}) on {dataset.get('name', '?')}"


def _epochs(trials: Sequence[Trial]) -> str:
    return f"{sum(trial.epoch for trial in trials)}/{sum(trial.epochs for trial in trials)}"
