"""From an answer that is not a success to the error to raise."""

import json
from typing import Any, Final

import httpx2

from dartboard.errors import (
    ConflictError,
    DartboardError,
    FieldError,
    InvalidRequestError,
    InvalidSpecError,
    KeyRefusedError,
    NotFoundError,
    ProblemError,
    ServerFailedError,
    UnexpectedAnswerError,
)

SPEC_PROBLEM: Final = "urn:dartboard:problem:invalid-spec"

_BY_STATUS: Final[dict[int, type[ProblemError]]] = {
    401: KeyRefusedError,
    403: KeyRefusedError,
    404: NotFoundError,
    409: ConflictError,
}
_FIRST_SERVER_ERROR: Final = 500


def error_from(response: httpx2.Response) -> DartboardError:
    """The error that describes an answer, whose body has been read.

    Args:
        response: An answer with a status that is not a success.

    Returns:
        A `ProblemError` made from problem+json, or else an `UnexpectedAnswerError`.
    """
    problem = _problem(response)
    if problem is None:
        return UnexpectedAnswerError(
            f"{response.url} answered with status {response.status_code} and not as a Dartboard "
            "server does. Is something else listening there? Set DARTBOARD_URL to the server's "
            "address"
        )
    kind = str(problem.get("type", "about:blank"))
    return _class_for(response.status_code, kind)(
        status=response.status_code,
        type=kind,
        title=str(problem.get("title", "")),
        detail=str(problem.get("detail", "")),
        errors=tuple(_field_errors(problem.get("errors"))),
    )


def _problem(response: httpx2.Response) -> dict[str, Any] | None:
    content_type = response.headers.get("content-type", "").partition(";")[0].strip()
    if content_type != "application/problem+json":
        return None
    try:
        problem = json.loads(response.content)
    except ValueError:
        return None
    return problem if isinstance(problem, dict) else None


def _class_for(status: int, kind: str) -> type[ProblemError]:
    if kind == SPEC_PROBLEM:
        return InvalidSpecError
    if status >= _FIRST_SERVER_ERROR:
        return ServerFailedError
    return _BY_STATUS.get(status, InvalidRequestError)


def _field_errors(errors: object) -> list[FieldError]:
    if not isinstance(errors, list):
        return []
    return [
        FieldError(str(error.get("pointer", "")), str(error.get("message", "")))
        for error in errors
        if isinstance(error, dict)
    ]
