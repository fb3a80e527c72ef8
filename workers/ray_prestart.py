"""Processes on a cluster's nodes that are started before a trial needs them.

A process that has run a task is never given to an actor, and Tune's trials are actors. So there is
no other way than to ask the nodes themselves, as Ray does for tasks that pile up. That is no public
part of Ray: all that is used of it is here, and whoever calls this goes on without.
"""

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
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
_MOST: Final = 16
"""In all, so that a large cluster does not load PyTorch everywhere for each search. Which nodes
will have room for its trials is not known yet."""
_KEPT_SECONDS: Final = 24 * 60 * 60
"""For which a node keeps more idle processes than it has CPUs. All end with their driver."""
_PATIENCE_SECONDS: Final = 2.0
"""With a node that does not answer: there may be work for this runner meanwhile."""


def start_processes() -> None:
    """Has nodes start processes that the first trials of this driver will take over.

    Two on each, if it has as many CPUs, as long as that is not too many in all. They hold no CPUs
    or GPUs. Nodes say at once that they will; what is ready when a trial starts is ready.

    Raises:
        Exception: Ray is another one than this was written for.
    """
    job_id = bytes.fromhex(ray.get_runtime_context().get_job_id())
    environment = _environment_of_trials()
    asked = []
    channels = []
    for address, places in _places(ray.nodes()).items():
        request = PrestartWorkersRequest(
            language=Language.PYTHON,
            job_id=job_id,
            runtime_env_info=environment,
            keep_alive_duration_secs=_KEPT_SECONDS,
            num_workers=places,
        )
        channels.append(init_grpc_channel(address))
        stub = NodeManagerServiceStub(channels[-1])
        asked.append(stub.PrestartWorkers.future(request, timeout=_PATIENCE_SECONDS))
    for answer in asked:
        if (error := answer.exception()) is not None:
            _LOG.warning("a node starts no processes ahead: %s", error)
    for channel in channels:
        channel.close()


def _places(nodes: Sequence[dict[str, Any]]) -> Mapping[str, int]:
    """How many processes are started where, by the address of a node's raylet."""
    num_cpus = {
        f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}": node["Resources"].get("CPU", 0)
        for node in nodes
        if node["Alive"]
    }
    addresses = random.sample(list(num_cpus), len(num_cpus))
    turns = (
        address
        for turn in range(1, _MOST_PER_NODE + 1)
        for address in addresses
        if num_cpus[address] >= turn
    )
    return Counter(islice(turns, _MOST))


def _environment_of_trials() -> Any:
    """What Tune has set in the environment of a trial's process: none with another will do."""
    actor = _ActorClassCache().get(TrialTrainable)
    return get_runtime_env_info(actor._default_options["runtime_env"], is_job_runtime_env=False)
