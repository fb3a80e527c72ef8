"""What can go wrong between a program and Dartboard. `DartboardError` is the root of all."""

from dataclasses import dataclass


class DartboardError(Exception):
    """Root of all errors that the client and the command raise on purpose."""

    kind = "error"
    """A short name of the error, as `--json` prints it."""


class ServerUnreachableError(DartboardError):
    """No server answered, or the connection broke and did not come back."""

    kind = "server_unreachable"


class UnexpectedAnswerError(DartboardError):
    """Something answered, but not as a Dartboard server does."""

    kind = "unexpected_answer"


class WaitTimeoutError(DartboardError, TimeoutError):
    """The search had not ended when the time was up. It goes on."""

    kind = "wait_timeout"


class LocalError(DartboardError):
    """Something on this machine could not be started or stopped; the message says what to do."""

    kind = "local"


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong with a request.

    Attributes:
        pointer: RFC 6901 pointer into the request body, such as `/training/epochs`; empty for
            the whole.
        message: What is wrong with it and what to do.
    """

    pointer: str
    message: str


class ProblemError(DartboardError):
    """The server refused a request, and said why (RFC 9457 problem details).

    Attributes:
        status: The HTTP status.
        type: The problem's stable identifier, `urn:dartboard:problem:<slug>`.
        title: What kind of problem it is.
        detail: What happened this time and what to do.
        errors: The offending fields, if the problem is with some.
    """

    kind = "refused"

    def __init__(
        self,
        *,
        status: int,
        type: str,  # noqa: A002  (the name in RFC 9457)
        title: str,
        detail: str,
        errors: tuple[FieldError, ...] = (),
    ) -> None:
        """Takes the members of the problem document."""
        # The detail repeats the first of the fields.
        message = title if errors else detail or title
        for error in errors:
            message += f"\n  {error.pointer or '(the whole)'}: {error.message}"
        super().__init__(message)
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.errors = errors


class InvalidRequestError(ProblemError):
    """The request cannot be right, whenever it is sent."""

    kind = "invalid_request"


class InvalidSpecError(InvalidRequestError):
    """The spec of a search is wrong; `errors` points at each offending field."""

    kind = "invalid_spec"


class KeyRefusedError(ProblemError):
    """No key was sent, or one that lets nobody in, or one that does not let its holder do this."""

    kind = "key_refused"


class NotFoundError(ProblemError):
    """There is nothing under this id."""

    kind = "not_found"


class ConflictError(ProblemError):
    """What was asked for does not fit the state that the search is in."""

    kind = "conflict"


class ServerFailedError(ProblemError):
    """The server could not do its work, often because its database is away; try again later."""

    kind = "server_failed"
