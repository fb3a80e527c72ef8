"""Creates over a network that breaks: exactly one of each, and the same answer."""

from collections.abc import Callable
from typing import Any

import pytest

from dartboard import Client, ConflictError, DartboardError, ServerUnreachableError
from tests.dartboard.conftest import SPEC, Served
from tests.dartboard.proxies import Fate, proxy

CREATES: dict[str, Callable[[Client], Any]] = {
    "search": lambda client: client.submit(SPEC),
    "searches": lambda client: client.submit_all([SPEC, SPEC]),
    "training": lambda client: client.train(architecture="DARTS_V2"),
    "key": lambda client: client.keys.create("ana"),
}


def num_rows(client: Client) -> int:
    return sum(
        len(rows)
        for rows in (list(client.list()), list(client.trainings()), client.keys.list("ana"))
    )


@pytest.mark.parametrize("what", CREATES)
@pytest.mark.parametrize(
    "fates",
    [
        ("answer lost",),
        ("request lost", "answer lost"),
        ("answer lost", "answer lost"),
    ],
)
def test_a_create_whose_connection_broke_is_one(
    client: Client, server: Served, what: str, fates: tuple[Fate, ...]
) -> None:
    with proxy(server.port, *fates) as broken, Client(broken.url) as through:
        made = CREATES[what](through)
    assert broken.fates == [*fates, "passes"]
    assert num_rows(client) == (2 if what == "searches" else 1)
    if what == "search":
        assert client.get(made.id).id == made.id
    if what == "key":
        with Client(server.url, key=made.key) as ana:
            assert ana.me().owner == "ana"


def test_after_three_tries_it_says_so_and_the_name_still_stands(
    client: Client, server: Served
) -> None:
    fates: list[Fate] = ["answer lost"] * 3
    with proxy(server.port, *fates) as broken, Client(broken.url) as through:
        with pytest.raises(ServerUnreachableError, match="broke"):
            through.submit(SPEC, idempotency_key="mine")
        assert len(broken.fates) == 3
        # It was stored, and whoever sends it again by its name finds it.
        search = through.submit(SPEC, idempotency_key="mine")
    assert [each.id for each in client.list()] == [search.id]


def test_what_names_no_create_is_sent_once(client: Client, server: Served) -> None:
    search = client.submit(SPEC)
    with (
        proxy(server.port, "answer lost") as broken,
        Client(broken.url) as through,
        pytest.raises(ServerUnreachableError),
    ):
        through.cancel(search.id)
    assert broken.fates == ["answer lost"]


def test_two_creates_have_two_names(client: Client) -> None:
    assert client.submit(SPEC).id != client.submit(SPEC).id


def test_a_name_is_for_one_request(client: Client) -> None:
    first = client.submit(SPEC, idempotency_key="mine")
    assert client.submit(SPEC, idempotency_key="mine") == first
    with pytest.raises(ConflictError, match="used for another request"):
        client.submit(SPEC, idempotency_key="mine", name="another")
    with pytest.raises(DartboardError, match="printable"):
        client.submit(SPEC, idempotency_key="né")
