"""Two ways to show a running search: bars on a terminal, a line for each event elsewhere."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dartboard.cli import marginals, output
from dartboard.cli.points import point_text
from dartboard.cli.progress import SearchProgress, TrialProgress
from dartboard.cli.rendering import waiting_sentence
from dartboard.errors import DartboardError
from dartboard.models import Event, Job, Training
from dartboard.streams import END_KINDS

_MOST_NOTES: Final = 3
_MOST_BARS: Final = 24


class View(Protocol):
    """Shows a search while its block runs."""

    def __enter__(self) -> Self:
        """Begins to show."""
        ...

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leaves the last state on the screen."""
        ...

    def snapshot(self, search: Job) -> None:
        """Takes the state of the whole search."""
        ...

    def event(self, event: Event) -> None:
        """Takes something that happened to it."""
        ...

    def trouble(self, error: DartboardError) -> None:
        """Takes that the connection broke; it is being made again."""
        ...


class Bars:
    """A bar for each trial, redrawn four times a second."""

    def __init__(self, console: Console) -> None:
        """Draws nothing before the block begins."""
        self._progress: SearchProgress | None = None
        self._trouble = ""
        self._live = Live(self, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        """Begins to draw."""
        self._live.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draws the last state and leaves it there."""
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The picture of this moment."""
        if self._progress is None:
            yield Text("asking the server ...", style="dim")
            return
        yield self._head(self._progress)
        yield self._bars(self._progress)
        for trial in self._progress.trials.values():
            if leaders := marginals.leaders(trial.metrics):
                yield Text(f"trial {trial.number}, {leaders}", style="dim")
        yield from _left_out(self._progress)
        for note in [*self._progress.notes.values()][-_MOST_NOTES:]:
            yield Text(str(note), style="yellow")

    def snapshot(self, search: Job) -> None:
        """Takes the state of the whole search."""
        self._trouble = ""
        if self._progress is None:
            self._progress = SearchProgress(search)
        else:
            self._progress.update(search)

    def event(self, event: Event) -> None:
        """Takes something that happened to it."""
        self._trouble = ""
        if self._progress is not None:
            self._progress.apply(event)

    def trouble(self, error: DartboardError) -> None:
        """Shows that the connection is being made again."""
        self._trouble = "the server does not answer; trying again ..."

    def _head(self, progress: SearchProgress) -> Text:
        search = progress.search
        if progress.status != search.status:
            state = output.status_text(progress.status)
        else:
            state = Text(
                waiting_sentence(search), style=output.STATUS_STYLES.get(search.status, "")
            )
        head = Text.assemble((search.name or _noun(search), "bold"), f" {search.id}  ", state)
        if self._trouble:
            head.append(f"  {self._trouble}", style="red")
        return head

    def _bars(self, progress: SearchProgress) -> Table:
        numbers = ("epoch", "train loss", "val. loss", "val. acc.", "left")
        made = Table(
            box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True
        )
        shown = _shown(progress)
        varies = any(trial.parameters != {} for trial in shown)
        made.add_column("trial", no_wrap=True)
        if varies:
            made.add_column("parameters", no_wrap=True, overflow="ellipsis")
        made.add_column("", ratio=1, min_width=8)
        for name in numbers:
            made.add_column(name, justify="right", no_wrap=True)
        now = time.monotonic()
        for trial in shown:
            left = trial.seconds_left(now)
            made.add_row(
                f"{trial.number} (seed {trial.seed})",
                *([point_text(trial.parameters)] if varies else []),
                ProgressBar(
                    total=trial.epochs,
                    completed=trial.epoch,
                    pulse=trial.status == "running" and trial.epoch == 0,
                ),
                f"{trial.epoch}/{trial.epochs}",
                output.fraction(trial.metrics.get("train_loss")),
                output.fraction(trial.metrics.get("validation_loss")),
                output.fraction(trial.metrics.get("validation_accuracy")),
                output.status_text(trial.state) if left is None else output.duration(left),
            )
        return made


class Lines:
    """A line for each event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        """Prints nothing before the first event."""
        self._console = console
        self._progress: SearchProgress | None = None
        self._waiting = ""
        self._in_trouble = False

    def __enter__(self) -> Self:
        """Does nothing: a line is printed when it is complete."""
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Does nothing."""

    def snapshot(self, search: Job) -> None:
        """Prints why the search waits, when that has changed."""
        self._in_trouble = False
        if self._progress is None:
            self._progress = SearchProgress(search)
        if search.waiting is not None and waiting_sentence(search) != self._waiting:
            self._waiting = waiting_sentence(search)
            self._print(self._waiting)

    def event(self, event: Event) -> None:
        """Prints an event."""
        assert self._progress is not None
        self._in_trouble = False
        self._progress.apply(event)
        if event.trial_id is None:
            self._search_event(event)
            return
        if not event.kind.startswith("trial."):
            return  # a new best: the line of its epoch has the accuracy
        trial = self._progress.trials[event.trial_id]
        self._print(f"trial {trial.name}: {self._happened(event)}")

    def trouble(self, error: DartboardError) -> None:
        """Prints that the connection is being made again, once until the server answers."""
        if not self._in_trouble:
            self._in_trouble = True
            self._print("the server does not answer; trying again")

    def _search_event(self, event: Event) -> None:
        if event.kind.endswith(".queued") and self._waiting:
            return  # said already, and why
        if event.kind in END_KINDS:
            return  # what follows tells how it ended, and why
        happened = event.kind.partition(".")[2].replace("_", " ")
        reason = event.data.get("message", "")
        self._print(f"{happened}: {reason}" if reason else happened)

    def _happened(self, event: Event) -> str:
        data = event.data
        if event.kind == "trial.epoch":
            assert self._progress is not None
            assert event.trial_id is not None
            left = self._progress.trials[event.trial_id].seconds_left(time.monotonic())
            metrics = data["metrics"]
            return (
                f"epoch {data['epoch']}/{data['epochs']}, {_finalist(metrics)}"
                f"train loss {output.fraction(metrics.get('train_loss'))}, "
                f"validation loss {output.fraction(metrics.get('validation_loss'))}, "
                f"accuracy {output.fraction(metrics.get('validation_accuracy'))}"
                + (f", {output.duration(left)} left" if left else "")
                + (f"; {leaders}" if (leaders := marginals.leaders(metrics)) else "")
            )
        if event.kind == "trial.started":
            again = f" again from epoch {data['from_epoch']}" if data.get("from_epoch") else ""
            return f"started{again}"
        if event.kind == "trial.suggested":
            return "drawn from what the ones before it came to"
        if event.kind == "trial.stopped":
            return f"stopped early: {data['message']}"
        if event.kind == "trial.retried":
            return "is run again, as its user asked"
        if event.kind == "trial.starting":
            return "starting: it loads PyTorch and the data"
        if event.kind == "trial.warning":
            return f"warning at epoch {data['epoch']}: {data['message']}"
        happened = event.kind.partition(".")[2]
        return f"{happened}: {data['message']}" if data.get("message") else happened

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


def _finalist(metrics: Mapping[str, float | None]) -> str:
    """Which finalist an epoch trained, and how well; what follows is of the best so far."""
    rank = metrics.get("finalist")
    if rank is None:
        return ""
    return f"finalist {rank:.0f} at {output.fraction(metrics.get('finalist_accuracy'))}, "


def _shown(progress: SearchProgress) -> list[TrialProgress]:
    """The trials that have a bar: all of them if there are few, else those that run."""
    trials = [*progress.trials.values()]
    if len(trials) <= _MOST_BARS:
        return trials
    running = [trial for trial in trials if trial.state in ("starting", "running")]
    return running[:_MOST_BARS]


def _left_out(progress: SearchProgress) -> Iterator[Text]:
    trials = [*progress.trials.values()]
    if len(trials) > _MOST_BARS:
        counts = Counter(trial.state for trial in trials)
        yield Text(
            f"{len(trials)} trials: "
            + ", ".join(f"{count} {state}" for state, count in counts.items()),
            style="dim",
        )


def _noun(job: Job) -> str:
    return "training" if isinstance(job, Training) else "search"
