"""HyperCuboids on the command line and in the client."""

import io
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console
from sqlalchemy import Engine

from dartboard import Client, ConflictError, InvalidRequestError
from dartboard.cli import marginals
from dartboard.cli.rendering import genotype_lines, path_line
from dartboard.cli.views import Bars, Lines
from search_core.derive import best_paths, heaviest_path, path_score
from search_core.genotype import PathGenotype, parse
from search_core.marginals import marginals as shares_of
from search_core.spec.hypercuboid import HyperCuboidSpace
from store import endings, epoch_reports, recording
from store.epoch_reports import EpochResult
from store.sessions import transaction
from tests.dartboard.conftest import SPEC, Dartboard, Served, Worker

SPACE: dict[str, Any] = {
    "kind": "hypercuboid",
    "axes": {"channels": [4, 8], "kernel_size": [3, 5]},
    "levels": 1,
    "final_channels": 16,
}
CUBOID = HyperCuboidSpace.model_validate(SPACE)
# Of the sixteen operations of a position the one from 4 to 8 channels with a kernel of 5 wins, and
# after it the one from 8 to 8.
WEIGHTS = [
    [0.325 if index == 5 else 0.045 for index in range(16)],
    [0.325 if index == 13 else 0.045 for index in range(16)],
]
BEST = heaviest_path(WEIGHTS, CUBOID)


@pytest.fixture
def cuboid(client: Client, worker: Worker, engine: Engine) -> UUID:
    """A search of a cuboid that succeeded."""
    search = client.submit(name="cuboid", space=SPACE, training={"epochs": 1})
    lease = worker.claim()
    metrics = {"validation_accuracy": 0.9, **shares_of(WEIGHTS, CUBOID)}
    result = EpochResult(1, metrics, BEST, alphas={"cuboid": WEIGHTS})
    trial_id = search.trials[0].id
    with transaction(engine) as session:
        recording.trial_started(session, lease, trial_id, from_epoch=0, node="here", pid=1)
        epoch_reports.epoch_ended(session, lease, trial_id, result)
        recording.trial_succeeded(session, lease, trial_id, BEST)
        endings.finish(session, lease)
    return search.id


def test_the_client_reads_all_of_a_cuboid(client: Client, cuboid: UUID) -> None:
    search = client.get(cuboid)
    assert search.recommended is not None
    genotype = client.genotype(search.recommended.architecture)
    assert isinstance(genotype, PathGenotype)
    assert genotype == BEST == client.architecture(genotype.hash).genotype
    (ranked,) = client.architectures(cuboid)
    assert ranked.genotype == BEST
    trial_id = search.trials[0].id
    alphas = client.alphas(trial_id)
    assert [list(row) for row in alphas.items[0].weights["cuboid"]] == WEIGHTS
    assert alphas.groups["cuboid"].columns[5].facts["settings"] == {"kernel_size": 5}
    assert client.alphas(trial_id, after_step=1).items == ()
    paths = client.paths(trial_id, 2)
    assert paths.items[0].genotype == BEST
    assert client.metrics(trial_id, ["marginal.kernel_size*"]).keys() == {
        "marginal.kernel_size=3",
        "marginal.kernel_size=5",
    }
    assert b"</svg>" in client.cuboid_picture(trial_id)
    dry_run = client.dry_run(space=SPACE)
    assert dry_run.size is not None
    assert dry_run.size.positions == 2
    with pytest.raises(InvalidRequestError, match="the cheapest has"):
        client.paths(trial_id, within_parameters=1)


def test_the_client_is_told_that_cells_have_no_paths(client: Client) -> None:
    with pytest.raises(ConflictError, match="searches cells"):
        client.paths(client.submit(SPEC).trials[0].id)


def test_paths_are_listed_with_what_they_cost(dartboard: Dartboard, cuboid: UUID) -> None:
    said = dartboard("paths", "last", "--k", 3)
    assert said.code == 0, said.err
    head, columns, *rows = said.out.splitlines()
    assert head.endswith("after epoch 1 of 1")
    assert columns.split() == ["score", "parameters", "multiply-adds", "path"]
    assert len(rows) == 3
    assert rows[0].split()[:2] == ["1", "0.6500"]
    assert "4 -sharp_sep_conv kernel_size=5-> 8 -sharp_sep_conv kernel_size=5 v-> 8" in rows[0]
    cheap = dartboard("paths", cuboid, "--within-parameters", 1100, "--k", 1)
    assert "within: the best path with at most 1,100 parameters" in cheap.out
    as_json = dartboard("paths", cuboid, "--within-multiply-adds", 10**9, "--json").json
    assert as_json["within"]["path"] == as_json["items"][0]


def test_finalists_are_followed_and_the_one_that_wins_is_listed(
    dartboard: Dartboard, client: Client, worker: Worker, engine: Engine
) -> None:
    finalists = {"paths": 2, "epochs": 2}
    spec = {"space": SPACE, "algorithm": {"finalists": finalists}, "training": {"epochs": 1}}
    search = client.submit(spec)
    assert client.dry_run(spec).finalist_batches_per_epoch == 15
    trial_id, lease = search.trials[0].id, worker.claim()
    rival = best_paths(WEIGHTS, CUBOID, 2)[1].genotype
    reported: list[tuple[dict[str, float], PathGenotype]] = [
        ({"validation_accuracy": 0.9, "seconds": 40.0}, BEST),
        ({"finalist": 1.0, "finalist_accuracy": 0.25, "seconds": 2.0}, rival),
    ]
    console = Console(file=io.StringIO(), width=120, color_system=None)
    view = Lines(console)
    view.snapshot(search)
    with transaction(engine) as session:
        recording.trial_started(session, lease, trial_id, from_epoch=0, node="here", pid=1)
        for epoch, (metrics, derived) in enumerate(reported, start=1):
            result = EpochResult(epoch, metrics, derived, alphas={"cuboid": WEIGHTS})
            epoch_reports.epoch_ended(session, lease, trial_id, result)
    for event in client.events(search.id).items:
        view.event(event)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue()
    assert "epoch 1/5, train loss" in lines
    assert "epoch 2/5, finalist 1 at 0.2500, train loss" in lines
    # What is left is estimated from the finalists' own pace as soon as there is one.
    assert [line.partition(" left")[0].rpartition(", ")[2] for line in lines.splitlines()[-2:]] == [
        "3 min",
        "6 s",
    ]
    said = dartboard("paths", trial_id, "--k", 1).out.splitlines()
    assert said[-2].split()[:2] == ["derived", f"{path_score(WEIGHTS, CUBOID, rival):.4f}"]
    assert said[-1] == "derived: the best finalist so far"


def test_a_trial_is_named_by_its_id_or_its_number(
    dartboard: Dartboard, client: Client, cuboid: UUID
) -> None:
    trial_id = client.get(cuboid).trials[0].id
    assert dartboard("paths", trial_id, "--json").json["trial_id"] == str(trial_id)
    assert dartboard("paths", cuboid, "--trial", 0).code == 0
    missing = dartboard("paths", cuboid, "--trial", 7)
    assert missing.code == 1
    assert "has no trial 7; it has: 0" in missing.err
    assert dartboard("paths", trial_id, "--trial", 0).code == 2
    nobody = "01900000-0000-7000-8000-000000000000"
    assert f"no search {nobody}" in dartboard("paths", nobody).err
    both = dartboard("paths", cuboid, "--within-parameters", 1, "--within-multiply-adds", 1)
    assert both.code == 2


def test_of_several_running_trials_one_has_to_be_chosen(
    dartboard: Dartboard, client: Client
) -> None:
    client.submit(space=SPACE, trials={"seeds": [0, 1]})
    said = dartboard("paths", "last")
    assert said.code == 2
    assert "--trial" in said.err
    assert "has not completed an epoch" in dartboard("paths", "last", "--trial", 0).err


def test_a_path_is_shown_printed_and_drawn(
    dartboard: Dartboard, cuboid: UUID, tmp_path: Path
) -> None:
    shown = dartboard("show", cuboid).out
    assert "hypercuboid (channels 4|8, kernel_size 3|5, 1 levels) on digits" in shown
    assert "Path(final_channels=16, steps=[" in shown
    assert "  kernel_size   5 64%   3 36%" in shown
    axes = [line.split()[0] for line in shown.splitlines() if "%" in line]
    assert axes == ["in_channels", "out_channels", "operation", "kernel_size"]
    assert parse(dartboard("genotype", cuboid).out) == BEST
    assert dartboard("genotype", cuboid, "--json").json["kind"] == "path"
    assert dartboard("draw", cuboid, "-o", "path.svg").code == 0
    assert "sharp_sep_conv" in (tmp_path / "path.svg").read_text()
    assert dartboard("draw", cuboid, "--cell", "normal").code == 1
    drawn = dartboard("draw", cuboid, "--cuboid", "--json").json
    assert "epoch 1 of 1" in (tmp_path / drawn["path"]).read_text()
    assert dartboard("draw", cuboid, "--cuboid", "--cell", "normal").code == 2


def test_a_dry_run_tells_the_size(dartboard: Dartboard, server: Served) -> None:
    said = dartboard("submit", "--preset", "hypercuboid-cifar10", "--dry-run")
    assert "67,108,864 architectures, 256 alphas" in said.out
    assert "8,930,122 weights" in said.out
    deep = dartboard("submit", "--preset=hypercuboid-cifar10", "--set=space.levels=16", "--dry-run")
    assert "10^29 architectures" in deep.out


def test_the_lines_of_a_genotype_read_back() -> None:
    assert parse(genotype_lines(BEST)) == BEST
    assert path_line(BEST).count("->") == 2


def test_which_choices_are_ahead() -> None:
    metrics = {"train_loss": 1.0, **shares_of(WEIGHTS, CUBOID)}
    assert "kernel_size 5 (64%)" in marginals.leaders(metrics)
    even = {"marginal.kernel_size=3": 0.5, "marginal.kernel_size=5": 0.5}
    assert marginals.leaders(even) == "ahead: nothing yet"
    assert marginals.leaders({"train_loss": 1.0}) == ""
    assert marginals.lines({"train_loss": 1.0}) == []


def test_following_tells_which_choices_are_ahead(client: Client, cuboid: UUID) -> None:
    search = client.get(cuboid)
    for view_of in (Bars, Lines):
        console = Console(file=io.StringIO(), width=120, color_system=None)
        view = view_of(console)
        view.snapshot(search)
        for event in client.events(cuboid).items:
            view.event(event)
        if isinstance(view, Bars):
            console.print(view)
        assert isinstance(console.file, io.StringIO)
        assert "kernel_size 5 (64%)" in console.file.getvalue()
