import json
from collections.abc import Iterator

import pytest
import torch

from benchmarks.stacked_seeds import main

SMALL = ["--size", "8", "--batch", "2", "--repeats", "1", "--threads", "1", "--seeds", "2"]
CELLS = ["--channels", "2", "--cells", "3", "--nodes", "1"]


@pytest.fixture(autouse=True)
def _threads_put_back() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


def test_it_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *CELLS, "--order", "second", "--relaxation", "plain", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ratio"] == found["in_turn"]["step"][0] / found["stacked"]["step"][0]
    assert found["cost"] == found["stacked"]["step"][0] / found["alone"]["step"][0]
    assert found["in_turn"]["operators"] == 2 * found["alone"]["operators"]
    assert found["stacked"]["operators"] < found["in_turn"]["operators"]
    assert found["stacked"]["peak_mib"] > 0
    assert found["seeds"] == 2


def test_it_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *CELLS, "--relaxation", "plain"]) == 0
    said = capsys.readouterr().out
    assert "| stacked | 2 |" in said
    assert "times as fast as one after the other" in said


def test_bad_numbers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seeds", "1"])
    assert "--seeds must be at least 2" in capsys.readouterr().err
