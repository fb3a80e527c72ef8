"""Runs every example of `docs/core.md`, each on its own."""

import re
from pathlib import Path
from unittest.mock import patch

import pytest

import search_core
from search_core import primitives, spaces
from search_core.spec.axes import AXES
from search_core.spec.operations import OPERATIONS

PAGE = Path(search_core.__file__).parents[1] / "docs" / "core.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = {
    TEXT.count("\n", 0, match.start(1)) + 1: match[1]
    for match in re.finditer(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
}
PUBLIC = (
    "SearchSpec",
    "Space",
    "cosine_power(",
    "max_w(",
    "published.get(",
    "parse(",
    "networks.build(",
    "profile(",
    "derive.cell_genotype(",
    "SearchRun(",
    "TrainingRun(",
    "diff(",
    "json_schema(",
    "HyperCuboidSpace",
    "CuboidCosts(",
    "path_cost(",
    "path_network.build(",
    "derive.heaviest_path(",
    "derive.best_paths(",
    "derive.heaviest_path_within(",
    "axes.register",
    "operations.register",
)


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_runs(line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # What an example registers is gone when it ends.
    for module in (primitives, spaces):
        monkeypatch.setattr(module, "REGISTRY", dict(module.REGISTRY))
    # Its lines keep their numbers in an error.
    source = "\n" * (line - 1) + EXAMPLES[line]
    with patch.dict(AXES), patch.dict(OPERATIONS):
        exec(compile(source, str(PAGE), "exec"), {"__name__": "example"})


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name: str) -> None:
    assert any(name in example for example in EXAMPLES.values())
