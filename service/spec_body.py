"""Reading a request's body: what it must be before a spec, or another model, judges it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from search_core.spec.base import SpecModel
from service.pointers import MOST_ERRORS, field_problems
from service.problems import FieldProblem, ProblemError

SpecT = TypeVar("SpecT", bound=SpecModel)
ModelT = TypeVar("ModelT", bound=BaseModel)

LARGEST_BODY: Final = 1_048_576
"""Bytes; a spec with everything in it has a few thousand."""

LARGEST_BATCH: Final = 8 * LARGEST_BODY
"""Bytes of a batch of up to a hundred specs."""

_MOST_DIGITS: Final = 1000
"""Of an integer; Python reads no more than some thousands."""


_MOST_READ_OFF: Final = 16 * LARGEST_BODY
_SECONDS_TO_READ_OFF: Final = 5.0


async def read_model(request: Request, model: type[ModelT], *, smallest: str) -> ModelT:
    """A request's body that is no spec.

    Args:
        request: The request.
        model: What it holds.
        smallest: The smallest one, for who sends none.

    Raises:
        ProblemError: The body is not JSON, too large, or not valid; says where.
    """
    return parse_model(model, await read_json(request, smallest=smallest))


def parse_model(model: type[ModelT], body: bytes) -> ModelT:
    """What is in JSON that is no spec.

    Raises:
        ProblemError: It is not valid; says where.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid_body(field_problems(model, error)) from None


async def read_json(request: Request, *, smallest: str, largest: int = LARGEST_BODY) -> bytes:
    """A request's body, which is JSON.

    Args:
        request: The request.
        smallest: The smallest spec, for who sends none.
        largest: Most bytes that it may have.

    Raises:
        ProblemError: The body is not JSON, or too large.
    """
    _check_media_type(request)
    body = await _read(request, largest)
    _check_json(body, smallest)
    return body


def parse_spec(model: type[SpecT], body: bytes) -> SpecT:
    """The spec in JSON.

    Raises:
        ProblemError: It is no valid spec; says where.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = field_problems(model, error)
        if error.errors()[0]["type"] == "json_invalid":
            raise ProblemError("malformed-json", problems[0].message) from None
        raise invalid_spec(problems) from None


async def parse_spec_aside(model: type[SpecT], body: bytes) -> SpecT:
    """As `parse_spec`, in a thread: a thousand points take most of a second to validate.

    Raises:
        ProblemError: It is no valid spec; says where.
    """
    return await asyncio.to_thread(parse_spec, model, body)


def invalid_spec(problems: Sequence[FieldProblem]) -> ProblemError:
    """The refusal of a spec for what is wrong with its fields."""
    return _invalid("invalid-spec", problems)


def invalid_body(problems: Sequence[FieldProblem]) -> ProblemError:
    """The refusal of a body that is no spec for what is wrong with its fields."""
    return _invalid("invalid-body", problems)


def _invalid(slug: str, problems: Sequence[FieldProblem]) -> ProblemError:
    first = problems[0]
    where = f"{first.pointer}: " if first.pointer else ""
    count = len(problems)
    others = {1: "", MOST_ERRORS: " (and many more)"}.get(count, f" (and {count - 1} more)")
    return ProblemError(slug, f"{where}{first.message}{others}", errors=problems)


def _check_media_type(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "")
    if encoding.strip().lower() not in ("", "identity"):
        raise ProblemError(
            "unsupported-media-type",
            f"The header Content-Encoding was {encoding!r}; send the body uncompressed, without "
            "this header.",
        )
    # Whatever a browser may send without asking (forms, plain text) is refused with the rest.
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != "application/json":
        was = f"was {given!r}" if given else "is missing"
        raise ProblemError(
            "unsupported-media-type",
            f"The header Content-Type {was}; send `Content-Type: application/json` "
            "(curl: -H 'Content-Type: application/json').",
            headers={"Accept-Post": "application/json"},
        )


async def _read(request: Request, largest: int) -> bytes:
    # FastAPI's own limit answers in plain text when Content-Length gives the size away.
    declared = request.headers.get("content-length", "")
    is_large = declared.isdecimal() and int(declared) > largest
    if is_large and "100-continue" in request.headers.get("expect", "").lower():
        raise _too_large(largest)  # nothing of it was sent yet
    chunks = request.stream()
    body = bytearray()
    while not is_large:
        chunk = await anext(chunks, None)
        if chunk is None:
            return bytes(body)
        body += chunk
        is_large = len(body) > largest
    await _read_off(chunks)
    raise _too_large(largest)


async def _read_off(chunks: AsyncIterator[bytes]) -> None:
    """Reads what a client still sends, within bounds.

    A connection that is closed while its client sends is reset, and the answer is lost with it.
    """
    num_bytes = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_SECONDS_TO_READ_OFF):
            async for chunk in chunks:
                num_bytes += len(chunk)
                if num_bytes > _MOST_READ_OFF:
                    return


def _too_large(largest: int) -> ProblemError:
    return ProblemError(
        "body-too-large",
        f"A body has at most {largest:,} bytes here.",
        # There may be more of the body than was read off: the connection cannot be used again.
        headers={"Connection": "close"},
    )


def _check_json(body: bytes, smallest: str) -> None:
    """Refuses what is no JSON, and JSON that two readers would read differently."""
    if not body.strip():
        raise ProblemError("malformed-json", f"The body is empty; the smallest one is {smallest}.")
    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=_without_repetition,
            parse_constant=_refuse_constant,
            parse_int=_integer,
        )
        if b"\\u" in body:
            # An escape can name half of a pair, which is no character: UTF-8 has none for it.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise ProblemError(
            "malformed-json",
            f"The body has the lone surrogate \\u{half:04x}, which is half of a character: write "
            "both halves, or the character itself.",
        ) from None
    except UnicodeDecodeError as error:
        raise ProblemError("malformed-json", f"The body is not UTF-8: {error}.") from None
    except json.JSONDecodeError as error:
        raise ProblemError("malformed-json", f"{error}.") from None
    except RecursionError:
        raise ProblemError("malformed-json", "The body is nested too deeply.") from None
    except ValueError as error:
        raise ProblemError("malformed-json", f"{error}.") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, member in pairs:
        if key in value:
            raise ValueError(f"The key {key[:100]!r} stands twice in one object")
        value[key] = member
    return value


def _integer(digits: str) -> int:
    num_digits = len(digits.lstrip("-"))
    if num_digits > _MOST_DIGITS:
        raise ValueError(
            f"The number {digits[:20]}... has {num_digits:,} digits; no number of a spec has more "
            f"than {_MOST_DIGITS:,}"
        )
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; a number has to be finite")
