"""One run: a deployment, a user, an injector, and what came of it."""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.faults import checking, processes, undisturbed, user
from benchmarks.faults.deployment import Deployment
from benchmarks.faults.injecting import Fault, Injected, Injector
from benchmarks.faults.ledger import Ledger, is_ended
from benchmarks.faults.records import ExpectedTrial, JobRecord
from benchmarks.faults.user import Submitted, User
from dartboard.client import Client
from store.sessions import make_engine

_BACK_SECONDS: Final = 180.0
_LEAVE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Run:
    """What came of a run.

    Attributes:
        seconds: From the first submit until the last search had ended.
        answers_lost: POSTs of submissions that the client gave up, and that were sent again.
        notes: What is no failure, and should be known.
        findings: What does not hold.
    """

    seed: int
    seconds: float
    injected: list[Injected]
    jobs: list[JobRecord]
    answers_lost: int
    notes: list[str]
    findings: list[str]


def run(
    *,
    num_faults: int,
    seed: int,
    only: Sequence[Fault],
    seconds: float,
    at_least: int,
    keep: Path | None,
    say: Callable[[str], None],
) -> Run:
    """Runs searches, injects faults until there were enough, waits for the end, and checks.

    Args:
        num_faults: How many.
        seed: Of what is drawn.
        only: The faults to choose from; all when empty.
        seconds: The most that faults and searches may take together.
        at_least: Searches to submit.
        keep: Where the deployment's logs are copied if something does not hold.
        say: Told how it goes.
    """
    # A short name: Ray puts sockets there.
    home = Path(tempfile.mkdtemp(prefix="df-"))
    try:
        done = _run(home, num_faults, seed, only, seconds, at_least, say)
        if done.findings and keep is not None:
            for logs in ("parts", "logs", "checkpoints"):
                if (home / logs).exists():
                    shutil.copytree(home / logs, keep / logs, dirs_exist_ok=True,
                                    ignore=shutil.ignore_patterns("*.pt"))  # fmt: skip
        return done
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run(
    home: Path,
    num_faults: int,
    seed: int,
    only: Sequence[Fault],
    seconds: float,
    at_least: int,
    say: Callable[[str], None],
) -> Run:
    findings: list[str] = []
    say("starting the deployment")
    with Deployment(home) as deployment:
        engine = make_engine(deployment.database_url)
        ledger = Ledger(engine)
        began = time.monotonic()
        deadline = began + seconds
        with Client(deployment.url, key=deployment.key) as client:
            submitter = User(client, at_least)
            injector = Injector(
                deployment,
                ledger,
                lambda: len(submitter.submitted),
                random.Random(seed),  # noqa: S311  (faults, not secrets)
                only,
                deadline,
                lambda each: say(_line(each, began)),
            )
            submitter.start()
            try:
                injector.run(num_faults)
                submitter.stop_submitting()
                say("no more faults; waiting for the searches to end")
                _wait(submitter, deployment, deadline, say)
            finally:
                submitter.give_up()
                submitter.join(_BACK_SECONDS)
        took = time.monotonic() - began
        deployment.wait_until_back(_BACK_SECONDS)
        if submitter.error is not None:
            findings.append(f"the user could not go on: {submitter.error!r}")
        findings += _lingering(deployment)
        jobs = ledger.jobs()
        engine.dispose()
        say("stopping the deployment")
    findings += [f"left behind: {each}" for each in deployment.leftovers(_LEAVE_SECONDS)]
    if len(injector.injected) < num_faults:
        findings.append(f"{len(injector.injected)} of {num_faults} faults were injected in time")
    say("running the searches undisturbed, to compare")
    findings += _check(submitter.submitted, jobs)
    return Run(
        seed=seed,
        seconds=took,
        injected=injector.injected,
        jobs=jobs,
        answers_lost=sum(each.answers_lost for each in submitter.submitted),
        notes=deployment.notes,
        findings=findings,
    )


def _wait(
    submitter: User, deployment: Deployment, deadline: float, say: Callable[[str], None]
) -> None:
    told = -1
    while submitter.is_alive() and time.monotonic() < deadline:
        submitter.join(1.0)
        deployment.look()
        ended = sum(each.job.ended for each in submitter.submitted)
        if ended != told:
            say(f"{ended} of {len(submitter.submitted)} searches have ended")
            told = ended


def _lingering(deployment: Deployment) -> list[str]:
    """Runners that are there although no search runs."""
    deadline = time.monotonic() + _LEAVE_SECONDS
    while left := [*processes.runners(deployment.look())]:
        if time.monotonic() > deadline:
            return [f"the runner of search {search_id} does not end" for _, search_id in left]
        time.sleep(0.3)
    return []


def _check(submitted: Sequence[Submitted], jobs: Sequence[JobRecord]) -> list[str]:
    findings = []
    accepted = user.ids([*submitted])
    expected: dict[str, tuple[ExpectedTrial, ...]] = {}
    for name, each in ((each.name, each) for each in submitted):
        count = sum(job.name == name for job in jobs)
        if count != 1 or each.job.id not in {job.id for job in jobs}:
            findings.append(f"{name}: accepted once, and there are {count} of it")
    for job in jobs:
        mine = accepted.get(job.id)
        if mine is None:
            findings.append(f"{job.name}: nobody was told of {job.id}")
            continue
        if not is_ended(job.status):
            findings.append(f"{job.name} ({job.id}): not ended when the time was up: {job.status}")
            continue
        if mine.kind.name not in expected:
            expected[mine.kind.name] = undisturbed.run(mine.kind.spec)
        found = checking.check(job, mine.kind, expected[mine.kind.name])
        findings += [f"{job.name} ({job.id}): {finding}" for finding in found]
    return findings


def _line(each: Injected, began: float) -> str:
    at = each.at - time.time() + time.monotonic() - began
    return f"{at:6.1f} s  {each.number:3}  {each.fault}: {each.target}, {each.moment}"
