import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from search_core import published
from search_core.genotype import CellGenotype
from search_core.spec.presets import TRAINING_PRESETS
from search_core.spec.primitives import PRIMITIVES
from search_core.spec.retraining import RetrainingSpec
from tests.search_core.test_genotype import genotypes


def _is_sharp(genotype: CellGenotype) -> bool:
    edges = genotype.normal + genotype.reduce
    return all(edge.primitive in PRIMITIVES["sharp"] for edge in edges)


@st.composite
def specs(draw: st.DrawFn) -> RetrainingSpec:
    genotype: str | CellGenotype = draw(
        st.one_of(st.sampled_from(published.names()), genotypes().filter(_is_sharp))
    )
    values = {
        "preset": draw(st.sampled_from([None, "retrain-digits"])),
        "architecture": genotype if isinstance(genotype, str) else json.loads(genotype.to_json()),
        "network": {
            "family": "sharp",
            "channels": draw(st.integers(1, 64)),
            "auxiliary_weight": draw(st.floats(0, 1)),
            "drop_path": draw(st.floats(0, 0.9)),
        },
        "validation_portion": draw(st.floats(0, 0.5)),
        "training": {
            "epochs": draw(st.integers(1, 100)),
            "batch_size": draw(st.integers(2, 700)),
            "label_smoothing": draw(st.floats(0, 0.5)),
            "precision": draw(st.sampled_from(["float32", "bfloat16", "float16"])),
        },
    }
    return RetrainingSpec.model_validate_json(json.dumps(values))


@given(specs())
def test_json_round_trip(spec: RetrainingSpec) -> None:
    text = spec.model_dump_json()
    again = RetrainingSpec.model_validate_json(text)
    assert again == spec
    assert again.model_dump_json() == text


def test_an_architecture_is_a_published_name_or_a_genotype() -> None:
    by_name = RetrainingSpec(architecture="SHARP_DARTS")
    assert by_name.genotype == published.get("SHARP_DARTS").genotype
    assert by_name.family == "sharp"
    genotype = published.get("DARTS_V2").genotype
    given_whole = RetrainingSpec.model_validate({"architecture": json.loads(genotype.to_json())})
    assert isinstance(given_whole.architecture, CellGenotype)
    assert (given_whole.genotype, given_whole.family) == (genotype, "darts")
    overridden = RetrainingSpec.model_validate(
        {"architecture": "DARTS_V2", "network": {"family": "sharp"}}
    )
    assert overridden.family == "sharp"


def test_the_schema_describes_every_field() -> None:
    schema = TypeAdapter(RetrainingSpec).json_schema()
    models = [schema, *(schema["$defs"][name] for name in ("NetworkSpec", "NetworkTrainingSpec"))]
    for model in models:
        assert all("description" in field for field in model["properties"].values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "DARTS_V3"}, "no published architecture 'DARTS_V3'; choose from"),
        ({"architecture": {"kind": "cell", "normal": []}}, "normal"),
        ({"architecture": 3}, "CellGenotype"),
        ({"architecture": "SHARP_DARTS", "network": {"family": "darts"}}, "family lacks; choose"),
        ({"network": {"form": "imagenet"}}, "at least 25x25 pixels; those of 'digits' have 8x8"),
        (
            {
                "network": {"form": "imagenet", "channels": 1},
                "dataset": {"name": "synthetic", "image_shape": [3, 32, 32]},
            },
            "it needs at least 2",
        ),
        ({"network": {"cells": 2}}, "greater than or equal to 3"),
        ({"network": {"drop_path": 1.0}}, "less than 1"),
        ({"dataset": {"train_portion": 0.6}}, "use validation_portion"),
        ({"validation_portion": 0.5, "training": {"batch_size": 719}}, "the 718 images"),
        ({"augmentation": {"cutout": 16}}, "cutout 16 could leave nothing"),
        ({"extra_tests": ["cifar10_1"]}, "trained on 'cifar10'"),
        (
            {"dataset": {"name": "cifar10"}, "extra_tests": ["cifar10_1", "cifar10_1"]},
            "repeats",
        ),
        ({"training": {"precision": "float64"}}, "'float32', 'bfloat16' or 'float16'"),
        (
            {"training": {"learning_rate": 0.1, "schedule": {"kind": "cosine", "power": 2}}},
            "Extra inputs",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RetrainingSpec.model_validate({"architecture": "DARTS_V2", **change})


@pytest.mark.parametrize("side", [24, 25])
def test_the_smallest_image_of_the_imagenet_form(side: int) -> None:
    values = {
        "architecture": "DARTS_V2",
        "network": {"form": "imagenet"},
        "dataset": {"name": "synthetic", "image_shape": (3, side, 32)},
    }
    if side == 25:
        assert RetrainingSpec.model_validate(values).network.form == "imagenet"
        return
    with pytest.raises(ValidationError, match="25x25"):
        RetrainingSpec.model_validate(values)


@pytest.mark.parametrize("name", TRAINING_PRESETS)
def test_a_preset_can_be_overridden(name: str) -> None:
    spec = RetrainingSpec.model_validate(
        {"preset": name, "architecture": "DARTS_V2", "training": {"epochs": 1000}}
    )
    assert spec.training.epochs == 1000
    assert spec.network.cells == TRAINING_PRESETS[name].spec["network"]["cells"]
