"""`python -m benchmarks.faults --faults 100 --seed 1`: kills what searches run on, and checks.

It starts a PostgreSQL, an API, two dispatchers and a Ray cluster of its own on this machine, and
ends by itself.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from benchmarks.faults import report
from benchmarks.faults.injecting import Fault
from benchmarks.faults.running import Run, run


def main() -> int:
    """Runs what the command line says.

    Returns:
        The exit status: 1 when something does not hold.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=100, help="how many to inject")
    parser.add_argument("--seed", type=int, default=1, help="of the faults, targets and moments")
    parser.add_argument(
        "--only", choices=[*Fault], action="append", default=[], help="kinds; repeatable"
    )
    parser.add_argument(
        "--minutes", type=float, default=90, help="the most that faults and searches may take"
    )
    parser.add_argument(
        "--searches", type=int, default=9, help="how many to submit at least; 9 are of all kinds"
    )
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--keep", type=Path, help="a folder for the logs when something is wrong")
    given = parser.parse_args()
    # So that what was started is stopped then, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    done = run(
        num_faults=given.faults,
        seed=given.seed,
        only=[Fault(each) for each in given.only],
        seconds=given.minutes * 60,
        at_least=given.searches,
        keep=given.keep,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if given.json:
        print(json.dumps(_plain(done)))
    else:
        _show(done)
    return 1 if done.findings else 0


def _plain(done: Run) -> dict[str, object]:
    return {
        "seed": done.seed,
        "seconds": done.seconds,
        "faults": report.faults(done.injected, done.jobs),
        "moments": report.moments(done.injected),
        "num_injected": len(done.injected),
        "num_searches": len(done.jobs),
        "num_trials": sum(len(job.trials) for job in done.jobs),
        "num_metrics": sum(len(trial.metrics) for job in done.jobs for trial in job.trials),
        "most_attempts": max((job.attempt for job in done.jobs), default=0),
        "answers_lost": done.answers_lost,
        "notes": done.notes,
        "findings": done.findings,
    }


def _show(done: Run) -> None:
    plain = _plain(done)
    print(report.as_table(report.faults(done.injected, done.jobs)))
    print()
    for name in ("seed", "num_injected", "num_searches", "num_trials", "num_metrics",
                 "most_attempts", "answers_lost", "moments"):  # fmt: skip
        print(f"{name:16} {plain[name]}")
    print(f"{'seconds':16} {done.seconds:.0f}")
    for note in done.notes:
        print(f"note: {note}")
    for finding in done.findings:
        print(f"WRONG: {finding}")
    if not done.findings:
        print("all held: each accepted search ended once, with every metric once and undisturbed")


if __name__ == "__main__":
    raise SystemExit(main())
