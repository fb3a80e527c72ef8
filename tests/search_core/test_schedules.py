import pytest
import torch
from torch import nn
from torch.optim import SGD

from search_core import schedules
from search_core.schedules import CosineLR, CosinePowerLR, ListedLR, cosine, cosine_power
from search_core.spec import TrainingSpec

PUBLISHED = [
    0.1,
    0.083146194,
    0.0618153569,
    0.0416273785,
    0.0256571474,
    0.014467853,
    0.00727846851,
    0.00300670919,
    0.000785132885,
    0.0001,
]


def make_optimizer(learning_rate: float = 0.1) -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], lr=learning_rate)


def walk(scheduler: ListedLR, num_steps: int) -> list[float]:
    rates = []
    for _ in range(num_steps):
        rates.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def test_cosine_power_without_warmup() -> None:
    assert cosine_power(10, 0.1, 1e-4, 10) == pytest.approx(PUBLISHED, rel=1e-8)


def test_cosine_power_with_warmup() -> None:
    rates = cosine_power(120, 0.025, 1e-4, 2, 5)
    assert len(rates) == 120
    by_epoch = {epoch: rates[epoch - 1] for epoch in (47, 116, 119, 120)}
    assert by_epoch == pytest.approx(
        {47: 1.580315e-2, 116: 1.515235e-4, 119: 1.032201e-4, 120: 1e-4}, rel=1e-6
    )


def test_warmup_rises_linearly_to_the_peak() -> None:
    rates = cosine_power(10, 1.0, 0.0, 2, 3)
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert max(rates) == rates[3]
    assert rates[-1] == pytest.approx(0.0)


def test_power_one_is_a_rescaled_cosine() -> None:
    rates = cosine_power(5, 1.0, 0.0, 1)
    assert rates[0] == 1
    assert rates[-1] == 0
    assert rates[2] == pytest.approx((rates[1] + rates[3]) / 2, abs=0.05)


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_short_schedules_keep_the_peak(warmup: int) -> None:
    assert max(cosine_power(warmup + 1, 0.3, 0.1, 2, warmup)) == pytest.approx(0.3)


def test_power_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        cosine_power(10, 0.1, 0, 0.5)


def test_warmup_must_leave_an_epoch() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        cosine_power(5, 0.1, 0, 2, 5)


def test_cosine_goes_from_the_peak_to_the_minimum() -> None:
    assert cosine(5, 1.0, 0.0) == pytest.approx([1, 0.853553, 0.5, 0.146447, 0], abs=1e-6)
    assert cosine(1, 1.0, 0.0) == [1.0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"kind": "constant"}, [0.1] * 10),
        ({"kind": "cosine", "min_learning_rate": 0.01}, cosine(10, 0.1, 0.01)),
        ({"kind": "cosine_power", "power": 10.0}, cosine_power(10, 0.1, 1e-4, 10)),
        (
            {"kind": "cosine_power", "power": 3.0, "warmup_epochs": 2, "min_learning_rate": 0.0},
            cosine_power(10, 0.1, 0.0, 3, 2),
        ),
    ],
)
def test_rates_of_a_spec(schedule: dict[str, object], expected: list[float]) -> None:
    training = TrainingSpec.model_validate(
        {"epochs": 10, "learning_rate": 0.1, "schedule": schedule}
    )
    assert schedules.rates(training) == expected


def test_schedulers_walk_along_their_rates_and_stay_at_the_end() -> None:
    scheduler = CosinePowerLR(make_optimizer(), 10, 1e-4, 10)
    assert walk(scheduler, 12) == pytest.approx([*PUBLISHED, 1e-4, 1e-4], rel=1e-8)
    assert walk(CosineLR(make_optimizer(), 5, 0.0), 5) == cosine(5, 0.1, 0.0)


def test_a_scheduler_resumes_from_its_state() -> None:
    scheduler = CosinePowerLR(make_optimizer(), 10, 1e-4, 10)
    walk(scheduler, 4)
    optimizer = make_optimizer()
    resumed = ListedLR(optimizer, [0.5])
    resumed.load_state_dict(scheduler.state_dict())
    optimizer.load_state_dict(scheduler.optimizer.state_dict())
    assert walk(resumed, 6) == pytest.approx(PUBLISHED[4:], rel=1e-8)


def test_every_group_gets_the_rate() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    optimizer = SGD(groups, lr=1.0)
    ListedLR(optimizer, [0.3, 0.2])
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]
