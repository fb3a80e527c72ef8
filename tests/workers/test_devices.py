"""What a trial trains on, where Ray's GPUs are real, shared or only logical."""

import pytest
import torch

from tests.workers.conftest import tiny
from workers.failures import NoGpuError
from workers.trial_group import _free_bytes
from workers.trial_run import device_of


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("DARTBOARD_CPU_STANDS_FOR_GPU", raising=False)


def test_a_trial_without_a_gpu_trains_on_the_cpu() -> None:
    assert device_of(tiny()) == "cpu"


@pytest.mark.parametrize("gpus", [0.5, 1])
def test_a_share_of_a_gpu_is_a_gpu(monkeypatch: pytest.MonkeyPatch, gpus: float) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(tiny(resources={"gpus": gpus})) == "cuda"


@pytest.mark.usefixtures("no_cuda")
def test_where_no_gpu_is_found_the_trial_says_what_to_do() -> None:
    with pytest.raises(NoGpuError, match=r"nvidia-smi.*DARTBOARD_CPU_STANDS_FOR_GPU=1"):
        device_of(tiny(resources={"gpus": 0.5}))


@pytest.mark.usefixtures("no_cuda")
def test_a_cpu_stands_for_a_gpu_only_where_the_node_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DARTBOARD_CPU_STANDS_FOR_GPU", "1")
    assert device_of(tiny(resources={"gpus": 1})) == "cpu"


@pytest.mark.parametrize(("gpus", "free"), [(1, 70), (0.9, 70), (0.5, 40), (2, 70)])
def test_of_a_shared_gpu_a_trial_counts_on_no_more_than_its_share(
    monkeypatch: pytest.MonkeyPatch, gpus: float, free: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70, 80))
    assert _free_bytes("cuda", gpus) == free
