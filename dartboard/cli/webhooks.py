"""`webhooks create|list|delete|deliveries|redeliver|test|enable|disable`."""

import time
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dartboard.cli import output
from dartboard.cli.options import IdempotencyKey, Json, Url, connect

if TYPE_CHECKING:
    from dartboard.webhooks import Delivery, Webhook, WebhookCalls

_SECONDS_FOR_A_TEST: Final = 15.0
_LOOK_EVERY: Final = 0.2

WebhookRef = Annotated[
    str, typer.Argument(metavar="WEBHOOK", help="The webhook's id; see `webhooks list`.")
]


def create(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="Where to: an http or https address.")
    ],
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            "-k",
            help="Of which events: search.succeeded, trial.*, or '*'. Repeatable. Default: "
            "search.* and training.*",
        ),
    ] = None,
    everybody: Annotated[
        bool, typer.Option("--all", help="Of everybody's searches; takes an admin's key.")
    ] = False,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    idempotency_key: IdempotencyKey = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Tell an address of events. The secret that signs them is printed this once.

    With --json: the webhook with its `secret`.
    """
    with connect(url) as client:
        made = client.webhooks.create(
            address,
            kinds or (),
            scope="all" if everybody else "visible",
            name=name,
            idempotency_key=idempotency_key,
        )
    if as_json:
        output.print_json(made)
        return
    # The secret alone on standard output: it goes into a file or a variable from there.
    output.stderr().print(
        f"{made.url} is told of {', '.join(made.kinds)}, as webhook {made.id}. Keep the secret "
        f"now, it is not shown again. Try it: dartboard webhooks test {made.id}",
        soft_wrap=True,
    )
    print(made.secret)


def list_webhooks(
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List your webhooks, or as an admin everybody's, without their secrets.

    With --json: an array of webhooks.
    """
    with connect(url) as client:
        found = client.webhooks.list(owner)
    if as_json:
        output.print_json(found)
        return
    made = output.table("id", "owner", "name", "address", "events", "whose", "state")
    for webhook in found:
        made.add_row(
            str(webhook.id),
            webhook.owner,
            webhook.name or "-",
            webhook.url,
            ", ".join(webhook.kinds),
            webhook.scope,
            _state(webhook),
        )
    output.stdout().print(made)


def delete(webhook: WebhookRef, url: Url = None) -> None:
    """Remove a webhook, what waits to be sent to it, and its log."""
    with connect(url) as client:
        client.webhooks.delete(webhook)
    output.stdout().print(f"Webhook {webhook} is gone.", soft_wrap=True)


def enable(webhook: WebhookRef, as_json: Json = False, url: Url = None) -> None:
    """Tell a webhook of events again, from now on.

    With --json: the webhook.
    """
    _set_disabled(webhook, url, disabled=False, as_json=as_json)


def disable(webhook: WebhookRef, as_json: Json = False, url: Url = None) -> None:
    """Tell a webhook nothing more, and give up what waits to be sent to it.

    With --json: the webhook.
    """
    _set_disabled(webhook, url, disabled=True, as_json=as_json)


def deliveries(
    webhook: WebhookRef,
    status: Annotated[
        str | None, typer.Option(help="Only with this status: pending, delivered or failed.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most deliveries.")] = 20,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List what was and will be sent to a webhook, the newest first.

    With --json: an array of deliveries.
    """
    with connect(url) as client:
        every = client.webhooks.deliveries(webhook, status=status, page_size=min(limit, 200))
        shown = list(islice(every, limit))
    if as_json:
        output.print_json(shown)
        return
    made = output.table("id", "event", "search", "number", "age", "status", "attempts", "answer")
    for delivery in shown:
        made.add_row(
            str(delivery.id),
            delivery.kind,
            "-" if delivery.search_id is None else str(delivery.search_id),
            "-" if delivery.event_number is None else str(delivery.event_number),
            output.age(delivery.created_at),
            delivery.status,
            str(delivery.attempts),
            delivery.error or ("-" if delivery.response_status is None
                               else str(delivery.response_status)),
        )  # fmt: skip
    output.stdout().print(made)


def redeliver(
    webhook: WebhookRef,
    delivery: Annotated[
        str, typer.Argument(metavar="DELIVERY", help="Its id; see `webhooks deliveries`.")
    ],
    as_json: Json = False,
    url: Url = None,
) -> int:
    """Send a delivery again, and say what came of it.

    With --json: the delivery.
    """
    with connect(url) as client:
        client.webhooks.redeliver(webhook, delivery)
        return _tell(_outcome(client.webhooks, webhook, delivery), as_json=as_json)


def ping(webhook: WebhookRef, as_json: Json = False, url: Url = None) -> int:
    """Send a `ping` to a webhook, and say what came of it.

    With --json: the delivery.
    """
    with connect(url) as client:
        sent = client.webhooks.test(webhook)
        return _tell(_outcome(client.webhooks, webhook, str(sent.id)), as_json=as_json)


def _set_disabled(webhook: str, url: str | None, *, disabled: bool, as_json: bool) -> None:
    with connect(url) as client:
        changed = client.webhooks.change(webhook, disabled=disabled)
    if as_json:
        output.print_json(changed)
        return
    output.stdout().print(f"{changed.url}: {_state(changed).rstrip('.')}.", soft_wrap=True)


def _outcome(calls: "WebhookCalls", webhook: str, delivery: str) -> "Delivery":
    """A delivery after its next attempt; as it is if nobody makes one for long."""
    deadline = time.monotonic() + _SECONDS_FOR_A_TEST
    while True:
        found = calls.delivery(webhook, delivery)
        if found.status != "pending" or found.error or time.monotonic() > deadline:
            return found
        time.sleep(_LOOK_EVERY)


def _tell(delivery: "Delivery", *, as_json: bool) -> int:
    if as_json:
        output.print_json(delivery)
    elif delivery.status == "delivered":
        output.stdout().print(f"Delivered: it answered with status {delivery.response_status}.")
    elif delivery.error:
        again = "" if delivery.next_attempt_at is None else " It will be sent again."
        output.stdout().print(f"Not delivered: {delivery.error}{again}", soft_wrap=True)
    else:
        output.stdout().print("It waits to be sent; see `dartboard webhooks deliveries`.")
    return 0 if delivery.status == "delivered" else 1


def _state(webhook: "Webhook") -> str:
    if webhook.disabled_at is not None:
        return f"disabled: {webhook.disabled_why}"
    if webhook.failing_since is not None:
        return f"failing for {output.age(webhook.failing_since)}"
    return "enabled"
