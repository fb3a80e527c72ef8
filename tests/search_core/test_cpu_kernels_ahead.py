"""Compiling a CPU's kernels before they are called."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from search_core.relaxation import ahead
from search_core.relaxation.kernels import ahead as kernels

_PROGRAM = """
from search_core.relaxation.kernels import ahead
ahead.compile_ahead()
for name, work in ahead._WORKS.items():
    work.address(4)
    print(name, work._compiled[4].cache_hits)
"""

_WAITS = """
import sys
from pathlib import Path
from search_core.relaxation import ahead
print("begins", flush=True)
with ahead.alone_in(Path(sys.argv[1])):
    print("has it")
"""


class Asked:
    """Notes what is to be compiled, and compiles nothing.

    Args:
        succeeds: Whether it says that it did.
    """

    def __init__(self, succeeds: bool) -> None:
        self.names: list[str] = []
        self._succeeds = succeeds

    def __call__(self, programs: Sequence[ahead.Program]) -> bool:
        self.names += [name for program in programs for name in program.arguments]
        return self._succeeds


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ahead, "num_processes", lambda: 2)
    monkeypatch.setattr(kernels, "CACHE", tmp_path)


def test_what_is_compiled_ahead_is_found_when_it_is_called(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"{name} 1" for name in kernels._WORKS]


def test_every_kind_of_work_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(succeeds=True)
    monkeypatch.setattr(ahead, "run_all", asked)
    kernels.compile_ahead()
    kernels.compile_ahead()
    assert sorted(asked.names) == sorted(kernels._WORKS)


def test_what_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(succeeds=False)
    monkeypatch.setattr(ahead, "run_all", asked)
    kernels.compile_ahead()
    kernels.compile_ahead()
    assert len(asked.names) == 2 * len(kernels._WORKS)


@pytest.mark.parametrize("why", ["one core", "a cache that cannot be written"])
def test_where_nothing_is_gained_each_process_compiles(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(succeeds=True)
    monkeypatch.setattr(ahead, "run_all", asked)
    if why == "one core":
        monkeypatch.setattr(ahead, "num_processes", lambda: 1)
    else:
        monkeypatch.setattr(kernels, "KEEPS", False)
    kernels.compile_ahead()
    assert not asked.names


def test_a_program_that_fails_is_told_of() -> None:
    right, wrong = ahead.Program("this", reads="nothing"), ahead.Program("no.such.module")
    assert ahead.run_all([right])
    assert not ahead.run_all([right, wrong])


def test_one_process_at_a_time_fills_the_cores(tmp_path: Path) -> None:
    with ahead.alone_in(tmp_path / "new"):
        waiting = subprocess.Popen(
            [sys.executable, "-c", _WAITS, tmp_path / "new"], stdout=subprocess.PIPE, text=True
        )
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "begins\n"
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=1)
    assert waiting.communicate(timeout=60)[0] == "has it\n"
