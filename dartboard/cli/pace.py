"""How trials went on their machines: their relaxation, pace and memory, as people read them."""

from collections.abc import Iterator, Sequence
from typing import Final

from dartboard.models import Trial

_MOST_LINES: Final = 8


def lines(trials: Sequence[Trial]) -> Iterator[str]:
    """A line for each trial that has trained; of many how many are in which form."""
    trained = [trial for trial in trials if trial.epoch or trial.relaxation]
    if len(trained) <= _MOST_LINES:
        for trial in trained:
            if said := _line(trial):
                yield f"Trial {trial.number}: {said}"
        return
    for form in ("fast", "plain"):
        numbers = [str(trial.number) for trial in trained if trial.relaxation == form]
        if numbers:
            which = f" ({', '.join(numbers)})" if len(numbers) <= _MOST_LINES else ""
            yield f"Relaxation {form}: {len(numbers)} of {len(trained)} trials{which}"


def _line(trial: Trial) -> str:
    parts = [] if trial.relaxation is None else [f"relaxation {trial.relaxation}"]
    for name, form in (
        ("steps_per_second", "{:.3g} steps/s"),
        ("images_per_second", "{:.4g} images/s"),
    ):
        value = trial.metrics.get(name)
        if value is not None:
            parts.append(form.format(value))
    peak = trial.metrics.get("peak_memory_bytes")
    if peak is not None:
        parts.append(f"peak memory {_size(peak)}")
    return ", ".join(parts)


def _size(num_bytes: float) -> str:
    gib = num_bytes / 2**30
    return f"{gib:.1f} GiB" if gib >= 1 else f"{num_bytes / 2**20:.0f} MiB"
