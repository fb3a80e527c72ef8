"""`Idempotency-Key`: a create that is sent again makes nothing new and is answered the same.

The key is the caller's owner's, for one path. The answer to the first request is kept, to the byte,
in the transaction that makes what it tells of (`store.idempotency`), and is what everybody gets who
sends the same method, path, query and body under that key; with anything else it is a conflict.
Refusals are not kept: a key whose request was refused is free.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from fastapi import Depends, Header, Request, Response, status
from pydantic import AfterValidator
from sqlalchemy.orm import Session

from service.caller import Caller, CallerOf
from service.problems import ProblemError
from service.schema_base import Answer
from store import idempotency
from store.access import Principal
from store.idempotency import Kept, Named
from store.states import Role

LONGEST: Final = 255
REPLAYED: Final = "Idempotency-Replayed"
"""Header of an answer that was given before."""

_NONCE_BYTES: Final = 32


@dataclass(frozen=True)
class Made:
    """What a create made, and what is said about it.

    Attributes:
        answer: To whoever made it.
        location: Where it is, if it is one thing.
        kept: To keep, where the answer has a secret that must not be; else all of it is.
    """

    answer: Answer
    location: str | None = None
    kept: Answer | None = None


Create = Callable[[Session, Principal, bytes | None], Made]
"""Does the work in the caller's transaction. Takes the nonce that is kept, if an answer is."""

Reveal = Callable[[Session, str, bytes], Answer]
"""From what was kept of an answer, and its nonce, to the whole answer."""


@dataclass(frozen=True)
class Sent:
    """How a request names itself: by its path, its `Idempotency-Key` and the digest of all of it.

    Whose it is tells the key that lets it in.
    """

    path: str
    key: str
    digest: bytes

    def of(self, who: Principal) -> Named:
        """The name in the store."""
        return Named(who.owner, self.path, self.key, self.digest)


Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Creation:
    """A request that makes something, perhaps one that was sent before.

    Attributes:
        request: The request.
        caller: Who sent it.
        key: How it named itself; None if it did not.
    """

    request: Request
    caller: Caller
    key: str | None

    async def answer(
        self,
        body: bytes,
        prepare: Callable[[], Awaitable[Create]],
        *,
        reveal: Reveal | None = None,
        binds: bytes = b"",
    ) -> Response:
        """Makes what is asked for, or says what was said when it was made.

        Args:
            body: The request's.
            prepare: Validates it, and gives the work that is left.
            reveal: For answers of which not all is kept.
            binds: What belongs to the request besides what it sends: with another one of these, it
                is another request.

        Returns:
            201 with the answer.

        Raises:
            ProblemError: It is refused, and was not made before.
            ForbiddenError: The key's role does not make such things.
            IdempotencyKeyReusedError: Its name was used for another request.
        """
        digest = self._digest(body, binds)

        async def run(create: Create) -> Response:
            return await self.caller.run(
                lambda session, who: self._run(session, who, create, digest, reveal),
                needs=Role.MEMBER,
            )

        return await self._once(prepare, run, digest, reveal)

    async def answer_by(
        self,
        body: bytes,
        prepare: Callable[[], Awaitable[Prepared]],
        write: Callable[[Prepared, Sent | None], Awaitable[Response]],
    ) -> Response:
        """As `answer`, for something that is written by other means than the caller's transaction.

        Args:
            body: The request's.
            prepare: Validates it, and gives what is to be written.
            write: Writes that and keeps the answer, or finds the one that was kept, by the name
                that the request has, if it has one.
        """
        digest = self._digest(body, b"")
        sent = None if self.key is None else Sent(self.request.url.path, self.key, digest)

        async def run(prepared: Prepared) -> Response:
            return await write(prepared, sent)

        return await self._once(prepare, run, digest, None)

    async def _once(
        self,
        prepare: Callable[[], Awaitable[Prepared]],
        run: Callable[[Prepared], Awaitable[Response]],
        digest: bytes,
        reveal: Reveal | None,
    ) -> Response:
        try:
            prepared = await prepare()
        except ProblemError:
            # What was fine for the first may be refused today; it has its answer all the same.
            kept = await self._kept(digest, reveal)
            if kept is None:
                raise
            return kept
        return await run(prepared)

    def _run(
        self,
        session: Session,
        who: Principal,
        create: Create,
        digest: bytes,
        reveal: Reveal | None,
    ) -> Response:
        if self.key is None:
            made = create(session, who, None)
            return created(made.answer.model_dump_json(), made.location)
        named = Sent(self.request.url.path, self.key, digest).of(who)
        nonce = draw_nonce()
        kept = idempotency.begin(session, named, nonce)
        if kept is not None:
            return replayed(session, kept, reveal)
        made = create(session, who, nonce)
        answer = made.answer.model_dump_json()
        to_keep = answer if made.kept is None else made.kept.model_dump_json()
        idempotency.keep(session, named, location=made.location, answer=to_keep)
        return created(answer, made.location)

    async def _kept(self, digest: bytes, reveal: Reveal | None) -> Response | None:
        key = self.key
        if key is None:
            return None

        def look(session: Session, who: Principal) -> Response | None:
            kept = idempotency.find(session, Sent(self.request.url.path, key, digest).of(who))
            return None if kept is None else replayed(session, kept, reveal)

        return await self.caller.run(look, needs=Role.MEMBER)

    def _digest(self, body: bytes, binds: bytes) -> bytes:
        scope = self.request.scope
        whole = hashlib.sha256()
        for part in (scope["method"].encode(), scope["path"].encode(), scope["query_string"],
                     body, binds):  # fmt: skip
            # Each with its length, so that no two requests give the same bytes.
            whole.update(len(part).to_bytes(8))
            whole.update(part)
        return whole.digest()


def created(answer: str, location: str | None, *, again: bool = False) -> Response:
    """201 with an answer; `again` where it was given before."""
    headers = {} if location is None else {"Location": location}
    if again:
        headers[REPLAYED] = "true"
    return Response(answer, status.HTTP_201_CREATED, headers, "application/json")


def replayed(session: Session, kept: Kept, reveal: Reveal | None = None) -> Response:
    """What was answered before, once more."""
    answer = kept.answer
    if reveal is not None:
        answer = reveal(session, kept.answer, kept.nonce).model_dump_json()
    return created(answer, kept.location, again=True)


def draw_nonce() -> bytes:
    """Random bytes to keep with an answer."""
    return secrets.token_bytes(_NONCE_BYTES)


def _printable(value: str) -> str:
    if not (0 < len(value) <= LONGEST and value.isascii() and value.isprintable()):
        raise ValueError(f"must have 1 to {LONGEST} printable ASCII characters, such as a UUID")
    return value


async def _creation(
    request: Request,
    caller: CallerOf,
    key: Annotated[
        Annotated[str, AfterValidator(_printable)] | None,
        Header(
            alias="Idempotency-Key",
            description="A name of your choice for this request, new for each, such as a UUID. "
            "Sent again under it within 24 hours, also at the same time, the request makes nothing "
            "new and has the same answer; another request is a 409.",
        ),
    ] = None,
) -> Creation:
    return Creation(request, caller, key)


CreationOf = Annotated[Creation, Depends(_creation)]
"""An endpoint's parameter: the request, who sent it, and its `Idempotency-Key`."""
