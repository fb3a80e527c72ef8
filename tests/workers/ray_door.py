"""Processes that try to get into a Ray cluster, with its token and without."""

import os
import subprocess
import sys
from pathlib import Path

BY_INIT = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False)
except Exception as error:
    print("refused:", type(error).__name__)
else:
    print("in:", len(ray.nodes()))
"""
BY_HEAD = """
import sys
from ray._raylet import GcsClient
try:
    nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20)
except Exception as error:
    print("refused:", type(error).__name__)
else:
    print("in:", len(nodes))
"""


def check_only_the_token_opens(way: str, address: str, token_file: Path, scratch: Path) -> None:
    """Tries one way in with the token, without any, and with another one.

    Args:
        way: `BY_INIT` as a driver, `BY_HEAD` by a call to the head's port.
        address: The head's.
        token_file: What opens it.
        scratch: An empty folder; it stands for a home in which no token lies.
    """
    wrong = scratch / "wrong-token"
    wrong.write_text("0" * 64)

    def enter(**access: str) -> str:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")
        }
        return subprocess.run(
            [sys.executable, "-c", way, address],
            env={**environment, "HOME": str(scratch), **access},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=300,
        ).stdout

    assert "in:" in enter(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token_file))
    assert "in:" not in enter(RAY_AUTH_MODE="disabled")
    assert "in:" not in enter(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(wrong))
