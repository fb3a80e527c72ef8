"""The Python client: every call of the HTTP API as a typed method."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, Self, overload
from uuid import UUID

from dartboard import streams
from dartboard.bodies import batch, submission
from dartboard.errors import (
    ServerFailedError,
    ServerUnreachableError,
    UnexpectedAnswerError,
    WaitTimeoutError,
)
from dartboard.keys import KeyCalls, Me, OwnerCalls
from dartboard.lists import Page, pages
from dartboard.models import (
    AlphaSeries,
    Architecture,
    DryRun,
    Event,
    EventPage,
    Job,
    Log,
    Paths,
    Point,
    Preset,
    Queue,
    RankedArchitecture,
    Readiness,
    Result,
    Search,
    Training,
    Trial,
)
from dartboard.settings import Settings
from dartboard.transport import Transport, parse_answer, segment
from dartboard.webhooks import WebhookCalls
from search_core.errors import InvalidGenotypeError
from search_core.genotype import Genotype, parse
from search_core.spec import SearchSpec
from search_core.spec.retraining import RetrainingSpec

_NOT_READY: Final = 503
_PAGE: Final = 200
_ASK_EVERY: Final = 1.0

SearchId = UUID | str
JobRef = SearchId | Search | Training
"""A search, by its id or as it was answered; or a training, as it was answered."""
Cell = Literal["normal", "reduce"]


class _Series(Result):
    series: dict[str, tuple[Point, ...]]


class Client:
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

    def submit(
        self,
        spec: SearchSpec | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Search:
        """Submits a search.

        Args:
            spec: The spec, typed or as JSON values.
            idempotency_key: A name for this request, under which it may be sent again, also by
                another process, and is one search; a new one when None.
            **fields: Fields that override the spec's, such as `preset="digits-quick"` or
                `trials={"seeds": [0, 1]}`.

        Returns:
            The search, queued.

        Raises:
            InvalidSpecError: The spec is wrong; `errors` points at each offending field.
        """
        response = self._transport.create(
            "/v1/searches", json=submission(spec, fields), idempotency_key=idempotency_key
        )
        return parse_answer(response, Search)

    def submit_all(
        self,
        specs: Iterable[SearchSpec | Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
    ) -> tuple[Search, ...]:
        """Submits 1 to 100 searches, all or none.

        Args:
            specs: Their specs, typed or as JSON values.
            idempotency_key: As in `submit`.

        Returns:
            The searches, queued, in the order of their specs.

        Raises:
            InvalidSpecError: Some specs are wrong, and nothing was submitted; `errors` points at
                each offending field, as in `/searches/3/space/channels`.
        """
        response = self._transport.create(
            "/v1/searches:batch", json=batch(specs), idempotency_key=idempotency_key
        )
        return parse_answer(response, Page[Search]).items

    def dry_run_all(self, specs: Iterable[SearchSpec | Mapping[str, Any]]) -> tuple[DryRun, ...]:
        """Checks specs and tells what each would run, and stores nothing.

        Args:
            specs: As in `submit_all`.

        Raises:
            InvalidSpecError: Some specs are wrong; `errors` points at each offending field.
        """
        response = self._transport.post(
            "/v1/searches:batch", json=batch(specs), params={"dry_run": "true"}
        )
        return parse_answer(response, Page[DryRun]).items

    def dry_run(self, spec: SearchSpec | Mapping[str, Any] | None = None, **fields: Any) -> DryRun:
        """Checks a spec and tells what it would run, and stores nothing.

        Args:
            spec: As in `submit`.
            **fields: As in `submit`.

        Raises:
            InvalidSpecError: The spec is wrong; `errors` points at each offending field.
        """
        response = self._transport.post(
            "/v1/searches", json=submission(spec, fields), params={"dry_run": "true"}
        )
        return parse_answer(response, DryRun)

    @overload
    def get(self, search_id: Training) -> Training: ...

    @overload
    def get(self, search_id: SearchId | Search) -> Search: ...

    def get(self, search_id: JobRef) -> Search | Training:
        """A search, or a training that was answered before, as it is now.

        Raises:
            NotFoundError: There is no such search.
        """
        return parse_answer(self._transport.get(_path(search_id)), _model(search_id))

    def list(
        self,
        *,
        status: str | Sequence[str] = (),
        space: str | None = None,
        name: str | None = None,
        owner: str | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        oldest_first: bool = False,
        page_size: int = _PAGE,
    ) -> Iterator[Search]:
        """Yields the searches that match all filters, the newest first, page after page.

        Args:
            status: One status or any of several.
            space: The space's kind.
            name: Exactly this name.
            owner: Only this owner's.
            labels: All of these labels.
            created_after: Created at or after this time.
            created_before: Created before this time.
            oldest_first: The order.
            page_size: Searches to fetch at a time, at most 200.
        """
        params = _filters(
            status, name, labels, created_after, created_before, oldest_first, page_size
        )
        params["owner"] = owner
        params["space"] = space
        return pages(self._transport, "/v1/searches", params, Page[Search])

    def train(
        self,
        spec: RetrainingSpec | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Training:
        """Submits a training from scratch, which waits in the same queue as the searches.

        Args:
            spec: The spec, typed or as JSON values. Its `architecture` is a genotype, the name of a
                published architecture or the hash of a stored one. With a hash, `network.family`
                defaults to the family of the searches that found it.
            idempotency_key: As in `submit`.
            **fields: Fields that override the spec's, such as `preset="retrain-digits"` or
                `architecture=search.recommended.architecture`.

        Returns:
            The training, queued. `get`, `cancel`, `follow`, `wait`, `trials` and `events` take it
            as they take a search.

        Raises:
            InvalidSpecError: The spec is wrong; `errors` points at each offending field.
        """
        response = self._transport.create(
            "/v1/trainings", json=submission(spec, fields), idempotency_key=idempotency_key
        )
        return parse_answer(response, Training)

    def dry_run_training(
        self, spec: RetrainingSpec | Mapping[str, Any] | None = None, **fields: Any
    ) -> DryRun:
        """Checks the spec of a training and tells what it would run, and stores nothing.

        Args:
            spec: As in `train`.
            **fields: As in `train`.

        Raises:
            InvalidSpecError: The spec is wrong; `errors` points at each offending field.
        """
        response = self._transport.post(
            "/v1/trainings", json=submission(spec, fields), params={"dry_run": "true"}
        )
        return parse_answer(response, DryRun)

    def training(self, training_id: SearchId) -> Training:
        """A training as it is now.

        Raises:
            NotFoundError: There is no such training.
        """
        response = self._transport.get(f"/v1/trainings/{segment(training_id)}")
        return parse_answer(response, Training)

    def trainings(
        self,
        *,
        status: str | Sequence[str] = (),
        name: str | None = None,
        owner: str | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        oldest_first: bool = False,
        page_size: int = _PAGE,
    ) -> Iterator[Training]:
        """Yields the trainings that match all filters, the newest first, page after page.

        Args:
            status: One status or any of several.
            name: Exactly this name.
            owner: Only this owner's.
            labels: All of these labels.
            created_after: Created at or after this time.
            created_before: Created before this time.
            oldest_first: The order.
            page_size: Trainings to fetch at a time, at most 200.
        """
        params = _filters(
            status, name, labels, created_after, created_before, oldest_first, page_size
        )
        params["owner"] = owner
        return pages(self._transport, "/v1/trainings", params, Page[Training])

    @overload
    def cancel(self, search_id: Training) -> Training: ...

    @overload
    def cancel(self, search_id: SearchId | Search) -> Search: ...

    def cancel(self, search_id: JobRef) -> Search | Training:
        """Asks for a search's end: at once while it waits, within seconds while it runs.

        Returns:
            The search as it is now. Cancelling twice is no error.

        Raises:
            NotFoundError: There is no such search.
            ConflictError: It has already succeeded or failed.
        """
        return self._steer(search_id, "cancel")

    @overload
    def pause(self, search_id: Training) -> Training: ...

    @overload
    def pause(self, search_id: SearchId | Search) -> Search: ...

    def pause(self, search_id: JobRef) -> Search | Training:
        """Frees what a search holds: at once while it waits, else after the epochs that run.

        Returns:
            The search as it is now. Pausing twice is no error.

        Raises:
            NotFoundError: There is no such search.
            ConflictError: It has ended.
        """
        return self._steer(search_id, "pause")

    @overload
    def resume(self, search_id: Training) -> Training: ...

    @overload
    def resume(self, search_id: SearchId | Search) -> Search: ...

    def resume(self, search_id: JobRef) -> Search | Training:
        """Lets a paused search wait for its turn again; it goes on from its checkpoints.

        Returns:
            The search as it is now. One that waits or runs is left as it is.

        Raises:
            NotFoundError: There is no such search.
            ConflictError: It has ended.
        """
        return self._steer(search_id, "resume")

    @overload
    def retry(self, search_id: Training) -> Training: ...

    @overload
    def retry(self, search_id: SearchId | Search) -> Search: ...

    def retry(self, search_id: JobRef) -> Search | Training:
        """Runs what failed or was cancelled of a search again, from its last checkpoints.

        Returns:
            The search as it is now. One that has not ended is left as it is.

        Raises:
            NotFoundError: There is no such search.
            ConflictError: Everything of it finished, or it is about to be cancelled.
        """
        return self._steer(search_id, "retry")

    @overload
    def change(self, search_id: Training, **changes: Any) -> Training: ...

    @overload
    def change(self, search_id: SearchId | Search, **changes: Any) -> Search: ...

    def change(self, search_id: JobRef, **changes: Any) -> Search | Training:
        """Changes a search in any state.

        Args:
            search_id: The search.
            **changes: `name`, `labels` (all of them) or `priority`.

        Returns:
            The search as it is now.

        Raises:
            NotFoundError: There is no such search.
            InvalidRequestError: A value is wrong.
        """
        response = self._transport.patch(_path(search_id), json=changes)
        return parse_answer(response, _model(search_id))

    def delete(self, search_id: JobRef) -> None:
        """Removes a search that has ended, with all that it measured. Architectures stay.

        Deleting twice is no error.

        Raises:
            NotFoundError: There is no such search, nor was there lately.
            ConflictError: It has not ended.
        """
        self._transport.delete(_path(search_id))

    def _steer(self, job: JobRef, verb: str) -> Search | Training:
        return parse_answer(self._transport.post(f"{_path(job)}/{verb}"), _model(job))

    def trials(self, search_id: JobRef) -> tuple[Trial, ...]:
        """The trials of a search, by number.

        Raises:
            NotFoundError: There is no such search.
        """
        response = self._transport.get(f"{_path(search_id)}/trials")
        return parse_answer(response, Page[Trial]).items

    def trial(self, trial_id: SearchId) -> Trial:
        """A trial as it is now.

        Raises:
            NotFoundError: There is no such trial.
        """
        return parse_answer(self._transport.get(f"/v1/trials/{segment(trial_id)}"), Trial)

    def retry_trial(self, trial_id: SearchId) -> Trial:
        """Runs a failed trial again, with its parameters, from its last checkpoint.

        Its search, if it has ended, goes back to the queue and runs this trial only.

        Returns:
            The trial as it is now. Retrying one that waits or runs is no error.

        Raises:
            NotFoundError: There is no such trial.
            ConflictError: It has its result, or its search was cancelled.
        """
        response = self._transport.post(f"/v1/trials/{segment(trial_id)}/retry")
        return parse_answer(response, Trial)

    def metrics(
        self, trial_id: SearchId, names: Sequence[str] = (), *, after_step: int | None = None
    ) -> dict[str, tuple[Point, ...]]:
        """The series of a trial, by name; a point for each epoch.

        Args:
            trial_id: The trial.
            names: Only these series; all when empty. `marginal.*` stands for all that begin so.
            after_step: Only points with a larger step.

        Raises:
            NotFoundError: There is no such trial.
        """
        response = self._transport.get(
            f"/v1/trials/{segment(trial_id)}/metrics",
            params={"names": [*names], "after_step": after_step},
        )
        return parse_answer(response, _Series).series

    def alphas(self, trial_id: SearchId, *, after_step: int | None = None) -> AlphaSeries:
        """What the candidates of a trial weigh after each epoch, with labels of rows and columns.

        Args:
            trial_id: The trial.
            after_step: Only later epochs; of more than 200 the first ones.

        Raises:
            NotFoundError: There is no such trial.
            ConflictError: It is one of a training.
        """
        response = self._transport.get(
            f"/v1/trials/{segment(trial_id)}/alphas", params={"after_step": after_step}
        )
        return parse_answer(response, AlphaSeries)

    def paths(
        self,
        trial_id: SearchId,
        k: int = 10,
        *,
        within_parameters: int | None = None,
        within_multiply_adds: int | None = None,
    ) -> Paths:
        """The k best paths of a trial's hypercuboid at its last completed epoch, with their costs.

        Args:
            trial_id: The trial.
            k: How many, at most 100.
            within_parameters: Find the best path with at most so many weights, too.
            within_multiply_adds: Or the best one with at most so many multiply-adds.

        Raises:
            NotFoundError: There is no such trial.
            ConflictError: It searches cells, or has not completed an epoch.
            ProblemError: No path is within the budget; says what the cheapest one costs.
        """
        response = self._transport.get(
            f"/v1/trials/{segment(trial_id)}/paths",
            params={
                "k": k,
                "within_parameters": within_parameters,
                "within_multiply_adds": within_multiply_adds,
            },
        )
        return parse_answer(response, Paths)

    def cuboid_picture(
        self,
        trial_id: SearchId,
        format: Literal["svg", "dot"] = "svg",  # noqa: A002  (reads well where it is called)
    ) -> bytes:
        """A drawing of a trial's whole hypercuboid by the weights of its last completed epoch.

        Args:
            trial_id: The trial.
            format: An SVG picture, or Graphviz's DOT.

        Raises:
            NotFoundError: There is no such trial.
            ConflictError: It searches cells, or has not completed an epoch.
        """
        path = f"/v1/trials/{segment(trial_id)}/cuboid.{format}"
        return self._transport.get(path, accept="*/*").content

    def events(self, search_id: JobRef, *, after: int = 0, limit: int = _PAGE) -> EventPage:
        """A page of what happened to a search, oldest first.

        Args:
            search_id: The search.
            after: Only events with larger numbers.
            limit: Most events, at most 200.

        Raises:
            NotFoundError: There is no such search.
        """
        response = self._transport.get(
            f"{_path(search_id)}/events", params={"after": after, "limit": limit}
        )
        return parse_answer(response, EventPage)

    def follow(
        self,
        search_id: JobRef,
        after: int = 0,
        *,
        patience: float = streams.PATIENCE,
        on_trouble: streams.OnTrouble | None = None,
    ) -> Iterator[Event]:
        """Yields what happens to a search, as it happens, until the search ends.

        A connection that breaks is made again, and no event is lost or repeated.

        Args:
            search_id: The search.
            after: Only events with larger numbers.
            patience: Seconds to go on trying while the server does not answer, once it has
                answered.
            on_trouble: Told of each connection that failed.

        Raises:
            NotFoundError: There is no such search.
            ServerUnreachableError: There is no server, or it did not come back in time.
        """
        return streams.follow(
            self._transport,
            _path(search_id),
            after=after,
            patience=patience,
            on_trouble=on_trouble,
        )

    @overload
    def wait(self, search_id: Training, timeout: float | None = None) -> Training: ...

    @overload
    def wait(self, search_id: SearchId | Search, timeout: float | None = None) -> Search: ...

    def wait(self, search_id: JobRef, timeout: float | None = None) -> Search | Training:
        """Blocks until a search has ended, however it ended: look at its `status`.

        Args:
            search_id: The search.
            timeout: Seconds to wait at most; None waits as long as it takes.

        Returns:
            The search, ended.

        Raises:
            NotFoundError: There is no such search.
            WaitTimeoutError: It had not ended in time. It goes on.
            ServerUnreachableError: The server was away for longer than a minute.
        """
        now = time.monotonic()
        deadline = None if timeout is None else now + timeout
        heard_at = now
        while True:
            try:
                job = parse_answer(self._transport.get(_path(search_id)), _model(search_id))
            except (ServerUnreachableError, ServerFailedError):
                if time.monotonic() - heard_at > streams.PATIENCE:
                    raise
            else:
                heard_at = time.monotonic()
                if job.ended:
                    return job
            left = _ASK_EVERY if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(f"{_name(search_id)} has not ended in {timeout:g} s")
            time.sleep(min(_ASK_EVERY, left))

    def logs(self, search_id: JobRef) -> tuple[Log, ...]:
        """The logs that are kept of a search: the newest attempt first, its runner's before others.

        Raises:
            NotFoundError: There is no such search.
            ServerFailedError: The storage of the logs is away.
        """
        return parse_answer(self._transport.get(f"{_path(search_id)}/logs"), Page[Log]).items

    def log(self, search_id: JobRef, name: str, *, tail: int | None = None) -> str:
        """What a runner or a trial wrote; bytes that are no UTF-8 come as replacement characters.

        Args:
            search_id: The search.
            name: One of `logs`.
            tail: Only so many of its last lines.

        Raises:
            NotFoundError: There is no such search, or no such log.
            ServerFailedError: The storage of the logs is away.
        """
        response = self._transport.get(
            f"{_path(search_id)}/logs/{segment(name)}", params={"tail": tail}, accept="text/plain"
        )
        return response.content.decode(errors="replace")

    def architectures(self, search_id: SearchId) -> tuple[RankedArchitecture, ...]:
        """What the trials of a search derived, the recommended one first.

        Raises:
            NotFoundError: There is no such search.
        """
        response = self._transport.get(f"{_path(search_id)}/architectures")
        return parse_answer(response, Page[RankedArchitecture]).items

    def architecture(self, architecture_hash: str) -> Architecture:
        """An architecture, and which trials found it.

        Raises:
            NotFoundError: There is none with this hash.
        """
        path = f"/v1/architectures/{segment(architecture_hash)}"
        return parse_answer(self._transport.get(path), Architecture)

    def genotype(self, architecture_hash: str) -> Genotype:
        """An architecture's genotype alone.

        Raises:
            NotFoundError: There is none with this hash.
        """
        response = self._transport.get(f"/v1/architectures/{segment(architecture_hash)}.json")
        try:
            return parse(response.text)
        except InvalidGenotypeError as error:
            raise UnexpectedAnswerError(
                f"the server's genotype is one that this version cannot read: {error}"
            ) from error

    def picture(
        self,
        architecture_hash: str,
        cell: Cell | None = None,
        format: Literal["svg", "dot"] = "svg",  # noqa: A002  (reads well where it is called)
    ) -> bytes:
        """A drawing of an architecture.

        Args:
            architecture_hash: Which one.
            cell: One of its two cells; None draws both. A path has none.
            format: An SVG picture, or Graphviz's DOT.

        Raises:
            NotFoundError: There is none with this hash.
        """
        path = f"/v1/architectures/{segment(architecture_hash)}.{format}"
        return self._transport.get(path, params={"cell": cell}, accept="*/*").content

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


def _filters(
    status: str | Sequence[str],
    name: str | None,
    labels: Mapping[str, str] | None,
    created_after: datetime | None,
    created_before: datetime | None,
    oldest_first: bool,
    page_size: int,
) -> dict[str, Any]:
    """The query of a list, of either kind."""
    return {
        "status": [status] if isinstance(status, str) else [*status],
        "name": name,
        "label": [f"{key}:{value}" for key, value in (labels or {}).items()],
        "created_after": created_after.astimezone().isoformat() if created_after else None,
        "created_before": created_before.astimezone().isoformat() if created_before else None,
        "sort": "created" if oldest_first else "-created",
        "limit": page_size,
    }


def _path(job: JobRef) -> str:
    if isinstance(job, Job):
        kind = "trainings" if isinstance(job, Training) else "searches"
        return f"/v1/{kind}/{job.id}"
    return f"/v1/searches/{segment(job)}"


def _name(job: JobRef) -> str:
    if isinstance(job, Job):
        return f"{'training' if isinstance(job, Training) else 'search'} {job.id}"
    return f"search {job}"


def _model(job: JobRef) -> type[Search] | type[Training]:
    return Training if isinstance(job, Training) else Search
