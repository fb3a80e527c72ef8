"""Submitting searches and trainings, and finding them again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, overload

from dartboard.bodies import batch, submission
from dartboard.calls.refs import JobRef, SearchId, model_of, path_of
from dartboard.lists import Page, pages
from dartboard.models import (
    DryRun,
    Search,
    Training,
)
from dartboard.transport import Transport, parse_answer, segment
from search_core.spec import SearchSpec
from search_core.spec.retraining import RetrainingSpec

_PAGE: Final = 200


class SubmittingCalls:
    """The calls of `dartboard.Client` that submit and find searches and trainings."""

    _transport: Transport

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
        return parse_answer(self._transport.get(path_of(search_id)), model_of(search_id))

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
