"""Which process is killed, and when: drawn from a seed, relative to what the searches do."""

import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from uuid import UUID

import psutil

from benchmarks.faults import processes
from benchmarks.faults.deployment import LEASE_SECONDS, Deployment
from benchmarks.faults.ledger import Ledger, Progress, is_ended
from benchmarks.faults.parts import Part, Postgres

STOPPED_SECONDS: Final = 1.5 * LEASE_SECONDS
"""How long a process is stopped: beyond its lease."""

_PATIENCE_SECONDS: Final = 10.0
"""How long to wait for the moment that was drawn, before it is any moment."""
_LET_GO_ON: Final = 2 / 3
"""How many of the faults wait until some search has completed an epoch since the one before."""
_PROGRESS_SECONDS: Final = 90.0
_TARGET_PATIENCE_SECONDS: Final = 5.0


class Fault(StrEnum):
    """What is done to which process."""

    RUNNER = "runner"
    RUNNER_STOPPED = "runner stopped"
    TRIAL = "trial process"
    DISPATCHER = "dispatcher"
    DISPATCHER_STOPPED = "dispatcher stopped"
    API = "API"
    POSTGRES = "PostgreSQL"
    NODE = "Ray node"
    HEAD = "Ray head"


_DECK: Final = (
    *[Fault.RUNNER] * 5,
    *[Fault.TRIAL] * 5,
    *[Fault.DISPATCHER] * 2,
    *[Fault.API] * 2,
    *[Fault.POSTGRES] * 2,
    Fault.RUNNER_STOPPED,
    Fault.DISPATCHER_STOPPED,
    Fault.NODE,
    Fault.HEAD,
)
"""Twenty faults; dealt again when it is empty."""


class Moment(StrEnum):
    """When a fault is injected."""

    ANY = "any moment"
    SUBMIT = "right after a submit"
    START = "while trials start"
    EPOCH = "within an epoch"
    END = "around an end"


@dataclass
class Injected:
    """A fault that was injected.

    Attributes:
        number: From 1.
        moment: When it was meant to be; any if that moment did not come in time.
        target: Which process.
        at: Seconds since 1970.
        hit: The searches that ran on what was hit.
        back_at: When what was hit could be used again; None where nobody starts it again.
    """

    number: int
    fault: Fault
    moment: Moment
    target: str
    at: float
    hit: tuple[UUID, ...]
    back_at: float | None = None


@dataclass(frozen=True)
class _Target:
    name: str
    process: psutil.Process
    part: Part | Postgres | None = None
    search_id: UUID | None = None


@dataclass
class Injector:
    """Injects faults into a deployment.

    Args:
        deployment: Whose processes are killed, and no others.
        ledger: Tells how far the searches are.
        num_submitted: How many were submitted so far.
        rng: Draws faults, targets and moments.
        only: The faults to choose from; all when empty.
        deadline: By `time.monotonic`; nothing is injected after it.
        tell: Told of each fault.
    """

    deployment: Deployment
    ledger: Ledger
    num_submitted: Callable[[], int]
    rng: random.Random
    only: Sequence[Fault]
    deadline: float
    tell: Callable[[Injected], None]
    injected: list[Injected] = field(default_factory=list)
    _deck: list[Fault] = field(default_factory=list)
    _stopped: set[int] = field(default_factory=set)

    def run(self, count: int) -> None:
        """Injects so many faults, one after the other, without waiting for what each leads to."""
        while len(self.injected) < count and time.monotonic() < self.deadline:
            # Mostly, something has got further before the next one; on a slow machine nothing ever
            # would else. The others come upon what the one before has left.
            self._pause(self.rng.uniform(1.0, 6.0), for_progress=self.rng.random() < _LET_GO_ON)
            fault = self._draw()
            moment = self.rng.choice([*Moment])
            prefers, moment = self._await(moment)
            target = self._target(fault, prefers)
            if target is None:
                self._deck.insert(0, fault)  # there is no such process: later, then
                continue
            self._inject(fault, moment, target)

    def _draw(self) -> Fault:
        if not self._deck:
            deck = [fault for fault in _DECK if not self.only or fault in self.only]
            self.rng.shuffle(deck)
            if not self.injected:
                # Few faults are of many kinds.
                first = [*dict.fromkeys(deck)]
                for fault in first:
                    deck.remove(fault)
                deck = [*reversed(first + deck)]
            self._deck = deck
        return self._deck.pop()

    def _pause(self, seconds: float, *, for_progress: bool) -> None:
        """Waits; for progress until a search has got further, however long, within reason."""
        began = time.monotonic()
        before = self.ledger.progress()
        while True:
            self.deployment.look()
            waited = time.monotonic() - began
            is_stuck = for_progress and waited < _PROGRESS_SECONDS and not self._is_further(before)
            if waited >= seconds and not is_stuck:
                return
            time.sleep(0.5)

    def _is_further(self, before: Mapping[UUID, Progress]) -> bool:
        now = self.ledger.progress()
        return any(_has_come(Moment.EPOCH, before.get(each), now[each]) for each in now)

    def _await(self, moment: Moment) -> tuple[frozenset[UUID], Moment]:
        """Waits for a moment.

        Returns:
            The searches for which it came, and what moment it is.
        """
        seconds = self.rng.uniform(0.0, 0.6)
        before, submitted = self.ledger.progress(), self.num_submitted()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while moment is not Moment.ANY and time.monotonic() < deadline:
            now = self.ledger.progress()
            found = frozenset(
                each for each in now if _has_come(moment, before.get(each), now[each])
            )
            has_come = self.num_submitted() > submitted if moment is Moment.SUBMIT else bool(found)
            if has_come:
                time.sleep(seconds)
                return found, moment
            time.sleep(0.1)
        time.sleep(seconds)
        return frozenset(), Moment.ANY

    def _target(self, fault: Fault, prefers: frozenset[UUID]) -> _Target | None:
        deadline = time.monotonic() + _TARGET_PATIENCE_SECONDS
        while time.monotonic() < min(deadline, self.deadline):
            targets = self._targets(fault)
            preferred = [target for target in targets if target.search_id in prefers]
            if targets:
                return self.rng.choice(preferred or targets)
            time.sleep(0.3)
        return None

    def _targets(self, fault: Fault) -> list[_Target]:
        deployment = self.deployment
        if fault in (Fault.RUNNER, Fault.RUNNER_STOPPED):
            return [
                _Target(f"runner {process.pid}", process, search_id=search_id)
                for process, search_id in processes.runners(deployment.look())
                if process.pid not in self._stopped
            ]
        if fault is Fault.TRIAL:
            of = {
                pid: search_id
                for search_id, progress in self.ledger.progress().items()
                for pid in progress.pids
            }
            return [
                _Target(f"trial process {process.pid}", process, search_id=of.get(process.pid))
                for process in processes.trials(deployment.look())
            ]
        if fault is Fault.NODE:
            return self._of_ray(deployment.nodes, "raylet")
        if fault is Fault.HEAD:
            return self._of_ray([deployment.head], "gcs_server")
        if fault is Fault.POSTGRES:
            return _first_of([deployment.postgres])
        if fault is Fault.API:
            return _first_of([deployment.api])
        return _first_of(deployment.dispatchers)

    def _of_ray(self, nodes: Sequence[Part], name: str) -> list[_Target]:
        if any(node.is_down for node in [self.deployment.head, *self.deployment.nodes]):
            return []
        return [
            _Target(node.name, process, node)
            for node in nodes
            for process in processes.named(node.family(), name)
        ]

    def _inject(self, fault: Fault, moment: Moment, target: _Target) -> None:
        now = self.ledger.progress()
        running = tuple(search_id for search_id, each in now.items() if each.is_running)
        hit = running if target.search_id is None else (target.search_id,)
        injected = Injected(len(self.injected) + 1, fault, moment, target.name, time.time(), hit)
        if fault in (Fault.RUNNER_STOPPED, Fault.DISPATCHER_STOPPED):
            self._stop(target)
        else:
            victims = [target.process]
            if fault is Fault.POSTGRES:
                victims = self.deployment.postgres.family()
            processes.kill(victims)
        if target.part is not None and fault is not Fault.DISPATCHER_STOPPED:
            pause = self.rng.uniform(0.2, 2.0)

            def on_back() -> None:
                injected.back_at = time.time()

            self.deployment.revive(target.part, pause, on_back)
        self.injected.append(injected)
        self.tell(injected)

    def _stop(self, target: _Target) -> None:
        part = target.part
        self._stopped.add(target.process.pid)
        if part is not None:
            part.is_down = True
        target.process.send_signal(signal.SIGSTOP)

        def go_on() -> None:
            if processes.is_alive(target.process):
                target.process.send_signal(signal.SIGCONT)
            if part is not None:
                part.is_down = False
            self._stopped.discard(target.process.pid)

        self.deployment.later(STOPPED_SECONDS, go_on)


def _first_of(parts: Sequence[Part | Postgres]) -> list[_Target]:
    return [
        _Target(part.name, family[0], part)
        for part in parts
        if not part.is_down and (family := part.family())
    ]


def _has_come(moment: Moment, before: Progress | None, now: Progress) -> bool:
    if moment is Moment.START:
        return now.is_starting
    if moment is Moment.EPOCH:
        return now.is_running and before is not None and now.epochs != before.epochs
    if moment is Moment.END:
        has_just_ended = is_ended(now.status) and before is not None and not is_ended(before.status)
        return has_just_ended or (now.is_running and now.is_near_its_end)
    return False


def seconds_until_on(injected: Injected, told: Mapping[UUID, Sequence[float]]) -> float | None:
    """Seconds from a fault until every search that it hit had got further.

    Args:
        injected: The fault.
        told: Of each search, when it completed epochs, ended or came to be paused, in order.

    Returns:
        None where it hit no search and nothing has to come back.
    """
    ends = [
        next((at for at in told[search_id] if at > injected.at), injected.at)
        for search_id in injected.hit
    ]
    if injected.back_at is not None:
        ends.append(injected.back_at)
    return max(ends) - injected.at if ends else None
