"""The embedded PostgreSQL of a home, which is a daemon with a pid file of its own."""

from typing import Final

from dartboard.local.parts import Layout, Plan, python
from dartboard.local.processes import running_since
from dartboard.local.steps import run_to_end

_TIMEOUT: Final = 120.0


def start(plan: Plan) -> str:
    """Starts it, unless it runs.

    Returns:
        Its URL.

    Raises:
        StartError: It does not start.
    """
    output = run_to_end(
        "postgres",
        python("store.embedded", "start", str(plan.layout.home)),
        environment=plan.environment,
        log=plan.layout.log("postgres"),
        timeout=_TIMEOUT,
    )
    return output.strip().rpartition("\n")[2]


def stop(plan: Plan) -> None:
    """Stops it.

    Raises:
        StartError: It does not stop.
    """
    run_to_end(
        "postgres",
        python("store.embedded", "stop", str(plan.layout.home)),
        environment=plan.environment,
        log=plan.layout.log("postgres"),
        timeout=_TIMEOUT,
    )


def running(layout: Layout) -> tuple[int, float] | None:
    """Its pid and when it was started, in seconds since the epoch; None when it does not run."""
    try:
        pid = int(layout.postmaster.read_text().partition("\n")[0])
    except (OSError, ValueError):
        return None
    since = running_since(pid, "postgres")
    return None if since is None else (pid, since)
