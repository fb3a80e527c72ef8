"""One attempt to deliver a message: signed, in ten seconds, to an address that was looked at."""

import asyncio
import hashlib
import hmac
import json
import logging
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import Any, Final

import httpx2

from service.webhooks import addresses
from service.webhooks.addresses import AddressRefusedError, IpAddress, UnresolvedError
from store.deliveries import Outcome, Outgoing

SECONDS: Final = 10.0
"""Of an attempt: resolving, connecting, sending, and the head of the answer."""

_CONNECT_SECONDS: Final = 4.0
"""For one of several addresses."""

_logger = logging.getLogger(__name__)


class Sender:
    """Sends messages; a context manager.

    Args:
        allow_private: Whether messages may go to this machine and to private networks.
        seconds: Most that an attempt takes.
        verify: What certificates are checked with; the system's when None.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        seconds: float = SECONDS,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._seconds = seconds
        self._http = httpx2.AsyncClient(
            timeout=httpx2.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
            verify=verify or True,
            follow_redirects=False,
            # A proxy would look names up by itself, and connect where we would not.
            trust_env=False,
            # A pooled connection is known by its address: two names at one would share it.
            limits=httpx2.Limits(max_keepalive_connections=0),
            # Nor is a cookie of one receiver another's, who may have the same address.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def __aenter__(self) -> "Sender":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def send(self, message: Outgoing) -> Outcome:
        """Tries to deliver a message, once. Raises nothing: whatever happens is the outcome.

        What nobody foresaw is one too: a message that is never settled would be sent for ever.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._send(message)
        except TimeoutError:
            return Outcome(None, f"No answer within {self._seconds:g} s.")
        except (AddressRefusedError, UnresolvedError, ValueError) as error:
            return Outcome(None, f"{error}.")
        except httpx2.TimeoutException:
            return Outcome(None, f"No answer within {self._seconds:g} s.")
        except httpx2.HTTPError as error:
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            return Outcome(None, f"Nobody took it ({said}).")
        except Exception as error:
            _logger.exception("delivery %s failed in a way nobody foresaw", message.id)
            return Outcome(None, f"It could not be sent ({type(error).__name__}).")

    async def _send(self, message: Outgoing) -> Outcome:
        url = addresses.parse(message.url)
        found = await addresses.resolve(url, allow_private=self._allow_private)
        for address in found[:-1]:
            try:
                return await self._send_to(address, url, message)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._send_to(found[-1], url, message)

    async def _send_to(self, address: IpAddress, url: httpx2.URL, message: Outgoing) -> Outcome:
        body = encode(message.payload)
        request = self._http.build_request(
            "POST",
            url.copy_with(host=str(address)),
            content=body,
            headers={"Host": url.netloc.decode(), **headers(message, body)},
            # The certificate is checked for the name, not for the address.
            extensions={"sni_hostname": url.raw_host.decode()},
        )
        response = await self._http.send(request, stream=True)
        # The body is nobody's business, and may have no end.
        await response.aclose()
        if response.is_success:
            return Outcome(response.status_code)
        return Outcome(
            response.status_code, _refusal(response), _retry_after(response, message.attempted_at)
        )


def encode(payload: Mapping[str, Any]) -> bytes:
    """The bytes of a message's body, the same at every attempt."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def headers(message: Outgoing, body: bytes) -> dict[str, str]:
    """What a receiver needs to know of a message, and to believe it."""
    timestamp = str(int(message.attempted_at.timestamp()))
    return {
        "Content-Type": "application/json",
        "User-Agent": f"Dartboard/{version('dartboard')}",
        "Dartboard-Event": message.kind,
        "Dartboard-Delivery": str(message.id),
        "Dartboard-Timestamp": timestamp,
        "Dartboard-Signature": f"v1={sign(message.secret, timestamp, body)}",
    }


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 of `timestamp.body`, in hexadecimal digits."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _refusal(response: httpx2.Response) -> str:
    said = f"It answered with status {response.status_code}"
    return f"{said}; redirects are not followed." if response.is_redirect else f"{said}."


def _retry_after(response: httpx2.Response, now: datetime) -> timedelta | None:
    if response.status_code not in (
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ):
        return None
    given = response.headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return timedelta(seconds=min(int(given[:9]), 10**8))
    try:
        moment = parsedate_to_datetime(given)
        return moment.replace(tzinfo=moment.tzinfo or UTC) - now
    except (ValueError, OverflowError):
        return None
