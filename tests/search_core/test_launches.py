"""What a planned network launches, counted."""

import pytest

pytest.importorskip("triton")

from benchmarks.launches import launches, main, parse

SMALL = ["--size", "16", "--cells", "3", "--nodes", "2", "--precision", "bfloat16"]


@pytest.mark.parametrize("space", ["darts", "hypercuboid"])
def test_kernels_are_counted(space: str) -> None:
    found = launches(parse(["--space", space, *SMALL]))
    alphas, weights, evaluation = (found[part] for part in ("alphas", "weights", "evaluation"))
    assert 2 * evaluation.total() < min(alphas.total(), weights.total())
    # Weights' gradients are none of the alphas' half, and a state is read once.
    assert weights["_weigh"] > 0
    assert alphas["_weigh"] == 0
    assert evaluation["_read"] == alphas["_read"] == weights["_read"] > 0
    assert evaluation["measure"] == 0


def test_nothing_is_copied_that_lies_alone() -> None:
    """A cuboid's states are sums of their own, whose gradients go back as they are."""
    found = launches(parse(["--space", "hypercuboid", *SMALL]))
    joins = found["evaluation"]["cat"]
    assert found["weights"]["cat"] == joins
    assert found["weights"]["_add"] > 0


def test_it_prints_a_row_and_the_commonest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", "darts", *SMALL, "--by-name"]) == 0
    said = capsys.readouterr().out
    assert "| `darts` | bfloat16 | " in said
    assert " _slide\n" in said
