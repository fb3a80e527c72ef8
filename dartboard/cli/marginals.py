"""Which choice of each axis of a hypercuboid is winning, out of a trial's metrics."""

from collections.abc import Mapping
from typing import Final

from rich.text import Text

from search_core.spec.axes import AXES

_ORDER: Final = ("in_channels", "out_channels", *AXES)
_PREFIX: Final = "marginal."
_LEAD: Final = 1.05
"""A choice that has not so many times its even share leads by nothing worth telling."""


def by_axis(metrics: Mapping[str, float | None]) -> dict[str, dict[str, float]]:
    """The share of every choice of every axis, the largest first; the axes as in their registry."""
    axes: dict[str, dict[str, float]] = {}
    for name, share in metrics.items():
        if name.startswith(_PREFIX) and share is not None:
            axis, _, choice = name.removeprefix(_PREFIX).partition("=")
            axes.setdefault(axis, {})[choice] = share
    # A newer server may have axes that this version does not know: they come last.
    known = [axis for axis in _ORDER if axis in axes]
    return {
        axis: dict(sorted(axes[axis].items(), key=lambda item: -item[1]))
        for axis in dict.fromkeys([*known, *axes])
    }


def leaders(metrics: Mapping[str, float | None]) -> str:
    """The choice that leads on each axis, in one line; empty where there are no axes."""
    told = []
    for axis, shares in by_axis(metrics).items():
        choice, share = next(iter(shares.items()))
        if share * len(shares) >= _LEAD:
            told.append(f"{axis} {choice} ({share:.0%})")
    if told:
        return "ahead: " + ", ".join(told)
    return "ahead: nothing yet" if by_axis(metrics) else ""


def lines(metrics: Mapping[str, float | None]) -> list[Text]:
    """A line for each axis with the shares of its choices."""
    axes = by_axis(metrics)
    width = max((len(axis) for axis in axes), default=0)
    made = []
    for axis, shares in axes.items():
        line = Text(f"  {axis:<{width}}  ", style="dim")
        for number, (choice, share) in enumerate(shares.items()):
            style = "bold" if number == 0 and share * len(shares) >= _LEAD else "default"
            line.append(f"{choice} {share:.0%}   ", style=style)
        line.rstrip()
        made.append(line)
    return made
