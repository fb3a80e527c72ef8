"""A short run of `python -m benchmarks.faults`: a whole deployment, three faults, all checks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(3000)  # it deploys the whole service twice, on cores that others share
def test_three_faults_change_nothing() -> None:
    command = [sys.executable, "-m", "benchmarks.faults", "--faults=3", "--seed=1", "--searches=3",
               "--only=runner", "--only=trial process", "--only=PostgreSQL", "--minutes=10",
               "--json"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["findings"] == []
    # Which of them is the machine's: a kind of which nothing runs at the moment is drawn again.
    assert sum(row["injected"] for row in told["faults"]) == 3
    assert {row["fault"] for row in told["faults"]} <= {"runner", "trial process", "PostgreSQL"}
    assert told["num_searches"] >= 3
    assert told["num_metrics"] > 0
