"""The Python client: every call of the HTTP API as a typed method."""

from types import TracebackType
from typing import Final, Self

from dartboard.calls.architectures import ArchitectureCalls
from dartboard.calls.following import FollowingCalls
from dartboard.calls.steering import SteeringCalls
from dartboard.calls.submitting import SubmittingCalls
from dartboard.calls.trials import TrialCalls
from dartboard.keys import KeyCalls, Me, OwnerCalls
from dartboard.lists import Page
from dartboard.models import Preset, Queue, Readiness
from dartboard.settings import Settings
from dartboard.transport import Transport, parse_answer
from dartboard.webhooks import WebhookCalls

_NOT_READY: Final = 503


class Client(SubmittingCalls, SteeringCalls, FollowingCalls, TrialCalls, ArchitectureCalls):
    """Talks to a Dartboard server. Usable as a context manager; safe to use from several threads.

    Every method raises `ServerUnreachableError` when no server answers, and a `ProblemError` with
    the server's words when it refuses. GETs are tried again when the connection fails, and so are
    submissions and other creates: each carries a new `Idempotency-Key`, of which the server makes
    one thing however often it gets it. Nothing else is tried again.

    Args:
        url: The server's address. None: `DARTBOARD_URL`, else the server that `dartboard up` runs
            on this machine, else http://127.0.0.1:8000.
        key: The key that lets you in. None: `DARTBOARD_API_KEY`, else, for a server on this
            machine, the key that it keeps for the machine's user under `DARTBOARD_HOME`.
        timeout: Seconds to wait for an answer.

    Raises:
        DartboardError: The address is not one, or the key cannot be one.
    """

    def __init__(
        self, url: str | None = None, *, key: str | None = None, timeout: float = 30.0
    ) -> None:
        """Connects when first asked for something."""
        settings = Settings.read()
        url = url or settings.server_url()
        key = key or settings.key_for(url)
        self._transport = Transport(url, key=key, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def keys(self) -> KeyCalls:
        """Calls about keys: `create`, `list`, `revoke`."""
        return KeyCalls(self._transport)

    @property
    def owners(self) -> OwnerCalls:
        """Calls about owners: `list`, `get`, `change`."""
        return OwnerCalls(self._transport)

    @property
    def webhooks(self) -> WebhookCalls:
        """Calls about webhooks: `create`, `list`, `change`, `delete`, `test`, `deliveries`, ..."""
        return WebhookCalls(self._transport)

    def me(self) -> Me:
        """Who the client's key lets in, and what it lets them do.

        Raises:
            KeyRefusedError: There is no key, or it lets nobody in.
        """
        return parse_answer(self._transport.get("/v1/me"), Me)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def queue(self) -> Queue:
        """Who waits and why, who runs, and what the cluster holds."""
        return parse_answer(self._transport.get("/v1/queue"), Queue)

    def presets(self) -> tuple[Preset, ...]:
        """The presets that a spec can start from."""
        return parse_answer(self._transport.get("/v1/presets"), Page[Preset]).items

    def ready(self) -> Readiness:
        """Whether the server can take searches and run them, and what is amiss."""
        response = self._transport.get("/readyz", also=[_NOT_READY])
        return parse_answer(response, Readiness)
