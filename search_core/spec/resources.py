"""What one trial occupies on its node: CPUs, GPUs or a share of one, and custom resources.

Amounts are counted in ten-thousandths, as Ray counts them: sums of shares come out even, which sums
of floats do not.
"""

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from search_core.spec.base import SpecModel

_UNITS: Final = 10_000
_MOST_CUSTOM: Final = 8

_RESERVED: Final = {
    "cpu": "CPUs are the field cpus",
    "gpu": "GPUs are the field gpus",
    "memory": "Ray itself hands out memory; leave it out",
    "object_store_memory": "Ray itself hands out memory; leave it out",
}


def in_units(amount: float) -> int:
    """An amount of a resource in ten-thousandths."""
    return round(amount * _UNITS)


def from_units(units: int) -> float:
    """Ten-thousandths as an amount; a whole number where it is one."""
    return units // _UNITS if units % _UNITS == 0 else units / _UNITS


def times(amount: float, count: int) -> float:
    """What so many of the same amount are together."""
    return from_units(in_units(amount) * count)


def total(amounts: Iterable[float]) -> float:
    """What amounts are together."""
    return from_units(sum(in_units(amount) for amount in amounts))


def _countable(amount: float) -> float:
    units = in_units(amount)
    if abs(amount * _UNITS - units) > 1e-6:
        raise ValueError(f"{amount:.12g}: shares are counted in ten-thousandths, 0.0001 at least")
    return from_units(units)


def _gpus(amount: float) -> float:
    if amount > 1 and not float(amount).is_integer():
        raise ValueError(f"{amount:.12g}: below 1 any share, above 1 whole GPUs")
    return _countable(amount)


def _resource_name(name: str) -> str:
    reserved = _RESERVED.get(name.lower())
    if reserved is not None:
        raise ValueError(f"{name!r} is reserved: {reserved}")
    if name.startswith("node:") or "_group_" in name:
        raise ValueError(f"{name!r} is reserved: Ray names things of its own like this")
    return name


ResourceName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z_][\w.\-]*(:[\w.\-]+)?$"),
    AfterValidator(_resource_name),
]
ResourceAmount = Annotated[float, Field(gt=0, le=1_000_000), AfterValidator(_countable)]
GpuAmount = Annotated[float, Field(ge=0, le=64), AfterValidator(_gpus)]


class ResourcesSpec(SpecModel):
    """What one trial occupies while it runs, all of it on one node."""

    cpus: int = Field(default=1, ge=1, le=1024)
    """CPU cores, and threads that the trial uses."""
    gpus: GpuAmount = 0
    """GPUs; 0 trains on the CPU. Below 1 a share of one GPU, such as 0.5: so many trials train on
    it side by side. Above 1 whole GPUs."""
    custom: dict[ResourceName, ResourceAmount] = Field(
        default_factory=dict, max_length=_MOST_CUSTOM
    )
    """What else its node must have, as the nodes were started with (`ray start --resources`), such
    as {"a100": 1}; at most 8. `accelerator_type:A100`, which Ray itself gives to nodes, is one."""
