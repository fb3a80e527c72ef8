"""What an operation on the store refuses to do."""

from uuid import UUID

from store.states import ENDED, JobKind, SearchStatus


class StoreError(Exception):
    """Root of all errors that the store raises on purpose."""


class NotFoundError(StoreError):
    """No row has this id."""

    def __init__(self, noun: str, key: object) -> None:
        """Names what was looked for.

        Args:
            noun: What kind of thing, such as "search".
            key: The id or hash that has no row.
        """
        super().__init__(f"no {noun} {key}")
        self.noun = noun
        self.key = key


class IllegalTransitionError(StoreError):
    """The state machine has no such step; `status` is where the search is now."""

    def __init__(
        self,
        search_id: UUID,
        status: SearchStatus,
        to: str,
        *,
        kind: JobKind = JobKind.SEARCH,
    ) -> None:
        """Names the search and the step.

        Args:
            search_id: The search that stays as it was.
            status: Where it is now.
            to: Where it was asked to go.
            kind: What it is, for the message.
        """
        super().__init__(
            f"{kind} {search_id} is {status} and cannot become {to}{_next(status, to)}"
        )
        self.search_id = search_id
        self.status = status
        self.to = to


def _next(status: SearchStatus, to: str) -> str:
    """What whoever asked for a step that is none can do."""
    if to == "deleted":
        return ": cancel it, or wait for its end, first"
    if status in ENDED:
        again = ", and a retry runs what did not finish" if to == SearchStatus.QUEUED else ""
        return f": it has ended{again}"
    return ""


class NotRetryableError(StoreError):
    """A trial that cannot be run again; the message says why and what to do instead."""


class IdempotencyKeyReusedError(StoreError):
    """A create names itself as another one did; the message says what to send."""


class WebhookDisabledError(StoreError):
    """A webhook that nothing is sent to now; the message says what to do."""


class InvalidKeyError(StoreError):
    """A key that lets nobody in: unknown, expired or revoked."""


class ForbiddenError(StoreError):
    """The key lets its holder in, but not do this; the message says which role would."""


class LeaseLostError(StoreError):
    """The search is no longer leased under this token: its runner must stop without writing."""


class InvalidCursorError(StoreError, ValueError):
    """A page cursor that this store did not hand out."""


class DatabaseUnavailableError(StoreError):
    """PostgreSQL does not answer, or could not be started; the message says what to do."""
