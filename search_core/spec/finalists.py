"""The finalists of a search: the heaviest paths, which are trained from scratch at its end."""

from pydantic import Field

from search_core.spec.base import SpecModel, field_error
from search_core.spec.schedules import CosinePowerSchedule, Schedule


class Finalists(SpecModel):
    """A short training for each of the heaviest paths, after the search's own epochs.

    One after the other they are trained from scratch on most of all training images, those of both
    halves, with the search's own batch size, learning rate, schedule, weight decay and
    augmentation. The one with the best accuracy on the images held out is what the search finds.
    """

    paths: int = Field(default=6, ge=2, le=64)
    """How many of the heaviest paths are trained."""
    epochs: int = Field(default=15, ge=1, le=10_000)
    """Epochs of each; the schedule runs over them. They are epochs of the trial."""
    validation_portion: float = Field(default=0.3, ge=0.01, lt=0.95)
    """Share of all training images on which the finalists are compared; it trains none of them."""

    @property
    def total_epochs(self) -> int:
        """Epochs of all finalists."""
        return self.paths * self.epochs

    def num_trained_on(self, num_train: int) -> int:
        """Images that train a finalist.

        Args:
            num_train: Images of the training split.
        """
        return int(num_train * (1 - self.validation_portion))


def check_finalists(
    finalists: Finalists, *, num_paths: int, num_train: int, batch_size: int, schedule: Schedule
) -> None:
    """Refuses finalists that the rest of a search's spec makes impossible.

    Args:
        finalists: The finalists.
        num_paths: Paths of the space.
        num_train: Images of the training split.
        batch_size: The search's.
        schedule: The search's, which each finalist runs over its own epochs.

    Raises:
        PydanticCustomError: For a validator of the whole spec.
    """
    place = ("algorithm", "finalists")
    if finalists.paths > num_paths:
        raise field_error(
            f"{finalists.paths} finalists of a space with {num_paths} paths; ask for fewer",
            *place,
            "paths",
        )
    num_trained_on = finalists.num_trained_on(num_train)
    if batch_size > num_trained_on:
        raise field_error(
            f"the training batch_size {batch_size} is above the {num_trained_on} images that train "
            "a finalist; lower the one or the other",
            *place,
            "validation_portion",
        )
    if isinstance(schedule, CosinePowerSchedule) and schedule.warmup_epochs >= finalists.epochs:
        raise field_error(
            f"the schedule's warmup_epochs {schedule.warmup_epochs} leaves nothing of a "
            f"finalist's {finalists.epochs} epochs to anneal",
            *place,
            "epochs",
        )
