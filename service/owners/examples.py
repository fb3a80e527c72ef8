"""Examples of owners for the OpenAPI document."""

from typing import Any, Final

OWNER: Final[dict[str, Any]] = {
    "name": "ana",
    "weight": 2.0,
    "max_running": 8,
    "max_gpus": 4.0,
    "teams": ["vision"],
    "num_running": 3,
    "created_at": "2026-01-31T12:00:00.000Z",
}
OWNER_LIST: Final = {"items": [OWNER]}
OWNER_CHANGES: Final[dict[str, Any]] = {
    "weight and quotas": {
        "summary": "Twice the part of others, at most 4 GPUs",
        "value": {"weight": 2, "max_gpus": 4},
    },
    "teams": {"summary": "Into a team", "value": {"teams": ["vision"]}},
    "no quota": {"summary": "Without a limit again", "value": {"max_running": None}},
}
