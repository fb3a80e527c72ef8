"""The size of a cell space against listing all that derivation can come to."""

from itertools import combinations, product

import pytest

from search_core.cell_size import num_architectures, num_operations
from search_core.spec import DartsSpace


@pytest.mark.parametrize("exclude_none", [True, False])
def test_architectures_are_counted_as_if_listed(exclude_none: bool) -> None:
    space = DartsSpace(kind="darts", nodes=2, primitives=("none", "skip_connect", "sep_conv_3x3"))
    usable = [name for name in space.primitives if name != "none" or not exclude_none]
    nodes = [
        [
            ((first, of_first), (second, of_second))
            for first, second in combinations(range(2 + node), 2)
            for of_first, of_second in product(usable, repeat=2)
        ]
        for node in range(space.nodes)
    ]
    cells = list(product(*nodes))
    assert num_architectures(space, exclude_none=exclude_none) == len(cells) ** 2


def test_the_darts_space() -> None:
    space = DartsSpace(kind="darts")
    assert num_operations(space) == 2 * 14 * 8
    # arXiv 1806.09055, section 3.1: about (1 * 3 * 6 * 10 * 7^8)^2.
    assert num_architectures(space, exclude_none=True) == (180 * 7**8) ** 2
