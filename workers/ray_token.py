"""The secret that lets processes into the Ray cluster. Call `prepare` before importing Ray."""

import os
import secrets
import tempfile
from pathlib import Path

_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def prepare(home: Path) -> None:
    """Makes Ray authenticate with a token of this deployment, unless Ray's settings say otherwise.

    Args:
        home: The deployment's home folder; see `token_file`.
    """
    if any(name in os.environ for name in _VARIABLES):
        return
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file(home))
    os.environ["RAY_AUTH_MODE"] = "token"


def token_file(home: Path) -> Path:
    """The file with the deployment's token, readable by its user only; made by whoever comes first.

    Args:
        home: The deployment's home folder.

    Returns:
        `run/ray-token` under the home folder, absolute.
    """
    file = (home / "run" / "ray-token").resolve()
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=file.parent)  # mode 0600
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_hex(32))
    try:
        # Unlike a rename, a link leaves the token of whoever was faster.
        file.hardlink_to(partial)
    except FileExistsError:
        pass
    finally:
        Path(partial).unlink()
    return file
