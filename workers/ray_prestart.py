"""Processes on a cluster's nodes that are started before a trial needs them.

A process that has run a task is never given to an actor, and Tune's trials are actors. So there is
no other way than to ask the nodes themselves, as Ray does for tasks that pile up. That is no public
part of Ray: all that is used of it is here, and whoever calls this goes on without.
"""

import logging
from typing import Any, Final

import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.utils import get_runtime_env_info
from ray.core.generated.common_pb2 import Language
from ray.core.generated.node_manager_pb2 import PrestartWorkersRequest
from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub
from ray.tune.execution.class_cache import _ActorClassCache

from workers.trainable import TrialTrainable

_LOG = logging.getLogger(__name__)

_MOST_PER_NODE: Final = 2
_KEPT_SECONDS: Final = 24 * 60 * 60
"""For which a node keeps more idle processes than it has CPUs. All end with their driver."""
_PATIENCE_SECONDS: Final = 10.0


def start_processes() -> None:
    """Has every node start processes that the first trials of this driver will take over.

    They hold no CPUs or GPUs. Nobody waits for them: what is ready when a trial starts is ready.

    Raises:
        Exception: Ray is another one than this was written for.
    """
    job_id = bytes.fromhex(ray.get_runtime_context().get_job_id())
    environment = _environment_of_trials()
    asked = []
    for node in ray.nodes():
        places = min(_MOST_PER_NODE, int(node["Resources"].get("CPU", 0)))
        if not node["Alive"] or not places:
            continue
        request = PrestartWorkersRequest(
            language=Language.PYTHON,
            job_id=job_id,
            runtime_env_info=environment,
            keep_alive_duration_secs=_KEPT_SECONDS,
            num_workers=places,
        )
        channel = init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}")
        answer = NodeManagerServiceStub(channel).PrestartWorkers.future(
            request, timeout=_PATIENCE_SECONDS
        )
        asked.append((channel, answer))
    for channel, answer in asked:
        if (error := answer.exception()) is not None:
            _LOG.warning("a node starts no processes ahead: %s", error)
        channel.close()


def _environment_of_trials() -> Any:
    """What Tune has set in the environment of a trial's process: none with another will do."""
    actor = _ActorClassCache().get(TrialTrainable)
    return get_runtime_env_info(actor._default_options["runtime_env"], is_job_runtime_env=False)
