"""The user of a run: submits searches over HTTP, steers some, and does not lose one on the way."""

import threading
import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from benchmarks.faults.mix import MIX, Kind, Steering
from dartboard.client import Client
from dartboard.errors import ConflictError, ServerFailedError, ServerUnreachableError
from dartboard.models import Search, Training
from store.states import JobKind, SearchStatus

AT_ONCE: Final = 4
"""Searches that have not ended at any time: more than the cluster has room for."""

_STEERED_AFTER_EPOCHS: Final = 2
_LOOK_SECONDS: Final = 0.4
_PAUSE_SECONDS: Final = 0.5


@dataclass
class Submitted:
    """A search or training that was accepted.

    Attributes:
        name: Which no other has.
        answers_lost: How often its POST was given up by the client, and sent again by its user.
    """

    name: str
    kind: Kind
    job: Search | Training
    answers_lost: int
    is_steered: bool = False


class User(threading.Thread):
    """Keeps some searches going until it is told to stop, and then until all have ended.

    Args:
        client: Of the deployment, whose API may be killed at any time.
        at_least: Searches to submit, even if it is told to stop before.

    Attributes:
        submitted: What was accepted so far.
        error: What it did not know how to go on after.
    """

    def __init__(self, client: Client, at_least: int = 0) -> None:
        super().__init__(name="user", daemon=True)
        self.submitted: list[Submitted] = []
        self.error: Exception | None = None
        self._client = client
        self._at_least = at_least
        self._open: list[Submitted] = []
        self._stops_submitting = threading.Event()
        self._gives_up = threading.Event()

    def stop_submitting(self) -> None:
        """Lets it end once what it has submitted has ended."""
        self._stops_submitting.set()

    def give_up(self) -> None:
        """Lets it end now."""
        self._gives_up.set()

    def run(self) -> None:
        """See the class."""
        try:
            self._run()
        except Exception as error:
            self.error = error

    def _run(self) -> None:
        while not self._gives_up.is_set():
            while len(self._open) < AT_ONCE and self._submits():
                self._submit(MIX[len(self.submitted) % len(MIX)])
            if not self._open:
                return
            for each in [*self._open]:
                self._see_to(each)
            self._gives_up.wait(_LOOK_SECONDS)

    def _submits(self) -> bool:
        if self._gives_up.is_set():
            return False
        return not self._stops_submitting.is_set() or len(self.submitted) < self._at_least

    def _submit(self, kind: Kind) -> None:
        name = f"{len(self.submitted):03} {kind.name}"
        key = str(uuid4())
        lost = 0
        while not self._gives_up.is_set():
            try:
                job = self._post(kind, name, key)
            except (ServerUnreachableError, ServerFailedError):
                # It may have been accepted all the same. Under its key it is, or will be, once.
                lost += 1
                time.sleep(_PAUSE_SECONDS)
            else:
                each = Submitted(name, kind, job, lost)
                self.submitted.append(each)
                self._open.append(each)
                return

    def _post(self, kind: Kind, name: str, key: str) -> Search | Training:
        if kind.job is JobKind.TRAINING:
            return self._client.train(kind.body, name=name, idempotency_key=key)
        return self._client.submit(kind.body, name=name, idempotency_key=key)

    def _see_to(self, each: Submitted) -> None:
        """Looks how a search is, and does the next thing that its user wants."""
        try:
            each.job = self._client.get(each.job)
            if not self._steer(each) and each.job.ended:
                self._open.remove(each)
        except (ServerUnreachableError, ServerFailedError):
            return  # whatever was asked for may be done: the next look tells
        except ConflictError:
            return  # it has ended meanwhile

    def _steer(self, each: Submitted) -> bool:
        """Whether there was something to do."""
        status = each.job.status
        if status == SearchStatus.PAUSED:
            each.is_steered = True
            self._client.resume(each.job)
            return True
        if status == SearchStatus.CANCELLED:
            each.is_steered = True
            self._client.retry(each.job)
            return True
        if each.is_steered or status != SearchStatus.RUNNING:
            return False
        if max(trial.epoch for trial in each.job.trials) < _STEERED_AFTER_EPOCHS:
            return False
        if each.kind.steering is Steering.PAUSE and each.job.pause_requested_at is None:
            self._client.pause(each.job)
        elif each.kind.steering is Steering.CANCEL and each.job.cancel_requested_at is None:
            self._client.cancel(each.job)
        return False


def ids(submitted: list[Submitted]) -> dict[UUID, Submitted]:
    """By the id under which each was accepted."""
    return {each.job.id: each for each in submitted}
