import psutil
import pytest
import torch

from search_core.pace import OF_THE_MACHINE, pace, peak_memory, reproducible, reset_peak_memory

CPU = torch.device("cpu")
_EXACTNESS = 2**22  # Linux adds up what its cores have counted, roughly


def test_the_figures_of_an_epoch() -> None:
    figures = pace(steps=30, batch_size=16, seconds=12.0, device="cpu")
    assert figures["steps_per_second"] == pytest.approx(2.5)
    assert figures["images_per_second"] == pytest.approx(40)
    assert figures.keys() <= OF_THE_MACHINE
    assert reproducible({**figures, "seconds": 13.0, "train_loss": 0.5}) == {"train_loss": 0.5}


def test_a_clock_that_stands_still_divides_by_nothing() -> None:
    assert pace(steps=1, batch_size=1, seconds=0.0, device="cpu")["steps_per_second"] > 1e12


def test_the_peak_is_of_this_process_and_stays() -> None:
    now = psutil.Process().memory_info().rss
    assert peak_memory(CPU) > now - _EXACTNESS
    # More than there has been, with every page written to.
    large = torch.ones(peak_memory(CPU) - now + 2**26, dtype=torch.uint8)
    peak = peak_memory(CPU)
    assert now + 2**25 < peak < now + large.numel() + 2**28
    del large
    assert peak_memory(CPU) > peak - _EXACTNESS
    reset_peak_memory(CPU)
    assert peak_memory(CPU) < peak - 2**24


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_peak_is_that_of_tensors() -> None:
    device = torch.device("cuda")
    before = peak_memory(device)
    torch.ones(before + 2**20, dtype=torch.uint8, device=device)
    assert peak_memory(device) > before
    reset_peak_memory(device)
    assert peak_memory(device) <= before
