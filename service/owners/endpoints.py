"""`/v1/owners`: whose part of the cluster is how large, and who is in which team."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request
from sqlalchemy.orm import Session

from service.caller import CallerOf
from service.openapi import BODY, LOOKUP, READING, ok, problems, spec_body
from service.owners import examples
from service.owners.schemas import OwnerAnswer, OwnerChanges, OwnerList
from service.parameters import PlainText
from service.spec_body import read_model
from store import access, owners
from store.access import Principal
from store.states import Role

router = APIRouter(prefix="/v1/owners", tags=["keys"])

OwnerName = Annotated[PlainText, Path(description="The owner's name.")]


@router.get(
    "",
    summary="List owners",
    responses={200: ok("All that you see.", examples.OWNER_LIST), **problems(*READING)},
)
async def list_owners(caller: CallerOf) -> OwnerList:
    """All owners for an admin, yourself otherwise."""
    return await caller.run(_list)


@router.get(
    "/{owner}",
    summary="Look at an owner",
    responses={200: ok("The owner.", examples.OWNER), **problems(*LOOKUP)},
)
async def get_owner(owner: OwnerName, caller: CallerOf) -> OwnerAnswer:
    """Weight, quotas, teams, and how much runs now."""
    return await caller.run(partial(_get, name=owner))


@router.patch(
    "/{owner}",
    summary="Set an owner's weight, quotas and teams",
    response_model=OwnerAnswer,
    responses={
        200: ok("The owner as it is now.", examples.OWNER),
        **problems("not-found", *BODY),
    },
    openapi_extra=spec_body(examples.OWNER_CHANGES, "OwnerChanges"),
)
async def change_owner(request: Request, owner: OwnerName, caller: CallerOf) -> OwnerAnswer:
    """Changes what the body names, from the next claim on; what runs goes on. For admins."""
    changes = await read_model(request, OwnerChanges, smallest='{"weight": 2}')
    return await caller.run(partial(_change, name=owner, changes=changes), needs=Role.ADMIN)


def _list(session: Session, who: Principal) -> OwnerList:
    running = owners.num_running(session)
    return OwnerList(
        items=[
            OwnerAnswer.of(owner, running.get(owner.name, 0))
            for owner in owners.every(session)
            if who.role is Role.ADMIN or owner.name == who.owner
        ]
    )


def _get(session: Session, who: Principal, name: str) -> OwnerAnswer:
    access.require_own(who, name, "owner", name)
    owner = owners.get(session, name)
    return OwnerAnswer.of(owner, owners.num_running(session).get(name, 0))


def _change(session: Session, who: Principal, name: str, changes: OwnerChanges) -> OwnerAnswer:
    owners.change(session, name, changes.given)
    return _get(session, who, name)
