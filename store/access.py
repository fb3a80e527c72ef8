"""Who may see and steer what. An operation that a user asked for looks here first.

A search is its owner's. Others of a team see and steer it too, if its label `team` names the team;
admins see and steer everything. What somebody does not see is not found, for them.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from store.errors import ForbiddenError, NotFoundError
from store.models import DeletedSearch, Search, Trial
from store.states import JobKind, Role

TEAM: Final = "team"
"""The label that shares a search with everybody of a team."""

_RANK: Final = {Role.VIEWER: 0, Role.MEMBER: 1, Role.ADMIN: 2}


@dataclass(frozen=True)
class Principal:
    """Who asks.

    Attributes:
        key_id: The key that was shown.
        owner: Whom it lets in.
        role: What it lets them do.
        teams: Values of the label `team` whose searches they see.
    """

    key_id: UUID
    owner: str
    role: Role
    teams: frozenset[str]


def require_role(who: Principal, role: Role) -> None:
    """Refuses what a key is too weak for.

    Raises:
        ForbiddenError: Its role is below `role`.
    """
    if not includes(who.role, role):
        raise ForbiddenError(
            f"this takes a key with the role {role}, and yours is {who.role}: ask an admin for one"
        )


def includes(role: Role, other: Role) -> bool:
    """Whether a role lets its holder do all that another does."""
    return _RANK[role] >= _RANK[other]


def sees(who: Principal) -> ColumnElement[bool]:
    """The condition that somebody sees a search."""
    if who.role is Role.ADMIN:
        return true()
    own = Search.owner == who.owner
    if not who.teams:
        return own
    return or_(own, Search.labels[TEAM].astext.in_(sorted(who.teams)))


def require_search(
    session: Session, who: Principal, search_id: UUID, kind: JobKind | None = None
) -> None:
    """Lets only those through who see a search.

    Args:
        session: The caller's session.
        who: Who asks.
        search_id: The search.
        kind: What it has to be; None takes either.

    Raises:
        NotFoundError: There is no such search, or it is none of theirs.
    """
    found = select(Search.id).where(Search.id == search_id, sees(who))
    if kind is not None:
        found = found.where(Search.kind == kind)
    if session.scalar(found) is None:
        raise NotFoundError(kind or JobKind.SEARCH, search_id)


def knows(who: Principal | None, owner: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """The condition that somebody, or all with None, may know of what is shared with nobody."""
    return true() if who is None or who.role is Role.ADMIN else owner == who.owner


def require_own(who: Principal, owner: str, noun: str, key: object) -> None:
    """Lets only its owner and admins know of what is shared with nobody.

    Args:
        who: Who asks.
        owner: Whose it is.
        noun: What kind of thing, such as "webhook".
        key: Its id or name.

    Raises:
        NotFoundError: It is somebody else's, and for them there is none.
    """
    if who.role is not Role.ADMIN and owner != who.owner:
        raise NotFoundError(noun, key)


def has_deleted(session: Session, who: Principal, search_id: UUID) -> bool:
    """Whether this was a search that they saw, and which was deleted lately."""
    deleted = session.get(DeletedSearch, search_id)
    return deleted is not None and (
        who.role is Role.ADMIN or deleted.owner == who.owner or deleted.team in who.teams
    )


def require_trial(session: Session, who: Principal, trial_id: UUID) -> None:
    """Lets only those through who see the search that a trial belongs to.

    Raises:
        NotFoundError: There is no such trial, or it is none of theirs.
    """
    found = (
        select(Trial.id)
        .join(Search, Search.id == Trial.search_id)
        .where(Trial.id == trial_id, sees(who))
    )
    if session.scalar(found) is None:
        raise NotFoundError("trial", trial_id)
