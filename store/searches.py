"""Submitting, finding and listing searches, and trainings, which are rows of the same table."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from search_core.spec import SearchSpec, trial_points
from search_core.spec.points import TrialPoint, point_epochs
from store import access, events, owners
from store.access import Principal
from store.bulk import insert_all
from store.errors import InvalidCursorError, NotFoundError
from store.events import NewEvent
from store.jobs import JobSpec, kind_of
from store.models import Alphas, Metric, Search, Trial
from store.states import JobKind, SearchStatus


@dataclass(frozen=True)
class SearchFilter:
    """Which searches a list shows; unset fields do not filter.

    Attributes:
        kind: Searches or trainings.
        statuses: Any of these.
        space: The space's kind.
        name: Exactly this name.
        labels: All of these labels.
        owner: Of this owner.
        created_after: Created at or after this time.
        created_before: Created before this time.
    """

    kind: JobKind | None = None
    statuses: Sequence[SearchStatus] = ()
    space: str | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True)
class SearchPage:
    """A page of a list, and the cursor of the next one, if there is one."""

    searches: Sequence[Search]
    next_cursor: str | None


@dataclass(frozen=True)
class NewJob:
    """What somebody submits: a validated spec, and whose it will be."""

    spec: JobSpec
    owner: str = owners.LOCAL


@dataclass(frozen=True)
class Submitted:
    """A search or training that was stored, and its trials by number."""

    search: Search
    trials: list[Trial]


def submit(session: Session, spec: JobSpec, *, owner: str = owners.LOCAL) -> Search:
    """Stores a search or a training; see `submit_all`.

    Returns:
        The new row.
    """
    return submit_all(session, [NewJob(spec, owner)])[0].search


def submit_all(session: Session, new: Sequence[NewJob]) -> list[Submitted]:
    """Stores searches or trainings and their trials as queued, and wakes the dispatchers.

    As many statements for many as for one; those of one call wait in its order.

    Args:
        session: The caller's session.
        new: What is submitted.

    Returns:
        The new rows, with their ids and times, in the order of `new`.
    """
    if not new:
        return []
    # Drawn ahead, in their order: rows whose ids the database draws are inserted one by one.
    drawn = select(func.uuidv7()).select_from(func.generate_series(1, len(new)).alias())
    ids = sorted(session.scalars(drawn))
    rows, trials, queued = [], [], []
    for search_id, job in zip(ids, new, strict=True):
        points = trial_points(job.spec.trials)
        num_processes = len({point.stack for point in points})
        rows.append({"id": search_id, **_columns(job, num_processes)})
        trials += [_trial_columns(search_id, job.spec, point) for point in points]
        queued.append(NewEvent(search_id, f"{kind_of(job.spec)}.queued", {}))
    made = {row.id: Submitted(row, []) for row in insert_all(session, Search, rows)}
    for trial in sorted(insert_all(session, Trial, trials), key=lambda trial: trial.number):
        made[trial.search_id].trials.append(trial)
    events.append_first(session, queued)
    events.notify_all(session, events.QUEUE_CHANNEL, ids)
    return [made[search_id] for search_id in ids]


def _columns(job: NewJob, num_processes: int) -> dict[str, Any]:
    spec = job.spec
    return {
        "kind": kind_of(spec),
        "owner": job.owner,
        "name": spec.name,
        "spec": spec.model_dump(mode="json"),
        "space_kind": spec.space.kind if isinstance(spec, SearchSpec) else None,
        "priority": spec.priority,
        "labels": dict(spec.labels),
        "trial_cpus": spec.resources.cpus,
        "trial_gpus": spec.resources.gpus,
        "trial_custom": dict(spec.resources.custom),
        "num_processes": num_processes,
        "preemptible": spec.preemptible,
        "time_limit": spec.time_limit,
        "status": SearchStatus.QUEUED,
        "last_event": events.FIRST,
    }


def _trial_columns(search_id: UUID, spec: JobSpec, point: TrialPoint) -> dict[str, Any]:
    return {
        "search_id": search_id,
        "number": point.number,
        "stack": point.stack,
        "seed": point.seed,
        "parameters": None if point.parameters is None else dict(point.parameters),
        "epochs": point_epochs(spec, point),
    }


def get(session: Session, search_id: UUID, kind: JobKind | None = None) -> Search:
    """The search with this id.

    Args:
        session: The caller's session.
        search_id: The search.
        kind: What it has to be; None takes either.

    Raises:
        NotFoundError: There is none, or it is of the other kind.
    """
    search = session.get(Search, search_id, populate_existing=True)
    if search is None or kind not in (None, search.kind):
        raise NotFoundError(kind or JobKind.SEARCH, search_id)
    return search


def list_page(
    session: Session,
    where: SearchFilter,
    *,
    limit: int,
    who: Principal | None = None,
    cursor: str | None = None,
    oldest_first: bool = False,
) -> SearchPage:
    """A page of searches by age.

    Args:
        session: The caller's session.
        where: Which ones.
        limit: Most rows to return.
        who: Only those that they see; None for all.
        cursor: `next_cursor` of the page before.
        oldest_first: The order; newest first otherwise.

    Returns:
        The page.

    Raises:
        InvalidCursorError: The cursor is none, or one of another kind or order.
    """
    statement = select(Search).where(*_conditions(where))
    if who is not None:
        statement = statement.where(access.sees(who))
    if cursor is not None:
        last_seen = _decode_cursor(cursor, where.kind, oldest_first)
        statement = statement.where(
            Search.id > last_seen if oldest_first else Search.id < last_seen
        )
    # Ids are UUIDv7: their order is the order of creation.
    statement = statement.order_by(Search.id if oldest_first else Search.id.desc())
    rows = session.scalars(statement.limit(limit + 1)).all()
    has_more = len(rows) > limit
    rows = rows[:limit]
    next_cursor = _encode_cursor(rows[-1].id, where.kind, oldest_first) if has_more else None
    return SearchPage(rows, next_cursor)


def trials(session: Session, search_id: UUID, kind: JobKind | None = None) -> Sequence[Trial]:
    """The trials of a search, by number.

    Args:
        session: The caller's session.
        search_id: The search.
        kind: What it has to be; None takes either.

    Raises:
        NotFoundError: There is no such search.
    """
    get(session, search_id, kind)
    return session.scalars(
        select(Trial).where(Trial.search_id == search_id).order_by(Trial.number)
    ).all()


def trials_of(session: Session, search_ids: Sequence[UUID]) -> dict[UUID, list[Trial]]:
    """The trials of several searches at once, by number, for lists."""
    found: dict[UUID, list[Trial]] = {search_id: [] for search_id in search_ids}
    statement = select(Trial).where(Trial.search_id.in_(search_ids)).order_by(Trial.number)
    for trial in session.scalars(statement):
        found[trial.search_id].append(trial)
    return found


def get_trial(session: Session, trial_id: UUID) -> Trial:
    """The trial with this id.

    Raises:
        NotFoundError: There is none.
    """
    trial = session.get(Trial, trial_id, populate_existing=True)
    if trial is None:
        raise NotFoundError("trial", trial_id)
    return trial


def metrics(
    session: Session, trial_id: UUID, *, names: Sequence[str] = (), after_step: int = -1
) -> Sequence[Metric]:
    """Points of a trial's series, by name and step.

    Args:
        session: The caller's session.
        trial_id: The trial.
        names: Only these series; all when empty. One that ends in `*` stands for all that begin so.
        after_step: Only points with a larger step.

    Raises:
        NotFoundError: There is no such trial.
    """
    get_trial(session, trial_id)
    statement = select(Metric).where(Metric.trial_id == trial_id, Metric.step > after_step)
    if names:
        starts = [name.removesuffix("*") for name in names if name.endswith("*")]
        statement = statement.where(
            or_(
                Metric.name.in_(names),
                *(Metric.name.startswith(start, autoescape=True) for start in starts),
            )
        )
    return session.scalars(statement.order_by(Metric.name, Metric.step)).all()


def alphas(
    session: Session, trial_id: UUID, *, after_step: int = -1, limit: int | None = None
) -> Sequence[Alphas]:
    """A trial's softmaxed alphas, epoch by epoch.

    Args:
        session: The caller's session.
        trial_id: The trial.
        after_step: Only later epochs.
        limit: Most epochs; None gives all.

    Raises:
        NotFoundError: There is no such trial.
    """
    get_trial(session, trial_id)
    return session.scalars(
        select(Alphas)
        .where(Alphas.trial_id == trial_id, Alphas.step > after_step)
        .order_by(Alphas.step)
        .limit(limit)
    ).all()


def last_alphas(session: Session, trial_id: UUID) -> Alphas | None:
    """A trial's softmaxed alphas after its last completed epoch; None before the first one.

    Raises:
        NotFoundError: There is no such trial.
    """
    get_trial(session, trial_id)
    return session.scalars(
        select(Alphas).where(Alphas.trial_id == trial_id).order_by(Alphas.step.desc()).limit(1)
    ).one_or_none()


def _conditions(where: SearchFilter) -> list[ColumnElement[bool]]:
    equal = {
        Search.kind: where.kind,
        Search.space_kind: where.space,
        Search.name: where.name,
        Search.owner: where.owner,
    }
    conditions = [column == value for column, value in equal.items() if value is not None]
    if where.statuses:
        conditions.append(Search.status.in_(where.statuses))
    if where.labels:
        conditions.append(Search.labels.contains(dict(where.labels)))
    if where.created_after is not None:
        conditions.append(Search.created_at >= where.created_after)
    if where.created_before is not None:
        conditions.append(Search.created_at < where.created_before)
    return conditions


def _encode_cursor(search_id: UUID, kind: JobKind | None, oldest_first: bool) -> str:
    content = search_id.bytes + _list_of(kind, oldest_first)
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decode_cursor(cursor: str, kind: JobKind | None, oldest_first: bool) -> UUID:
    try:
        content = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        search_id = UUID(bytes=content[:16])
    except (binascii.Error, ValueError):
        raise InvalidCursorError("not a cursor of this list: pass next_cursor as it was") from None
    if content[16:] != _list_of(kind, oldest_first):
        raise InvalidCursorError(
            "a cursor of another list: ask for the same kind in the same order as before"
        )
    return search_id


def _list_of(kind: JobKind | None, oldest_first: bool) -> bytes:
    """What a cursor says of its list: in another one it would skip what was not shown."""
    return f"{kind or ''}{'<' if oldest_first else '>'}".encode()
