"""What the parts of a Tune run have in common: an end that is asked for, and errors of ours."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.result import DONE


class KeptErrors:
    """Keeps what was raised on our side of Tune."""

    def __init__(self) -> None:
        self.first: Exception | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keeps what the block raises, and lets it through."""
        try:
            yield
        except Exception as error:
            self.first = self.first or error
            raise


class Halting(tune.Stopper):
    """Stops Tune's trials between two epochs once it is asked to.

    Attributes:
        running: Tune's trials that train now.
        stopped: Those that were stopped so, and have not ended by themselves.
    """

    def __init__(self, halt: threading.Event) -> None:
        self._halt = halt
        self.running: set[str] = set()
        self.stopped: set[str] = set()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial goes no further than what it has just reported."""
        if not self._halt.is_set() or result.get(DONE):
            return False
        self.stopped.add(trial_id)
        return True

    def stop_all(self) -> bool:
        """Whether also those that wait for room are given up: once none is within an epoch."""
        return self._halt.is_set() and not self.running

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its settings for a resuming of its own. A search is resumed by a new Tune run
        # over the open trials instead, which needs nothing of this one.
        return (object, ())
