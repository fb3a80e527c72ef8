"""What the parts show once they are ready. None stands for "not yet", for whoever waits."""

import json
from pathlib import Path
from urllib.parse import urlsplit

from dartboard.client import Client
from dartboard.errors import DartboardError


def ray_address_in(file: Path) -> str | None:
    """The address that the cluster has written into its file."""
    try:
        return str(json.loads(file.read_text())["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def answers(client: Client) -> bool | None:
    """True once the API answers, be it that it is not ready."""
    try:
        client.ready()
    except DartboardError:
        return None
    return True


def is_served_by(client: Client, dispatcher_pid: int, *, has_nodes: bool) -> bool | None:
    """True once the API is ready and a dispatcher has signed on.

    Args:
        client: The API's.
        dispatcher_pid: This very dispatcher: one that is gone counts as seen for a while.
        has_nodes: Whether it must know of a node besides, which it does once it has found Ray.
    """
    try:
        if not client.ready().ready:
            return None
        queue = client.queue()
    except DartboardError:
        return None
    signed_on = any(seen.pid == dispatcher_pid for seen in queue.dispatchers)
    return True if signed_on and (queue.cluster.nodes or not has_nodes) else None


def port_in(server_file: Path) -> int | None:
    """The port of the API that ran last, if it was not stopped in good order."""
    try:
        port: int | None = urlsplit(str(json.loads(server_file.read_text())["url"])).port
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return port
