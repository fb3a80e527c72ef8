"""Stops weak trials early: Ray Tune's ASHA, which starts from what the store recorded.

Not Tune's files but the recorded epochs are its memory. Each of its decisions follows from the
epochs that were recorded before, in their order; a runner that takes over replays them, and so
decides what its predecessor decided, also where that one died before it could act on it.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from search_core.spec import AshaScheduler
from store.epoch_reports import EpochResult, RecordedEpoch

_EPOCH: Final = "epoch"
_ACCURACY: Final = "validation_accuracy"


class Asha(ASHAScheduler):
    """Asynchronous successive halving over the trials of one search (arXiv 1810.05934).

    A scheduler for Tune, and an `EarlyStopping` for whoever runs trials without it. It knows trials
    by the ids of their rows: Tune's own ids are new with every runner.

    Args:
        spec: When it looks, and how many go on.
        max_epochs: Epochs of the longest trial.
        recorded: What the store has of the search, in the order in which it was recorded.
    """

    def __init__(
        self, spec: AshaScheduler, max_epochs: int, recorded: Iterable[RecordedEpoch]
    ) -> None:
        super().__init__(
            time_attr=_EPOCH,
            metric=_ACCURACY,
            mode="max",
            max_t=max_epochs,
            grace_period=spec.grace_epochs,
            reduction_factor=spec.reduction_factor,
        )
        self._share = f"1/{spec.reduction_factor:g}"
        self._known: set[UUID] = set()
        self._verdicts: dict[tuple[UUID, int], bool] = {}
        for each in recorded:
            self._decide(each.trial_id, each.epoch, each.validation_accuracy)

    def stops(self, trial_id: UUID, result: EpochResult) -> bool:
        """See `EarlyStopping`."""
        return self._decide(trial_id, result.epoch, result.metrics.get(_ACCURACY))

    def why(self, result: EpochResult) -> str:
        """See `EarlyStopping`."""
        epochs = "1 epoch" if result.epoch == 1 else f"{result.epoch} epochs"
        return (
            f"After {epochs} its validation accuracy of {result.metrics[_ACCURACY]:.4f} was not "
            f"among the best {self._share} of the trials that had come as far."
        )

    def _decide(self, trial_id: UUID, epoch: int, accuracy: float | None) -> bool:
        if accuracy is None:
            return False
        # A resumed trial reports its last epoch again, which must not count twice.
        if (trial_id, epoch) not in self._verdicts:
            trial = SimpleNamespace(trial_id=str(trial_id))
            if trial_id not in self._known:
                self._known.add(trial_id)
                super().on_trial_add(None, trial)
            action = super().on_trial_result(None, trial, {_EPOCH: epoch, _ACCURACY: accuracy})
            self._verdicts[trial_id, epoch] = action == TrialScheduler.STOP
        return self._verdicts[trial_id, epoch]

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its settings for a resuming of its own, which nobody does.
        return (object, ())

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Tune has a new trial; ours is known once it reports."""

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """What Tune is to do after a report of `TrialTrainable`, given with flat keys."""
        # Not stacked: the spec refuses a scheduler beside it.
        (planned,) = trial.config["plan"]["trials"]
        report = f"trials/{planned['trial_id']}/report"
        epoch = result.get(f"{report}/epoch")
        if epoch is None:
            return TrialScheduler.CONTINUE  # type: ignore[no-any-return]
        accuracy = result.get(f"{report}/metrics/{_ACCURACY}")
        stops = self._decide(UUID(planned["trial_id"]), epoch, accuracy)
        return TrialScheduler.STOP if stops else TrialScheduler.CONTINUE  # type: ignore[no-any-return]

    def on_trial_complete(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        """A trial's last report was taken already."""

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Tune has given a trial up before it reported."""
