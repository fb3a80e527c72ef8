from typing import Any

import pytest
from hypothesis import given

from search_core import published
from search_core.errors import IncomparableError
from search_core.genotype import CellGenotype, PathGenotype
from search_core.genotype_diff import diff
from search_core.path_diff import StepDiff
from tests.search_core.test_genotype import genotypes
from tests.search_core.test_genotype_paths import STEP, paths


def path(*changes: dict[str, Any], final_channels: int = 8) -> PathGenotype:
    return PathGenotype.model_validate(
        {"final_channels": final_channels, "steps": [{**STEP, **each} for each in changes]}
    )


def test_a_diff_worked_by_hand() -> None:
    a = path(
        {"settings": {"kernel_size": 5, "activation": "gelu"}},
        {"stride": 2, "out_channels": 8},
        {"in_channels": 8, "level": 1},
    )
    b = path(
        {"settings": {"kernel_size": 7}},
        {"operation": "resizable_pool"},
        {"level": 2},
        {"level": 2, "out_channels": 2},
        final_channels=16,
    )
    found = diff(a, b)
    assert found.steps == (
        StepDiff(
            0, a.steps[0], b.steps[0], {"kernel_size": (5, 7), "activation": ("gelu", "relu")}
        ),
        StepDiff(
            1,
            a.steps[1],
            b.steps[1],
            {
                "stride": (2, 1),
                "out_channels": (8, 4),
                "operation": ("sharp_sep_conv", "resizable_pool"),
            },
        ),
        StepDiff(2, a.steps[2], b.steps[2], {"level": (1, 2), "in_channels": (8, 4)}),
        StepDiff(3, None, b.steps[3], {}),
    )
    assert (found.final_channels_a, found.final_channels_b) == (8, 16)
    assert not found.identical
    assert not any(step.identical for step in found.steps)


def test_another_head_is_another_architecture() -> None:
    found = diff(path({}), path({}, final_channels=9))
    assert all(step.identical for step in found.steps)
    assert not found.identical


def test_published_paths() -> None:
    found = diff(
        published.get("HYPERCUBOID_SCALAR").genotype, published.get("HYPERCUBOID_HANDMADE").genotype
    )
    assert not found.identical


@given(paths(), paths())
def test_a_diff_is_empty_exactly_where_the_hashes_agree(a: PathGenotype, b: PathGenotype) -> None:
    assert diff(a, b).identical == (a.hash == b.hash)
    assert diff(a, a).identical


@given(paths(), paths())
def test_a_diff_accounts_for_every_step_and_can_be_turned_round(
    a: PathGenotype, b: PathGenotype
) -> None:
    there, back = diff(a, b), diff(b, a)
    assert tuple(step.a for step in there.steps if step.a) == a.steps
    assert tuple(step.b for step in there.steps if step.b) == b.steps
    for step, turned in zip(there.steps, back.steps, strict=True):
        assert (step.a, step.b) == (turned.b, turned.a)
        assert step.changed == {name: pair[::-1] for name, pair in turned.changed.items()}
        if step.a and step.b:
            # What has changed is all that has.
            assert step.identical == (not step.changed)


@given(genotypes(), paths())
def test_cells_and_a_path_cannot_be_compared(cells: CellGenotype, one: PathGenotype) -> None:
    message = "the first is of kind 'cell' and the second of kind 'path'; cells are compared with"
    with pytest.raises(IncomparableError, match=message):
        diff(cells, one)
    with pytest.raises(IncomparableError, match="the first is of kind 'path'"):
        diff(one, cells)
