"""What the endpoints of searches and of trainings do, by the kind of their answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from uuid import UUID

from sqlalchemy.orm import Session

from service.jobs.schemas import JobAnswer
from store import access, queue, searches
from store.access import Principal
from store.jobs import JobSpec
from store.models import Search
from store.searches import NewJob, SearchFilter
from store.states import JobKind

AnswerT = TypeVar("AnswerT", bound=JobAnswer)

_PATHS: Final = {JobKind.SEARCH: "searches", JobKind.TRAINING: "trainings"}


@dataclass(frozen=True)
class JobPage(Generic[AnswerT]):
    """Some answers, and the cursor of the next page, if there is one."""

    items: list[AnswerT]
    next_cursor: str | None


def submit_all(
    session: Session, who: Principal, specs: Sequence[JobSpec], answer: type[AnswerT]
) -> list[AnswerT]:
    """Stores and queues what each of some specs describes, one behind the other."""
    made = searches.submit_all(session, [NewJob(spec, who.owner) for spec in specs])
    return [answer.of(each.search, each.trials, None) for each in made]


def location_of(search: Search, answer: type[JobAnswer]) -> str:
    """The path of a job, whose answers are of this kind."""
    return f"/v1/{_PATHS[answer.kind]}/{search.id}"


def get(session: Session, who: Principal, job_id: UUID, answer: type[AnswerT]) -> AnswerT:
    """The job of the answer's kind with this id.

    Raises:
        NotFoundError: There is none of this kind.
    """
    access.require_search(session, who, job_id, answer.kind)
    return tell(session, searches.get(session, job_id, answer.kind), answer)


def page(
    session: Session,
    who: Principal,
    where: SearchFilter,
    answer: type[AnswerT],
    *,
    limit: int,
    cursor: str | None,
    oldest_first: bool,
) -> JobPage[AnswerT]:
    """A page of the jobs that match a filter, which names the answer's kind.

    Raises:
        InvalidCursorError: The cursor is not one of this list's.
    """
    assert where.kind is answer.kind
    found = searches.list_page(
        session, where, who=who, limit=limit, cursor=cursor, oldest_first=oldest_first
    )
    return JobPage(_tell_all(session, found.searches, answer), found.next_cursor)


def _tell_all(session: Session, found: Sequence[Search], answer: type[AnswerT]) -> list[AnswerT]:
    trials = searches.trials_of(session, [search.id for search in found])
    waiting = queue.waiting_of(session, found)
    return [answer.of(search, trials[search.id], waiting.get(search.id)) for search in found]


def tell(session: Session, search: Search, answer: type[AnswerT]) -> AnswerT:
    """What is said about a job to whoever may know of it."""
    trials = searches.trials(session, search.id)
    return answer.of(search, trials, queue.waiting(session, search))
