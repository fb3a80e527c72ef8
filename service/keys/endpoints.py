"""`/v1/keys`: make, list and revoke; and `/v1/me`."""

from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response, status
from sqlalchemy.orm import Session

from service.caller import CallerOf
from service.idempotency import Create, CreationOf, Made
from service.keys import examples
from service.keys.schemas import KeyAnswer, KeyList, KeyRequest, Me, NewKeyAnswer
from service.openapi import CREATION, LOOKUP, READING, VERB, ok, problems, spec_body
from service.parameters import PlainText
from service.spec_body import parse_model, read_json
from store import access, keys, owners
from store.access import Principal
from store.errors import ForbiddenError
from store.models import Key
from store.states import Role

router = APIRouter(prefix="/v1", tags=["keys"])

KeyId = Annotated[UUID, Path(description="The key's id; not its secret.")]

_NO_STORE: dict[str, Any] = {"Cache-Control": "no-store"}


@router.get(
    "/me",
    summary="Who am I?",
    responses={200: ok("You.", examples.ME), **problems(*READING)},
)
async def read_me(caller: CallerOf) -> Me:
    """Whom your key lets in, and what it lets you do."""
    return await caller.run(_me)


@router.post(
    "/keys",
    status_code=status.HTTP_201_CREATED,
    summary="Make a key",
    response_model=NewKeyAnswer,
    responses={
        201: ok("The key, with its secret, this once.", examples.NEW_KEY, location=True),
        **problems(*CREATION),
    },
    openapi_extra=spec_body(examples.KEY_REQUESTS, "KeyRequest"),
)
async def create_key(request: Request, caller: CallerOf, creation: CreationOf) -> Response:
    """Makes a key. Its secret is in this answer and nowhere else.

    The first key of an owner makes the owner. Members make keys for themselves, of at most their
    own role, which expire no later than the key that they show; admins make any.

    With an `Idempotency-Key` the secret is derived from the key that you show and from random
    bytes that are kept with the answer: the same request, under the same two keys, has the same
    secret again, which still is nowhere stored.
    """
    body = await read_json(request, smallest='{"role": "member"}')

    async def prepare() -> Create:
        wanted = parse_model(KeyRequest, body)
        return partial(_create, wanted=wanted, shown=caller.secret)

    reveal = partial(_reveal, shown=caller.secret)
    answer = await creation.answer(body, prepare, reveal=reveal, binds=caller.digest)
    answer.headers.update(_NO_STORE)
    return answer


@router.get(
    "/keys",
    summary="List keys",
    responses={200: ok("Without their secrets.", examples.KEY_LIST), **problems(*READING)},
)
async def list_keys(
    caller: CallerOf,
    owner: Annotated[PlainText | None, Query(description="Only this owner's.")] = None,
) -> KeyList:
    """Your own keys; an admin sees everybody's. Also those that expired or were revoked."""
    return await caller.run(partial(_list, owner=owner))


@router.get(
    "/keys/{key_id}",
    summary="Look at a key",
    responses={200: ok("Without its secret.", examples.KEY), **problems(*LOOKUP)},
)
async def get_key(key_id: KeyId, caller: CallerOf) -> KeyAnswer:
    """When it was made and last used, and whether it still lets anybody in."""
    return await caller.run(lambda session, who: KeyAnswer.of(_own(session, who, key_id)))


@router.post(
    "/keys/{key_id}/revoke",
    summary="Revoke a key",
    responses={200: ok("The key, of no more use.", examples.REVOKED_KEY), **problems(*VERB)},
)
async def revoke_key(key_id: KeyId, caller: CallerOf) -> KeyAnswer:
    """Takes a key out of use, for good and at once; its live streams end too.

    Revoking again changes nothing. A member's key revokes no admin's.
    """
    return await caller.run(partial(_revoke, key_id=key_id), needs=Role.MEMBER)


def _me(session: Session, who: Principal) -> Me:
    return Me.of(who, keys.get(session, who.key_id), owners.get(session, who.owner))


def _create(
    session: Session, who: Principal, nonce: bytes | None, *, wanted: KeyRequest, shown: str
) -> Made:
    owner = wanted.owner or who.owner
    if not access.includes(who.role, wanted.role):
        raise ForbiddenError(
            f"a key of the role {who.role} makes none of the role {wanted.role}: ask an admin"
        )
    if owner != who.owner:
        access.require_role(who, Role.ADMIN)
    made = keys.create(
        session,
        owner,
        wanted.role,
        name=wanted.name,
        lifetime=wanted.lifetime,
        # Whoever has a key for a while does not have one for longer by it.
        expires_by=None if who.role is Role.ADMIN else keys.get(session, who.key_id).expires_at,
        secret=None if nonce is None else keys.derive(shown, nonce),
    )
    return Made(NewKeyAnswer.of_new(made), f"/v1/keys/{made.key.id}", kept=KeyAnswer.of(made.key))


def _reveal(_: Session, kept: str, nonce: bytes, *, shown: str) -> NewKeyAnswer:
    answer = KeyAnswer.model_validate_json(kept)
    return NewKeyAnswer(**answer.model_dump(), key=keys.derive(shown, nonce))


def _list(session: Session, who: Principal, owner: str | None) -> KeyList:
    return KeyList(items=[KeyAnswer.of(key) for key in keys.page(session, owner, seen_by=who)])


def _revoke(session: Session, who: Principal, key_id: UUID) -> KeyAnswer:
    key = _own(session, who, key_id)
    if not access.includes(who.role, Role(key.role)):
        raise ForbiddenError(
            f"a key of the role {who.role} revokes none of the role {key.role}: ask an admin"
        )
    return KeyAnswer.of(keys.revoke(session, key_id))


def _own(session: Session, who: Principal, key_id: UUID) -> Key:
    key = keys.get(session, key_id)
    access.require_own(who, key.owner, "key", key_id)
    return key
