"""Weights as derivation takes them: nested lists, or anything that becomes them.

Derivation itself is free of torch, so that a service can derive from stored weights.
"""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class SupportsToList(Protocol):
    """A tensor, or an array."""

    def tolist(self) -> Any:
        """The values as nested lists."""
