"""Lists that the server answers, whole or page by page."""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from dartboard.models import Result
from dartboard.transport import Transport, parse_answer

ItemT = TypeVar("ItemT")


class Page(Result, Generic[ItemT]):
    """Some items, and the cursor of the next page; None after the last one."""

    items: tuple[ItemT, ...]
    next_cursor: str | None = None


def pages(
    transport: Transport, path: str, params: Mapping[str, Any], page: type[Page[ItemT]]
) -> Iterator[ItemT]:
    """Yields what is on a page and on all that follow it, which are asked for as they are needed.

    Args:
        transport: The server.
        path: The list.
        params: The query of the first page.
        page: The page's type, such as `Page[Search]`.
    """
    cursor = None
    while True:
        response = transport.get(path, params={**params, "cursor": cursor})
        answer = parse_answer(response, page)
        yield from answer.items
        if answer.next_cursor is None:
            return
        cursor = answer.next_cursor
