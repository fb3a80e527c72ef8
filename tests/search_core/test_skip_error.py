import re

import pytest

from benchmarks.skip_error import main


def test_the_more_is_skipped_the_larger_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--epochs", "2", "--passes", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    found = [[float(each) for each in re.findall(r"[\d.]+(?:e[+-]\d+)?", row)] for row in rows]
    assert [row[0] for row in found] == [0.01, 0.03, 0.06, 0.1]
    skipped, errors = [row[1] for row in found], [row[2] for row in found]
    assert skipped == sorted(skipped)
    assert skipped[-1] > 50
    assert errors[-1] > max(0.01, errors[0])
