"""One trial on its node: resumes from its checkpoints, trains an epoch, leaves a checkpoint."""

import platform
from pathlib import Path
from typing import Any

import torch

from search_core.checkpoints import Checkpoints
from search_core.genotype import Genotype
from search_core.reports import EpochReport
from search_core.search import SearchRun
from search_core.spec import SearchSpec
from search_core.spec.algorithm import RelaxationForm
from search_core.spec.retraining import RetrainingSpec
from search_core.storage import Storage
from search_core.training import TrainingRun
from store.epoch_reports import EpochResult, EpochWarning
from store.jobs import JobSpec
from workers.failures import NoGpuError
from workers.reports import from_report, to_report
from workers.settings import NodeSettings


class TrialRun:
    """A run of a search or of a training that survives its process, epoch by epoch.

    Args:
        spec: What runs.
        seed: The trial's seed.
        storage: Where its checkpoints are and go.
        data_root: Where the data sets are.

    Attributes:
        from_epoch: Completed epochs of the checkpoint that it started from.
        last_result: What the last completed epoch reported; None before the first one.

    Raises:
        SearchCoreError: The data or the checkpoints are not what the spec needs.
        StorageError: The storage does not answer.
    """

    def __init__(self, spec: JobSpec, seed: int, storage: Storage, data_root: Path) -> None:
        self._spec = spec
        self._seed = seed
        self._data_root = data_root
        self._run = self._begin()
        self._checkpoints = Checkpoints(storage)
        self.last_result: EpochResult | None = None
        self._resume(self._checkpoints.load_latest())
        self.from_epoch = self._run.epoch

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self._run.epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self._run.finished

    @property
    def relaxation(self) -> RelaxationForm | None:
        """What a search's mixtures are computed by now; None of a training."""
        return self._run.relaxation if isinstance(self._run, SearchRun) else None

    @property
    def search(self) -> SearchRun:
        """The run of a search."""
        assert isinstance(self._run, SearchRun)
        return self._run

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
            StorageError: The checkpoint cannot be written.
        """
        if isinstance(self._run, SearchRun):
            return self.keep(self._run.run_epoch())
        trained = self._run.run_epoch()
        return self._save(EpochResult(trained.epoch, trained.metrics, self._trained))

    def keep(self, report: EpochReport) -> EpochResult:
        """Writes the checkpoint of an epoch that the run of a search has just completed.

        Args:
            report: What the epoch measured.

        Raises:
            StorageError: The checkpoint cannot be written.
        """
        warnings = tuple(EpochWarning(note.kind, note.message) for note in report.warnings)
        return self._save(
            EpochResult(
                report.epoch,
                report.metrics,
                report.genotype,
                warnings,
                report.alphas,
                report.relaxation,
            )
        )

    def go_back(self) -> None:
        """Forgets the last epoch, if the checkpoint before it is there."""
        before = self._checkpoints.load_latest(before=self.epoch)
        if (0 if before is None else before[0]) == self.epoch - 1:
            self._run = self._begin()
            self.last_result = None
            self._resume(before)
            self.from_epoch = self._run.epoch

    def _begin(self) -> SearchRun | TrainingRun:
        device = device_of(self._spec)
        if isinstance(self._spec, SearchSpec):
            return SearchRun(self._spec, self._seed, device=device, data_root=self._data_root)
        return TrainingRun(self._spec, self._seed, device=device, data_root=self._data_root)

    def _resume(self, latest: tuple[int, dict[str, Any]] | None) -> None:
        if latest is not None:
            _, state = latest
            self._run.load_state_dict(state["run"])
            self.last_result = from_report(state["result"])

    def _save(self, result: EpochResult) -> EpochResult:
        if self._run.finished:
            self.result()
        self._checkpoints.save(
            result.epoch,
            {"run": self._run.state_dict(), "result": to_report(result)},
            accuracy=result.metrics.get("validation_accuracy"),
        )
        self.last_result = result
        return result

    @property
    def _trained(self) -> Genotype:
        assert isinstance(self._spec, RetrainingSpec)
        return self._spec.genotype


def device_of(spec: JobSpec) -> str:
    """The device that a trial trains on, as PyTorch names it.

    Raises:
        NoGpuError: The trial has a GPU, or a share of one, that PyTorch does not find.
    """
    if not spec.resources.gpus:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if NodeSettings().cpu_stands_for_gpu:
        return "cpu"
    raise NoGpuError(
        f"Ray gave the trial a GPU on {platform.node()}, where PyTorch {torch.__version__} finds "
        "none. See that `nvidia-smi` works on the node and that its PyTorch is built for CUDA, or "
        "start its Ray with --num-gpus=0; then retry the trial. A node whose CPU is meant to stand "
        "for GPUs says so with DARTBOARD_CPU_STANDS_FOR_GPU=1."
    )
