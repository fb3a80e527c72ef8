"""Writes what trials report into the store, through a database that may be away for a while."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from search_core.genotype import Genotype
from search_core.spec.algorithm import RelaxationForm
from store import endings, epoch_reports, recording
from store.epoch_reports import EpochResult, RecordedEpoch
from store.errors import LeaseLostError
from store.leases import Lease
from store.models import Trial
from store.sessions import is_away, transaction
from store.states import Reason, SearchStatus

_T = TypeVar("_T")

_PAUSE_SECONDS = 0.5


class StoreSink:
    """The `TrialSink` that records into the store. Every write can be repeated.

    Args:
        engine: The database.
        lease: The lease that guards every write.
        patience: Seconds to go on trying while the database does not answer.

    Attributes:
        num_ended: How often it was told that a trial has ended.
    """

    def __init__(self, engine: Engine, lease: Lease, *, patience: float) -> None:
        self._engine = engine
        self._lease = lease
        self._patience = patience
        self.num_ended = 0

    def starting(self, trial_id: UUID) -> None:
        """See `TrialSink`."""
        self._write(lambda session: recording.trial_starting(session, self._lease, trial_id))

    def started(
        self,
        trial_id: UUID,
        *,
        from_epoch: int,
        node: str,
        pid: int,
        relaxation: RelaxationForm | None,
    ) -> None:
        """See `TrialSink`."""
        self._write(
            lambda session: recording.trial_started(
                session,
                self._lease,
                trial_id,
                from_epoch=from_epoch,
                node=node,
                pid=pid,
                relaxation=relaxation,
            )
        )

    def epoch_ended(self, trial_id: UUID, result: EpochResult) -> None:
        """See `TrialSink`."""
        self._write(
            lambda session: epoch_reports.epoch_ended(session, self._lease, trial_id, result)
        )

    def succeeded(
        self, trial_id: UUID, genotype: Genotype, result: Mapping[str, Any] | None = None
    ) -> None:
        """See `TrialSink`."""
        self._write(
            lambda session: recording.trial_succeeded(
                session, self._lease, trial_id, genotype, result
            )
        )
        self.num_ended += 1

    def interrupted(self, trial_id: UUID, reason: Reason, message: str) -> None:
        """See `TrialSink`."""
        self._write(
            lambda session: recording.trial_interrupted(
                session, self._lease, trial_id, reason=reason, message=message
            )
        )

    def failed(self, trial_id: UUID, reason: Reason, message: str) -> None:
        """See `TrialSink`."""
        self._write(
            lambda session: recording.trial_failed(
                session, self._lease, trial_id, reason=reason, message=message
            )
        )
        self.num_ended += 1

    def stopped(self, trial_id: UUID, genotype: Genotype, message: str) -> None:
        """See `TrialSink`."""
        self._write(
            lambda session: recording.trial_stopped(
                session, self._lease, trial_id, genotype, message=message
            )
        )
        self.num_ended += 1

    def suggested(
        self, trial_ids: Sequence[UUID], parameters: Mapping[str, Any], epochs: int
    ) -> None:
        """Records what was drawn for trials, before they train."""
        self._write(
            lambda session: recording.trials_suggested(
                session, self._lease, trial_ids, parameters, epochs
            )
        )

    def trials(self) -> Sequence[Trial]:
        """All trials of the search as the store has them now, by number."""
        return self._write(lambda session: recording.all_trials(session, self._lease))

    def epochs(self) -> Sequence[RecordedEpoch]:
        """All epochs that the store has, in the order in which they were recorded."""
        return self._write(lambda session: epoch_reports.recorded_epochs(session, self._lease))

    def halted(self) -> SearchStatus | None:
        """See `store.endings.halted`."""
        return self._write(lambda session: endings.halted(session, self._lease))

    def finish(self) -> SearchStatus | None:
        """Ends the search if all of its trials have ended; None if one was queued again."""
        return self._write(lambda session: endings.finish(session, self._lease))

    def _write(self, operation: Callable[[Session], _T]) -> _T:
        give_up = time.monotonic() + self._patience
        while True:
            try:
                with transaction(self._engine) as session:
                    return operation(session)
            except DBAPIError as error:
                # Refused by the database: a mistake of ours, which no second try mends.
                if not is_away(error):
                    raise
                if time.monotonic() > give_up:
                    raise LeaseLostError(
                        f"the database did not answer for {self._patience:.0f} s: {error}"
                    ) from error
                time.sleep(_PAUSE_SECONDS)
