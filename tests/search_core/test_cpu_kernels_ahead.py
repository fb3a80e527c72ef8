"""Compiling a CPU's kernels before they are called."""

import os
import select
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numba
import psutil
import pytest

from search_core.relaxation import processes
from search_core.relaxation.kernels import ahead

_PROGRAM = """
from search_core.relaxation.kernels import ahead
ahead.compile_for_cpu()
for name, work in ahead._WORKS.items():
    work.address(4)
    print(name, work._compiled[4].cache_hits)
"""

_WAITS = """
import sys
from pathlib import Path
from search_core.relaxation import processes
print("begins", flush=True)
with processes.alone_in(Path(sys.argv[1])):
    print("has it")
"""


class Asked:
    """Notes what is to be compiled, and compiles nothing.

    Args:
        succeeds: Whether it says that it did.
    """

    def __init__(self, succeeds: bool) -> None:
        self.names: list[str] = []
        self.num_commands = 0
        self._succeeds = succeeds

    def __call__(self, commands: Sequence[processes.Command]) -> bool:
        self.num_commands += len(commands)
        self.names += [name for command in commands for name in command.arguments]
        return self._succeeds


@pytest.fixture(autouse=True)
def _in_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "most_at_once", lambda: 2)
    monkeypatch.setattr(ahead, "CACHE", tmp_path)
    monkeypatch.setattr(ahead, "KEEPS", True)


def test_what_is_compiled_ahead_is_found_when_it_is_called(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"{name} 1" for name in ahead._WORKS]


def test_every_kind_of_work_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(succeeds=True)
    monkeypatch.setattr(processes, "run_all", asked)
    ahead.compile_for_cpu()
    ahead.compile_for_cpu()
    assert sorted(asked.names) == sorted(ahead._WORKS)


def test_what_failed_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(succeeds=False)
    monkeypatch.setattr(processes, "run_all", asked)
    ahead.compile_for_cpu()
    ahead.compile_for_cpu()
    assert len(asked.names) == len(ahead._WORKS)


def test_another_numba_compiles_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(succeeds=True)
    monkeypatch.setattr(processes, "run_all", asked)
    ahead.compile_for_cpu()
    monkeypatch.setattr(numba, "__version__", "another")
    ahead.compile_for_cpu()
    assert len(asked.names) == 2 * len(ahead._WORKS)


def test_one_core_compiles_all_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(succeeds=True)
    monkeypatch.setattr(processes, "run_all", asked)
    monkeypatch.setattr(processes, "most_at_once", lambda: 1)
    ahead.compile_for_cpu()
    assert asked.num_commands == 1
    assert sorted(asked.names) == sorted(ahead._WORKS)


def test_where_nothing_can_be_kept_each_process_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(succeeds=True)
    monkeypatch.setattr(processes, "run_all", asked)
    monkeypatch.setattr(ahead, "KEEPS", False)
    ahead.compile_for_cpu()
    assert not asked.names


def test_a_process_without_the_one_that_started_it_does_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parents = iter([7, 7, 7, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    assert list(processes.while_parent_lives("abcd")) == ["a", "b"]


def test_there_are_as_many_processes_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    free = mock.Mock(available=3 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    assert processes.most_at_once() == 3
    free.available = 0
    assert processes.most_at_once() == 1
    free.available = 2**40
    assert processes.most_at_once() == 16


def test_a_program_that_takes_too_long_is_stopped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "_SECONDS", 0.5)
    assert not processes.run_all([processes.Command("http.server", ["0", "--bind", "127.0.0.1"])])
    assert "was stopped" in caplog.text


def test_a_program_that_fails_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    right, wrong = processes.Command("this", reads="nothing"), processes.Command("no.such.module")
    assert processes.run_all([right])
    assert not processes.run_all([wrong, right])
    assert "no.such.module failed: " in caplog.text


def test_one_process_at_a_time_fills_the_cores(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WAITS, str(tmp_path)]
    with ExitStack() as ours:
        ours.enter_context(processes.alone_in(tmp_path))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "begins\n"
            assert not select.select([waiting.stdout], [], [], 1)[0]
            ours.close()
            assert waiting.stdout.readline() == "has it\n"


def test_nobody_waits_for_ever(tmp_path: Path) -> None:
    again = processes.alone_in(tmp_path, patience=0.1)
    with processes.alone_in(tmp_path), pytest.raises(TimeoutError, match="another process"), again:
        pass
