"""Steering searches and trainings: the verbs."""

from typing import Any, overload

from dartboard.calls.refs import JobRef, SearchId, model_of, path_of
from dartboard.models import (
    Search,
    Training,
)
from dartboard.transport import Transport, parse_answer


class SteeringCalls:
    """The verbs of `dartboard.Client`."""

    _transport: Transport

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
        response = self._transport.patch(path_of(search_id), json=changes)
        return parse_answer(response, model_of(search_id))

    def delete(self, search_id: JobRef) -> None:
        """Removes a search that has ended, with all that it measured. Architectures stay.

        Deleting twice is no error.

        Raises:
            NotFoundError: There is no such search, nor was there lately.
            ConflictError: It has not ended.
        """
        self._transport.delete(path_of(search_id))

    def _steer(self, job: JobRef, verb: str) -> Search | Training:
        return parse_answer(self._transport.post(f"{path_of(job)}/{verb}"), model_of(job))
