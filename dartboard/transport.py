"""HTTP to one server: addresses, time-outs, the few retries that are safe, errors."""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx2
from pydantic import TypeAdapter, ValidationError

from dartboard.errors import DartboardError, ServerUnreachableError, UnexpectedAnswerError
from dartboard.problems import error_from
from dartboard.settings import is_this_machine

_RETRY_AFTER: Final = (0.1, 0.4)
"""Seconds before the second and the third try of what may be sent again when a connection failed:
GETs, and creates, which name themselves."""

_IDEMPOTENCY_KEY: Final = "Idempotency-Key"

_SILENCE: Final = 60.0
"""Seconds after which a stream that carried nothing, not even a comment, counts as broken."""

_NO_CONTENT: Final = 204

_Answer = TypeVar("_Answer")
Params = Mapping[str, Any]


class Transport:
    """A connection pool to one server.

    Raises:
        DartboardError: The address is not one, or the key cannot be one.
    """

    def __init__(self, url: str, *, key: str | None, timeout: float) -> None:
        """Checks the address and the key; connects when first asked."""
        parsed = _parse(url)
        self.url = str(parsed).rstrip("/")
        self._http = httpx2.Client(
            base_url=self.url,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 5.0)),
            headers={"Accept": "application/json", **_authorization(key)},
            # A proxy for the world outside knows nothing of a server on this machine.
            trust_env=not is_this_machine(self.url),
        )

    def close(self) -> None:
        """Closes the pool's connections."""
        self._http.close()

    def get(
        self,
        path: str,
        *,
        params: Params | None = None,
        accept: str = "application/json",
        also: Collection[int] = (),
    ) -> httpx2.Response:
        """GETs a resource; tries again when the connection fails.

        Args:
            path: Absolute path on the server.
            params: The query; None values are left out, sequences repeat.
            accept: The media type wanted.
            also: Statuses other than successes that are answers as well.

        Raises:
            DartboardError: The server refused, or there is none.
        """
        request = self._http.build_request(
            "GET", path, params=_present(params), headers={"Accept": accept}
        )
        return self._send_repeatedly(request, also)

    def create(
        self,
        path: str,
        *,
        json: object,
        idempotency_key: str | None = None,
    ) -> httpx2.Response:
        """POSTs a JSON document that makes something; tries again when the connection fails.

        The request carries an `Idempotency-Key`, so that the server makes one thing of all tries.

        Args:
            path: Absolute path on the server.
            json: The document.
            idempotency_key: The name of the request; a new one when None. To send the same request
                again from another process, name it yourself.

        Raises:
            DartboardError: The server refused, or there is none, or the key cannot be one.
        """
        name = str(uuid4()) if idempotency_key is None else idempotency_key
        if not (name.isascii() and name.isprintable() and name.strip()):
            raise DartboardError("an idempotency key has printable ASCII characters, as a UUID has")
        request = self._http.build_request(
            "POST", path, json=json, headers={_IDEMPOTENCY_KEY: name}
        )
        return self._send_repeatedly(request, ())

    def post(
        self, path: str, *, json: object | None = None, params: Params | None = None
    ) -> httpx2.Response:
        """POSTs a JSON document, once.

        Raises:
            DartboardError: The server refused, or there is none.
        """
        return self._send("POST", path, json, params)

    def patch(self, path: str, *, json: object) -> httpx2.Response:
        """PATCHes a resource with a JSON document, once.

        Raises:
            DartboardError: The server refused, or there is none.
        """
        return self._send("PATCH", path, json, None)

    def delete(self, path: str) -> httpx2.Response:
        """DELETEs a resource, once.

        Raises:
            DartboardError: The server refused, or there is none.
        """
        return self._send("DELETE", path, None, None)

    def _send_repeatedly(self, request: httpx2.Request, also: Collection[int]) -> httpx2.Response:
        for pause in (*_RETRY_AFTER, None):
            try:
                response = self._http.send(request)
            except httpx2.TransportError as error:
                if pause is None:
                    raise self._unreachable(error) from error
                time.sleep(pause)
            else:
                return _checked(response, also)
        raise AssertionError("the last try either returns or raises")

    def _send(
        self, method: str, path: str, json: object | None, params: Params | None
    ) -> httpx2.Response:
        try:
            response = self._http.request(method, path, json=json, params=_present(params))
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        return _checked(response, ())

    @contextmanager
    def events(self, path: str, *, after: int) -> Iterator[Iterator[httpx2.ServerSentEvent]]:
        """A stream of server-sent events after the event with number `after`.

        Raises:
            DartboardError: The server refused; here, or while the events are read, that the
                connection broke.
        """
        timeout = httpx2.Timeout(_SILENCE, connect=5.0)
        headers = {"Last-Event-ID": str(after)} if after else {}
        try:
            with self._http.sse(path, headers=headers, timeout=timeout) as source:
                if source.response.is_error:
                    source.response.read()
                    raise error_from(source.response)
                # No content: the search has ended, and nothing happened after `after`.
                yield iter(()) if source.response.status_code == _NO_CONTENT else iter(source)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx2.TransportError) -> DartboardError:
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return ServerUnreachableError(
                f"no Dartboard server answers at {self.url}. Is it running? `dartboard up` starts "
                "one on this machine; DARTBOARD_URL names another"
            )
        if isinstance(error, httpx2.SSEError):
            return UnexpectedAnswerError(f"{self.url} sent no stream of events: {error}")
        if isinstance(error, httpx2.TimeoutException):
            return ServerUnreachableError(
                f"the Dartboard server at {self.url} did not answer in time; `dartboard status` "
                "says how it is"
            )
        return ServerUnreachableError(
            f"the connection to the Dartboard server at {self.url} broke "
            f"({error or type(error).__name__}); `dartboard status` says how it is"
        )


def parse_answer(response: httpx2.Response, answer: type[_Answer]) -> _Answer:
    """An answer's JSON as a typed value.

    Args:
        response: A success with a JSON body.
        answer: The type to expect.

    Raises:
        UnexpectedAnswerError: It is something else.
    """
    try:
        return TypeAdapter(answer).validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UnexpectedAnswerError(
            f"{response.url} answered what this version of Dartboard cannot read "
            f"({place or 'the whole'}: {first['msg']}). Is the address right, and is the server of "
            "a similar version?"
        ) from None


def segment(key: UUID | str) -> str:
    """An id or a name as one segment of a path."""
    # An id never holds a slash; what a user types may. And an empty one would be another path.
    return quote(str(key), safe="") or "-"


def _parse(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError):
        parsed = httpx2.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise DartboardError(
            f"{url!r} is not the address of a server: write it like http://127.0.0.1:8000"
        )
    return parsed


def _authorization(key: str | None) -> dict[str, str]:
    if key is None:
        return {}
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise DartboardError("the key has characters that no key has: copy it again, as one word")
    return {"Authorization": f"Bearer {key}"}


def _present(params: Params | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _checked(response: httpx2.Response, also: Collection[int]) -> httpx2.Response:
    if response.is_success or response.status_code in also:
        return response
    raise error_from(response)
