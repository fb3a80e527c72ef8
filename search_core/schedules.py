"""Learning-rate schedules: plain lists of rates, and PyTorch schedulers that walk along them.

A list has one rate for each step of the schedule; a step is an epoch in a search, and may as well
be a batch.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from search_core.optimizers import set_rate
from search_core.spec.algorithm import AlgorithmSpec
from search_core.spec.schedules import CosinePowerSchedule, CosineSchedule
from search_core.spec.search import TrainingSpec


def constant(epochs: int, learning_rate: float) -> list[float]:
    """The same rate in every epoch.

    Args:
        epochs: Length of the schedule.
        learning_rate: The rate.

    Returns:
        One rate for each epoch.
    """
    return [learning_rate] * epochs


def cosine(epochs: int, max_lr: float, min_lr: float) -> list[float]:
    """Half a cosine: `max_lr` in the first epoch, `min_lr` in the last.

    The published DARTS code spreads the half period over one epoch more, so that its last epoch
    stays a little above the minimum; here the last epoch is at the minimum, as the spec says.

    Args:
        epochs: Length of the schedule.
        max_lr: Rate of the first epoch.
        min_lr: Rate of the last epoch.

    Returns:
        One rate for each epoch; `[max_lr]` for a single one.
    """
    span = max(epochs - 1, 1)
    return [
        min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * epoch / span)) / 2
        for epoch in range(epochs)
    ]


def cosine_power(
    epochs: int, max_lr: float, min_lr: float, power: float, warmup_epochs: int = 0
) -> list[float]:
    """Cosine power annealing with a linear warm-up (arXiv 1903.09900, section 3.3).

    Args:
        epochs: Length of the schedule, warm-up included.
        max_lr: Peak, reached in epoch `warmup_epochs + 1`.
        min_lr: Rate of the last epoch.
        power: Base p of the power; 1 is a plain cosine, larger values fall earlier.
        warmup_epochs: Epochs of linear warm-up before the peak.

    Returns:
        One rate for each epoch.

    Raises:
        ValueError: The power is below 1, or the warm-up leaves no epoch to anneal.
    """
    if power < 1:
        raise ValueError(f"cosine power annealing with power {power:g}: it must be at least 1")
    if not 0 <= warmup_epochs < epochs:
        raise ValueError(
            f"a warm-up of {warmup_epochs} epochs does not fit a schedule of {epochs} epochs"
        )
    annealed = epochs - warmup_epochs
    # Step 0 would be the top of the cosine; the warm-up's steps are below it and count when the
    # range is taken, as in the published code, before the warm-up replaces them.
    steps = range(1 - warmup_epochs, annealed + 1)
    cosines = [(1 + math.cos(math.pi * step / annealed)) / 2 for step in steps]
    raised = cosines if power == 1 else [power ** (value + 1) for value in cosines]
    low, high = min(raised), max(raised)
    # A schedule of one epoch has no range; its rate is the peak.
    shares = [(value - low) / (high - low) for value in raised] if high > low else [1.0]
    num_replaced = warmup_epochs + 1
    shares[:num_replaced] = [step / num_replaced for step in range(1, num_replaced + 1)]
    return [min_lr + share * (max_lr - min_lr) for share in shares]


def rates(training: TrainingSpec) -> list[float]:
    """The learning rate of every epoch that a spec asks for.

    Args:
        training: The spec's training.

    Returns:
        One rate for each epoch.
    """
    schedule, peak = training.schedule, training.learning_rate
    if isinstance(schedule, CosinePowerSchedule):
        return cosine_power(
            training.epochs,
            peak,
            schedule.min_learning_rate,
            schedule.power,
            schedule.warmup_epochs,
        )
    if isinstance(schedule, CosineSchedule):
        return cosine(training.epochs, peak, schedule.min_learning_rate)
    return constant(training.epochs, peak)


def temperatures(algorithm: AlgorithmSpec, epochs: int) -> list[float]:
    """The temperature of every epoch that a spec asks for.

    Args:
        algorithm: The spec's algorithm.
        epochs: Epochs of the search.

    Returns:
        From `temperature` to `final_temperature`, each the one before times the same factor.
    """
    first = algorithm.temperature
    last = first if algorithm.final_temperature is None else algorithm.final_temperature
    span = max(epochs - 1, 1)
    return [first * (last / first) ** (epoch / span) for epoch in range(epochs)]


class ListedLR(LRScheduler):
    """Walks along a list of rates, one for each `step()`; stays at the last one.

    Its `state_dict` holds the rates and the position, so a resumed schedule goes on as it was.

    Args:
        optimizer: All its parameter groups get the same rate.
        rates: The rates, at least one. The first is set at once.
    """

    def __init__(self, optimizer: Optimizer, rates: Sequence[float]) -> None:
        self.rates = list(rates)
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate at the present position, for every parameter group."""
        rate = self.rates[min(self.last_epoch, len(self.rates) - 1)]
        return [rate] * len(self.optimizer.param_groups)

    def state_dict(self) -> dict[str, Any]:
        """Rates and position, as numbers even where the optimizer's rate is a tensor."""
        state = super().state_dict()
        for name in ("base_lrs", "_last_lr"):
            state[name] = [float(rate) for rate in state[name]]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where the schedule was that wrote the state, and sets the optimizer's rate."""
        super().load_state_dict(state_dict)
        set_rate(self.optimizer, float(self.get_last_lr()[0]))


class CosineLR(ListedLR):
    """`cosine` as a scheduler.

    Args:
        optimizer: The optimizer; its present learning rate is the maximum.
        epochs: Length of the schedule in steps.
        min_lr: Rate of the last step.
    """

    def __init__(self, optimizer: Optimizer, epochs: int, min_lr: float) -> None:
        super().__init__(optimizer, cosine(epochs, float(optimizer.param_groups[0]["lr"]), min_lr))


class CosinePowerLR(ListedLR):
    """`cosine_power` as a scheduler.

    Args:
        optimizer: The optimizer; its present learning rate is the maximum.
        epochs: Length of the schedule in steps, warm-up included.
        min_lr: Rate of the last step.
        power: Base p of the power, at least 1.
        warmup_epochs: Steps of linear warm-up.

    Raises:
        ValueError: As for `cosine_power`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        epochs: int,
        min_lr: float,
        power: float,
        warmup_epochs: int = 0,
    ) -> None:
        peak = float(optimizer.param_groups[0]["lr"])
        super().__init__(optimizer, cosine_power(epochs, peak, min_lr, power, warmup_epochs))
