"""Submissions that come at about the same time are written together, in one transaction.

While one transaction is on its way to the disk, those that come meanwhile wait for the next one,
and cost it a few rows instead of a transaction each. Who is alone does not wait. Each is answered
after its commit, as if it had been alone; if what is written together fails, each is tried by
itself, so that nobody is refused for somebody else's mistake.

The answer does not say where the search waits: that would take a look at the whole queue for each.
Whoever wants to know asks for the search.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from fastapi import Response
from sqlalchemy.orm import Session

from service.database import Database
from service.idempotency import Creation, Sent, created, draw_nonce, replayed
from service.jobs import operations
from service.jobs.schemas import JobAnswer
from store import access, idempotency, keys, searches
from store.access import Principal
from store.errors import (
    DatabaseUnavailableError,
    ForbiddenError,
    IdempotencyKeyReusedError,
    InvalidKeyError,
)
from store.idempotency import Named
from store.jobs import JobSpec
from store.searches import NewJob
from store.states import Role

_MOST: Final = 64
_MOST_TRIALS: Final = 1000
_LONG_SECONDS: Final = 1.0
"""An attempt that took longer and failed would take as long for those who came meanwhile."""


@dataclass(frozen=True)
class Submission:
    """A spec that somebody submits.

    Attributes:
        key_digest: Of the key that they show.
        spec: The validated spec.
        answer: What kind of answer they get.
        sent: How the request names itself, if it does.
    """

    key_digest: bytes
    spec: JobSpec
    answer: type[JobAnswer]
    sent: Sent | None


@dataclass(frozen=True)
class _Waiting:
    submission: Submission
    answered: asyncio.Future[Response] = field(default_factory=asyncio.Future)


_Outcome = Response | Exception | None
"""The answer; the reason why there is none; None for one that has to be tried again."""


class Submissions:
    """Writes what is submitted. One transaction of them is on its way at a time."""

    def __init__(self, database: Database) -> None:
        """Writes nothing yet.

        Args:
            database: Where to.
        """
        self._database = database
        self._waiting: deque[_Waiting] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def answer(
        self,
        creation: Creation,
        body: bytes,
        prepare: Callable[[], Awaitable[JobSpec]],
        answer: type[JobAnswer],
    ) -> Response:
        """Answers a request that submits something, perhaps one that was sent before.

        Args:
            creation: The request.
            body: Its body.
            prepare: Validates that, and gives the spec.
            answer: What kind of answer it gets.

        Raises:
            ProblemError: It is refused, and was not made before.
        """

        async def write(spec: JobSpec, sent: Sent | None) -> Response:
            return await self.add(Submission(creation.caller.digest, spec, answer, sent))

        return await creation.answer_by(body, prepare, write)

    async def add(self, submission: Submission) -> Response:
        """Stores and queues what is submitted, and gives the answer after the commit.

        Raises:
            InvalidKeyError: The key lets nobody in.
            ForbiddenError: It does not let its holder submit.
            IdempotencyKeyReusedError: The request's name was used for another one.
            DatabaseUnavailableError: PostgreSQL does not answer; nothing is stored.
        """
        waiting = _Waiting(submission)
        self._waiting.append(waiting)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await waiting.answered

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch = self._take()
                try:
                    await self._settle(batch, deque())
                except asyncio.CancelledError:
                    # The process shuts down: nobody is to wait for ever.
                    for each in (*batch, *self._waiting):
                        _answer(each, DatabaseUnavailableError("the API was stopped"))
                    raise
        finally:
            self._writing = None

    def _take(self) -> list[_Waiting]:
        """The next ones, as many as are not too long a transaction."""
        batch = [self._waiting.popleft()]
        num_trials = batch[0].submission.spec.trials.num_trials
        while self._waiting and len(batch) < _MOST:
            num_trials += self._waiting[0].submission.spec.trials.num_trials
            if num_trials > _MOST_TRIALS:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _settle(self, batch: Sequence[_Waiting], behind: deque[_Waiting]) -> None:
        """Answers a batch.

        Args:
            batch: The batch.
            behind: Those whose turn is next, before all who came later.
        """
        submissions = [each.submission for each in batch]
        begun = time.monotonic()
        try:
            outcomes = await self._database.run(partial(_store, submissions=submissions))
        except DatabaseUnavailableError as error:
            outcomes = [error] * len(batch)
            if time.monotonic() - begun > _LONG_SECONDS:
                for queue in (behind, self._waiting):
                    while queue:
                        _answer(queue.popleft(), error)
        except Exception as error:
            if len(batch) > 1:
                one_by_one = deque(batch)
                while one_by_one:
                    await self._settle([one_by_one.popleft()], one_by_one)
                return
            outcomes = [error]
        for each, outcome in zip(batch, outcomes, strict=True):
            if outcome is None:
                self._waiting.append(each)
            else:
                _answer(each, outcome)


def _answer(waiting: _Waiting, outcome: Response | Exception) -> None:
    if waiting.answered.done():
        return  # whoever sent it has gone
    if isinstance(outcome, Exception):
        waiting.answered.set_exception(outcome)
    else:
        waiting.answered.set_result(outcome)


def _store(session: Session, submissions: Sequence[Submission]) -> list[_Outcome]:
    """Stores what may be stored, and says what becomes of each."""
    let_in = keys.authenticate_all(session, {each.key_digest for each in submissions})
    outcomes: list[_Outcome] = [None] * len(submissions)
    allowed: dict[int, Principal] = {}
    names: dict[int, Named] = {}
    taken = set()
    for number, submission in enumerate(submissions):
        who = let_in[submission.key_digest]
        if isinstance(who, InvalidKeyError):
            outcomes[number] = who
            continue
        try:
            access.require_role(who, Role.MEMBER)
        except ForbiddenError as error:
            outcomes[number] = error
            continue
        if submission.sent is not None:
            name = submission.sent.of(who)
            if name.identity in taken:
                continue  # the same at the same time: it has the answer of the other one, later
            taken.add(name.identity)
            names[number] = name
        allowed[number] = who
    free = idempotency.begin_all(session, {name: draw_nonce() for name in names.values()})
    for number, name in names.items():
        if name not in free:
            del allowed[number]
            outcomes[number] = _kept(session, name)
    new = [NewJob(submissions[number].spec, who.owner) for number, who in allowed.items()]
    to_keep = {}
    for number, made in zip(allowed, searches.submit_all(session, new), strict=True):
        answer = submissions[number].answer
        told = answer.of(made.search, made.trials, None).model_dump_json()
        location = operations.location_of(made.search, answer)
        outcomes[number] = created(told, location)
        if number in names:
            to_keep[names[number]] = (location, told)
    idempotency.keep_all(session, to_keep)
    return outcomes


def _kept(session: Session, name: Named) -> _Outcome:
    try:
        kept = idempotency.find(session, name)
    except IdempotencyKeyReusedError as error:
        return error
    return None if kept is None else replayed(session, kept)
