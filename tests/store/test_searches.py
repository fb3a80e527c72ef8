"""Finding searches again."""

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from search_core.spec import SearchSpec
from store import searches
from store.errors import InvalidCursorError, NotFoundError
from store.searches import SearchFilter
from store.sessions import transaction
from store.states import JobKind, SearchStatus
from tests.store.conftest import spec

Submit = Callable[..., UUID]


def found(engine: Engine, where: SearchFilter) -> list[UUID]:
    with transaction(engine) as session:
        return [search.id for search in searches.list_page(session, where, limit=200).searches]


def test_a_spec_comes_back_as_it_was(engine: Engine) -> None:
    submitted = spec(name="Übung", labels={"team": "vision"}, trials={"seeds": [3, 1]})
    with transaction(engine) as session:
        search_id = searches.submit(session, submitted).id
    with transaction(engine) as session:
        search = searches.get(session, search_id)
        assert SearchSpec.model_validate(search.spec, strict=False) == submitted
        assert [trial.seed for trial in searches.trials(session, search_id)] == [3, 1]


def test_pages_follow_each_other_without_gap_or_repeat(engine: Engine, submit: Submit) -> None:
    ids = [submit() for _ in range(7)]
    for oldest_first in (False, True):
        seen: list[UUID] = []
        cursor = None
        while True:
            with transaction(engine) as session:
                page = searches.list_page(
                    session, SearchFilter(), limit=3, cursor=cursor, oldest_first=oldest_first
                )
            seen += [search.id for search in page.searches]
            submit()  # what comes meanwhile does not shift the pages
            if page.next_cursor is None or len(seen) >= 7:
                break
            cursor = page.next_cursor
        assert seen[:7] == (ids if oldest_first else list(reversed(ids)))
        ids = found(engine, SearchFilter())[::-1][:7]


def test_a_made_up_cursor_is_refused(engine: Engine) -> None:
    for cursor in ("nonsense!", "", "AAAA"):
        with pytest.raises(InvalidCursorError), transaction(engine) as session:
            searches.list_page(session, SearchFilter(), limit=3, cursor=cursor)


def test_a_cursor_of_another_order_or_kind_is_refused(engine: Engine, submit: Submit) -> None:
    for _ in range(3):
        submit()
    with transaction(engine) as session:
        cursor = searches.list_page(session, SearchFilter(), limit=2).next_cursor
    for where, oldest_first in (
        (SearchFilter(), True),
        (SearchFilter(kind=JobKind.TRAINING), False),
    ):
        with (
            pytest.raises(InvalidCursorError, match="another list"),
            transaction(engine) as session,
        ):
            searches.list_page(session, where, limit=2, cursor=cursor, oldest_first=oldest_first)


def test_filters_combine(engine: Engine, submit: Submit) -> None:
    plain = submit()
    named = submit(name="first", labels={"team": "vision", "run": "1"})
    sharp = submit(space={"kind": "sharp_darts"}, labels={"team": "vision"})
    assert found(engine, SearchFilter(name="first")) == [named]
    assert found(engine, SearchFilter(space="sharp_darts")) == [sharp]
    assert found(engine, SearchFilter(labels={"team": "vision"})) == [sharp, named]
    assert found(engine, SearchFilter(labels={"team": "vision", "run": "1"})) == [named]
    assert found(engine, SearchFilter(statuses=[SearchStatus.RUNNING])) == []
    with transaction(engine) as session:
        moment = searches.get(session, named).created_at
    assert found(engine, SearchFilter(created_after=moment)) == [sharp, named]
    assert found(engine, SearchFilter(created_before=moment)) == [plain]


def test_what_is_not_there_is_said(engine: Engine) -> None:
    with transaction(engine) as session:
        for look in (searches.get, searches.trials, searches.get_trial, searches.metrics):
            with pytest.raises(NotFoundError):
                look(session, uuid4())
