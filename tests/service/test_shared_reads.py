"""Reads that several streams ask for at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.events.shared_reads import SharedReads


class Counted:
    """A read that takes as long as its test wants, and says how often it was begun before."""

    def __init__(self) -> None:
        self.num_begun = 0
        self.go_on = asyncio.Event()

    async def __call__(self) -> int:
        self.num_begun += 1
        number = self.num_begun
        await self.go_on.wait()
        return number


def run(test: Callable[[], Awaitable[Any]]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(in_time())


def test_those_who_ask_together_read_once() -> None:
    async def together() -> None:
        reads, one, other = SharedReads[int](), Counted(), Counted()
        asked = [asyncio.create_task(reads.read("one", one)) for _ in range(200)]
        asked.append(asyncio.create_task(reads.read("other", other)))
        one.go_on.set()
        other.go_on.set()
        assert await asyncio.gather(*asked) == [1] * 201
        assert (one.num_begun, other.num_begun) == (1, 1)

    run(together)


def test_a_read_that_has_begun_is_not_joined() -> None:
    async def later() -> None:
        reads, counted = SharedReads[int](), Counted()
        first = asyncio.create_task(reads.read("it", counted))
        while not counted.num_begun:
            await asyncio.sleep(0)
        second = asyncio.create_task(reads.read("it", counted))
        await asyncio.sleep(0)
        counted.go_on.set()
        assert (await first, await second) == (1, 2)

    run(later)


def test_one_who_goes_away_takes_it_from_nobody() -> None:
    async def leave() -> None:
        reads, counted = SharedReads[int](), Counted()
        first, second = (asyncio.create_task(reads.read("it", counted)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        counted.go_on.set()
        assert await second == 1

    run(leave)


def test_what_goes_wrong_is_told_to_all() -> None:
    async def fail() -> int:
        raise OSError("gone")

    async def together() -> None:
        reads = SharedReads[int]()
        for outcome in await asyncio.gather(
            *(reads.read("it", fail) for _ in range(3)), return_exceptions=True
        ):
            assert isinstance(outcome, OSError)
        with pytest.raises(OSError, match="gone"):
            await reads.read("it", fail)

    run(together)
