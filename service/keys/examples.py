"""Examples of keys for the OpenAPI document."""

from typing import Any, Final

_ID: Final = "01979d3e-2b4c-7d3e-8f10-9a8b7c6d5e4f"

KEY: Final[dict[str, Any]] = {
    "id": _ID,
    "owner": "ana",
    "role": "member",
    "name": "notebook",
    "prefix": "dbk_Qm9yZWFs",
    "created_at": "2026-01-31T12:00:00.000Z",
    "expires_at": "2026-05-01T12:00:00.000Z",
    "revoked_at": None,
    "last_used_at": None,
}
NEW_KEY: Final = {**KEY, "key": "dbk_Qm9yZWFsaXMgaXMgbm90IGEgc2VjcmV0IGtleSE"}
REVOKED_KEY: Final = {**KEY, "revoked_at": "2026-02-01T08:30:00.000Z"}
KEY_LIST: Final = {"items": [KEY]}
KEY_REQUESTS: Final[dict[str, Any]] = {
    "for oneself": {
        "summary": "A key of your own, for a dashboard",
        "value": {"role": "viewer", "name": "dashboard"},
    },
    "for another": {
        "summary": "An admin's way to let somebody in for 90 days",
        "value": {"owner": "ana", "role": "member", "name": "notebook", "days": 90},
    },
}
ME: Final = {
    "owner": "ana",
    "role": "member",
    "teams": ["vision"],
    "key_id": _ID,
    "expires_at": "2026-05-01T12:00:00.000Z",
}
