"""The secret that lets processes into the Ray cluster. Call `prepare` before importing Ray."""

import os
import secrets
from pathlib import Path

_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def prepare(home: Path) -> None:
    """Makes Ray authenticate with a token of this deployment, unless Ray's settings say otherwise.

    Without one of Ray's own variables, the token is kept in `run/ray-token` under the home folder,
    readable by its user only, and made by whoever comes first.

    Args:
        home: The deployment's home folder.
    """
    if any(name in os.environ for name in _VARIABLES):
        return
    file = (home / "run" / "ray-token").resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        partial.touch(mode=0o600)
        partial.write_text(secrets.token_hex(32))
        try:
            # Unlike a rename, a link leaves the token of whoever was faster.
            file.hardlink_to(partial)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(file)
