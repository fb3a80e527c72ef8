"""Asks the artifact storage, which may be slow or away, beside the requests of others."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from search_core.storage import Storage, StorageError
from service.problems import ProblemError
from store.artifacts import ArtifactFolder, redacted

_PATIENCE_SECONDS: Final = 20.0
_RETRY_AFTER_SECONDS: Final = 30

Result = TypeVar("Result")


async def ask(folder: ArtifactFolder, question: Callable[[Storage], Result]) -> Result:
    """Runs a question in a thread.

    Args:
        folder: Where.
        question: Takes the storage of the folder.

    Returns:
        What the question returns.

    Raises:
        ProblemError: The storage is away.
        FileNotFoundError: From the question.
    """
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await asyncio.to_thread(lambda: question(folder.open()))
    except StorageError as error:
        raise _away(folder, str(error)) from error
    except TimeoutError as error:
        raise _away(folder, f"it did not answer in {_PATIENCE_SECONDS:.0f} s") from error


def _away(folder: ArtifactFolder, why: str) -> ProblemError:
    return ProblemError(
        "storage-unavailable",
        f"The storage of checkpoints and logs, {redacted(folder.root)}, cannot be read: {why}. "
        "See that it runs and that the API may read it (DARTBOARD_STORAGE, AWS_*), and try again.",
        headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
    )
