"""`dartboard up` and `down`: starting what is missing, and stopping what was started."""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from dartboard.client import Client
from dartboard.local import postgres, readiness
from dartboard.local.parts import PARTS, SECONDS_TO_STOP, PartName, Plan, Service, python
from dartboard.local.processes import is_alive, start, stop
from dartboard.local.signals import termination_raises, undisturbed
from dartboard.local.state import Record, State, alone, new_record, write_atomically
from dartboard.local.steps import run_to_end, size, wait_for
from dartboard.settings import DEFAULT_PORT

_MIGRATIONS_TIMEOUT: Final = 120.0
_CLUSTER_TIMEOUT: Final = 120.0
_API_TIMEOUT: Final = 60.0
_READY_TIMEOUT: Final = 90.0
_ASK_TIMEOUT: Final = 2.0

Report = Callable[[str, str], None]
"""Told what happened: to which part, and what."""


@dataclass(frozen=True)
class Up:
    """A deployment that runs.

    Attributes:
        url: The API's address.
        key: The key of this machine's user; None where the API keeps none for them.
        started: The parts that were started now; the others ran already.
        seconds: How long it took.
    """

    url: str
    key: str | None
    started: tuple[PartName, ...]
    seconds: float


class Stack:
    """The processes of one plan.

    Args:
        plan: What to run.
        report: Told of each step.
    """

    def __init__(self, plan: Plan, report: Report) -> None:
        """Looks at nothing yet."""
        self._plan = plan
        self._layout = plan.layout
        self._report = report
        self._state = State(plan.layout.state)
        self._log_sizes: dict[str, int] = {}
        self._began = 0.0

    def up(self) -> Up:
        """Starts what does not run yet, and waits until all of it is ready.

        Returns:
            What runs now.

        Raises:
            LocalError: Something does not start. Then, and when a signal interrupts it, what was
                started is stopped again.
        """
        begun: list[PartName] = []
        with self._alone(), termination_raises():
            self._began = time.monotonic()
            try:
                url = self._start_missing(begun)
            except BaseException:
                with undisturbed():
                    self._stop_all(begun)
                raise
        return Up(url, self._layout.read_key(), tuple(begun), time.monotonic() - self._began)

    def down(self) -> tuple[PartName, ...]:
        """Stops everything of this home, crashed or not.

        Returns:
            The parts that ran.

        Raises:
            LocalError: PostgreSQL cannot be stopped.
        """
        with self._alone(), undisturbed():
            return self._stop_all(list(PARTS))

    def _start_missing(self, begun: list[PartName]) -> str:
        # Ray takes the longest and needs nothing of the others.
        if self._plan.ray_address is None and self._running("cluster") is None:
            # The dispatcher and its runners would go on asking the cluster that is gone.
            self._stop("dispatcher")
            begun.append("cluster")
            self._start_cluster()
        database_url = self._plan.database_url or self._start_postgres(begun)
        api, dispatcher = self._running("api"), self._running("dispatcher")
        if api is None:
            self._migrate(database_url)
        if api is None:
            begun.append("api")
            api = self._start_api(database_url)
        ray_address = self._plan.ray_address or self._wait_for_cluster(begun)
        if dispatcher is None:
            begun.append("dispatcher")
            dispatcher = self._start_service(
                "dispatcher",
                python("workers.dispatcher"),
                DARTBOARD_DATABASE_URL=database_url,
                DARTBOARD_RAY_ADDRESS=ray_address,
            )
        assert api.address is not None
        self._wait_until_ready(api, dispatcher, begun)
        write_atomically(self._layout.server, json.dumps({"url": api.address}) + "\n")
        return api.address

    def _start_cluster(self) -> None:
        self._layout.ray_address.unlink(missing_ok=True)
        cpus = [] if self._plan.cpus is None else ["--cpus", str(self._plan.cpus)]
        self._start_service(
            "cluster",
            python("workers.cluster", "--address-file", str(self._layout.ray_address), *cpus),
        )

    def _start_postgres(self, begun: list[PartName]) -> str:
        if postgres.running(self._layout) is None:
            begun.append("postgres")
        url = postgres.start(self._plan)
        self._say("postgres", begun, "PostgreSQL runs")
        return url

    def _migrate(self, database_url: str) -> None:
        run_to_end(
            "migrations",
            python("migrations"),
            environment={**self._plan.environment, "DARTBOARD_DATABASE_URL": database_url},
            log=self._layout.log("migrations"),
            timeout=_MIGRATIONS_TIMEOUT,
        )
        self._report("migrations", f"the schema is up to date {self._elapsed()}")

    def _start_api(self, database_url: str) -> Record:
        last = readiness.port_in(self._layout.server)
        port = self._plan.choose_port(last)
        if self._plan.port is None and not self._plan.any_port and port not in (DEFAULT_PORT, last):
            self._report("api", f"port {DEFAULT_PORT} is taken by somebody else: it gets {port}")
        return self._start_service(
            "api",
            python("service"),
            address=self._plan.url(port),
            DARTBOARD_DATABASE_URL=database_url,
            DARTBOARD_HOST=self._plan.host,
            DARTBOARD_PORT=str(port),
        )

    def _start_service(
        self, name: Service, command: list[str], *, address: str | None = None, **settings: str
    ) -> Record:
        log = self._layout.log(name)
        self._log_sizes[name] = size(log)
        before = self._state.read().get(name)
        started = start(
            command,
            environment={**self._plan.environment, "PYTHONUNBUFFERED": "1", **settings},
            log=log,
            # One that no other process carries, but for what a crashed predecessor left at work.
            marker=f"{name}-{uuid4().hex}" if before is None else before.started.marker,
        )
        record = new_record(started, address)
        self._state.put(name, record)
        return record

    def _wait_for_cluster(self, begun: list[PartName]) -> str:
        record = self._state.read()["cluster"]

        address = wait_for(
            lambda: readiness.ray_address_in(self._layout.ray_address),
            part="cluster",
            started=record.started,
            log=self._layout.log("cluster"),
            since=self._log_sizes.get("cluster", 0),
            timeout=_CLUSTER_TIMEOUT,
        )
        self._state.put("cluster", Record(record.started, record.since, address))
        self._say("cluster", begun, f"Ray runs at {address}")
        return address

    def _wait_until_ready(self, api: Record, dispatcher: Record, begun: list[PartName]) -> None:
        assert api.address is not None
        with Client(api.address, timeout=_ASK_TIMEOUT) as client:
            wait_for(
                lambda: readiness.answers(client),
                part="api",
                started=api.started,
                log=self._layout.log("api"),
                since=self._log_sizes.get("api", 0),
                timeout=_API_TIMEOUT,
            )
            self._say("api", begun, f"the API listens at {api.address}")
        # By now it has made the key, if it is the first time.
        key = self._layout.read_key()
        with Client(api.address, key=key, timeout=_ASK_TIMEOUT) as client:
            wait_for(
                lambda: readiness.is_served_by(
                    client,
                    dispatcher.started.pid,
                    # Somebody else's cluster may hold no node until there is something to run.
                    has_nodes=self._plan.ray_address is None,
                ),
                part="dispatcher",
                started=dispatcher.started,
                log=self._layout.log("dispatcher"),
                since=self._log_sizes.get("dispatcher", 0),
                timeout=_READY_TIMEOUT,
            )
        self._say("dispatcher", begun, "the dispatcher takes searches")

    def _stop_all(self, names: list[PartName]) -> tuple[PartName, ...]:
        stopped = tuple(name for name in reversed(PARTS) if name in names and self._stop(name))
        if "api" in names:
            self._layout.server.unlink(missing_ok=True)
        return stopped

    def _stop(self, name: PartName) -> bool:
        if name == "postgres":
            if postgres.running(self._layout) is None:
                return False
            postgres.stop(self._plan)
            self._report(name, "stopped")
            return True
        record = self._state.read().get(name)
        if record is None:
            return False
        was_alive = is_alive(record.started)
        graceful = stop(record.started, grace=SECONDS_TO_STOP[name])
        self._state.forget(name)
        if not was_alive:
            self._report(name, "had crashed; what was left of it is gone")
        elif graceful:
            self._report(name, "stopped")
        else:
            self._report(name, f"did not stop in {SECONDS_TO_STOP[name]:.0f} s and was killed")
        return was_alive

    def _running(self, name: Service) -> Record | None:
        record = self._state.read().get(name)
        if record is None or is_alive(record.started):
            return record
        if name == "dispatcher":
            # Its runners go on with their searches; the next one finds what they leave.
            self._report(name, "had crashed; its runners go on")
        else:
            # Nothing of it may be left when its successor starts.
            self._stop(name)
        return None

    def _say(self, name: PartName, begun: list[PartName], what: str) -> None:
        when = self._elapsed() if name in begun else "(already)"
        self._report(name, f"{what} {when}")

    def _elapsed(self) -> str:
        return f"({time.monotonic() - self._began:.1f} s)"

    def _alone(self) -> AbstractContextManager[None]:
        return alone(
            self._layout.home,
            lambda: self._report("lock", "another up or down is at work in this home; waiting"),
        )
