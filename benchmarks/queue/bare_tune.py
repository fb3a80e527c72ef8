"""The baseline of starting: bare Ray Tune, in a process that is connected to the cluster already.

Prints, for each run, the seconds from `fit()` until the trial says that its epochs begin.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.queue.stored import SPEC
from search_core.spec import SearchSpec
from store import artifacts
from store.states import JobKind
from workers import ray_token


def main() -> int:
    """Runs as often as the command line says, on the cluster that it names."""
    address, home, num_runs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    ray_token.prepare(home)
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    import ray
    from ray import tune

    from workers.trainable import TrialTrainable, to_config
    from workers.trials import TrialPlan

    ray.init(address=address, log_to_driver=False)

    class Watch(tune.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.started: float | None = None

        def on_trial_result(self, result: dict[str, Any], **info: Any) -> None:
            for news in result["trials"].values():
                if news.get("started") and self.started is None:
                    self.started = time.monotonic()

    spec = SearchSpec.model_validate({**SPEC, "trials": {"seeds": [0]}})
    for _ in range(num_runs):
        folder = home / "bare" / uuid4().hex
        root = str(folder)
        plan = TrialPlan(
            uuid4(), 0, 0, spec, artifacts.checkpoints_of(root, uuid4()), home / "data"
        )
        kept = artifacts.logs_of(root, uuid4())
        watch = Watch()
        tuner = tune.Tuner(
            TrialTrainable,
            param_space={"plan": to_config([plan], JobKind.SEARCH, kept, 1)},
            run_config=tune.RunConfig(
                storage_path=str(folder), callbacks=[watch], verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )  # fmt: skip
        began = time.monotonic()
        tuner.fit()
        assert watch.started is not None
        print(json.dumps(watch.started - began), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
