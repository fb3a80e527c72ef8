import subprocess
import sys
from pathlib import Path

import pytest
import torch

from search_core.pace import OF_THE_MACHINE, pace, peak_memory, reproducible, reset_peak_memory


def test_the_figures_of_an_epoch() -> None:
    figures = pace(steps=30, batch_size=16, seconds=12.0, device="cpu")
    assert figures["steps_per_second"] == pytest.approx(2.5)
    assert figures["images_per_second"] == pytest.approx(40)
    assert figures.keys() <= OF_THE_MACHINE
    assert reproducible({**figures, "seconds": 13.0, "train_loss": 0.5}) == {"train_loss": 0.5}


def test_a_clock_that_stands_still_divides_by_nothing() -> None:
    assert pace(steps=1, batch_size=1, seconds=0.0, device="cpu")["steps_per_second"] > 1e12


def test_the_peak_is_of_this_process_and_stays() -> None:
    """In a process of its own: this one may be giving other memory back meanwhile."""
    program = Path(__file__).with_name("watch_peak.py")
    subprocess.run([sys.executable, program], check=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_peak_is_that_of_tensors() -> None:
    device = torch.device("cuda")
    before = peak_memory(device)
    torch.ones(before + 2**20, dtype=torch.uint8, device=device)
    assert peak_memory(device) > before
    reset_peak_memory(device)
    assert peak_memory(device) <= before
