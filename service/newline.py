"""A newline after every JSON answer, so that a terminal's next line is not joined to it."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MEDIA_TYPES = ("application/json", "application/problem+json")


class NewlineMiddleware:
    """Ends JSON bodies with a newline, whoever wrote them.

    A response class of our own would do the same, but FastAPI then writes the answers itself, which
    is slower and refuses a NaN instead of writing null.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wraps the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        is_json = False

        async def send_with_newline(message: Message) -> None:
            nonlocal is_json
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                length = headers.get("content-length", "")
                is_json = headers.get("content-type") in _MEDIA_TYPES and length.isdecimal()
                if is_json:
                    headers["content-length"] = str(int(length) + 1)
            elif is_json and not message.get("more_body", False):
                message = {**message, "body": message.get("body", b"") + b"\n"}
            await send(message)

        await self._app(scope, receive, send_with_newline if scope["type"] == "http" else send)
