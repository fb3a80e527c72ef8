"""An axis and an operation that a user adds: a class and a function, and nothing else."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from unittest.mock import patch

import jsonschema  # type: ignore[import-untyped]
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from search_core import path_network
from search_core.cuboid_size import CuboidCosts, path_cost
from search_core.errors import InvalidGenotypeError
from search_core.genotype import PathGenotype, PathStep, json_schema, parse
from search_core.genotype_diff import diff
from search_core.profile import profile
from search_core.search import SearchRun
from search_core.spec import HyperCuboidSpace, SearchSpec, axes, operations
from search_core.spec.axes import AXES, Choice, LayerAxis
from search_core.spec.layers import Activation, Convolution, Layers, Normalisation, Pool
from search_core.spec.operations import OPERATIONS
from search_core.spec.retraining import RetrainingSpec
from search_core.training import TrainingRun

SHAPE = (1, 9, 7)
SPEC = {
    "space": {
        "kind": "hypercuboid",
        "axes": {
            "channels": [3, 4],
            "operation": ["resizable_pool", "bottleneck"],
            "pool_kind": ["max", "average"],
        },
        "levels": 1,
        "final_channels": 8,
    },
    "dataset": {"name": "synthetic", "num_train": 64, "image_shape": SHAPE},
    "algorithm": {"architecture_learning_rate": 0.1},
    "training": {"epochs": 1, "batch_size": 16},
}


@pytest.fixture(autouse=True)
def _added() -> Iterator[None]:
    """Registers both; what is registered inside is gone when a test ends."""
    with patch.dict(AXES), patch.dict(OPERATIONS):

        @axes.register
        class PoolKind(LayerAxis):
            """What a pool takes of its window."""

            name = "pool_kind"
            default = ("max",)

            def check(self, choice: Choice) -> Choice:
                """The kind of a pool."""
                if choice not in ("max", "average"):
                    raise ValueError(f"{choice!r} on the axis pool_kind: max or average")
                return choice

            def apply(self, layers: Layers, choice: Choice) -> Layers:
                """Sets the kind."""
                return tuple(
                    replace(layer, kind=choice)  # type: ignore[arg-type]
                    if isinstance(layer, Pool)
                    else layer
                    for layer in layers
                )

        @operations.register("bottleneck")
        def bottleneck(in_channels: int, out_channels: int, stride: int) -> Layers:
            return (
                Activation(),
                Convolution(in_channels, out_channels, 1),
                Normalisation("batch", out_channels),
                Pool("max", 3, stride),
            )

        yield


def test_it_is_searched_derived_built_counted_and_trained() -> None:
    spec = SearchSpec.model_validate(SPEC)
    space = spec.space
    assert isinstance(space, HyperCuboidSpace)
    assert SearchSpec.model_validate_json(spec.model_dump_json()) == spec
    assert space.searched_axes == ("channels", "operation", "pool_kind")
    assert len(space.operations) == 2 * 2 * 2 * 2
    run = SearchRun(spec, seed=0)
    size = CuboidCosts(space, SHAPE, 10).size(batch_size=16)
    assert size.num_operations == len(space.positions) * len(space.operations)
    assert sum(each.numel() for each in run.network.weight_parameters()) == size.parameters
    report = run.run_epoch()
    shares = [report.metrics[f"marginal.pool_kind={kind}"] for kind in ("max", "average")]
    assert sum(shares) == pytest.approx(1)
    # The path that has the new choice at every step is the heaviest once the alphas say so.
    chosen = [
        index
        for index, operation in enumerate(space.operations)
        if dict(operation.candidate.settings).get("pool_kind") == "average"
        and operation.candidate.operation == "bottleneck"
    ]
    with torch.no_grad():
        for alpha in run.network.architecture_parameters():
            alpha[:, chosen] += 10
    genotype = run.genotype()
    assert isinstance(genotype, PathGenotype)
    assert [(step.operation, step.settings) for step in genotype.steps] == [
        ("bottleneck", {"pool_kind": "average"})
    ] * 2
    assert parse(genotype.to_json()) == parse(genotype.to_text()) == genotype
    jsonschema.validate(json.loads(genotype.to_json()), json_schema())
    network = path_network.build(genotype, image_shape=SHAPE)
    assert sum(isinstance(each, nn.AvgPool2d) for each in network.modules()) == 2
    assert asdict(profile(network, SHAPE)) == asdict(path_cost(genotype, SHAPE, 10))
    training = RetrainingSpec.model_validate(
        {"architecture": genotype, "dataset": SPEC["dataset"], "training": SPEC["training"]}
    )
    trained = TrainingRun(training, seed=0)
    trained.run_epoch()
    assert 0 <= trained.result().last.accuracy <= 1


def test_its_choices_are_checked_told_apart_and_dropped_where_idle() -> None:
    def path(**settings: Choice) -> PathGenotype:
        fields = {"level": 0, "stride": 1, "in_channels": 4, "out_channels": 4}
        step = PathStep.model_validate(
            {**fields, "operation": "resizable_pool", "settings": settings}
        )
        return PathGenotype(steps=(step,))

    assert path(pool_kind="max") == path()
    average = path(pool_kind="average")
    assert average.hash != path().hash
    assert diff(path(), average).steps[0].changed == {"pool_kind": ("max", "average")}
    text = average.to_json()
    with pytest.raises(InvalidGenotypeError, match=r"steps\.0\.settings\.pool_kind: 'median' on"):
        parse(text.replace("average", "median"))
    conv = parse(text.replace("resizable_pool", "conv"))
    assert isinstance(conv, PathGenotype)
    assert conv.steps[0].settings == {}
    with pytest.raises(ValidationError, match="'median' on the axis pool_kind"):
        HyperCuboidSpace.model_validate({"kind": "hypercuboid", "axes": {"pool_kind": ["median"]}})


def test_a_name_is_registered_once() -> None:
    with pytest.raises(AssertionError, match="axis pool_kind is registered twice"):
        axes.register(type(AXES["pool_kind"]))
    with pytest.raises(AssertionError, match="bottleneck is registered twice"):
        operations.register("bottleneck")(lambda *_: ())
