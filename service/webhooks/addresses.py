"""Which addresses a webhook may lead to.

Names are resolved here, and the connection is made to the very address that was looked at: a name
that resolves to another one a moment later gains nothing.
"""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Final

import httpx2

IpAddress = IPv4Address | IPv6Address

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_V4_BITS: Final = 0xFFFF_FFFF
_NOBODYS: Final = (
    # Protocol assignments, of which Python's own list knows a part.
    IPv4Network("192.0.0.0/24"),
    # Tunnels of no use any more: they carry IPv4 addresses that a router would unpack.
    IPv4Network("192.88.99.0/24"),
    IPv6Network("2001::/32"),
    IPv6Network("2002::/16"),
)


class AddressRefusedError(Exception):
    """A webhook may not lead there; the message says why."""


class UnresolvedError(Exception):
    """A name has no address now; the message says so."""


def parse(url: str) -> httpx2.URL:
    """The address of a webhook.

    Raises:
        ValueError: It is none; says what one looks like.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL()
    if parsed.scheme not in _DEFAULT_PORTS or not parsed.host:
        raise ValueError("must be an address like https://example.com/hooks/dartboard")
    if parsed.userinfo:
        raise ValueError("must have no user name and password in it: the signature tells who sends")
    if parsed.fragment:
        raise ValueError("must have no fragment (#...), which is never sent")
    return parsed


async def resolve(url: httpx2.URL, *, allow_private: bool) -> Sequence[IpAddress]:
    """Where to connect for a URL, in the order of preference.

    Args:
        url: As `parse` gives it.
        allow_private: Whether it may lead to this machine and to private networks.

    Raises:
        AddressRefusedError: It may not lead to one of them.
        UnresolvedError: There is none.
    """
    port = url.port or _DEFAULT_PORTS[url.scheme]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.raw_host.decode(), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnresolvedError(f"{url.host} has no address: {error.strerror}") from error
    except UnicodeError as error:
        raise UnresolvedError(f"{url.host} is no name of a host: {error}") from error
    # A link-local IPv6 address ends in its zone.
    addresses = [ip_address(str(place[4][0]).partition("%")[0]) for place in found]
    if not allow_private:
        for address in addresses:
            if not is_public(address):
                at = f"{url.host} is at {address}, which"
                raise AddressRefusedError(
                    f"{address if str(address) == url.host else at} is no public address; an API "
                    "that may tell its own network is started with "
                    "DARTBOARD_WEBHOOKS_ALLOW_PRIVATE=1"
                )
    return list(dict.fromkeys(addresses))


def is_public(address: IpAddress) -> bool:
    """Whether an address is somebody's in the internet, and nothing special."""
    if any(address in network for network in _NOBODYS if network.version == address.version):
        return False
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & _V4_BITS))
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)
