"""Reads what the store has, for the run and for its checks; waits while the database is away."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from benchmarks.faults.records import EventRecord, JobRecord, TrialRecord
from store.models import Alphas, Event, Metric, Search, Trial
from store.sessions import transaction
from store.states import ENDED, JobKind, SearchStatus

_PATIENCE_SECONDS: Final = 90.0

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Attributes:
        epochs: Completed and all epochs of each trial that has not ended.
        is_starting: Whether it runs, and none of its trials does.
        pids: Where its trials train, as they said last.
    """

    status: str
    epochs: tuple[tuple[int, int], ...]
    is_starting: bool
    pids: frozenset[int]

    @property
    def is_running(self) -> bool:
        """Whether somebody holds it."""
        return self.status == SearchStatus.RUNNING

    @property
    def is_near_its_end(self) -> bool:
        """Whether a trial is in its last epoch, or has just completed it."""
        return any(epoch >= epochs - 1 for epoch, epochs in self.epochs)


class Ledger:
    """The store of a run.

    Args:
        engine: Its database, which may be killed at any time.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def progress(self) -> Mapping[UUID, Progress]:
        """Where each search is now."""
        return self._read(_progress)

    def jobs(self) -> list[JobRecord]:
        """All that is known of all searches, the oldest first."""
        return self._read(_jobs)

    def _read(self, read: Callable[[Session], _Found]) -> _Found:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with transaction(self._engine) as session:
                    # One moment for all statements: what is submitted between two is in neither.
                    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
                    return read(session)
            except DBAPIError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def _progress(session: Session) -> dict[UUID, Progress]:
    trials: dict[UUID, list[tuple[str, int, int]]] = {}
    for search_id, status, epoch, epochs in session.execute(
        select(Trial.search_id, Trial.status, Trial.epoch, Trial.epochs)
    ):
        trials.setdefault(search_id, []).append((status, epoch, epochs))
    pids: dict[UUID, dict[UUID | None, int]] = {}
    for event in session.scalars(
        select(Event)
        .join(Search, Search.id == Event.search_id)
        .where(Event.kind == "trial.started", Search.status == SearchStatus.RUNNING)
        .order_by(Event.number)
    ):
        pids.setdefault(event.search_id, {})[event.trial_id] = event.data["pid"]
    found = {}
    for search_id, status in session.execute(select(Search.id, Search.status)):
        mine = trials[search_id]
        is_running = status == SearchStatus.RUNNING
        found[search_id] = Progress(
            status,
            tuple((epoch, epochs) for each, epoch, epochs in mine if each in ("queued", "running")),
            is_running and not any(each == "running" for each, _, _ in mine),
            frozenset(pids.get(search_id, {}).values()),
        )
    return found


def is_ended(status: str) -> bool:
    """Whether a search stays as it is."""
    return status in ENDED


def _jobs(session: Session) -> list[JobRecord]:
    return [_job(session, row) for row in session.scalars(select(Search).order_by(Search.id))]


def _job(session: Session, row: Search) -> JobRecord:
    events = session.scalars(select(Event).where(Event.search_id == row.id).order_by(Event.number))
    trials = session.scalars(select(Trial).where(Trial.search_id == row.id).order_by(Trial.number))
    return JobRecord(
        id=row.id,
        kind=JobKind(row.kind),
        name=row.name,
        status=row.status,
        attempt=row.attempt,
        last_event=row.last_event,
        recommended=row.recommended_hash,
        trials=tuple(_trial(session, trial) for trial in trials),
        events=tuple(
            EventRecord(each.number, each.kind, each.trial_id, each.data, each.created_at)
            for each in events
        ),
    )


def _trial(session: Session, row: Trial) -> TrialRecord:
    points = session.execute(
        select(Metric.name, Metric.step, Metric.value).where(Metric.trial_id == row.id)
    )
    tables = session.execute(select(Alphas.step, Alphas.weights).where(Alphas.trial_id == row.id))
    return TrialRecord(
        id=row.id,
        number=row.number,
        status=row.status,
        epoch=row.epoch,
        epochs=row.epochs,
        architecture=row.architecture_hash,
        result=row.result,
        metrics=tuple((name, step, value) for name, step, value in points),
        alphas=dict(row._tuple() for row in tables),
    )
