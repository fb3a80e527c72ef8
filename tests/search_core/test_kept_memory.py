"""What a grouped plan keeps for its backward pass."""

import pytest

pytest.importorskip("triton")

from benchmarks.kept_memory import main


@pytest.mark.parametrize(("space", "most"), [("darts", 0.5), ("sharp_darts", 0.6)])
def test_it_keeps_about_half(space: str, most: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", space, "--size", "16", "--cells", "3"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert 0 < float(row.split("|")[4]) < most
