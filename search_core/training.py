"""A training from scratch: an architecture by the papers' recipe, resumable at any batch.

Sources: arXiv 1806.09055, appendix A.2; arXiv 1903.09900, section 4.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from search_core import data, schedules
from search_core.bilevel import BatchResult
from search_core.drop_path import drop_path_probability
from search_core.errors import DivergedError
from search_core.evaluation import evaluate
from search_core.pace import pace
from search_core.randomness import stream
from search_core.reports import BatchProgress
from search_core.spec.networks import CellNetworkSpec
from search_core.spec.retraining import RetrainingSpec
from search_core.states import check_origin, load_optimizer, origin, snapshot
from search_core.training_measurement import BestEpoch, main_head
from search_core.training_reports import TrainingReport, TrainingResult
from search_core.training_setup import build_network, load_images
from search_core.training_step import TrainingStep

__all__ = ["BatchProgress", "BestEpoch", "TrainingReport", "TrainingResult", "TrainingRun"]

_STATE_VERSION = 1


@dataclass
class _Position:
    """How far a run is, and the running sums of the present epoch."""

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    num_correct: int = 0
    seconds: float = 0.0


class TrainingRun:
    """Trains the network of an architecture for one seed of a spec, and measures it once.

    Two runs of the same spec and seed give the same bits on a CPU with the same number of threads,
    however often they were saved and resumed. The global random state is neither read nor changed.
    The test split is looked at by `result` only, after the last epoch.

    Args:
        spec: What to train, and how.
        seed: The trial's seed: initial weights, held-out images, batch order, augmentation and
            drop path.
        device: Where to train.
        data_root: The data folder: `dataset.root` is relative to it. It may differ when resumed.
        clock: Seconds since any fixed moment, for the durations in reports.

    Raises:
        DataNotFoundError: The data set, or a further test set, is not in its folder.

    Attributes:
        network: The network.
        best: The best epoch by validation accuracy so far; None before the first, and always
            where no images are held out.
    """

    def __init__(
        self,
        spec: RetrainingSpec,
        seed: int,
        *,
        device: torch.device | str = "cpu",
        data_root: Path | str = data.DEFAULT_DATA_ROOT,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._spec = spec
        self._seed = seed
        self._clock = clock
        self._device = torch.device(device)
        # A path has neither an auxiliary head nor operations to leave out.
        self._cells = spec.network if isinstance(spec.network, CellNetworkSpec) else None
        self.network = build_network(spec, seed).to(self._device)
        self.best: BestEpoch | None = None
        self._images = load_images(spec, seed, device=self._device, data_root=data_root)
        self._batches = self._images.batches
        self._drop_path = torch.Generator(device=self._device)
        self._step = TrainingStep(
            self.network,
            spec.training,
            auxiliary_weight=0.0 if self._cells is None else self._cells.auxiliary_weight,
            device=self._device,
        )
        self._rates = schedules.rates(spec.training)
        self._scheduler = schedules.ListedLR(self._step.optimizer, self._rates)
        self._position = _Position()
        self._result: TrainingResult | None = None

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self._position.epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self._spec.training.epochs

    def run_epoch(self, on_batch: Callable[[BatchProgress], None] | None = None) -> TrainingReport:
        """Trains to the end of the present epoch, then measures it on the held-out images.

        Args:
            on_batch: Called after every batch. It may take `state_dict()`, and it may raise to
                stop the run there; a later `run_epoch` goes on with the next batch.

        Returns:
            What the epoch measured.

        Raises:
            DivergedError: A loss or a gradient stopped being finite. The run cannot go on.
            RuntimeError: The run is finished.
        """
        if self.finished:
            raise RuntimeError(f"the run is finished: {self.epoch} epochs are done")
        position = self._position
        batches = self._batches.batches
        self.network.set_drop_path(self._drop_path_probability(), self._drop_path)
        while position.batch < batches:
            started = self._clock()
            result = self._train_batch()
            position.batch += 1
            position.loss_sum += result.loss
            position.num_correct += result.num_correct
            if position.batch == batches:
                # Here, so that a state taken after the last batch needs no step when resumed.
                self._scheduler.step()
            position.seconds += self._clock() - started
            if on_batch is not None:
                on_batch(BatchProgress(self.epoch + 1, position.batch, batches, position.seconds))
        return self._close_epoch()

    def result(self) -> TrainingResult:
        """Measures the last and the best epoch's weights on the test images, once.

        A second call returns the same result without measuring again, also of a resumed run.

        Returns:
            Both measurements.

        Raises:
            RuntimeError: Epochs are still to be trained.
        """
        if not self.finished:
            raise RuntimeError(
                f"{self.epoch} of {self._spec.training.epochs} epochs are done; the test split is "
                "for after the last"
            )
        if self._result is None:
            self._result = self._images.test.measure(self.network, self.epoch, self.best)
        return self._result

    def state_dict(self) -> dict[str, Any]:
        """Everything that the run's future depends on, as a snapshot.

        Returns:
            Tensors, numbers, strings, lists, dicts and None only, so that
            `torch.load(weights_only=True)` reads what `torch.save` wrote.
        """
        state = {
            **origin(_STATE_VERSION, _settings(self._spec), self._seed),
            "network": dict(self.network.state_dict()),
            "optimizer": self._step.optimizer.state_dict()["state"],
            "scaler": self._step.scaler.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "batches": self._batches.state_dict(),
            "position": asdict(self._position),
            "best": None if self.best is None else vars(self.best),
            "result": None if self._result is None else self._result.to_plain(),
        }
        return {name: snapshot(value) for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the run was that wrote the state, on whatever device either is.

        Args:
            state: What `state_dict` returned.

        Raises:
            CheckpointError: The state is of another version, spec or seed. The trials, resources
                and the dataset's folder may differ: they change no number.
        """
        check_origin(state, _STATE_VERSION, _settings(self._spec), self._seed)
        self.network.load_state_dict(state["network"])
        load_optimizer(self._step.optimizer, state["optimizer"])
        self._step.scaler.load_state_dict(state["scaler"])
        self._scheduler.load_state_dict(state["scheduler"])
        self._batches.load_state_dict(state["batches"])
        self._position = _Position(**state["position"])
        self.best = None if state["best"] is None else BestEpoch(**snapshot(state["best"]))
        result = state["result"]
        self._result = None if result is None else TrainingResult.from_plain(result)

    def _drop_path_probability(self) -> float:
        maximum = 0.0 if self._cells is None else self._cells.drop_path
        return drop_path_probability(maximum, self.epoch, self._spec.training.epochs)

    def _train_batch(self) -> BatchResult:
        place = f"epoch {self.epoch + 1}, batch {self._position.batch + 1}"
        # Seeded for each batch, so that no generator of a GPU has to go into a checkpoint.
        self._drop_path.manual_seed(stream(self._seed, f"drop path in {place}").initial_seed())
        try:
            return self._step(self._batches.next())
        except DivergedError as error:
            raise self._diverged(place, error) from error

    def _close_epoch(self) -> TrainingReport:
        position, epochs = self._position, self._spec.training.epochs
        started = self._clock()
        batches = self._batches.batches
        metrics = {
            "train_loss": position.loss_sum / batches,
            "train_accuracy": position.num_correct / (batches * self._spec.training.batch_size),
            "learning_rate": self._rates[self.epoch],
        }
        if self._cells is not None:
            metrics["drop_path"] = self._drop_path_probability()
        if self._images.validation is not None:
            loss, accuracy = evaluate(main_head(self.network), self._images.validation)
            if not math.isfinite(loss):
                raise self._diverged(
                    f"end of epoch {self.epoch + 1}", f"the validation loss is {loss}"
                )
            metrics |= {"validation_loss": loss, "validation_accuracy": accuracy}
            if self.best is None or self.best.is_worse_than(accuracy, loss):
                weights = snapshot(dict(self.network.state_dict()))
                self.best = BestEpoch(self.epoch + 1, accuracy, loss, weights)
        metrics["seconds"] = position.seconds + self._clock() - started
        metrics |= pace(
            steps=batches,
            batch_size=self._spec.training.batch_size,
            seconds=position.seconds,
            device=self._device,
        )
        self._position = _Position(epoch=self.epoch + 1)
        best_epoch = None if self.best is None else self.best.epoch
        return TrainingReport(self.epoch, epochs, metrics, best_epoch)

    def _diverged(self, place: str, what: object) -> DivergedError:
        training = self._spec.training
        return DivergedError(
            f"diverged at {place}: {what}; try a learning_rate below {training.learning_rate:g} or "
            f"a gradient_clip below {training.gradient_clip:g}"
            + ("" if training.precision == "float32" else ", or the precision 'float32'")
        )


def _settings(spec: RetrainingSpec) -> str:
    """The part of a spec that changes numbers, as JSON."""
    return spec.model_dump_json(
        exclude={
            "preset": True,
            "name": True,
            "trials": True,
            "resources": True,
            "priority": True,
            "labels": True,
            # Where the images lie changes none of them.
            "dataset": {"root", "download"},
        }
    )
