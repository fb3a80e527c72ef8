"""The parts of the benchmark, with next to no epochs."""

import pytest

from benchmarks.digits_numerics import Outcome, Plan, Source, examine, main, random_genotype, table
from search_core.genotype import CellGenotype, parse
from search_core.spec import SearchSpec


def outcome(source: Source, supernet: float | None, *last: float) -> Outcome:
    return Outcome(source, 0, "", 1000, supernet, list(last), [0.5] * len(last))


def test_a_table_worked_by_hand() -> None:
    outcomes = [
        outcome("random", None, 0.9),
        outcome("scalar", 0.8, 0.95, 0.97),
        outcome("scalar", 0.9, 0.98, 0.98),
    ]
    _, _, scalar, random = table(outcomes).splitlines()
    assert scalar == (
        "| searched, scalar weighting | 2 | 85.00 ± 7.07 | 97.00 ± 1.41 | 50.00 ± 0.00 | 1,000 |"
    )
    assert random == "| random | 1 | - | 90.00 | 50.00 | 1,000 |"


def test_random_architectures_are_of_the_space_and_differ() -> None:
    spec = SearchSpec.model_validate({"space": {"kind": "darts", "nodes": 3}})
    found = [random_genotype(spec, seed) for seed in range(8)]
    assert len({genotype.hash for genotype in found}) == 8
    assert random_genotype(spec, 3) == found[3]
    names = {edge.primitive for genotype in found for edge in genotype.normal + genotype.reduce}
    assert "none" not in names
    assert len(names) == 7
    for genotype in found:
        for node in range(3):
            assert len({edge.source for edge in genotype.normal[2 * node : 2 * node + 2]}) == 2


@pytest.mark.parametrize("source", ["max_w", "random"])
def test_an_architecture_is_found_and_retrained(source: Source) -> None:
    plan = Plan(source, 1, retrainings=2, search_epochs=1, retraining_epochs=1)
    found = examine(plan)
    assert len(found.last_accuracies) == len(found.best_accuracies) == 2
    assert found.last_accuracies[0] != found.last_accuracies[1]
    assert (found.supernet_accuracy is None) == (source == "random")
    genotype = parse(found.genotype)
    assert isinstance(genotype, CellGenotype)
    assert genotype.num_nodes == 3
    assert found.parameters > 1000


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seeds", "0"])
    assert "--seeds must be at least 1" in capsys.readouterr().err
