"""What can be asked of a job of any kind: cancel, pause, resume, retry, change, delete."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response, status
from sqlalchemy.orm import Session

from service.caller import CallerOf
from service.jobs import operations
from service.jobs.changes import JobChanges
from service.jobs.operations import AnswerT
from service.openapi import BODY, VERB, ok, problems, spec_body
from service.spec_body import read_model
from store import access, verbs
from store.access import Principal
from store.models import Search
from store.states import JobKind, Role

Example = Callable[..., dict[str, Any]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


_CHANGES = {
    "to the front": {"summary": "Ahead of others", "value": {"priority": 10}},
    "shared": {
        "summary": "Another name, shared with a team",
        "value": {"name": "second try", "labels": {"team": "vision"}},
    },
}


def add_verbs(router: APIRouter, answer: type[AnswerT], example: Example) -> None:
    """Gives a kind of job its verbs.

    Args:
        router: The kind's own, with its prefix.
        answer: What the API says about one of the kind.
        example: Makes an answer with some fields changed, for the document.
    """
    kind = answer.kind
    JobId = Annotated[UUID, Path(alias=f"{kind}_id", description=f"The {kind}'s id.")]  # noqa: N806

    def verb(name: str, summary: str, told: str, **fields: Any) -> Callable[[Endpoint], Endpoint]:
        return router.post(
            f"/{{{kind}_id}}/{name}",
            summary=f"{summary} a {kind}",
            name=f"{name}_{kind}",
            response_model=answer,
            responses={200: ok(f"The {kind}: {told}.", example(**fields)), **problems(*VERB)},
        )

    async def steer(caller: CallerOf, job_id: UUID, step: Callable[..., Search]) -> AnswerT:
        ask = partial(_ask, step=step, job_id=job_id, answer=answer)
        return await caller.run(ask, needs=Role.MEMBER)

    @verb("cancel", "Cancel", "cancelled, or still running but about to stop",
          status="cancelled", reason="cancelled_by_user", message="Cancelled while nobody ran it.",
          ended_at="2026-01-31T12:00:05.000Z", waiting=None)  # fmt: skip
    async def cancel(job_id: JobId, caller: CallerOf) -> AnswerT:
        """Cancels at once what waits or is paused, and within seconds what runs.

        Cancelling again changes nothing. One that already succeeded or failed is a conflict.
        """
        return await steer(caller, job_id, verbs.request_cancel)

    @verb("pause", "Pause", "paused, or running until its epochs are complete",
          status="paused", reason="paused_by_user", message="Paused while it waited.",
          waiting=None)  # fmt: skip
    async def pause(job_id: JobId, caller: CallerOf) -> AnswerT:
        """Frees what it holds: at once if it waits, after the epochs that run otherwise.

        Pausing again changes nothing. One that has ended is a conflict.
        """
        return await steer(caller, job_id, verbs.request_pause)

    @verb("resume", "Resume", "queued, or running",
          reason="resumed",
          message="It goes on after the epochs that it has completed.")  # fmt: skip
    async def resume(job_id: JobId, caller: CallerOf) -> AnswerT:
        """Lets what is paused wait for its turn again; it goes on from its checkpoints.

        Takes back a pause that has not come into effect. One that waits or runs is left as it is;
        one that has ended is a conflict.
        """
        return await steer(caller, job_id, verbs.resume)

    @verb("retry", "Retry", "queued again, or as it was",
          reason="retried",
          message="1 trial that did not finish will run again; others keep what they "
                  "came to.")  # fmt: skip
    async def retry(job_id: JobId, caller: CallerOf) -> AnswerT:
        """Runs what failed or was cancelled again, from its last checkpoints; nothing else.

        Its time limit begins anew. One that has not ended is left as it is; one of which everything
        finished is a conflict.
        """
        return await steer(caller, job_id, verbs.retry)

    @router.patch(
        f"/{{{kind}_id}}",
        summary=f"Change a {kind}'s name, labels or priority",
        name=f"change_{kind}",
        response_model=answer,
        responses={
            200: ok(f"The {kind} as it is now.", example(priority=10)),
            **problems("not-found", *BODY),
        },
        openapi_extra=spec_body(_CHANGES, "JobChanges"),
    )
    async def change(request: Request, job_id: JobId, caller: CallerOf) -> AnswerT:
        """Changes what the body names, in any state. The spec stays as it was submitted."""
        changes = await read_model(request, JobChanges, smallest='{"priority": 1}')
        return await steer(caller, job_id, partial(verbs.change, changes=changes.given))

    @router.delete(
        f"/{{{kind}_id}}",
        status_code=status.HTTP_204_NO_CONTENT,
        summary=f"Delete a {kind}",
        name=f"delete_{kind}",
        response_class=Response,
        responses={204: {"description": "It is gone."}, **problems(*VERB)},
    )
    async def delete(job_id: JobId, caller: CallerOf) -> Response:
        """Removes one that has ended: trials, metrics, events at once, checkpoints soon after.

        Architectures stay. Deleting again changes nothing. One that has not ended is a conflict.
        """
        await caller.run(partial(_delete, job_id=job_id, kind=kind), needs=Role.MEMBER)
        return Response(status_code=status.HTTP_204_NO_CONTENT)


def _ask(
    session: Session,
    who: Principal,
    step: Callable[..., Search],
    job_id: UUID,
    answer: type[AnswerT],
) -> AnswerT:
    access.require_search(session, who, job_id, answer.kind)
    # Told of what they did, even if it hides the search from them: such as another team's label.
    return operations.tell(session, step(session, job_id, kind=answer.kind), answer)


def _delete(session: Session, who: Principal, job_id: UUID, kind: JobKind) -> None:
    if not access.has_deleted(session, who, job_id):
        access.require_search(session, who, job_id, kind)
    verbs.delete(session, job_id, kind)
