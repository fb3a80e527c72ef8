"""Background processes, with small real ones."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dartboard.errors import LocalError
from dartboard.local.processes import MARKER, Started, is_alive, running_since, start, stop
from dartboard.local.signals import Terminated, termination_raises, undisturbed
from dartboard.local.state import Record, State, alone, new_record, write_atomically
from dartboard.local.steps import StartError, run_to_end, tail, wait_for

OBEDIENT = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)"
)
PARENT = (
    "import subprocess, sys, time;"
    f"subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True);"
    "time.sleep(600)"
)

Start = Callable[[str], Started]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Start]:
    """Starts a program and waits until it has printed something."""
    all_started: list[Started] = []

    def begin(code: str) -> Started:
        log = tmp_path / f"{len(all_started)}.log"
        started = start(
            [sys.executable, "-c", code],
            environment=os.environ,
            log=log,
            marker=f"test-{os.getpid()}-{len(all_started)}",
        )
        all_started.append(started)
        wait_for(
            lambda: tail(log, 1) or None, part="it", started=started, log=log, since=0, timeout=20
        )
        return started

    yield begin
    for started in all_started:
        stop(started, grace=0)


def marked(marker: str) -> list[int]:
    """The processes that carry a marker."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARKER) == marker:
                found.append(process.pid)
    return found


def test_a_started_process_is_detached_and_known(begin: Start, tmp_path: Path) -> None:
    started = begin(OBEDIENT)
    assert is_alive(started)
    assert os.getsid(started.pid) == started.pid
    assert tail(tmp_path / "0.log", 5) == ["up"]
    assert stop(started, grace=10)
    assert not is_alive(started)
    assert stop(started, grace=10)


def test_a_reused_pid_is_left_alone(begin: Start) -> None:
    other = begin(OBEDIENT)
    remembered = Started(other.pid, other.start_time - 100, "of-a-process-long-gone")
    assert not is_alive(remembered)
    assert stop(remembered, grace=0)
    assert is_alive(other)


def test_what_does_not_stop_is_killed(begin: Start) -> None:
    started = begin(STUBBORN)
    assert not stop(started, grace=0.2)
    assert not is_alive(started)


def test_what_it_started_is_stopped_too(begin: Start) -> None:
    started = begin(PARENT)
    assert len(marked(started.marker)) == 2
    assert stop(started, grace=10)
    assert marked(started.marker) == []


def test_orphans_of_a_crash_are_found(begin: Start) -> None:
    started = begin(PARENT)
    os.kill(started.pid, signal.SIGKILL)
    os.waitpid(started.pid, 0)
    assert not is_alive(started)
    assert len(marked(started.marker)) == 1
    stop(started, grace=0)
    assert marked(started.marker) == []


def test_a_process_of_somebody_else_is_known_by_its_name() -> None:
    me = psutil.Process()
    assert running_since(me.pid, me.name()) == me.create_time()
    assert running_since(me.pid, "postgres") is None
    assert running_since(2**22 - 1, me.name()) is None


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be started"):
        start([str(tmp_path / "no")], environment={}, log=tmp_path / "log", marker="x")


def test_waiting_ends_with_the_process_and_shows_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of the last start\n")
    started = start(
        [sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"],
        environment=os.environ,
        log=log,
        marker="x",
    )
    with pytest.raises(StartError) as caught:
        wait_for(
            lambda: None, part="api", started=started, log=log, since=log.stat().st_size, timeout=20
        )
    assert "api ended instead of starting" in str(caught.value)
    assert "of the last start" not in str(caught.value)


def test_waiting_ends_in_time(begin: Start, tmp_path: Path) -> None:
    started = begin(OBEDIENT)
    with pytest.raises(StartError, match="not ready after 0 s"):
        wait_for(
            lambda: None,
            part="api",
            started=started,
            log=tmp_path / "0.log",
            since=0,
            timeout=0.1,
        )


def test_a_step_gives_its_output_or_its_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "step.log"

    def run(code: str, timeout: float = 20.0) -> str:
        return run_to_end(
            "step", [sys.executable, "-c", code], environment=os.environ, log=log, timeout=timeout
        )

    assert run("print('done')") == "done\n"
    with pytest.raises(StartError, match=r"(?s)status 4.*why"):
        run("import sys; sys.stderr.write('why'); sys.exit(4)")
    with pytest.raises(StartError, match="longer than"):
        run(OBEDIENT, timeout=0.2)


def test_an_interrupted_step_ends_first(tmp_path: Path) -> None:
    done = tmp_path / "done"
    code = (
        f"import os, pathlib, time; os.kill(os.getppid(), {int(signal.SIGTERM)});"
        f"time.sleep(0.3); pathlib.Path({str(done)!r}).touch()"
    )
    with termination_raises(), pytest.raises(Terminated):
        run_to_end(
            "step",
            [sys.executable, "-c", code],
            environment=os.environ,
            log=tmp_path / "log",
            timeout=20,
        )
    assert done.exists()


def test_signals_wait_while_something_is_cleaned_up() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with termination_raises(), undisturbed():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_state_remembers_until_the_last_part_is_forgotten(tmp_path: Path) -> None:
    state = State(tmp_path / "run" / "state.json")
    assert state.read() == {}
    api = new_record(Started(1, 2.5, "api-x"), "http://127.0.0.1:1")
    state.put("api", api)
    state.put("cluster", Record(Started(2, 3.5, "cluster-x"), time.time()))
    assert state.read()["api"] == api
    state.put("api", replace(api, address=None))
    assert state.read()["api"].address is None
    state.forget("cluster")
    state.forget("never was")
    assert list(state.read()) == ["api"]
    state.forget("api")
    assert not state.file.exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"parts": {"api": {"pid": 1}}}', '{"parts": 1}']
)
def test_a_damaged_state_counts_as_none(tmp_path: Path, content: str) -> None:
    state = State(tmp_path / "state.json")
    state.file.write_text(content)
    assert state.read() == {}


def test_two_at_once_are_kept_apart(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from dartboard.local.state import alone\n"
        "with alone(pathlib.Path(sys.argv[1]), lambda: print('waits', flush=True)):\n"
        "    print('in', flush=True)"
    )
    with alone(tmp_path, lambda: pytest.fail("nobody else is there")):
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "waits\n"
        assert other.poll() is None
    with other:
        assert other.stdout.readline() == "in\n"


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "file"
    write_atomically(file, "one")
    write_atomically(file, b"two")
    assert file.read_text() == "two"
    assert [each.name for each in file.parent.iterdir()] == ["file"]


def test_the_tail_of_a_long_log_is_cheap_and_right(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert tail(log, 2) == ["line 99998", "line 99999"]
    assert tail(tmp_path / "none", 2) == []
