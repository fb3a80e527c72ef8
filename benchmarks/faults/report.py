"""The tables of a run, as Markdown for people and as plain values for programs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from benchmarks.faults.injecting import STOPPED_SECONDS, Fault, Injected, seconds_until_on
from benchmarks.faults.records import JobRecord

_MUST_HOLD: Final[Mapping[Fault, str]] = {
    Fault.RUNNER: "its dispatcher, or the lease, brings the search back to the queue",
    Fault.RUNNER_STOPPED: "another attempt takes over; what this one still writes is refused",
    Fault.TRIAL: "the trial goes on from its checkpoint, within the same attempt",
    Fault.DISPATCHER: "its runners go on; the other dispatcher claims",
    Fault.DISPATCHER_STOPPED: "as above, and it claims nothing twice when it wakes up",
    Fault.API: "a POST without an answer is accepted once or not at all",
    Fault.POSTGRES: "what was committed stays; everybody connects again",
    Fault.NODE: "its trials go on on another node",
    Fault.HEAD: "the searches wait for a cluster, and go on from their checkpoints",
}
_FURTHER: Final = (
    "trial.epoch", "trial.succeeded", "trial.stopped",
    "search.paused", "search.cancelled", "search.succeeded",
    "training.paused", "training.cancelled", "training.succeeded",
)  # fmt: skip


def told_by(jobs: Sequence[JobRecord]) -> dict[UUID, list[float]]:
    """When each search got further, in order, in seconds since 1970."""
    return {
        job.id: [event.at.timestamp() for event in job.events if event.kind in _FURTHER]
        for job in jobs
    }


def faults(injected: Sequence[Injected], jobs: Sequence[JobRecord]) -> list[dict[str, Any]]:
    """A row for each kind of fault that was injected."""
    told = told_by(jobs)
    rows = []
    for fault in Fault:
        mine = [each for each in injected if each.fault is fault]
        seconds = [found for each in mine if (found := seconds_until_on(each, told)) is not None]
        if mine:
            rows.append(
                {
                    "fault": str(fault),
                    "how": _how(fault),
                    "must_hold": _MUST_HOLD[fault],
                    "injected": len(mine),
                    "longest_seconds": max(seconds, default=None),
                }
            )
    return rows


def moments(injected: Sequence[Injected]) -> dict[str, int]:
    """How many faults were injected at which moment."""
    return {str(name): count for name, count in Counter(each.moment for each in injected).items()}


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `faults` as a Markdown table."""
    lines = [
        "| fault | what must hold | injected | longest until it went on |",
        "|---|---|---:|---:|",
    ]
    for row in rows:
        longest = row["longest_seconds"]
        shown = "-" if longest is None else f"{longest:.0f} s"
        lines.append(f"| {row['how']} | {row['must_hold']} | {row['injected']} | {shown} |")
    return "\n".join(lines)


def _how(fault: Fault) -> str:
    name = str(fault).removesuffix(" stopped")
    if fault in (Fault.RUNNER_STOPPED, Fault.DISPATCHER_STOPPED):
        return f"{name}: SIGSTOP for {STOPPED_SECONDS:g} s, then SIGCONT"
    return f"{name}: SIGKILL"
