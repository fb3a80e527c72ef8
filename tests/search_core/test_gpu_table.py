import pytest

from benchmarks.gpu_table import ROWS, main
from benchmarks.steps import SPACES

SMALL = ["--size", "8", "--channels", "2", "--cells", "3", "--nodes", "1", "--threads", "1"]


def test_it_prints_both_tables_of_a_small_search(capsys: pytest.CaptureFixture[str]) -> None:
    of_search = ["--epochs", "1", "--images", "16", "--channels", "2", "--cells", "3"]
    given = ["--device", "cpu", "--batch", "4", "--repeats", "1", "--rows", "1", *of_search]
    assert main([*given, "--", *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    [of_steps] = [line for line in lines if line.startswith("| `darts` | first | float32 |")]
    ratio = float(of_steps.split("|")[6])
    assert ratio > 0
    assert [line.split("|")[1].strip() for line in lines[-2:]] == ["float32", "bfloat16"]


def test_a_form_that_fails_leaves_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    of_search = ["--epochs", "1", "--images", "16", "--channels", "2", "--cells", "3"]
    given = ["--device", "cpu", "--batch", "4", "--repeats", "0", "--rows", "1", *of_search]
    assert main([*given, "--", *SMALL]) == 0
    assert "--repeats must be at least 1" in capsys.readouterr().out


def test_the_table_has_every_space_in_both_precisions() -> None:
    assert {space for space, *_ in ROWS} == set(SPACES)
    for space in SPACES:
        assert {(space, "first", "float32"), (space, "first", "bfloat16")} < set(ROWS)
