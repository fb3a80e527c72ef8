"""What must never get into a log that users can read."""

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_VARIABLES: Final = (
    "RAY_AUTH_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "DARTBOARD_LEASE_TOKEN",
)
_SHORTEST: Final = 4
"""Letters; to blot out every single one that somebody took for a password would leave nothing."""


def known(*urls: str | None, environment: Mapping[str, str] = os.environ) -> Collection[str]:
    """The secrets that this process knows.

    Args:
        *urls: Whose passwords are secrets, such as the database's.
        environment: Has Ray's token, or the name of its file, and the storage's credentials.
    """
    found = {environment.get(name, "") for name in _VARIABLES}
    for url in urls:
        password = urlsplit(url or "").password or ""
        found |= {password, unquote(password)}
    token_file = environment.get("RAY_AUTH_TOKEN_PATH")
    if token_file is not None:
        with suppress(OSError):  # Ray will say what is wrong with it
            found.add(Path(token_file).read_text().strip())
    return {secret for secret in found if len(secret) >= _SHORTEST}
