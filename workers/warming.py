"""What a runner does before it has anything to run, so that a search starts sooner.

It loads Ray, joins the cluster, and has the nodes start processes that the first trials of its
search take over: with Ray loaded, and with PyTorch too where a node was started with
`ENVIRONMENT`. None of this holds CPUs or GPUs.
"""

import logging
import signal
from typing import Final

from workers import ray_token
from workers.settings import WorkerSettings

_LOG = logging.getLogger(__name__)

ENVIRONMENT: Final = {
    # What a process of the cluster loads before it is anyone's: what a trial needs.
    "RAY_preload_python_modules": "workers.trainable,workers.trial_group",
    # Else a node starts one for each of its CPUs, with all that loaded, and starts no more later.
    "RAY_prestart_worker_first_driver": "0",
}
"""Variables of a node's environment with which processes that are started ahead are ready."""


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
    try:
        from workers.ray_prestart import start_processes

        start_processes()
    except Exception as error:  # Whatever another Ray makes of calls that are its own.
        _LOG.warning("no processes are ready for trials: %s", error)
