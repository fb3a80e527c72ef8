from uuid import UUID

from dartboard.cli import pace
from dartboard.models import Trial


def trial(number: int, **fields: object) -> Trial:
    nobody = UUID(int=number)
    return Trial.model_validate(
        {"id": nobody, "search_id": nobody, "number": number, "seed": 0, "status": "running",
         "epoch": 1, "epochs": 2, **fields}
    )  # fmt: skip


def test_a_line_says_what_is_known_of_a_trial() -> None:
    metrics = {"steps_per_second": 0.05123, "images_per_second": None, "peak_memory_bytes": 5e8}
    trials = [
        trial(0, epoch=0),
        trial(1, epoch=0, relaxation="plain"),
        trial(2, metrics=metrics),
        trial(3, metrics={"seconds": 1.0}),
    ]
    assert [*pace.lines(trials)] == [
        "Trial 1: relaxation plain",
        "Trial 2: 0.0512 steps/s, peak memory 477 MiB",
    ]


def test_many_trials_are_counted() -> None:
    forms = ["fast"] * 20 + ["plain"] * 2
    trials = [trial(number, relaxation=form) for number, form in enumerate(forms)]
    assert [*pace.lines(trials)] == [
        "Relaxation fast: 20 of 22 trials",
        "Relaxation plain: 2 of 22 trials (20, 21)",
    ]
