"""Who asks, by the key that a request carries: the way from an endpoint to what is somebody's."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from service.database import Database
from service.problems import ProblemError
from store import access, keys
from store.access import Principal
from store.states import Role

Result = TypeVar("Result")

_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="key",
    description="A key of `dartboard keys create`, as `Authorization: Bearer dbk_...`.",
)
_HOW = (
    "Send a key as `Authorization: Bearer dbk_...`. `dartboard up` keeps one in "
    ".dartboard/api-key; an admin makes others with `dartboard keys create`"
)


@dataclass(frozen=True)
class Caller:
    """Runs store operations for whoever holds a key.

    Attributes:
        database: Where the operations run.
        secret: The key.
    """

    database: Database
    secret: str = field(repr=False)

    @property
    def digest(self) -> bytes:
        """What is stored of the key."""
        return keys.digest(self.secret)

    async def run(
        self, operation: Callable[[Session, Principal], Result], *, needs: Role = Role.VIEWER
    ) -> Result:
        """Looks who asks, and runs an operation for them, in one transaction.

        Args:
            operation: Takes the session and who asks; commits nothing itself.
            needs: The role that it takes.

        Returns:
            What the operation returns.

        Raises:
            InvalidKeyError: The key lets nobody in.
            ForbiddenError: It lets its holder in, but its role is below `needs`.
            DatabaseUnavailableError: PostgreSQL does not answer or has no tables.
        """

        def authenticated(session: Session) -> Result:
            who = keys.authenticate(session, self.digest)
            access.require_role(who, needs)
            return operation(session, who)

        return await self.database.run(authenticated)


async def _caller(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> Caller:
    if credentials is None:
        sent = request.headers.get("authorization")
        problem = "This takes a key" if sent is None else "The Authorization header holds no key"
        raise ProblemError(
            "unauthorized", f"{problem}. {_HOW}.", headers={"WWW-Authenticate": "Bearer"}
        )
    return Caller(request.app.state.wiring.database, credentials.credentials)


CallerOf = Annotated[Caller, Depends(_caller)]
"""An endpoint's parameter: who asks. Without a key in the request it is refused."""
