"""The benchmark of a GPU's kernels, where there need not be one."""

import pytest

from benchmarks.gpu_kernels import SIZES, main


@pytest.mark.parametrize("extra", [["--torch"], ["--dtype", "bfloat16", "--torch"]])
def test_it_times_every_kernel_at_every_size(
    extra: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device", "cpu", "--batch", "1", "--operations", "2", "--repeats", "1"]
    assert main([*options, *extra]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 7 * len(SIZES)
    assert all(len(row.split("|")) == 9 for row in rows)
