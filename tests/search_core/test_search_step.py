import json
from collections.abc import Iterator

import pytest
import torch

from benchmarks.search_step import main
from benchmarks.steps import SPACES

SMALL = ["--size", "8", "--batch", "2", "--repeats", "1", "--channels", "2", "--cells", "3"]


@pytest.fixture(autouse=True)
def _threads_put_back() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize("order", ["first", "second"])
def test_it_prints_one_object(order: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--nodes", "1", "--order", order, "--json", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ratio"] == found["plain"]["step"][0] / found["fast"]["step"][0]
    assert found["fast"]["peak_mib"] > 0
    assert found["order"] == order


def test_it_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--nodes", "1", "--space", "sharp_darts", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "| fast |" in said
    assert "times as fast" in said


def test_the_plan_may_compute_in_bfloat16(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--nodes", "1", "--dtype", "bfloat16", "--json", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dtype"] == "bfloat16"
    assert found["ratio"] > 0


def test_bad_numbers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--repeats", "0"])
    assert "--repeats must be at least 1" in capsys.readouterr().err
    assert set(SPACES) == {"darts", "sharp_darts", "sharper_darts", "hypercuboid"}
