"""One trial on its node: resumes from its folder, trains an epoch, leaves a checkpoint."""

from pathlib import Path
from typing import Any

import torch

from search_core.checkpoints import CheckpointFolder
from search_core.genotype import Genotype
from search_core.search import SearchRun
from search_core.spec import SearchSpec
from search_core.spec.algorithm import RelaxationForm
from search_core.spec.retraining import RetrainingSpec
from search_core.training import TrainingRun
from store.jobs import JobSpec
from store.recording import EpochResult, EpochWarning
from workers import memory
from workers.reports import from_report, to_report


class TrialRun:
    """A run of a search or of a training that survives its process, epoch by epoch.

    Args:
        spec: What runs.
        seed: The trial's seed.
        folder: Where its checkpoints are and go.
        data_root: Where the data sets are.

    Attributes:
        from_epoch: Completed epochs of the checkpoint that it started from.
        last_result: What the last completed epoch reported; None before the first one.

    Raises:
        NotEnoughMemoryError: The network would not fit; nothing was built.
        SearchCoreError: The data or the checkpoints are not what the spec needs.
    """

    def __init__(self, spec: JobSpec, seed: int, folder: Path, data_root: Path) -> None:
        device = "cuda" if spec.resources.gpus else "cpu"
        if isinstance(spec, SearchSpec):
            memory.check(
                spec, _free_bytes(device), "its GPU" if spec.resources.gpus else "its node"
            )
        self._spec = spec
        self._run: SearchRun | TrainingRun = (
            SearchRun(spec, seed, device=device, data_root=data_root)
            if isinstance(spec, SearchSpec)
            else TrainingRun(spec, seed, device=device, data_root=data_root)
        )
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

    @property
    def relaxation(self) -> RelaxationForm | None:
        """What a search's mixtures are computed by now; None of a training."""
        return self._run.relaxation if isinstance(self._run, SearchRun) else None

    def genotype(self) -> Genotype:
        """The architecture that the alphas stand for now, or the one that is trained."""
        return self._run.genotype() if isinstance(self._run, SearchRun) else self._trained

    def result(self) -> dict[str, Any] | None:
        """Of a finished training: what it is worth on the test images; None of a search."""
        return self._run.result().to_plain() if isinstance(self._run, TrainingRun) else None

    def train_epoch(self) -> EpochResult:
        """Trains one epoch; when it returns, the epoch's checkpoint is safe.

        The checkpoint holds the epoch's report too: a trial that is killed after it has saved
        and before its report was recorded reports the epoch again. The last one holds a training's
        result as well, so that a resumed trial does not look at the test images once more.

        Raises:
            SearchCoreError: The run cannot go on, such as after a loss that is not finite.
            OSError: The checkpoint cannot be written.
        """
        result = self._run_epoch()
        if self._run.finished:
            self.result()
        self._checkpoints.save(
            result.epoch,
            {"run": self._run.state_dict(), "result": to_report(result)},
        )
        self.last_result = result
        return result

    def _run_epoch(self) -> EpochResult:
        if isinstance(self._run, TrainingRun):
            trained = self._run.run_epoch()
            return EpochResult(trained.epoch, trained.metrics, self._trained)
        searched = self._run.run_epoch()
        warnings = tuple(EpochWarning(note.kind, note.message) for note in searched.warnings)
        return EpochResult(
            searched.epoch,
            searched.metrics,
            searched.genotype,
            warnings,
            searched.alphas,
            searched.relaxation,
        )

    @property
    def _trained(self) -> Genotype:
        assert isinstance(self._spec, RetrainingSpec)
        return self._spec.genotype


def _free_bytes(device: str) -> int:
    if device == "cpu":
        return memory.available()
    free, _ = torch.cuda.mem_get_info()
    return int(free)


def use_threads(count: int) -> None:
    """Makes this process compute with as many threads as the trial was given CPUs."""
    torch.set_num_threads(count)
