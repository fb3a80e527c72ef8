"""What an exception of a trial means: a typed reason, and a sentence that says what to do."""

from dataclasses import dataclass

from search_core.errors import (
    CheckpointError,
    DataNotFoundError,
    DivergedError,
    SearchCoreError,
    is_out_of_memory,
)
from search_core.storage import StorageError
from store.states import Reason


@dataclass(frozen=True)
class Failure:
    """Why a trial ended.

    Attributes:
        reason: The typed reason.
        message: What happened and what to do next.
        retry: Whether the trial may do better when it runs again.
        process_lost: Whether nothing was raised: the process is gone, maybe with its node.
    """

    reason: Reason
    message: str
    retry: bool = False
    process_lost: bool = False


class NoGpuError(Exception):
    """A trial that was given a GPU finds none; the message says what to do."""


def explain(error: BaseException) -> Failure:
    """Classifies what a trial raised."""
    text = str(error) or type(error).__name__
    match error:
        case DivergedError():
            return Failure(Reason.DIVERGED, text)
        case DataNotFoundError():
            return Failure(Reason.DATA_NOT_FOUND, text)
        case NoGpuError():
            return Failure(Reason.NO_GPU, text)
        case CheckpointError():
            return Failure(Reason.INVALID_INPUT, text)
        case _ if is_out_of_memory(error):
            return out_of_memory(text)
        case StorageError():
            return Failure(
                Reason.STORAGE_UNAVAILABLE,
                f"The checkpoint storage is full or gone: {text}. Earlier checkpoints are "
                "untouched: make room or bring it back, then retry the trial, which goes on from "
                "its last one.",
                retry=True,
            )
        case SearchCoreError() | ValueError():
            return Failure(Reason.INVALID_INPUT, text)
        case _:
            return Failure(
                Reason.TRIAL_CRASHED,
                f"{type(error).__name__}: {text}. The log of the search's runner says more.",
                retry=True,
            )


def out_of_memory(what: str) -> Failure:
    """The failure of a trial that did not fit its node."""
    return Failure(
        Reason.OUT_OF_MEMORY,
        f"{what} Lower training.batch_size, stack fewer seeds if they are stacked, or search a "
        "smaller network: fewer channels, cells or levels; and submit again.",
    )
