"""Examples of webhooks for the OpenAPI document."""

from typing import Any, Final

from service.examples import EVENT, SEARCH_ID

_ID: Final = "01979d3f-71b2-7c4a-b8d1-4e5f60718293"

WEBHOOK: Final[dict[str, Any]] = {
    "id": _ID,
    "owner": "ana",
    "name": "chat room",
    "url": "https://hooks.example.com/dartboard",
    "kinds": ["search.*"],
    "scope": "visible",
    "created_at": "2026-01-31T12:00:00.000Z",
    "failing_since": None,
    "disabled_at": None,
    "disabled_why": "",
}
NEW_WEBHOOK: Final = {**WEBHOOK, "secret": "dbw_bm90IHRoZSBzZWNyZXQgb2YgYW55IHdlYmhvb2s"}
DISABLED: Final = {
    **WEBHOOK,
    "disabled_at": "2026-02-03T12:00:00.000Z",
    "disabled_why": "Its owner disabled it.",
}
WEBHOOK_LIST: Final = {"items": [WEBHOOK]}
WEBHOOK_REQUESTS: Final[dict[str, Any]] = {
    "the life of searches": {
        "summary": "Everything that happens to your searches and trainings as a whole",
        "value": {"url": "https://hooks.example.com/dartboard"},
    },
    "ends and new bests": {
        "summary": "Some kinds of events, with a name",
        "value": {
            "url": "https://hooks.example.com/dartboard",
            "kinds": ["search.succeeded", "search.failed", "search.best"],
            "name": "chat room",
        },
    },
    "everything": {
        "summary": "An admin's: all events of everybody's searches, epochs included",
        "value": {"url": "https://audit.example.com/in", "kinds": ["*"], "scope": "all"},
    },
}
WEBHOOK_CHANGES: Final[dict[str, Any]] = {
    "other events": {"summary": "Only the ends", "value": {"kinds": ["search.succeeded"]}},
    "enable": {"summary": "Tell it again after it was disabled", "value": {"disabled": False}},
}
DELIVERY: Final[dict[str, Any]] = {
    "id": "01979d3f-9a01-7d20-a1b2-c3d4e5f60718",
    "webhook_id": _ID,
    "kind": EVENT["kind"],
    "search_id": SEARCH_ID,
    "event_number": EVENT["number"],
    "status": "pending",
    "attempts": 2,
    "next_attempt_at": "2026-01-31T12:01:31.204Z",
    "response_status": 502,
    "error": "It answered with status 502.",
    "created_at": EVENT["created_at"],
    "attempted_at": "2026-01-31T12:00:59.902Z",
    "delivered_at": None,
}
DELIVERY_DETAILS: Final = {
    **DELIVERY,
    "payload": {
        **EVENT,
        "search": {
            "id": SEARCH_ID,
            "kind": "search",
            "name": "three seeds",
            "owner": "ana",
            "labels": {"team": "vision"},
            "status": "running",
        },
    },
}
REDELIVERED: Final = {**DELIVERY, "attempts": 0, "next_attempt_at": "2026-01-31T12:02:00.000Z"}
PING: Final = {
    **REDELIVERED,
    "kind": "ping",
    "search_id": None,
    "event_number": None,
    "response_status": None,
    "error": "",
    "attempted_at": None,
}
DELIVERY_PAGE: Final = {"items": [DELIVERY], "next_cursor": None}
