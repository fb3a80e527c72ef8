"""Where webhooks may lead, and that a name cannot change its mind in between."""

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import pytest

from service.webhooks import addresses
from service.webhooks.addresses import AddressRefusedError, UnresolvedError, is_public, parse
from service.webhooks.sending import Sender
from store.deliveries import Outcome, Outgoing
from tests.service.receivers import receiving

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)

PRIVATE = [
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1",
    "169.254.169.254", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9",
    "192.88.99.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1",
    "2001:10::1", "2002:7f00:1::", "2002:808:808::", "fc00::1", "fd12::1", "fe80::1", "fec0::1",
    "ff02::1", "ff0e::1", "4000::1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "223.255.255.1", "2606:4700::1111",
    "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.com/", "must be an address like"),
        ("file:///etc/passwd", "must be an address like"),
        ("//example.com/", "must be an address like"),
        ("https://", "must be an address like"),
        ("https:///path", "must be an address like"),
        ("http://[::1", "must be an address like"),
        ("http://0177.0.0.1/", "must be an address like"),
        ("https://user@example.com/", "user name"),
        ("https://user:secret@example.com/", "user name"),
        ("https://example.com/#top", "fragment"),
    ],
)
def test_what_is_no_address_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(url)


def resolve(url: str, *, allow_private: bool = False) -> list[str]:
    found = asyncio.run(addresses.resolve(parse(url), allow_private=allow_private))
    return [str(address) for address in found]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:7f00:1]/",
        # What a resolver takes for numbers of IPv4 as well.
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
    ],
)
def test_private_ones_are_refused_however_they_are_written(url: str) -> None:
    with pytest.raises(AddressRefusedError, match="DARTBOARD_WEBHOOKS_ALLOW_PRIVATE"):
        resolve(url)
    assert resolve(url, allow_private=True)


def test_public_ones_are_found() -> None:
    assert resolve("https://8.8.8.8/") == ["8.8.8.8"]


def test_a_name_without_an_address_is_told() -> None:
    with pytest.raises(UnresolvedError, match=r"no-such-name\.invalid has no address"):
        resolve("https://no-such-name.invalid/")


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example.com"])
def test_a_name_that_is_none_is_told(host: str) -> None:
    with pytest.raises(UnresolvedError, match="is no name of a host"):
        resolve(f"https://{host}/")


def message(url: str) -> Outgoing:
    return Outgoing(UUID(int=7), 1, NOW, NOW, "ping", {"kind": "ping"}, url, "dbw_secret")


def send(url: str, *, allow_private: bool = True, **options: Any) -> Outcome:
    async def once() -> Outcome:
        async with Sender(allow_private=allow_private, **options) as sender:
            return await sender.send(message(url))

    return asyncio.run(once())


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Gives a name its addresses, one list after the other; returns who asked."""
    whole = socket.getaddrinfo

    def names(name: str, *answers: list[str]) -> list[str]:
        asked: list[str] = []
        left = list(answers)

        def getaddrinfo(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
            asked.append(str(host))
            if host != name:
                return whole(host, port, *rest, **named)
            found = left.pop(0)
            return [
                (
                    socket.AF_INET6 if ":" in address else socket.AF_INET,
                    socket.SOCK_STREAM,
                    6,
                    "",
                    (address, port),
                )
                for address in found
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return names


def test_the_address_that_was_looked_at_is_connected_to(
    names: Callable[..., list[str]],
) -> None:
    with receiving() as receiver:
        # Who asks again would be led elsewhere, and here finds nothing.
        asked = names("hooks.test", ["127.0.0.1"])
        outcome = send(f"http://hooks.test:{receiver.port}/a?b=c")
        assert outcome == Outcome(204)
        assert asked.count("hooks.test") == 1
        (request,) = receiver.received
        assert request.path == "/a?b=c"
        assert request.headers["Host"] == f"hooks.test:{receiver.port}"


@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:7f00:1"]])
def test_a_name_that_turns_private_gets_nothing(
    names: Callable[..., list[str]], found: list[str]
) -> None:
    with receiving() as receiver:
        names("hooks.test", found)
        outcome = send(f"http://hooks.test:{receiver.port}/", allow_private=False)
        assert outcome.status is None
        assert f"hooks.test is at {found[-1]}, which is no public address" in outcome.error
        assert receiver.received == []


def test_the_next_address_is_tried_where_nobody_listens(
    names: Callable[..., list[str]],
) -> None:
    with receiving("127.0.0.2") as receiver:
        names("hooks.test", ["127.0.0.3", "127.0.0.2"])
        assert send(f"http://hooks.test:{receiver.port}/") == Outcome(204)
