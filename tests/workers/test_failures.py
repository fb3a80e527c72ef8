"""What an exception means to the one who submitted."""

import pytest
import torch

from search_core.errors import CheckpointError, DataNotFoundError, DivergedError
from store.states import Reason
from workers.failures import NoGpuError, explain


@pytest.mark.parametrize(
    ("error", "reason", "retry"),
    [
        (DivergedError("loss nan in epoch 3"), Reason.DIVERGED, False),
        (DataNotFoundError("nothing in /data"), Reason.DATA_NOT_FOUND, False),
        (CheckpointError("of another spec"), Reason.INVALID_INPUT, False),
        (NoGpuError("PyTorch finds none"), Reason.NO_GPU, False),
        (ValueError("images are too small"), Reason.INVALID_INPUT, False),
        (MemoryError(), Reason.OUT_OF_MEMORY, False),
        (torch.OutOfMemoryError("CUDA out of memory."), Reason.OUT_OF_MEMORY, False),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            Reason.OUT_OF_MEMORY,
            False,
        ),
        (OSError(28, "No space left on device"), Reason.TRIAL_CRASHED, True),
        (RuntimeError("what nobody foresaw"), Reason.TRIAL_CRASHED, True),
    ],
)
def test_every_error_has_a_reason_and_says_something(
    error: BaseException, reason: Reason, retry: bool
) -> None:
    failure = explain(error)
    assert (failure.reason, failure.retry) == (reason, retry)
    assert str(error) in failure.message
    assert failure.message


def test_a_trial_that_was_too_large_is_told_what_to_lower() -> None:
    assert "training.batch_size" in explain(MemoryError()).message
