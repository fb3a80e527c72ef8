"""Every error as `application/problem+json` (RFC 9457), with a stable type and what to do next."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from service.sentences import sentence
from store.errors import (
    DatabaseUnavailableError,
    ForbiddenError,
    IdempotencyKeyReusedError,
    IllegalTransitionError,
    InvalidCursorError,
    InvalidKeyError,
    NotFoundError,
    NotRetryableError,
    WebhookDisabledError,
)

MEDIA_TYPE: Final = "application/problem+json"

TITLES: Final[dict[str, tuple[HTTPStatus, str]]] = {
    "malformed-json": (HTTPStatus.BAD_REQUEST, "The body is not JSON"),
    "bad-request": (HTTPStatus.BAD_REQUEST, "The request cannot be understood"),
    "unauthorized": (HTTPStatus.UNAUTHORIZED, "This takes a key"),
    "forbidden": (HTTPStatus.FORBIDDEN, "The key does not let you do that"),
    "not-found": (HTTPStatus.NOT_FOUND, "There is no such thing"),
    "method-not-allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "This path has other methods"),
    "conflict": (HTTPStatus.CONFLICT, "Its state does not allow that"),
    "idempotency-key-reused": (HTTPStatus.CONFLICT, "The key was used for another request"),
    "body-too-large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    "unsupported-media-type": (
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The body must be uncompressed JSON",
    ),
    "invalid-spec": (HTTPStatus.UNPROCESSABLE_ENTITY, "The spec is not valid"),
    "invalid-body": (HTTPStatus.UNPROCESSABLE_ENTITY, "The body is not valid"),
    "invalid-parameter": (HTTPStatus.UNPROCESSABLE_ENTITY, "A parameter is not valid"),
    "internal-error": (HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong in Dartboard"),
    "unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "The database is away"),
    "storage-unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "The artifact storage is away"),
}
"""Status and title of each problem, by the slug at the end of its type."""

_RETRY_AFTER_SECONDS = 5


class FieldProblem(BaseModel):
    """One field of the request's body that is wrong."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    pointer: str
    """JSON pointer (RFC 6901) into the request's body; empty for the body as a whole."""
    message: str
    """What is wrong with it and what would be right."""


class Problem(BaseModel):
    """What went wrong, and what to do about it (RFC 9457)."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    type: str = Field(pattern="^urn:dartboard:problem:[a-z-]+$")
    """Stable name of the problem, for programs."""
    title: str
    """The same for people; the same for every problem of this type."""
    status: int
    """The HTTP status."""
    detail: str
    """What happened this time and what to do next."""
    errors: tuple[FieldProblem, ...] | None = None
    """The offending fields of a body."""


class ProblemError(Exception):
    """A refusal that an endpoint raises."""

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Takes what a `Problem` shows.

        Args:
            slug: A key of `TITLES`.
            detail: What happened and what to do next.
            errors: The offending fields of a body.
            headers: Headers that the answer needs besides.
        """
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
        self.errors = errors
        self.headers = headers

    def respond(self) -> JSONResponse:
        """The answer."""
        status, title = TITLES[self.slug]
        problem = Problem(
            type=f"urn:dartboard:problem:{self.slug}",
            title=title,
            status=status,
            detail=self.detail,
            errors=None if self.errors is None else tuple(self.errors),
        )
        return JSONResponse(
            problem.model_dump(exclude_none=True),
            status_code=status,
            media_type=MEDIA_TYPE,
            headers=self.headers,
        )


def install(app: FastAPI) -> None:
    """Makes every error of an application a problem document."""
    translations = {
        ProblemError: _problem,
        RequestValidationError: _invalid_parameter,
        HTTPException: _http_exception,
        NotFoundError: _not_found,
        InvalidKeyError: _invalid_key,
        ForbiddenError: _forbidden,
        IllegalTransitionError: _conflict,
        NotRetryableError: _conflict,
        WebhookDisabledError: _conflict,
        IdempotencyKeyReusedError: _key_reused,
        InvalidCursorError: _invalid_cursor,
        DatabaseUnavailableError: _unavailable,
        # Starlette logs what nobody foresaw, with its traceback, after this has answered.
        Exception: _internal_error,
    }
    for error_type, translate in translations.items():
        app.add_exception_handler(error_type, _handler(translate))


def _handler(translate: Any) -> Any:
    async def handle(request: Request, error: Exception) -> JSONResponse:
        problem: ProblemError = translate(request, error)
        return problem.respond()

    return handle


def _problem(_: Request, error: ProblemError) -> ProblemError:
    return error


def _invalid_parameter(_: Request, error: RequestValidationError) -> ProblemError:
    sentences = []
    for item in error.errors():
        # Of a repeated parameter the place in the list is in the location too.
        place, name, *_ = item["loc"]
        sentences.append(f"{place} parameter {name!r}: {sentence(item)}.")
    return ProblemError("invalid-parameter", " ".join(sentences))


def _http_exception(request: Request, error: HTTPException) -> ProblemError:
    if error.status_code == HTTPStatus.NOT_FOUND:
        path = request.url.path
        shorter = path.rstrip("/")
        hint = "/openapi.json lists what there is"
        if shorter != path and _methods_of(request, shorter):
            hint = f"without the slash at its end there is {shorter}"
        return ProblemError("not-found", f"There is no {path}; {hint}.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_methods_of(request, request.url.path))
        return ProblemError(
            "method-not-allowed",
            f"{request.url.path} does not take {request.method}; it takes {allowed}.",
            headers={"Allow": allowed},
        )
    return ProblemError("bad-request", str(error.detail), headers=error.headers)


def _methods_of(request: Request, path: str) -> list[str]:
    # The router's own Allow names the methods of the first route with this path only.
    methods = {
        method.upper()
        for template, operations in request.app.openapi()["paths"].items()
        if compile_path(template)[0].match(path)
        for method in operations
    }
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _not_found(_: Request, error: NotFoundError) -> ProblemError:
    lists = {
        "search": "GET /v1/searches lists the searches.",
        "training": "GET /v1/trainings lists the trainings.",
        "trial": "GET /v1/searches/{id}/trials lists a search's trials.",
        "architecture": "GET /v1/searches/{id}/architectures lists what a search found.",
        "log": "GET /v1/searches/{id}/logs lists the logs of a search.",
        "key": "GET /v1/keys lists the keys.",
        "webhook": "GET /v1/webhooks lists the webhooks.",
        "delivery": "GET /v1/webhooks/{id}/deliveries lists a webhook's.",
        "owner": "GET /v1/owners lists the owners; the first key of one makes it.",
    }
    return ProblemError("not-found", f"There is {error}. {lists.get(error.noun, '')}".rstrip())


def _invalid_key(_: Request, error: InvalidKeyError) -> ProblemError:
    return ProblemError(
        "unauthorized",
        f"{str(error)[0].upper()}{str(error)[1:]}; send one that is in use. An admin makes them "
        "with `dartboard keys create`.",
        headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
    )


def _forbidden(_: Request, error: ForbiddenError) -> ProblemError:
    return ProblemError("forbidden", f"{str(error)[0].upper()}{str(error)[1:]}.")


def _conflict(
    _: Request, error: IllegalTransitionError | NotRetryableError | WebhookDisabledError
) -> ProblemError:
    return ProblemError("conflict", f"{str(error)[0].upper()}{str(error)[1:]}.")


def _key_reused(_: Request, error: IdempotencyKeyReusedError) -> ProblemError:
    detail = f"{str(error)[0].upper()}{str(error)[1:]}."
    return ProblemError("idempotency-key-reused", detail)


def _invalid_cursor(_: Request, error: InvalidCursorError) -> ProblemError:
    return ProblemError("invalid-parameter", f"query parameter 'cursor': {error}.")


def _unavailable(_: Request, error: DatabaseUnavailableError) -> ProblemError:
    detail = f"{str(error)[0].upper()}{str(error)[1:]}."
    return ProblemError("unavailable", detail, headers={"Retry-After": str(_RETRY_AFTER_SECONDS)})


def _internal_error(_: Request, __: Exception) -> ProblemError:
    return ProblemError(
        "internal-error",
        "This is a defect of Dartboard, not of your request. The API's log has the traceback of "
        "this moment; please report it.",
    )
