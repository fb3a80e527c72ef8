"""The estimate of training memory against a training, in a process of its own."""

import json
import subprocess
import sys

from benchmarks.cuboid_memory import CASES, estimate

CASE = "channels 16, 32, one level, batch 64"


def test_the_estimate_is_an_upper_bound_and_not_far_off() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cuboid_memory", "--case", CASE],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured = json.loads(done.stdout)
    assert measured < estimate(CASES[CASE]) < 2 * measured


def test_the_second_order_takes_more() -> None:
    case = CASES[CASE]
    assert estimate(case) < estimate({**case, "algorithm": {"order": "second"}})


def test_one_path_at_a_time_takes_less_unless_the_mixture_is_trained_too() -> None:
    case = CASES[CASE]
    one_path = estimate({**case, "algorithm": {"sampling": {}}})
    both = estimate({**case, "algorithm": {"sampling": {"alphas": "mixture"}}})
    assert one_path < estimate(case) < both
