import json
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.ground_truth import grids, report
from benchmarks.ground_truth.__main__ import main
from benchmarks.ground_truth.grids import GridPoint
from benchmarks.ground_truth.searches import VARIANTS, SearchOutcome, Variant, search, spec_of
from search_core.derive.paths import best_paths, heaviest_path
from search_core.search import SearchRun


def test_the_grid_is_the_whole_cuboid() -> None:
    paths = grids.paths(grids.space())
    assert len(set(paths)) == len(paths) == grids.space().num_paths == 128
    for before, after in pairwise(grids.genotype(paths[77]).steps):
        assert after.in_channels == before.out_channels


@pytest.mark.parametrize("dataset", grids.DATASETS)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_search_of_it(name: str, dataset: str) -> None:
    variant = VARIANTS[name]
    if variant.algorithm is None:
        assert variant.finalists
        return
    spec = spec_of(variant, dataset)
    assert spec.space == grids.space()
    assert spec.training.epochs == variant.epochs
    assert spec.total_epochs == variant.epochs + variant.finalists * grids.FINALIST_EPOCHS


def outcome(variant: str, path: tuple[int, ...], seconds: float) -> SearchOutcome:
    weights = [[0.1] * 8 for _ in path]
    for row, index in zip(weights, path, strict=True):
        row[index] = 0.3
    return SearchOutcome(variant, 0, weights, path, seconds)


def test_regret_correlation_and_cost_of_known_outcomes() -> None:
    paths = grids.paths(grids.space())
    best, worst = (6, 6, 7), (1, 1, 1)
    # A path's accuracy is one tenth for each operation that it shares with the best.
    points = [
        GridPoint(
            path,
            [
                0.5 + sum(a == b for a, b in zip(path, best, strict=True)) / 10 + noise
                for noise in (-0.01, 0.01)
            ],
            seconds=1.0,
        )
        for path in paths
    ]
    truth = report.summarise(points, points[:4])
    assert truth.best == truth.highest == pytest.approx(0.8)
    assert truth.seconds == pytest.approx(128)
    assert truth.deviation == pytest.approx(0.02 / 2**0.5)
    rows = report.rows(truth, [outcome("scalar", best, 6.4), outcome("max_w", worst, 12.8)])
    assert [row.variant for row in rows] == ["scalar", "max_w"]
    assert rows[0].correlations == [pytest.approx(1.0)]
    assert rows[0].regrets == [pytest.approx(0, abs=1e-9)]
    assert rows[0].cost == pytest.approx(0.05)
    assert rows[1].regrets == [pytest.approx(30)]
    assert rows[1].correlations[0] < 0.1
    made = report.table(truth, rows)
    assert "| scalar, first order | 1.00 | 0.00 | 0.00 | 5.0 |" in made
    # What is scored highest among the trained is what the search derives.
    chosen = heaviest_path(outcome("scalar", best, 1.0).weights, grids.space())
    assert chosen == grids.genotype(best)


def test_a_lucky_seed_does_not_make_the_best_path() -> None:
    points = [
        GridPoint((0, 0, 0), [0.9, 0.9, 0.9], 1.0),
        GridPoint((0, 0, 1), [0.8, 1.0, 0.93], 1.0),
    ]
    truth = report.summarise(points, points)
    assert truth.highest == pytest.approx(0.91)
    # By the other two seeds the second path wins the first and loses the others.
    assert truth.best == pytest.approx((0.8 + 0.9 + 0.9) / 3)
    once = [GridPoint(point.path, point.accuracies[1:2], 1.0) for point in points]
    assert report.summarise(once, once).best == 1.0


def test_the_best_of_the_finalists_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[int, ...]] = []

    def validate(dataset: str, path: tuple[int, ...], seed: int) -> float:
        trained.append(path)
        return 1.0 if len(trained) == 2 else 0.5

    monkeypatch.setattr(grids, "validate", validate)
    monkeypatch.setitem(VARIANTS, "random", Variant("random", None, finalists=3))
    found = search("random", "digits", seed=0)
    assert len(set(trained)) == 3
    assert found.path == trained[1]
    first, trained = trained, []
    search("random", "digits", seed=1)
    assert trained != first


def test_a_search_s_finalists_are_measured_as_random_ones_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grids, "FINALIST_EPOCHS", 2)
    variant = Variant("Max-W", {"weighting": "max_w"}, epochs=1, finalists=2)
    run = SearchRun(spec_of(variant, "digits"), 5)
    reports = []
    while not run.finished:
        reports.append(run.run_epoch())
    first, second = reports[2], reports[4]
    ranked = best_paths(first.alphas["cuboid"], grids.space(), 2)
    choices = {grids.genotype(path).hash: path for path in grids.paths(grids.space())}
    for last, path in zip((first, second), ranked, strict=True):
        assert last.metrics["finalist_accuracy"] == grids.validate(
            "digits", choices[path.genotype.hash], 5, epochs=2
        )
    monkeypatch.setitem(VARIANTS, "short", variant)
    assert grids.genotype(search("short", "digits", seed=5).path) == run.genotype()


def test_finalists_are_measured_on_images_that_train_nothing() -> None:
    assert 0 < grids.validate("digits", (0, 0, 0), 0, epochs=1) < 1


def test_ranks_share_ties() -> None:
    assert report.ranks([3.0, 1.0, 3.0, 2.0]) == [2.5, 0.0, 2.5, 1.0]
    assert report.correlation([1.0, 1.0], [0.0, 2.0]) == 0.0


def test_the_command_trains_saves_searches_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "grid.json"
    arguments = ["--datasets", "digits", "--every", "127", "--seeds", "1", "--epochs", "1"]
    assert main([*arguments, "--processes", "2", "--variants", "--save", str(file)]) == 0
    said = capsys.readouterr().out
    assert "## digits" in said
    assert "| a random path | 0 |" in said
    [first, last] = json.loads(file.read_text())["digits"]
    assert (first["path"], last["path"]) == ([0, 0, 0], [7, 7, 7])
    assert 0 < first["accuracies"][0] < 1


def test_bad_numbers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seeds", "0"])
    assert "--seeds must be at least 1" in capsys.readouterr().err
