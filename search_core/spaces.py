"""Which network searches which space. Adding a space is one registration here."""

from collections.abc import Callable
from typing import Any, Protocol

import torch

from search_core.cuboid_supernet import CuboidSupernet
from search_core.errors import UnknownNameError
from search_core.spec.spaces import Space
from search_core.supernet import CellSupernet, Supernet
from search_core.weighting import Weighting


class SupernetFactory(Protocol):
    """Builds the network of one kind of space; see `build_supernet` for the arguments."""

    def __call__(
        self,
        space: Any,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        weighting: Weighting,
        weight_generator: torch.Generator,
        alpha_generator: torch.Generator,
    ) -> Supernet:
        """Builds the network."""
        ...


REGISTRY: dict[str, SupernetFactory] = {}
"""The factory for every `kind` of space in the spec."""


def register(*kinds: str) -> Callable[[SupernetFactory], SupernetFactory]:
    """Registers a factory, or a `Supernet` class, for kinds of space.

    Args:
        *kinds: The `kind` of every space in the spec that it builds.

    Returns:
        A decorator that registers the factory and returns it as it is.
    """

    def add(factory: SupernetFactory) -> SupernetFactory:
        for kind in kinds:
            assert kind not in REGISTRY, f"space {kind} is registered twice"
            REGISTRY[kind] = factory
        return factory

    return add


register("darts", "sharp_darts", "sharper_darts")(CellSupernet)
register("hypercuboid")(CuboidSupernet)


def build_supernet(
    space: Space,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    weighting: Weighting,
    weight_generator: torch.Generator,
    alpha_generator: torch.Generator,
) -> Supernet:
    """Builds the network of a space, on the CPU in float32.

    Args:
        space: The space of a spec.
        image_shape: Channels, height and width of an image.
        num_classes: Classes to tell apart.
        weighting: From softmaxed weights to multipliers.
        weight_generator: Draws the initial weights.
        alpha_generator: Draws the initial alphas.

    Returns:
        The network.

    Raises:
        UnknownNameError: Nothing is registered for this kind of space.
        ValueError: The space does not fit such images; the message says why.
    """
    factory = REGISTRY.get(space.kind)
    if factory is None:
        raise UnknownNameError(
            f"no network for the space {space.kind!r}; known are: {', '.join(REGISTRY)}"
        )
    return factory(
        space,
        image_shape,
        num_classes,
        weighting=weighting,
        weight_generator=weight_generator,
        alpha_generator=alpha_generator,
    )
