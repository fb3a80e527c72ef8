"""From what a user types to the search or the architecture that is meant."""

import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final

import typer

from dartboard.errors import DartboardError, NotFoundError

if TYPE_CHECKING:
    from dartboard.client import Client
    from dartboard.models import Search, Training

_FULL_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_START_OF_ID: Final = re.compile(r"[0-9a-f]{4,8}(-[0-9a-f-]*)?")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_START_OF_HASH: Final = re.compile(r"[0-9a-f]{4,63}")
_SEARCHES_LOOKED_AT: Final = 200
_TIME_DIGITS: Final = 12
_SHOWN: Final = 5
_SLACK: Final = timedelta(minutes=1)


def search_id(client: "Client", reference: str) -> str:
    """The full id of a search.

    Args:
        client: Asked where the reference is not a full id.
        reference: An id, the start of one, or `last`.

    Raises:
        typer.BadParameter: The reference is none, or several searches start with it.
        DartboardError: No search starts with it.
    """
    reference = reference.strip().lower()
    if _FULL_ID.fullmatch(reference):
        return reference
    if reference == "last":
        newest = next(iter(client.list(page_size=1)), None)
        if newest is None:
            raise DartboardError("there is no search yet: `dartboard submit` makes one")
        return str(newest.id)
    if not _START_OF_ID.fullmatch(reference):
        raise typer.BadParameter(
            f"{reference!r} is no id of a search, nor the start of one (4 characters or more), "
            "nor `last`; `dartboard list` shows the ids"
        )
    found = _starting_with(client, reference)
    if not found:
        raise DartboardError(
            f"no search's id starts with {reference!r}; `dartboard list` shows the ids"
        )
    if len(found) > 1:
        raise typer.BadParameter(
            f"the ids of several searches start with {reference!r}, among them "
            f"{', '.join(found)}: give more of it"
        )
    return found[0]


def job(client: "Client", reference: str) -> "Search | Training":
    """A search, or the training with this full id.

    Raises:
        typer.BadParameter: The reference is none, or several searches start with it.
        DartboardError: There is no such search or training.
    """
    identifier = search_id(client, reference)
    try:
        return client.get(identifier)
    except NotFoundError as error:
        try:
            return client.training(identifier)
        except NotFoundError:
            raise error from None


def is_start_of_id(reference: str) -> bool:
    """Whether a search's id can be, or can start with, a text in small letters."""
    return bool(_FULL_ID.fullmatch(reference) or _START_OF_ID.fullmatch(reference))


def architecture_hash(client: "Client", reference: str, trial: int | None) -> str:
    """The hash of an architecture.

    Args:
        client: Asked where the reference is a search.
        reference: A hash, or a reference to a search, or the start of a hash that one of the
            newest searches found.
        trial: With a search: the number of the trial that derived it; None for the recommended.

    Raises:
        DartboardError: The search has none (yet), or there is no such search or trial.
    """
    reference = reference.strip().lower()
    if _HASH.fullmatch(reference):
        _refuse_trial(trial)
        return reference
    if _START_OF_HASH.fullmatch(reference) and not (
        _START_OF_ID.fullmatch(reference) and _starting_with(client, reference)
    ):
        _refuse_trial(trial)
        return _only_hash(client, reference)
    identifier = search_id(client, reference)
    ranked = client.architectures(identifier)
    for architecture in ranked:
        if architecture.trial == trial if trial is not None else architecture.recommended:
            return architecture.architecture
    if trial is not None and ranked:
        have = ", ".join(str(number) for number in sorted(each.trial for each in ranked))
        raise DartboardError(
            f"trial {trial} of search {identifier} has derived no architecture; those that have: "
            f"{have}"
        )
    status = client.get(identifier).status
    raise DartboardError(
        f"search {identifier} is {status} and has no "
        f"{'architecture' if trial is not None else 'recommended architecture'} yet; "
        f"`dartboard follow {identifier}` waits for it"
        if status in ("queued", "running")
        else f"search {identifier} {status} and recommends no architecture"
    )


def _refuse_trial(trial: int | None) -> None:
    if trial is not None:
        raise typer.BadParameter("--trial goes with a search, not with an architecture's hash")


def _only_hash(client: "Client", start: str) -> str:
    newest = islice(client.list(), _SEARCHES_LOOKED_AT)
    found = {
        trial.architecture
        for search in newest
        for trial in search.trials
        if trial.architecture is not None and trial.architecture.startswith(start)
    }
    if not found:
        raise DartboardError(
            f"no search's id starts with {start!r}, nor the hash of an architecture that one of "
            f"the newest {_SEARCHES_LOOKED_AT} searches found; an older one is named by all 64 "
            "digits of its hash"
        )
    if len(found) > 1:
        raise typer.BadParameter(
            f"the hashes of several architectures start with {start!r}, among them "
            f"{', '.join(sorted(found)[:_SHOWN])}: give more of it"
        )
    return found.pop()


def _starting_with(client: "Client", start: str) -> list[str]:
    # An id begins with its time in milliseconds: its start bounds when the search was created.
    digits = start.replace("-", "")[:_TIME_DIGITS]
    matching = (
        str(search.id)
        for search in client.list(
            created_after=_time(digits.ljust(_TIME_DIGITS, "0")) - _SLACK,
            created_before=_time(digits.ljust(_TIME_DIGITS, "f")) + _SLACK,
        )
        if str(search.id).startswith(start)
    )
    return list(islice(matching, _SHOWN))


def _time(digits: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(digits, 16) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC) - 2 * _SLACK
