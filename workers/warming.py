"""What a runner does before it has anything to run, so that a search starts sooner.

It loads Ray, joins the cluster, and lets the cluster load PyTorch into processes that the first
trials of its search will find idle. None of this holds CPUs or GPUs.
"""

import signal
from typing import Any, Final

from workers import ray_token
from workers.settings import WorkerSettings

_MOST_PER_NODE: Final = 2


def warm_up(settings: WorkerSettings) -> None:
    """Loads what running a search takes; trials' processes go on warming up by themselves.

    Raises:
        ExecutorError: No cluster answers.
    """
    if settings.executor == "inline":
        # The trials run in this process.
        import workers.inline_trials  # noqa: F401

        return
    if not settings.ray_address:
        return
    ray_token.prepare(settings.home)
    from workers.ray_trials import connect

    connect(settings.ray_address)
    # Ray's handler would end the process with a traceback.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _warm_trials()


def _warm_trials() -> None:
    """Starts processes on the nodes that load PyTorch and then wait to be a trial's.

    A cluster keeps as many idle processes of a driver as a node has CPUs, and gives them to the
    driver's next actors.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    load = ray.remote(num_cpus=0)(_load)
    for node in ray.nodes():
        places = min(_MOST_PER_NODE, int(node["Resources"].get("CPU", 0)))
        if not node["Alive"] or not places:
            continue
        there = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        for number in range(places):
            # Nobody waits for them: what is ready when a trial starts is ready.
            load.options(scheduling_strategy=there, max_retries=0).remote(number)


def _load(number: int) -> Any:
    """Loads what a trial needs, in a process of the cluster."""
    import time

    began = time.monotonic()
    import workers.trial_group  # noqa: F401

    # Each is to be a process of its own: the first must not have ended when the second starts.
    time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
    return number
