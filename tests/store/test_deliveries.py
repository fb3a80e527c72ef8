"""What webhooks are told: once each, in order, until they answer; and who is told what."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.orm import Session

from store import deliveries, events, owners, searches, verbs, webhooks
from store.deliveries import DISABLED_AFTER, LONGEST_ASKED, PAUSES, Outcome, Outgoing
from store.errors import NotFoundError, WebhookDisabledError
from store.models import Delivery, Search, Webhook
from store.sessions import transaction
from store.states import DeliveryStatus, WebhookScope
from store.webhooks import Wanted
from tests.store.conftest import spec

URL = "https://example.com/hook"
GOOD = Outcome(204)
BAD = Outcome(500, "It answered with status 500.")

Hook = Callable[..., UUID]
Submit = Callable[..., UUID]


@pytest.fixture
def hook(engine: Engine) -> Hook:
    """Makes a webhook."""

    def hook(
        owner: str = owners.LOCAL,
        *kinds: str,
        scope: WebhookScope = WebhookScope.VISIBLE,
        teams: tuple[str, ...] = (),
    ) -> UUID:
        with transaction(engine) as session:
            owners.ensure(session, owner)
            owners.change(session, owner, {"teams": list(teams)})
            return webhooks.create(session, owner, Wanted(URL, kinds or ("*",), scope)).id

    return hook


def told(engine: Engine, webhook_id: UUID) -> list[Delivery]:
    """What a webhook is told, the oldest first."""
    with transaction(engine) as session:
        page = deliveries.page(session, webhook_id, limit=200)
    return list(reversed(page.deliveries))


def append(engine: Engine, search_id: UUID, kind: str, **data: Any) -> int:
    with transaction(engine) as session:
        return events.append(session, search_id, kind, data)


def claim(engine: Engine) -> Outgoing | None:
    with transaction(engine) as session:
        return deliveries.claim(session)


def must_claim(engine: Engine) -> Outgoing:
    message = claim(engine)
    assert message is not None
    return message


def settle(engine: Engine, message: Outgoing, outcome: Outcome, jitter: float = 0.0) -> bool:
    with transaction(engine) as session:
        return deliveries.settle(session, message, outcome, jitter=jitter)


def pass_time(engine: Engine, by: timedelta) -> None:
    """Moves everything about messages and webhooks into the past."""
    with transaction(engine) as session:
        session.execute(
            update(Delivery).values(
                next_attempt_at=Delivery.next_attempt_at - by,
                leased_until=Delivery.leased_until - by,
            )
        )
        session.execute(update(Webhook).values(failing_since=Webhook.failing_since - by))


def test_a_message_is_there_if_its_event_is(engine: Engine, submit: Submit, hook: Hook) -> None:
    webhook_id = hook()
    search_id = submit(name="mine", labels={"a": "b"})
    with Session(engine) as session:
        events.append(session, search_id, "trial.epoch", {"epoch": 1})
        session.rollback()
    append(engine, search_id, "trial.epoch", epoch=2, loss=float("nan"))
    first, second = told(engine, webhook_id)
    assert (first.kind, first.event_number, first.status) == ("search.queued", 1, "pending")
    assert (second.kind, second.event_number, second.search_id) == ("trial.epoch", 2, search_id)
    with transaction(engine) as session:
        event = events.page(session, search_id, after=1)[0]
    assert second.payload == {
        "kind": "trial.epoch",
        "number": 2,
        "trial_id": None,
        "data": {"epoch": 2, "loss": None},
        "created_at": event.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "search": {
            "id": str(search_id),
            "kind": "search",
            "name": "mine",
            "owner": "local",
            "labels": {"a": "b"},
            "status": "queued",
        },
    }


def test_a_message_says_what_the_search_was_then_and_outlives_it(
    engine: Engine, submit: Submit, hook: Hook
) -> None:
    webhook_id = hook(owners.LOCAL, "search.cancelled")
    search_id = submit()
    with transaction(engine) as session:
        verbs.request_cancel(session, search_id)
    with transaction(engine) as session:
        session.execute(delete(Search).where(Search.id == search_id))
    (message,) = told(engine, webhook_id)
    assert message.payload["search"]["status"] == "cancelled"


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["*"], ["search.queued", "search.cancel_requested", "trial.epoch", "searching.x"]),
        (["search.*"], ["search.queued", "search.cancel_requested"]),
        (["search.cancel_requested"], ["search.cancel_requested"]),
        (["trial.*", "search.queued"], ["search.queued", "trial.epoch"]),
        (["trial.epoch", "trial.*", "*"], ["search.queued", "search.cancel_requested",
                                           "trial.epoch", "searching.x"]),
        (["training.*", "trial.best"], []),
    ],
)  # fmt: skip
def test_a_webhook_is_told_of_its_kinds_once(
    engine: Engine, submit: Submit, hook: Hook, kinds: list[str], expected: list[str]
) -> None:
    webhook_id = hook(owners.LOCAL, *kinds)
    search_id = submit()
    for kind in ("search.cancel_requested", "trial.epoch", "searching.x"):
        append(engine, search_id, kind)
    assert [message.kind for message in told(engine, webhook_id)] == expected


def test_a_webhook_is_told_of_what_its_owner_sees(engine: Engine, hook: Hook) -> None:
    own, other = hook("ana"), hook("ben")
    shared = hook("eve", teams=("vision", "audio"))
    everything = hook("root", scope=WebhookScope.ALL)

    def submit(owner: str, **labels: str) -> UUID:
        with transaction(engine) as session:
            return searches.submit(session, spec(labels=labels), owner=owner).id

    secret, vision, bens = submit("ana"), submit("ana", team="vision"), submit("ben", team="art")
    seen = {
        webhook_id: [message.search_id for message in told(engine, webhook_id)]
        for webhook_id in (own, other, shared, everything)
    }
    assert seen == {
        own: [secret, vision],
        other: [bens],
        shared: [vision],
        everything: [secret, vision, bens],
    }


def test_a_webhook_that_is_removed_meanwhile_is_told_nothing_and_breaks_nothing(
    engine: Engine, submit: Submit, hook: Hook
) -> None:
    search_id, going, staying = submit(), hook(), hook()
    with ThreadPoolExecutor(1) as threads:
        with transaction(engine) as session:
            webhooks.remove(session, going)
            appended = threads.submit(append, engine, search_id, "search.best")
            with pytest.raises(TimeoutError):
                appended.result(0.3)
        assert appended.result(10) == 2
    assert [message.kind for message in told(engine, staying)] == ["search.best"]
    with transaction(engine) as session:
        assert [event.number for event in events.page(session, search_id)] == [1, 2]


def test_without_webhooks_nothing_is_written_and_nobody_is_woken(
    engine: Engine, submit: Submit, hook: Hook
) -> None:
    with transaction(engine) as session:
        webhooks.disable(session, hook(), "Enough.")
    submit()
    with transaction(engine) as session:
        assert session.scalars(select(func.count()).select_from(Delivery)).one() == 0


def test_messages_of_a_search_go_one_at_a_time_and_in_order(
    engine: Engine, submit: Submit, hook: Hook
) -> None:
    hook()
    one, other = submit(), submit()
    append(engine, one, "trial.epoch")
    first = must_claim(engine)
    assert (first.payload["search"]["id"], first.payload["number"]) == (str(one), 1)
    # The second of this search waits for the first; another search does not.
    beside = must_claim(engine)
    assert beside.payload["search"]["id"] == str(other)
    assert claim(engine) is None
    settle(engine, first, GOOD)
    assert must_claim(engine).payload["number"] == 2


def test_a_message_that_failed_does_not_hold_up_those_after_it(
    engine: Engine, submit: Submit, hook: Hook
) -> None:
    hook()
    search_id = submit()
    append(engine, search_id, "trial.epoch")
    settle(engine, must_claim(engine), BAD)
    second = must_claim(engine)
    assert second.payload["number"] == 2
    settle(engine, second, GOOD)
    assert claim(engine) is None
    pass_time(engine, PAUSES[0])
    again = must_claim(engine)
    assert (again.payload["number"], again.attempt) == (1, 2)


def test_a_webhook_that_fails_keeps_one_sender_at_most(
    engine: Engine, submit: Submit, hook: Hook
) -> None:
    failing = hook()
    for _ in range(3):
        submit()
    settle(engine, must_claim(engine), BAD)
    assert must_claim(engine).payload["number"] == 1
    assert claim(engine) is None
    fine = hook()
    submit()
    message = must_claim(engine)
    with transaction(engine) as session:
        row = session.get_one(Delivery, message.id)
        assert row.webhook_id == fine != failing


def test_attempts_are_spread_over_a_day_and_then_given_up(
    engine: Engine, submit: Submit, hook: Hook
) -> None:
    webhook_id = hook(owners.LOCAL, "search.queued")
    submit()
    assert timedelta(hours=22) < sum(PAUSES, timedelta(0)) < timedelta(hours=25)
    for number, pause in enumerate(PAUSES, start=1):
        message = must_claim(engine)
        assert message.attempt == number
        settle(engine, message, BAD, jitter=1.0)
        (row,) = told(engine, webhook_id)
        assert (row.status, row.response_status, row.error) == ("pending", 500, BAD.error)
        # A fifth later than planned, with this jitter, and not a second before.
        pass_time(engine, pause * 1.2 - timedelta(seconds=1))
        assert claim(engine) is None
        pass_time(engine, timedelta(seconds=1))
    settle(engine, must_claim(engine), BAD)
    (row,) = told(engine, webhook_id)
    assert (row.status, row.attempts) == ("failed", len(PAUSES) + 1)
    pass_time(engine, timedelta(days=1))
    assert claim(engine) is None


def test_a_pause_is_the_longer_of_what_is_planned_and_what_is_asked() -> None:
    minute, week = timedelta(minutes=1), timedelta(days=7)
    assert deliveries.pause(1, None, 0) == PAUSES[0]
    assert deliveries.pause(1, minute, 0) == minute
    assert deliveries.pause(4, minute, 0) == PAUSES[3]
    assert deliveries.pause(1, week, 0) == LONGEST_ASKED
    assert deliveries.pause(1, -week, -1) == PAUSES[0] * 0.8
    assert deliveries.pause(8, None, 1) == PAUSES[7] * 1.2


def test_what_a_crashed_sender_leaves_is_sent_again_and_its_late_word_is_not_heard(
    engine: Engine, submit: Submit, hook: Hook
) -> None:
    webhook_id = hook()
    submit()
    lost = must_claim(engine)
    assert claim(engine) is None
    pass_time(engine, timedelta(seconds=61))
    again = must_claim(engine)
    assert (again.id, again.attempt) == (lost.id, 2)
    settle(engine, lost, BAD)
    assert told(engine, webhook_id)[0].error == ""
    settle(engine, again, GOOD)
    settle(engine, lost, BAD)
    (row,) = told(engine, webhook_id)
    assert (row.status, row.response_status) == ("delivered", 204)
    assert row.delivered_at is not None


def test_two_senders_never_claim_the_same(engine: Engine, submit: Submit, hook: Hook) -> None:
    hook()
    one, other = submit(), submit()
    with transaction(engine) as first, transaction(engine) as second:
        claimed = [deliveries.claim(first), deliveries.claim(second)]
        assert deliveries.claim(second) is None
    assert {each.payload["search"]["id"] for each in claimed if each} == {str(one), str(other)}


def test_a_webhook_that_fails_for_days_is_disabled(
    engine: Engine, submit: Submit, hook: Hook
) -> None:
    webhook_id = hook(owners.LOCAL, "search.queued")
    submit()
    submit()
    assert not settle(engine, must_claim(engine), BAD)
    pass_time(engine, DISABLED_AFTER + timedelta(minutes=1))
    assert settle(engine, must_claim(engine), BAD)
    with transaction(engine) as session:
        webhook = webhooks.get(session, webhook_id)
        assert webhook.disabled_at is not None
        assert "3 days" in webhook.disabled_why
        with pytest.raises(WebhookDisabledError, match="enable it first"):
            deliveries.ping(session, webhook)
    assert [row.status for row in told(engine, webhook_id)] == ["failed", "failed"]
    submit()
    assert len(told(engine, webhook_id)) == 2
    with transaction(engine) as session:
        webhooks.enable(session, webhook_id)
    submit()
    assert [row.status for row in told(engine, webhook_id)] == ["failed", "failed", "pending"]


def test_one_good_answer_ends_the_count_of_days(engine: Engine, submit: Submit, hook: Hook) -> None:
    webhook_id = hook(owners.LOCAL, "search.queued")
    submit()
    submit()
    settle(engine, must_claim(engine), BAD)
    pass_time(engine, DISABLED_AFTER + timedelta(minutes=1))
    settle(engine, must_claim(engine), GOOD)
    assert not settle(engine, must_claim(engine), BAD)
    with transaction(engine) as session:
        assert webhooks.get(session, webhook_id).disabled_at is None


def test_what_was_sent_is_sent_again_on_request(engine: Engine, submit: Submit, hook: Hook) -> None:
    webhook_id = hook()
    submit()
    message = must_claim(engine)
    with transaction(engine) as session:
        # On its way: it is left to arrive.
        assert deliveries.redeliver(session, webhook_id, message.id).attempts == 1
    settle(engine, message, GOOD)
    for _ in range(2):
        with transaction(engine) as session:
            row = deliveries.redeliver(session, webhook_id, message.id)
            assert (row.status, row.attempts, row.delivered_at) == ("pending", 0, None)
    again = must_claim(engine)
    assert (again.id, again.payload, again.attempt) == (message.id, message.payload, 1)
    # What came of the first time is of no interest any more.
    settle(engine, message, BAD)
    assert told(engine, webhook_id)[0].leased_until is not None
    with transaction(engine) as session, pytest.raises(NotFoundError):
        deliveries.redeliver(session, hook(), message.id)


def test_the_log_is_kept_for_a_month(engine: Engine, submit: Submit, hook: Hook) -> None:
    webhook_id = hook()
    submit()
    settle(engine, must_claim(engine), GOOD)
    submit()
    with transaction(engine) as session:
        assert deliveries.forget(session) == 0
        session.execute(update(Delivery).values(id=func.uuidv7(func.make_interval(0, 0, 0, -31))))
        # What waits is not forgotten, however old it is.
        assert deliveries.forget(session) == 1
    assert [row.status for row in told(engine, webhook_id)] == [DeliveryStatus.PENDING]
