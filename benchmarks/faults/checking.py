"""What must hold at the end of a run, of each search by itself. Pure: records in, findings out."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from benchmarks.faults.mix import Kind, Steering
from benchmarks.faults.records import (
    EventRecord,
    ExpectedEpoch,
    ExpectedTrial,
    JobRecord,
    TrialRecord,
)
from search_core.pace import OF_THE_MACHINE
from store.states import (
    ENDED,
    SEARCH_TRANSITIONS,
    TRIAL_COMPLETED,
    JobKind,
    Reason,
    SearchStatus,
    TrialStatus,
)

_STATES = {
    "queued": SearchStatus.QUEUED,
    "requeued": SearchStatus.QUEUED,
    "resumed": SearchStatus.QUEUED,
    **{str(status): status for status in SearchStatus if status is not SearchStatus.QUEUED},
}
"""The state that an event of a search, by the last part of its name, says that it has entered."""

METRICS_ARE_WHOLE = "metric"
ENDED_ONCE = "end"
SAME_RESULT = "result"
IN_ORDER = "order"


def check(job: JobRecord, kind: Kind, expected: Sequence[ExpectedTrial]) -> list[str]:
    """Looks for all that a fault may have done to a search.

    Args:
        job: What the store has of it.
        kind: What was submitted, and what its user did.
        expected: Its trials, undisturbed.

    Returns:
        What is wrong; each begins with the kind of the finding.
    """
    findings = [*_ends(job, kind), *_attempts(job)]
    if len(job.trials) != len(expected):
        findings.append(f"{SAME_RESULT}: {len(job.trials)} trials instead of {len(expected)}")
        return findings
    for trial, undisturbed in zip(job.trials, expected, strict=True):
        found = [*_outcome(trial, undisturbed, kind), *_epochs(job, trial, undisturbed)]
        found += _metrics(trial, undisturbed)
        findings += [f"{finding} (trial {trial.number})" for finding in found]
    findings += _recommendation(job, expected)
    return findings


def _ends(job: JobRecord, kind: Kind) -> Iterator[str]:
    if job.status != SearchStatus.SUCCEEDED:
        yield f"{ENDED_ONCE}: it is {job.status} instead of succeeded"
    numbers = [event.number for event in job.events]
    if numbers != list(range(1, job.last_event + 1)):
        yield f"{IN_ORDER}: its events are not numbered 1 to {job.last_event}"
    entered = [(_STATES[_last_part(event)], event) for event in job.events if _enters(job, event)]
    if not entered or entered[0][0] is not SearchStatus.QUEUED:
        yield f"{IN_ORDER}: it did not begin in the queue"
    for (before, _), (after, event) in pairwise(entered):
        if after not in SEARCH_TRANSITIONS[before]:
            yield f"{ENDED_ONCE}: {after} follows {before} at event {event.number}"
    ends = [index for index, (status, _) in enumerate(entered) if status in ENDED]
    if not ends or ends[-1] != len(entered) - 1:
        yield f"{ENDED_ONCE}: its last state is no end"
    # Only who cancels has a search end more than once: by asking to run it again.
    for index in ends[:-1]:
        status, _ = entered[index]
        _, reopened = entered[index + 1]
        asked = reopened.data.get("reason") == Reason.RETRIED
        if (
            kind.steering is not Steering.CANCEL
            or status is not SearchStatus.CANCELLED
            or not asked
        ):
            yield f"{ENDED_ONCE}: it ended {len(ends)} times"
    if len(ends) > 2:
        yield f"{ENDED_ONCE}: it ended {len(ends)} times"


def _attempts(job: JobRecord) -> Iterator[str]:
    """One attempt after the other, and nothing of a trial outside of one."""
    attempt, running = 0, False
    for event in job.events:
        if _enters(job, event):
            running = _STATES[_last_part(event)] is SearchStatus.RUNNING
            if running:
                attempt += 1
                if event.data["attempt"] != attempt:
                    yield f"{IN_ORDER}: attempt {event.data['attempt']} follows {attempt - 1}"
        elif event.kind == "trial.started" and event.data["attempt"] != attempt:
            yield (
                f"{IN_ORDER}: a trial of attempt {event.data['attempt']} started during {attempt}"
            )
        if event.kind in ("trial.started", "trial.epoch", "trial.succeeded") and not running:
            yield f"{IN_ORDER}: {event.kind} at event {event.number}, while nobody ran it"
    if job.attempt != attempt:
        yield f"{IN_ORDER}: {job.attempt} attempts are counted, and {attempt} were begun"


def _outcome(trial: TrialRecord, expected: ExpectedTrial, kind: Kind) -> Iterator[str]:
    may_stop = kind.spec.trials.scheduler is not None
    if trial.status not in (TRIAL_COMPLETED if may_stop else {TrialStatus.SUCCEEDED}):
        yield f"{SAME_RESULT}: it {trial.status}"
        return
    whole = len(expected.epochs)
    if trial.epochs != whole or not 1 <= trial.epoch <= whole:
        yield f"{SAME_RESULT}: epoch {trial.epoch} of {trial.epochs} instead of {whole}"
        return
    if trial.status == TrialStatus.SUCCEEDED and trial.epoch != whole:
        yield f"{SAME_RESULT}: it succeeded after {trial.epoch} of {whole} epochs"
    if trial.architecture != expected.epochs[trial.epoch - 1].architecture:
        yield f"{SAME_RESULT}: another genotype than undisturbed, {trial.architecture}"
    if trial.status == TrialStatus.SUCCEEDED and trial.result != expected.result:
        yield f"{SAME_RESULT}: another result on the test images, {trial.result}"


def _epochs(job: JobRecord, trial: TrialRecord, expected: ExpectedTrial) -> Iterator[str]:
    events = [
        event for event in job.events if event.trial_id == trial.id and event.kind == "trial.epoch"
    ]
    told = [event.data["epoch"] for event in events]
    if told != list(range(1, trial.epoch + 1)):
        yield f"{IN_ORDER}: its epochs were told as {told}"
    for event, epoch in zip(events, expected.epochs, strict=False):
        if event.data["genotype_hash"] != epoch.architecture:
            yield f"{SAME_RESULT}: another genotype after epoch {event.data['epoch']}"
    ends = Counter(
        event.kind
        for event in job.events
        if event.trial_id == trial.id and event.kind in ("trial.succeeded", "trial.stopped")
    )
    if ends.total() != 1:
        yield f"{ENDED_ONCE}: the end of a trial was told {ends.total()} times"


def _metrics(trial: TrialRecord, expected: ExpectedTrial) -> Iterator[str]:
    counted = Counter((name, step) for name, step, _ in trial.metrics)
    for (name, step), count in counted.items():
        if count > 1:
            yield f"{METRICS_ARE_WHOLE}: {name} is doubled after epoch {step}"
    values = {(name, step): value for name, step, value in trial.metrics}
    wanted = {
        (name, step)
        for step, epoch in enumerate(expected.epochs[: trial.epoch], start=1)
        for name in (*epoch.metrics, *epoch.of_the_machine)
    }
    for name, step in sorted(wanted - values.keys()):
        yield f"{METRICS_ARE_WHOLE}: {name} is missing after epoch {step}"
    for name, step in sorted(values.keys() - wanted):
        yield f"{METRICS_ARE_WHOLE}: {name} is there after epoch {step}, and should not be"
    for name, step in sorted(wanted & values.keys()):
        if name in OF_THE_MACHINE:
            continue
        undisturbed = expected.epochs[step - 1].metrics[name]
        if values[name, step] != undisturbed:
            yield (
                f"{METRICS_ARE_WHOLE}: {name} is {values[name, step]!r} after epoch {step}, "
                f"undisturbed {undisturbed!r}"
            )
    yield from _alphas(trial, expected.epochs[: trial.epoch])


def _alphas(trial: TrialRecord, epochs: Sequence[ExpectedEpoch]) -> Iterator[str]:
    wanted = {step: epoch.alphas for step, epoch in enumerate(epochs, start=1) if epoch.alphas}
    if trial.alphas.keys() != wanted.keys():
        yield f"{METRICS_ARE_WHOLE}: alphas are there after the epochs {sorted(trial.alphas)}"
    for step in sorted(wanted.keys() & trial.alphas.keys()):
        if trial.alphas[step] != wanted[step]:
            yield f"{METRICS_ARE_WHOLE}: other alphas than undisturbed after epoch {step}"


def _recommendation(job: JobRecord, expected: Sequence[ExpectedTrial]) -> Iterator[str]:
    best, accuracy = None, -1.0
    if job.kind is JobKind.SEARCH:
        for trial, undisturbed in zip(job.trials, expected, strict=True):
            last = undisturbed.epochs[-1]
            mine = last.metrics["validation_accuracy"]
            if trial.status == TrialStatus.SUCCEEDED and mine > accuracy:
                best, accuracy = last.architecture, mine
    if job.recommended != best:
        yield f"{SAME_RESULT}: it recommends {job.recommended} instead of {best}"


def _enters(job: JobRecord, event: EventRecord) -> bool:
    return event.kind.startswith(f"{job.kind}.") and _last_part(event) in _STATES


def _last_part(event: EventRecord) -> str:
    return event.kind.rpartition(".")[2]
