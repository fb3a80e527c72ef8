"""One trial on its node: resumes from its folder, trains an epoch, leaves a checkpoint."""

from pathlib import Path

import torch

from search_core.checkpoints import CheckpointFolder
from search_core.genotype import Genotype
from search_core.search import SearchRun
from search_core.spec import SearchSpec
from store.recording import EpochResult, EpochWarning
from workers.reports import from_report, to_report


class TrialRun:
    """A search run that survives its process, epoch by epoch.

    Args:
        spec: The search.
        seed: The trial's seed.
        folder: Where its checkpoints are and go.
        data_root: Where the data sets are.

    Attributes:
        from_epoch: Completed epochs of the checkpoint that it started from.
        last_result: What the last completed epoch reported; None before the first one.
    """

    def __init__(self, spec: SearchSpec, seed: int, folder: Path, data_root: Path) -> None:
        device = "cuda" if spec.resources.gpus else "cpu"
        self._run = SearchRun(spec, seed, device=device, data_root=data_root)
        self._checkpoints = CheckpointFolder(folder)
        self.last_result: EpochResult | None = None
        latest = self._checkpoints.load_latest()
        if latest is not None:
            _, state = latest
            self._run.load_state_dict(state["run"])
            self.last_result = from_report(state["result"])
        self.from_epoch = self._run.epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self._run.finished

    def genotype(self) -> Genotype:
        """The architecture that the alphas stand for now."""
        return self._run.genotype()

    def train_epoch(self) -> EpochResult:
        """Trains one epoch; when it returns, the epoch's checkpoint is safe.

        The checkpoint holds the epoch's report too: a trial that is killed after it has saved
        and before its report was recorded reports the epoch again.

        Raises:
            SearchCoreError: The run cannot go on, such as after a loss that is not finite.
            OSError: The checkpoint cannot be written.
        """
        report = self._run.run_epoch()
        warnings = tuple(EpochWarning(note.kind, note.message) for note in report.warnings)
        result = EpochResult(report.epoch, report.metrics, report.genotype, warnings)
        self._checkpoints.save(
            report.epoch,
            {"run": self._run.state_dict(), "result": to_report(result)},
        )
        self.last_result = result
        return result


def use_threads(count: int) -> None:
    """Makes this process compute with as many threads as the trial was given CPUs."""
    torch.set_num_threads(count)
