"""A search run: one trial of a spec, epoch by epoch, that can be saved and resumed at any batch."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from search_core import collapse, data, schedules, search_measurement, weighting
from search_core.bilevel import BatchResult, BilevelStep
from search_core.costs import EVALUATION_FACTOR
from search_core.epoch_training import EpochSums, EpochTraining
from search_core.errors import DivergedError
from search_core.finalists import FinalistsRun
from search_core.genotype import Genotype
from search_core.pace import pace
from search_core.randomness import stream
from search_core.relaxation_in_use import RelaxationInUse
from search_core.reports import BatchProgress, EpochReport, SearchWarning
from search_core.search_state import Position, SearchParts
from search_core.spaces import build_supernet
from search_core.spec.algorithm import RelaxationForm
from search_core.spec.search import SearchSpec
from search_core.static_training import StaticTraining, is_static

__all__ = ["BatchProgress", "EpochReport", "SearchRun"]


class SearchRun:
    """Trains a supernet and its alphas for one seed of a spec.

    Two runs of the same spec and seed give the same bits on a CPU with the same number of threads,
    however often they were saved and resumed. The global random state is neither read nor changed.

    Args:
        spec: What to search.
        seed: The trial's seed: split, initial weights and batch order.
        device: Where to train.
        data_root: The data folder: `dataset.root` is relative to it. It may differ when resumed.
        clock: Seconds since any fixed moment, for the durations in reports.

    Raises:
        ValueError: The space does not fit the data set's images.
        DataNotFoundError: The data set is not in its folder, or is not what the spec says.

    Attributes:
        network: The supernet.
        epoch: Completed epochs, those of the finalists included.
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
        self._spec = spec
        self._seed = seed
        self._clock = clock
        self._device = torch.device(device)
        facts = spec.dataset.facts
        self.network = build_supernet(
            spec.space,
            facts.image_shape,
            facts.num_classes,
            weighting=weighting.from_spec(spec.algorithm),
            weight_generator=stream(seed, "weights"),
            alpha_generator=stream(seed, "alphas"),
        ).to(device)
        self.network.precision = spec.training.precision
        self._relaxation = RelaxationInUse(self.network, spec.algorithm, spec.training.batch_size)
        # One core trains; the others of the trial read ahead, where images come from files.
        dataset = data.load(spec.dataset, data_root, num_workers=spec.resources.cpus - 1)
        train, validation = data.halves(
            dataset.train, spec.dataset.train_portion, stream(seed, "halves")
        )
        self._train, self._validation = train.to(device), validation.to(device)
        self._train_batches = self._batches(self._train, "training")
        # The alphas' batches are augmented like the weights', as in DARTS: else the alphas would
        # choose for easier images than the network is trained on. Accuracy is measured without.
        self._validation_batches = self._batches(self._validation, "validation")
        paths = stream(seed, "paths")
        repeats = is_static(spec, self._device, self.relaxation)
        step = BilevelStep(
            self.network,
            spec.algorithm,
            spec.training,
            paths,
            relaxation=self._relaxation,
            capturable=repeats,
        )
        self._temperatures = schedules.temperatures(spec.algorithm, spec.training.epochs)
        self._rates = schedules.rates(spec.training)
        scheduler = schedules.ListedLR(step.weight_optimizer, self._rates)
        self._training = EpochTraining(
            step,
            scheduler,
            self._train_batches.batches,
            static=StaticTraining(step, self._device) if repeats else None,
            diverged=self._diverged_in,
        )
        self._position = Position()
        self._finalists = (
            None
            if spec.algorithm.finalists is None
            else FinalistsRun(spec, seed, device=device, data_root=data_root, clock=clock)
        )
        self._parts = SearchParts(
            self.network,
            self._training,
            scheduler,
            self._train_batches,
            self._validation_batches,
            paths,
            self._relaxation,
            self._finalists,
        )
        self._set_temperature(0)

    @property
    def epoch(self) -> int:
        """Completed epochs, those of the finalists included."""
        return self._position.epoch + (0 if self._finalists is None else self._finalists.epoch)

    @property
    def relaxation(self) -> RelaxationForm:
        """How the supernet's mixtures are computed now."""
        return self._relaxation.form

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the run has ended early because it collapsed."""
        return self.epoch >= self._spec.total_epochs or collapse.stops(
            self._position.collapsed_epochs, self._spec.algorithm.stop_on_collapse_epochs
        )

    def genotype(self) -> Genotype:
        """The architecture that the alphas stand for now; once there are finalists, their best."""
        if self._finalists is not None and self._finalists.begun:
            return self._finalists.genotype()
        return self.network.genotype(exclude_none=self._spec.algorithm.exclude_none)

    def run_epoch(self, on_batch: Callable[[BatchProgress], None] | None = None) -> EpochReport:
        """Trains to the end of the present epoch, then measures it on the alphas' half.

        After the search's own epochs, an epoch is one of a finalist.

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
        if self._finalists is not None and not self.searches:
            return self._run_finalist(self._finalists, on_batch)
        self.begin_epoch()
        self._relaxation.check(self._train)
        batches = self._train_batches.batches
        while self.batches_left:
            started = self._clock()
            self._training.train(*self.draw(), alphas=self.trains_alphas)
            sums = self._training.sums
            sums.seconds += self._clock() - started
            if on_batch is not None:
                on_batch(BatchProgress(self.epoch + 1, sums.batch, batches, sums.seconds))
        return self.close_epoch()

    # What `run_epoch` is made of, for a stack of runs, which makes their steps together: see
    # `search_core.stacking`.

    @property
    def spec(self) -> SearchSpec:
        """What is searched."""
        return self._spec

    @property
    def seed(self) -> int:
        """The trial's seed."""
        return self._seed

    @property
    def step(self) -> BilevelStep:
        """What trains the network."""
        return self._training.step

    @property
    def validation(self) -> data.Images:
        """The alphas' half, on which epochs are measured."""
        return self._validation

    @property
    def place(self) -> tuple[int, int]:
        """Epochs of the search itself that are completed, and batches of the present one."""
        return self._position.epoch, self._training.sums.batch

    @property
    def searches(self) -> bool:
        """Whether the next epoch is one of the search itself, and not of a finalist."""
        return self._position.epoch < self._spec.training.epochs

    @property
    def batches_left(self) -> int:
        """Batches to the end of the present epoch of the search."""
        return self._training.batches_left

    @property
    def trains_alphas(self) -> bool:
        """Whether the alphas take part in the present epoch."""
        return self.epoch >= self._spec.algorithm.warmup_epochs

    def begin_epoch(self) -> None:
        """Sets what is the same for all batches of the present epoch."""
        self._set_temperature(self.epoch)

    def draw(self) -> tuple[data.LabelledImages, data.LabelledImages]:
        """The next batches of the weights' half and of the alphas' half."""
        return self._train_batches.next(), self._validation_batches.next()

    def take(self, result: BatchResult, seconds: float = 0.0) -> None:
        """Counts a step that was made on the drawn batches.

        Args:
            result: What it measured.
            seconds: What it took.
        """
        self._training.take(result, seconds)

    def diverged_here(self, error: DivergedError) -> DivergedError:
        """The error of a step, with its place and what to do."""
        return self._training.diverged_here(error)

    def close_epoch(
        self, measured: tuple[float, float] | None = None, seconds: float = 0.0
    ) -> EpochReport:
        """Ends an epoch whose batches have all been taken.

        Args:
            measured: Loss and accuracy of the network on the alphas' half; None measures them.
            seconds: What measuring them took.

        Returns:
            What the epoch measured.

        Raises:
            DivergedError: The loss is not finite.
        """
        sums = self._training.sums
        started = self._clock()
        batch_size = self._spec.training.batch_size
        try:
            loss, accuracy = self._measure() if measured is None else _finite(measured)
        except DivergedError as error:
            raise self._diverged(f"end of epoch {self.epoch + 1}", error) from error
        genotype = self.genotype()
        collapsed = self._position.collapsed_epochs + 1 if collapse.is_collapsed(genotype) else 0
        batches = self._train_batches.batches
        metrics = {
            "train_loss": sums.loss_sum / batches,
            "train_accuracy": sums.num_correct / (batches * batch_size),
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "learning_rate": self._rates[self.epoch],
            "seconds": sums.seconds + seconds + self._clock() - started,
            **pace(
                steps=batches,
                batch_size=batch_size,
                seconds=sums.seconds,
                device=self._device,
            ),
        }
        self._position = Position(epoch=self.epoch + 1, collapsed_epochs=collapsed)
        self._training.go_on_from(EpochSums())
        warnings = collapse.warnings(
            collapsed,
            epoch=self.epoch,
            epochs=self._spec.total_epochs,
            stop_after=self._spec.algorithm.stop_on_collapse_epochs,
        )
        return self._report(metrics, genotype, (*warnings, *self._training.news()))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the run's future depends on, as a snapshot.

        Returns:
            Tensors, numbers, strings, lists, dicts and None only, so that
            `torch.load(weights_only=True)` reads what `torch.save` wrote.

        Raises:
            DivergedError: A GPU had not yet told that the last batches did.
        """
        self._training.read()
        return self._parts.save(self._spec, self._seed, self._position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the run was that wrote the state, on whatever device either is.

        Args:
            state: What `state_dict` returned.

        Raises:
            CheckpointError: The state is of another version, spec or seed. The name, labels,
                priority, trials, resources and the dataset's folder may differ: they change no
                number.
        """
        self._position = self._parts.load(self._spec, self._seed, state)
        # Between epochs, what the one before was trained with.
        epoch, batch = self.place
        self._set_temperature(epoch if batch else max(epoch - 1, 0))

    def _set_temperature(self, epoch: int) -> None:
        self.network.temperature = self._temperatures[epoch]

    def _batches(self, half: data.Images, purpose: str) -> data.Batches:
        return half.batches(
            self._spec.training.batch_size,
            self._spec.augmentation,
            order_generator=stream(self._seed, f"{purpose} batches"),
            augmentation_generator=stream(self._seed, f"{purpose} augmentation"),
        )

    def _measure(self) -> tuple[float, float]:
        # Without gradients twice as many fit easily; of a large supernet 512 would not.
        most = EVALUATION_FACTOR * self._spec.training.batch_size

        def measure() -> tuple[float, float]:
            return _finite(
                search_measurement.validate(
                    self.network,
                    self._train,
                    self._validation,
                    most=most,
                    static=self._training.evaluation,
                )
            )

        if not self.network.evaluates_by_plans:
            return measure()
        return self._relaxation.compute(measure, "evaluation")

    def _run_finalist(
        self, finalists: FinalistsRun, on_batch: Callable[[BatchProgress], None] | None
    ) -> EpochReport:
        if not finalists.begun:
            finalists.begin(self.network.architecture_weights()["cuboid"])
            self._training.forget()  # the finalists need the memory
        report = finalists.run_epoch(on_batch)
        genotype = finalists.genotype()
        return self._report(report.metrics, genotype, report.warnings)

    def _report(
        self,
        metrics: dict[str, float],
        genotype: Genotype,
        warnings: tuple[SearchWarning, ...],
    ) -> EpochReport:
        return search_measurement.report(
            self.network,
            genotype,
            metrics,
            epoch=self.epoch,
            epochs=self._spec.total_epochs,
            relaxation=self.relaxation,
            warnings=(*warnings, *self._relaxation.news()),
        )

    def _diverged_in(self, batch: int, what: object) -> DivergedError:
        """The error of a batch of the present epoch, counted from 1."""
        return self._diverged(f"epoch {self.epoch + 1}, batch {batch}", what)

    def _diverged(self, place: str, what: object) -> DivergedError:
        training, algorithm = self._spec.training, self._spec.algorithm
        return DivergedError(
            f"diverged at {place}: {what}; try a learning_rate below {training.learning_rate:g}, "
            f"an architecture_learning_rate below {algorithm.architecture_learning_rate:g}, or a "
            f"gradient_clip below {training.gradient_clip:g}"
        )


def _finite(measured: tuple[float, float]) -> tuple[float, float]:
    """Loss and accuracy, if the loss is a number."""
    if not math.isfinite(measured[0]):
        raise DivergedError(f"the validation loss is {measured[0]}")
    return measured
