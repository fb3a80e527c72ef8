"""A trial that loses its process goes on from its folder and ends the same."""

from pathlib import Path

import torch

from search_core.pace import reproducible
from search_core.storage import Folder
from tests.workers.conftest import tiny
from workers.trial_run import TrialRun


def test_a_trial_goes_on_from_its_last_checkpoint_with_the_same_bits(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = tiny(training={"epochs": 3})
    undisturbed = TrialRun(spec, 5, Folder(tmp_path / "whole"), tmp_path)
    assert undisturbed.from_epoch == 0
    assert undisturbed.relaxation == "fast"
    assert undisturbed.last_result is None
    expected = [undisturbed.train_epoch() for _ in range(3)]
    assert undisturbed.finished

    first = TrialRun(spec, 5, Folder(tmp_path / "interrupted"), tmp_path)
    results = [first.train_epoch()]
    del first
    second = TrialRun(spec, 5, Folder(tmp_path / "interrupted"), tmp_path)
    assert second.from_epoch == 1
    # Its report may not have been recorded before the process was lost.
    assert second.last_result == results[0]
    results += [second.train_epoch(), second.train_epoch()]
    assert second.finished
    for result, wanted in zip(results, expected, strict=True):
        assert reproducible(result.metrics) == reproducible(wanted.metrics)
        assert result.genotype == wanted.genotype
    assert second.genotype() == undisturbed.genotype()


def test_a_damaged_checkpoint_costs_one_epoch(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = tiny()
    run = TrialRun(spec, 5, Folder(tmp_path), tmp_path)
    run.train_epoch()
    run.train_epoch()
    newest = max(tmp_path.glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert TrialRun(spec, 5, Folder(tmp_path), tmp_path).from_epoch == 1
