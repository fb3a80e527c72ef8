"""The finalists of a search: its heaviest paths, trained from scratch one after the other.

What the alphas prefer is a guess made with shared weights. A short training of a few candidates, on
most of the images of both halves, measures them as they will be used.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from search_core import data
from search_core.derive import best_paths
from search_core.derive.graph import PathWeights
from search_core.errors import DivergedError
from search_core.genotype import PathGenotype
from search_core.reports import BatchProgress, SearchWarning
from search_core.spec.datasets import DigitsDataset
from search_core.spec.finalists import Finalists
from search_core.spec.hypercuboid import HyperCuboidSpace
from search_core.spec.retraining import NetworkTrainingSpec, RetrainingSpec
from search_core.spec.search import SearchSpec
from search_core.training import TrainingRun


@dataclass(frozen=True)
class FinalistReport:
    """What an epoch of a finalist measured.

    Attributes:
        metrics: `finalist` is its rank by the alphas, from 1; `finalist_accuracy` and
            `finalist_loss` are its own on the images held out, and `validation_accuracy` and
            `validation_loss` those of the best that has ended; before one has, its own. They are
            missing where nothing has been measured.
        warnings: That it has diverged, if it has.
    """

    metrics: dict[str, float]
    warnings: tuple[SearchWarning, ...] = ()


@dataclass(frozen=True)
class _Measured:
    """A finalist after its last epoch, on the images held out."""

    accuracy: float
    loss: float

    def metrics(self) -> dict[str, float]:
        return {"validation_loss": self.loss, "validation_accuracy": self.accuracy}


class FinalistsRun:
    """Trains the finalists of one trial, epoch by epoch; can be saved and resumed at any batch.

    Every finalist is trained with the trial's seed, and so compared on the same images. The best
    accuracy after the last epoch wins, of equals the heavier path. A finalist that diverges is out,
    and its other epochs are passed over; if all are, the heaviest path stands.

    Args:
        spec: The search's, with finalists.
        seed: The trial's.
        device: Where to train.
        data_root: The data folder.
        clock: Seconds since any fixed moment.
    """

    def __init__(
        self,
        spec: SearchSpec,
        seed: int,
        *,
        device: torch.device | str = "cpu",
        data_root: Path | str = data.DEFAULT_DATA_ROOT,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        assert spec.algorithm.finalists is not None
        self._spec = spec
        self._finalists = spec.algorithm.finalists
        self._seed = seed
        self._device = device
        self._data_root = data_root
        self._clock = clock
        self._paths: tuple[PathGenotype, ...] = ()
        self._ended: list[_Measured | None] = []
        """By rank; None is one that has diverged."""
        self._run: TrainingRun | None = None

    @property
    def begun(self) -> bool:
        """Whether the paths are known."""
        return bool(self._paths)

    @property
    def epoch(self) -> int:
        """Epochs that are completed, or passed over."""
        present = 0 if self._run is None else self._run.epoch
        return len(self._ended) * self._finalists.epochs + present

    @property
    def finished(self) -> bool:
        """Whether all finalists have ended."""
        return self.epoch >= self._finalists.total_epochs

    def begin(self, weights: PathWeights) -> None:
        """Chooses the paths.

        Args:
            weights: The softmaxed alphas that the search ended with, [position, operation].
        """
        space = self._spec.space
        assert isinstance(space, HyperCuboidSpace)
        ranked = best_paths(weights, space, self._finalists.paths)
        self._paths = tuple(each.genotype for each in ranked)

    def genotype(self) -> PathGenotype:
        """The best path so far: before one has ended well, the heaviest that has not diverged."""
        best = self._best()
        if best is None:
            best = len(self._ended) if len(self._ended) < len(self._paths) else 0
        return self._paths[best]

    def run_epoch(self, on_batch: Callable[[BatchProgress], None] | None = None) -> FinalistReport:
        """Trains the present finalist to the end of its present epoch, and measures it.

        Args:
            on_batch: Called after every batch, with the epoch of the whole trial.

        Returns:
            What the epoch measured.
        """
        if self._run is None:
            self._run = self._training()
        run, started = self._run, self._clock()
        epoch = self._spec.training.epochs + self.epoch + 1
        place = {
            "finalist": float(len(self._ended) + 1),
            "finalist_epoch": float(run.epoch + 1),
        }

        def on_its_batch(progress: BatchProgress) -> None:
            if on_batch is not None:
                on_batch(replace(progress, epoch=epoch))

        try:
            trained = dict(run.run_epoch(on_its_batch).metrics)
        except DivergedError as error:
            self._end(None)
            return self._diverged(place, error, self._clock() - started)
        measured = _Measured(trained["validation_accuracy"], trained["validation_loss"])
        if run.finished:
            self._end(measured)
        best = self._best()
        metrics = {
            **trained,
            **(measured if best is None else self._measured(best)).metrics(),
            **place,
            "finalist_loss": measured.loss,
            "finalist_accuracy": measured.accuracy,
            "finalist_diverged": 0.0,
        }
        return FinalistReport(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest depends on; see `SearchRun.state_dict`."""
        return {
            "paths": [path.to_json() for path in self._paths],
            "ended": [None if each is None else asdict(each) for each in self._ended],
            "run": None if self._run is None else self._run.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the one was that wrote the state.

        Args:
            state: What `state_dict` returned.

        Raises:
            CheckpointError: The present finalist's state is of another version.
        """
        self._paths = tuple(PathGenotype.model_validate_json(path) for path in state["paths"])
        self._ended = [None if each is None else _Measured(**each) for each in state["ended"]]
        self._run = None
        if state["run"] is not None:
            self._run = self._training()
            self._run.load_state_dict(state["run"])

    def _training(self) -> TrainingRun:
        """The training of the first path that has not ended."""
        return TrainingRun(
            recipe(self._spec, self._finalists, self._paths[len(self._ended)]),
            self._seed,
            device=self._device,
            data_root=self._data_root,
            clock=self._clock,
        )

    def _end(self, measured: _Measured | None) -> None:
        self._ended.append(measured)
        self._run = None

    def _best(self) -> int | None:
        """The best that has ended, as an index; of equals the first, which is the heavier."""
        well = [index for index, each in enumerate(self._ended) if each is not None]
        return max(well, key=lambda index: self._measured(index).accuracy, default=None)

    def _measured(self, index: int) -> _Measured:
        measured = self._ended[index]
        assert measured is not None
        return measured

    def _diverged(
        self, place: dict[str, float], error: DivergedError, seconds: float
    ) -> FinalistReport:
        best = self._best()
        message = f"finalist {len(self._ended)} of {len(self._paths)} is out: it {error}"
        if best is None and self.finished:
            message += "; none is left to compare, and the heaviest path stands unmeasured"
        metrics = {
            **({} if best is None else self._measured(best).metrics()),
            **place,
            "finalist_diverged": 1.0,
            "seconds": seconds,
        }
        return FinalistReport(metrics, (SearchWarning("finalist_diverged", message),))


def recipe(spec: SearchSpec, finalists: Finalists, path: PathGenotype) -> RetrainingSpec:
    """The training of a finalist: the search's own settings, for its own epochs.

    Args:
        spec: The search's.
        finalists: How long, and on how many of the images.
        path: The finalist.
    """
    settings = {name: getattr(spec.training, name) for name in type(spec.training).model_fields}
    return RetrainingSpec(
        architecture=path,
        # A finalist is trained on images of both halves.
        dataset=spec.dataset.model_copy(update={"train_portion": DigitsDataset().train_portion}),
        augmentation=spec.augmentation,
        validation_portion=finalists.validation_portion,
        training=NetworkTrainingSpec(**{**settings, "epochs": finalists.epochs}),
        resources=spec.resources,
    )
