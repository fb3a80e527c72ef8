from collections.abc import Callable
from typing import Any

import pytest
import torch

from search_core import collapse, derive
from search_core.genotype import CellGenotype, Edge, parse
from search_core.networks import build
from search_core.profile import profile
from search_core.search import EpochReport, SearchRun
from search_core.spec import SearchSpec
from search_core.spec.primitives import DARTS
from search_core.supernet import CellSupernet

SpecMaker = Callable[..., SearchSpec]

SKIP_COLUMN = DARTS.index("skip_connect")
CONV_COLUMN = DARTS.index("sep_conv_3x3")


def cell(*normal: str) -> CellGenotype:
    reduce = tuple(Edge("skip_connect", 0) for _ in normal)
    concat = tuple(range(2, 2 + len(normal) // 2))
    return CellGenotype(
        normal=tuple(Edge(name, index % 2) for index, name in enumerate(normal)),
        normal_concat=concat,
        reduce=reduce,
        reduce_concat=concat,
    )


@pytest.mark.parametrize(
    ("normal", "collapsed"),
    [
        (("skip_connect", "skip_connect"), True),
        (("skip_connect", "none"), True),
        (("skip_connect", "skip_connect", "skip_connect", "max_pool_3x3"), False),
        (("sep_conv_3x3", "none"), False),
    ],
)
def test_only_a_normal_cell_that_computes_nothing_is_collapsed(
    normal: tuple[str, ...], collapsed: bool
) -> None:
    assert collapse.is_collapsed(cell(*normal)) == collapsed


@pytest.fixture
def make_small_spec(make_spec: SpecMaker) -> SpecMaker:
    """Makes a spec of two batches an epoch."""
    small = {"name": "synthetic", "num_train": 40, "num_test": 10, "image_shape": [1, 8, 8]}

    def make(*, epochs: int, stop: int = 0) -> SearchSpec:
        return make_spec(
            dataset=small,
            algorithm={"stop_on_collapse_epochs": stop},
            training={"epochs": epochs, "batch_size": 10},
        )

    return make


def choose(run: SearchRun, column: int) -> None:
    """Makes the alphas stand for one primitive on every edge, more than an epoch can undo."""
    assert isinstance(run.network, CellSupernet)
    with torch.no_grad():
        run.network.alpha_normal.zero_()
        run.network.alpha_normal[:, column] = 20


def run_epochs(run: SearchRun, columns: list[int]) -> list[EpochReport]:
    reports = []
    for column in columns:
        assert not run.finished
        choose(run, column)
        reports.append(run.run_epoch())
    return reports


def kinds(reports: list[EpochReport]) -> list[tuple[str, ...]]:
    return [tuple(warning.kind for warning in report.warnings) for report in reports]


def test_collapsed_epochs_are_told_and_by_default_change_nothing(
    make_small_spec: SpecMaker,
) -> None:
    run = SearchRun(make_small_spec(epochs=4), 0)
    reports = run_epochs(run, [CONV_COLUMN, SKIP_COLUMN, SKIP_COLUMN, CONV_COLUMN])
    assert kinds(reports) == [(), ("collapse",), ("collapse",), ()]
    assert [report.metrics["collapsed"] for report in reports] == [0, 1, 1, 0]
    assert "epoch 2 has collapsed" in reports[1].warnings[0].message
    assert run.finished


def test_a_run_stops_after_so_many_collapsed_epochs_in_a_row(make_small_spec: SpecMaker) -> None:
    spec = make_small_spec(epochs=50, stop=2)
    run = SearchRun(spec, 0)
    reports = run_epochs(run, [SKIP_COLUMN, CONV_COLUMN, SKIP_COLUMN, SKIP_COLUMN])
    assert kinds(reports)[-1] == ("collapse", "stopped_on_collapse")
    assert "stopped after epoch 4 of 50" in reports[-1].warnings[1].message
    assert run.finished
    with pytest.raises(RuntimeError, match="finished: 4 epochs are done"):
        run.run_epoch()
    again = SearchRun(spec, 0)
    again.load_state_dict(run.state_dict())
    assert again.finished


def test_a_resumed_run_stops_at_the_same_epoch(make_small_spec: SpecMaker) -> None:
    spec = make_small_spec(epochs=50, stop=2)
    run = SearchRun(spec, 0)
    run_epochs(run, [SKIP_COLUMN])
    resumed = SearchRun(spec, 0)
    resumed.load_state_dict(run.state_dict())
    assert not resumed.finished
    assert kinds(run_epochs(resumed, [SKIP_COLUMN])) == [("collapse", "stopped_on_collapse")]
    assert resumed.finished


def test_a_collapse_at_the_last_epoch_stops_nothing_early(make_small_spec: SpecMaker) -> None:
    spec = make_small_spec(epochs=1, stop=1)
    run = SearchRun(spec, 0)
    assert kinds(run_epochs(run, [SKIP_COLUMN])) == [("collapse",)]


@pytest.mark.parametrize("nones", [1, 8])
def test_a_none_that_the_variant_derives_is_an_architecture_like_any_other(nones: int) -> None:
    rows: list[list[float]] = [[0.0] * len(DARTS) for _ in range(9)]
    for edge, row in enumerate(rows):
        row[DARTS.index("none") if edge < nones else CONV_COLUMN] = 1.0
    genotype = derive.cell_genotype(rows, rows, DARTS, exclude_none=False)
    assert Edge("none", 0) in genotype.normal
    assert parse(genotype.to_json()) == parse(genotype.to_text()) == genotype
    network = build(genotype, family="darts", channels=2, cells=3, image_shape=(1, 8, 8))
    network.set_drop_path(0.2, torch.Generator().manual_seed(0))
    logits: Any = network(torch.randn(2, 1, 8, 8)).main_nk
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert profile(network, (1, 8, 8)).parameters > 0
