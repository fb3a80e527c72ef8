"""Points, counts and retries as users of the client and the command see them."""

import io
from uuid import UUID

import pytest
from rich.console import Console
from sqlalchemy import Engine

from dartboard import Client, ConflictError
from dartboard.cli.points import point_text
from dartboard.cli.specs import apply_settings
from dartboard.cli.views import Bars, Lines
from store import recording
from store.leases import Lease
from store.sessions import transaction
from tests.dartboard.conftest import GENOTYPES, SPEC, Dartboard, Worker

RATE = "training.learning_rate"
GRID = {**SPEC, "trials": {"seeds": [0], "grid": {RATE: [0.1, 0.25]}}}
TPE = {
    **SPEC,
    "trials": {
        "seeds": [0],
        "sample": {RATE: {"loguniform": [0.01, 1.0]}},
        "num_samples": 2,
        "sampler": "tpe",
    },
}


def stop(engine: Engine, lease: Lease, trial_id: UUID) -> None:
    with transaction(engine) as session:
        recording.trial_stopped(session, lease, trial_id, GENOTYPES[0], message="Too weak.")


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=110, color_system=None, force_terminal=False)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_values_are_told_shortly() -> None:
    assert point_text({}) == ""
    assert point_text(None) == "not drawn yet"
    assert point_text({RATE: 0.02512345, "space.kind": "darts", "a.b": True}) == (
        "learning_rate=0.02512, kind=darts, b=true"
    )
    assert point_text({"a.x": 1, "b.x": [2]}) == "a.x=1, b.x=[2]"


def test_a_path_below_the_grid_is_one_key() -> None:
    body: dict[str, object] = {}
    apply_settings(
        body,
        ["trials.grid.training.epochs=[1,2]", 'trials.sample.training.momentum={"uniform":[0,1]}'],
    )
    assert body == {
        "trials": {
            "grid": {"training.epochs": [1, 2]},
            "sample": {"training.momentum": {"uniform": [0, 1]}},
        }
    }


def test_a_failed_point_is_shown_and_retried(
    client: Client, worker: Worker, dartboard: Dartboard
) -> None:
    search = client.submit(GRID)
    first, second = search.trials
    assert first.parameters == {RATE: 0.1}
    assert search.counts is not None
    assert (search.counts.total, search.counts.pending) == (2, 2)
    lease = worker.claim()
    worker.fail(lease, first.id)
    worker.train(lease, second.id, epochs=2, genotype=GENOTYPES[0])
    worker.succeed(lease, second.id, GENOTYPES[0])
    worker.finish(lease)
    shown = dartboard("show", search.id).out
    assert "2: 1 completed, 1 failed" in shown
    assert "learning_rate=0.25" in shown
    assert f"dartboard retry --trial {first.id}" in " ".join(shown.split())
    assert "Trial 1 (seed 0, learning_rate=0.25): validation accuracy" in shown

    said = dartboard("retry", "--trial", first.id)
    assert said.code == 0
    assert f"Trial 0 is queued; `dartboard follow {search.id}` watches it." in said.out
    assert dartboard("retry", "--trial", first.id, "--json").json["status"] == "queued"
    assert client.get(search.id).reason == "retried"
    with pytest.raises(ConflictError, match="has its result"):
        client.retry_trial(second.id)
    refused = dartboard("retry", "--trial", second.id)
    assert refused.code == 1
    assert "has its result" in refused.err
    assert dartboard("retry", "--trial", "nothing").code == 1

    # Who follows from the start is told of both ends, and waits for the second.
    stream = client.follow(search.id)
    seen = []
    for event in stream:
        seen.append(event.kind)
        if event.kind == "search.requeued":
            break
    assert "search.succeeded" in seen
    lease = worker.claim()
    worker.train(lease, first.id, epochs=2, genotype=GENOTYPES[1])
    worker.succeed(lease, first.id, GENOTYPES[1])
    worker.finish(lease)
    assert [event.kind for event in stream][-1] == "search.succeeded"


def test_suggestions_and_early_stops_are_followed(
    client: Client, worker: Worker, engine: Engine, console: Console
) -> None:
    search = client.submit(TPE)
    first, _ = search.trials
    assert first.parameters is None
    lease = worker.claim()
    bars, lines = Bars(console), Lines(console)
    for view in (bars, lines):
        view.snapshot(client.get(search.id))
    console.print(bars)
    assert "not drawn yet" in printed(console)
    with transaction(engine) as session:
        recording.trials_suggested(session, lease, [first.id], {RATE: 0.03}, 2)
    worker.train(lease, first.id, epochs=1, genotype=GENOTYPES[0])
    stop(engine, lease, first.id)
    for event in client.events(search.id).items:
        bars.event(event)
        lines.event(event)
    console.print(bars)
    told = printed(console)
    assert "trial 0 (seed 0, learning_rate=0.03): drawn from what the ones before" in told
    assert "trial 0 (seed 0, learning_rate=0.03): stopped early: Too weak." in told
    assert told.rstrip().splitlines()[-2].split()[-1] == "stopped"


def test_of_many_trials_only_those_that_run_have_bars(
    client: Client, worker: Worker, console: Console
) -> None:
    trials = {"seeds": list(range(10)), "grid": {"training.epochs": [1, 2, 3]}}
    search = client.submit({**SPEC, "trials": trials})
    lease = worker.claim()
    worker.train(lease, search.trials[4].id, epochs=1, genotype=GENOTYPES[0])
    bars = Bars(console)
    bars.snapshot(client.get(search.id))
    console.print(bars)
    lines = printed(console).splitlines()
    assert len(lines) == 4
    assert "4 (seed 4)" in lines[2]
    assert "30 trials:" in lines[3]
    assert "29 queued" in lines[3]


def test_a_dry_run_tells_how_many(client: Client, dartboard: Dartboard, worker: Worker) -> None:
    said = dartboard(
        "submit", "--preset", "digits-quick", "--dry-run",
        "--set", "trials.grid.training.epochs=[2,4]", "--set", "trials.seeds=[0]",
    )  # fmt: skip
    assert "2 trials of at most 4 epochs, 6 in all," in " ".join(said.out.split())
