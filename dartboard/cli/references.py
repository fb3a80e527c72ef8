"""From what a user types to the search, the training or the architecture that is meant."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final

import typer

from dartboard.errors import DartboardError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dartboard.client import Client
    from dartboard.models import Search, Training

    JobList = Callable[..., Iterator[Search | Training]]

_FULL_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_START_OF_ID: Final = re.compile(r"[0-9a-f]{4,8}(-[0-9a-f-]*)?")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_START_OF_HASH: Final = re.compile(r"[0-9a-f]{4,63}")
_SEARCHES_LOOKED_AT: Final = 200
_TIME_DIGITS: Final = 12
_SHOWN: Final = 5
_SLACK: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class _Words:
    """How messages speak of what was looked for, where it is seen and where it comes from."""

    noun: str
    shown_by: str
    made_by: str


_SEARCHES: Final = _Words(
    noun="search",
    shown_by="`dartboard list` shows the ids",
    made_by="`dartboard submit` makes one",
)
_JOBS: Final = _Words(
    noun="search or training",
    shown_by="`dartboard list` and `dartboard trainings` show the ids",
    made_by="`dartboard submit` and `dartboard train` make one",
)


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
    return str(_named(reference, _SEARCHES, [client.list]).id)


def is_full_id(reference: str) -> bool:
    """Whether something is a whole id, and not the start of one or `last`."""
    return _FULL_ID.fullmatch(reference.strip().lower()) is not None


def job(client: "Client", reference: str) -> "Search | Training":
    """A search or a training.

    Args:
        client: The server.
        reference: An id, the start of one, or `last` for the newest of both kinds.

    Raises:
        typer.BadParameter: The reference is none, or several searches or trainings start with it.
        DartboardError: There is no such search or training.
    """
    reference = reference.strip().lower()
    if not _FULL_ID.fullmatch(reference):
        return _named(reference, _JOBS, [client.list, client.trainings])
    try:
        return client.get(reference)
    except NotFoundError:
        try:
            return client.training(reference)
        except NotFoundError as error:
            raise NotFoundError(
                status=error.status,
                type=error.type,
                title=error.title,
                detail=f"No search or training has the id {reference}; {_JOBS.shown_by}.",
            ) from None


def trial_id(client: "Client", reference: str, trial: int | None) -> str:
    """The full id of a trial.

    Args:
        client: The server.
        reference: A search as elsewhere, or the full id of a trial.
        trial: With a search: the number of its trial; None for the one that derived what it
            recommends, or its only one.

    Raises:
        typer.BadParameter: The reference is none, or it is a search that leaves the choice open.
        DartboardError: There is no such search or trial.
    """
    identifier = search_id(client, reference)
    try:
        search = client.get(identifier)
    except NotFoundError as error:
        try:
            found = client.trial(identifier)
        except NotFoundError:
            raise error from None
        if trial is not None:
            raise typer.BadParameter("--trial goes with a search, not with a trial's id") from None
        return str(found.id)
    ids = {each.number: str(each.id) for each in search.trials}
    if trial is not None:
        if trial not in ids:
            numbers = ", ".join(map(str, sorted(ids)))
            raise DartboardError(f"search {identifier} has no trial {trial}; it has: {numbers}")
        return ids[trial]
    recommended = [each for each in client.architectures(identifier) if each.recommended]
    if recommended:
        return str(recommended[0].trial_id)
    if len(ids) == 1:
        return next(iter(ids.values()))
    raise typer.BadParameter(
        f"search {identifier} is {search.status} and recommends none of its {len(ids)} trials: "
        "choose one with --trial"
    )


def is_start_of_id(reference: str) -> bool:
    """Whether an id can be, or can start with, a text in small letters."""
    return bool(_FULL_ID.fullmatch(reference) or _START_OF_ID.fullmatch(reference))


def is_architecture_reference(reference: str) -> bool:
    """Whether something may be a hash, a search or the start of either, or is `last`."""
    reference = reference.strip().lower()
    return (
        reference == "last"
        or is_start_of_id(reference)
        or bool(_HASH.fullmatch(reference) or _START_OF_HASH.fullmatch(reference))
    )


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
        _START_OF_ID.fullmatch(reference) and _starting_with(client.list, reference)
    ):
        _refuse_trial(trial)
        return _only_hash(client, reference)
    if not is_architecture_reference(reference):
        raise typer.BadParameter(
            f"{reference!r} is no hash of an architecture, no id of a search and not the start of "
            f"either (4 characters or more), nor `last`; {_SEARCHES.shown_by}"
        )
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


def _named(reference: str, words: _Words, lists: "Sequence[JobList]") -> "Search | Training":
    """The one job of some lists that `last` or the start of an id names."""
    if reference == "last":
        newest = [job for jobs in lists for job in islice(jobs(page_size=1), 1)]
        if not newest:
            raise DartboardError(f"there is no {words.noun} yet: {words.made_by}")
        return max(newest, key=lambda job: job.id)  # ids sort by age
    if not _START_OF_ID.fullmatch(reference):
        raise typer.BadParameter(
            f"{reference!r} is no id of a {words.noun}, nor the start of one (4 characters or "
            f"more), nor `last`; {words.shown_by}"
        )
    found = [job for jobs in lists for job in _starting_with(jobs, reference)]
    if not found:
        raise DartboardError(
            f"no {words.noun} has an id that starts with {reference!r}; {words.shown_by}"
        )
    if len(found) > 1:
        raise typer.BadParameter(
            f"several ids start with {reference!r}, among them "
            f"{', '.join(str(job.id) for job in found[:_SHOWN])}: give more of it"
        )
    return found[0]


def _starting_with(jobs: "JobList", start: str) -> "list[Search | Training]":
    # An id begins with its time in milliseconds: its start bounds when the job was created.
    digits = start.replace("-", "")[:_TIME_DIGITS]
    matching = (
        job
        for job in jobs(
            created_after=_time(digits.ljust(_TIME_DIGITS, "0")) - _SLACK,
            created_before=_time(digits.ljust(_TIME_DIGITS, "f")) + _SLACK,
        )
        if str(job.id).startswith(start)
    )
    return list(islice(matching, _SHOWN))


def _time(digits: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(digits, 16) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC) - 2 * _SLACK
