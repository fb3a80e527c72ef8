import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from search_core import published
from search_core.genotype import CellGenotype, PathGenotype
from search_core.spec.networks import CellNetworkSpec, PathNetworkSpec
from search_core.spec.presets import TRAINING_PRESETS
from search_core.spec.primitives import PRIMITIVES
from search_core.spec.retraining import RetrainingSpec
from tests.search_core.test_genotype import genotypes
from tests.search_core.test_genotype_paths import paths

CELLS = [name for name in published.names() if published.get(name).genotype.kind == "cell"]
PATHS = [name for name in published.names() if published.get(name).genotype.kind == "path"]


def _is_sharp(genotype: CellGenotype) -> bool:
    edges = genotype.normal + genotype.reduce
    return all(edge.primitive in PRIMITIVES["sharp"] for edge in edges)


@st.composite
def specs(draw: st.DrawFn) -> RetrainingSpec:
    kind = draw(st.sampled_from(["cell", "path"]))
    genotype: str | CellGenotype | PathGenotype = draw(
        st.one_of(st.sampled_from(CELLS), genotypes().filter(_is_sharp))
        if kind == "cell"
        else st.one_of(st.sampled_from(PATHS), paths())
    )
    of_cells = {
        "family": "sharp",
        "channels": draw(st.integers(1, 64)),
        "auxiliary_weight": draw(st.floats(0, 1)),
        "drop_path": draw(st.floats(0, 0.9)),
    }
    named = {"kind": kind} if draw(st.booleans()) else {}
    values = {
        "preset": draw(st.sampled_from([None, "retrain-digits"])),
        "architecture": genotype if isinstance(genotype, str) else json.loads(genotype.to_json()),
        "network": {**named, **of_cells} if kind == "cell" else named,
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
    assert spec.network.kind == spec.genotype.kind
    assert (spec.family is None) == (spec.network.kind == "path")


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


@pytest.mark.parametrize("given", [{}, {"network": {}}, {"network": {"kind": "path"}}])
@pytest.mark.parametrize("preset", [None, *TRAINING_PRESETS])
def test_the_network_of_a_path_is_chosen_by_itself(
    preset: str | None, given: dict[str, Any]
) -> None:
    genotype = published.get("HYPERCUBOID_MAX_W").genotype
    for architecture in ("HYPERCUBOID_MAX_W", json.loads(genotype.to_json()), genotype):
        spec = RetrainingSpec.model_validate(
            {"preset": preset, "architecture": architecture, **given}
        )
        assert spec.network == PathNetworkSpec(kind="path")
        assert (spec.genotype, spec.family) == (genotype, None)
    if preset is not None:
        # All else that the preset says stays.
        of_cells = RetrainingSpec.model_validate({"preset": preset, "architecture": "DARTS_V2"})
        same = {"training", "dataset", "augmentation", "validation_portion", "extra_tests"}
        assert spec.model_dump(include=same) == of_cells.model_dump(include=same)


@pytest.mark.parametrize(
    ("network", "place", "message"),
    [
        *(
            ({name: 3}, (name,), f"{name} is a setting of networks of cells")
            for name in CellNetworkSpec.model_fields
            if name != "kind"
        ),
        ({"kind": "path", "drop_path": 0.1}, ("drop_path",), "drop_path is a setting of networks"),
        ({"kind": "cell"}, ("network", "kind"), "'cell', but the architecture is of kind 'path'"),
        (
            {"kind": "cell", "cells": 5},
            ("network", "kind"),
            "leave out .* and the settings of cell",
        ),
    ],
)
def test_settings_of_cells_are_refused_of_a_path(
    network: dict[str, Any], place: tuple[str, ...], message: str
) -> None:
    for preset in (None, "retrain-digits"):
        with pytest.raises(ValidationError, match=message) as caught:
            RetrainingSpec.model_validate(
                {"preset": preset, "architecture": "HYPERCUBOID_HANDMADE", "network": network}
            )
        (error,) = caught.value.errors()
        assert error["ctx"]["path"] == place


def test_a_typed_network_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="'cell', but the architecture is of kind 'path'"):
        RetrainingSpec(architecture="HYPERCUBOID_HANDMADE", network=CellNetworkSpec())
    with pytest.raises(ValidationError, match="'path', but the architecture is of kind 'cell'"):
        RetrainingSpec(architecture="DARTS_V2", network=PathNetworkSpec(kind="path"))


def test_images_too_small_for_cells_are_large_enough_for_a_path() -> None:
    values = {"dataset": {"name": "synthetic", "image_shape": [1, 1, 3]}}
    with pytest.raises(ValidationError, match="at least 4x4 pixels"):
        RetrainingSpec.model_validate({"architecture": "DARTS_V2", **values})
    RetrainingSpec.model_validate({"architecture": "HYPERCUBOID_HANDMADE", **values})


def test_the_schema_describes_every_field() -> None:
    schema = TypeAdapter(RetrainingSpec).json_schema()
    names = ("CellNetworkSpec", "PathNetworkSpec", "NetworkTrainingSpec")
    models = [schema, *(schema["$defs"][name] for name in names)]
    for model in models:
        assert all("description" in field for field in model["properties"].values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "DARTS_V3"}, "no published architecture 'DARTS_V3'; choose from"),
        ({"architecture": {"kind": "cell", "normal": []}}, "normal"),
        ({"architecture": 3}, "an object whose kind is 'cell' or 'path'"),
        ({"architecture": {"kind": "tree"}}, "an object whose kind is 'cell' or 'path'"),
        ({"architecture": {"kind": 3}}, "an object whose kind is 'cell' or 'path'"),
        ({"network": {"kind": "path"}}, "'path', but the architecture is of kind 'cell'"),
        ({"network": {"kind": "tree"}}, "'cell', 'path'"),
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
        network = RetrainingSpec.model_validate(values).network
        assert isinstance(network, CellNetworkSpec)
        assert network.form == "imagenet"
        return
    with pytest.raises(ValidationError, match="25x25"):
        RetrainingSpec.model_validate(values)


@pytest.mark.parametrize("name", TRAINING_PRESETS)
def test_a_preset_can_be_overridden(name: str) -> None:
    spec = RetrainingSpec.model_validate(
        {"preset": name, "architecture": "DARTS_V2", "training": {"epochs": 1000}}
    )
    assert spec.training.epochs == 1000
    assert isinstance(spec.network, CellNetworkSpec)
    assert spec.network.cells == TRAINING_PRESETS[name].spec["network"]["cells"]
